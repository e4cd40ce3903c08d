"""Where `auto` stands for an arithmetic: bfloat16 where a device multiplies it itself, or float32.

Decided by what the processor says it can do, never by a timing, so that a machine always decides
alike; what was decided stands in provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

AUTO = "auto"
SHORT = {"precision": "bf16", "dtype": "bfloat16", "teacher_dtype": "bfloat16"}
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux names x86's and ARM's instructions
NAMES = ("flags", "Features")  # where it says so
PROCESSOR = Path("/proc/cpuinfo")


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's settings with every `auto` decided; `compute` within them too."""
    found, device = dict(given), str(given.get("device", "cpu"))
    for key, short in SHORT.items():
        if found.get(key) == AUTO:
            found[key] = short if multiplies(device) else "float32"
    if isinstance(found.get("compute"), Mapping):
        found["compute"] = chosen(found["compute"])
    return found


def multiplies(device: str) -> bool:
    """Whether a device (cpu, cuda, or auto: cuda where there is a GPU) multiplies bfloat16."""
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported()
    return bool(FLAGS & flags(PROCESSOR))


def flags(path: Path) -> set[str]:
    """What the first processor can do; nothing where the system does not say."""
    if not path.is_file():
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    told = (line.partition(":") for line in lines)
    return next((set(what.split()) for key, _, what in told if key.strip() in NAMES), set())
