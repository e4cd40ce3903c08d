"""Settings of the stages that run a model, built once from their command line's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from atkd.runtime.files import InputError
from atkd.tasks import AVERAGES


@dataclass(frozen=True)
class ModelSettings:
    """How a model is run: rows of a batch, arithmetic, torch device."""

    batch_size: int = 16
    dtype: str = "float32"
    device: str = "cpu"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Settings as given, the others' defaults; InputError names an unknown key."""
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"settings: unknown key {name!r}; expected {', '.join(known)}")
        return cls(**given)

    @classmethod
    def about(cls) -> str:
        """What a command line's help says of them."""
        return f"JSON with any of {', '.join(one.name for one in fields(cls))}"


@dataclass(frozen=True)
class EvaluationSettings(ModelSettings):
    """The protocol of an evaluation: tasks (none: all with prompts), longest prompt plus answer.

    `shots`, `limit`, `seed` and `max_new_tokens` are in the prompts already; they are kept with the
    samples that they describe.
    """

    tasks: list[str] = field(default_factory=list)
    context: int = 2048
    shots: Mapping[str, int] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    max_new_tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FidelitySettings(ModelSettings):
    """Whose references a model is compared on: tasks, and documents of each."""

    tasks: list[str] = field(default_factory=lambda: list(AVERAGES["generation"]))
    documents: int = 64
