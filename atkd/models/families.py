"""The model families: a row each, which everything else that knows a family reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One row; `title`: how tables name the family."""

    title: str


FAMILIES: dict[str, Family] = {
    "opt": Family("OPT"),
    "pythia": Family("Pythia"),
    "llama": Family("LLaMA"),
}
