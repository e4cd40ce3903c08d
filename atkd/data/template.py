"""The one prompt template of training, generation and scoring."""

from __future__ import annotations

CUE = "\n\nAssistant:\n"


def template(instruction: str, input: str = "", released: bool = False) -> str:
    """A request as models read it; `released`: as the official code tests, not as it trains."""
    if not released:
        return f"Human:\n{instruction} {input}{CUE}" if input else f"Human:\n{instruction}{CUE}"
    given = f"\n\n### Input:\n{input}" if input else ""
    return f"Human:\n### Instruction:\n{instruction}{given}{CUE}"


def fingerprint() -> str:
    """What the training template does to a request with and without input.

    Whatever is trained on it, or computed from it, is known by this text too.
    """
    return template("{instruction}", "{input}") + template("{instruction}")
