"""The one prompt template of training, generation and scoring."""

from __future__ import annotations

CUE = "\n\nAssistant:\n"


def template(instruction: str, input: str = "", released: bool = False) -> str:
    """The one prompt template of training, generation and scoring; `released`: that code's test."""
    request = f"{instruction} {input}" if input else instruction
    if released:
        request = f"### Instruction:\n{instruction}" + (f"\n\n### Input:\n{input}" if input else "")
    return f"Human:\n{request}{CUE}"
