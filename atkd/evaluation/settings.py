"""Settings of the stages that run a model, built once from their command line's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from atkd.runtime.cli import settings_of
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
        return settings_of(cls, given)

    @classmethod
    def about(cls) -> str:
        """What a command line's help says of them."""
        return f"JSON with any of {', '.join(one.name for one in fields(cls))}"


@dataclass(frozen=True)
class EvaluationSettings(ModelSettings):
    """What is asked of a model: tasks (none: all with prompts), longest prompt plus answer.

    `engine`: what generates its answers, torch or vllm.
    """

    tasks: list[str] = field(default_factory=list)
    context: int = 2048
    engine: str = "torch"


@dataclass(frozen=True)
class CrosscheckSettings(ModelSettings):
    """How lm-eval's own MMLU is asked: longest prompt, shots where the row is not to decide."""

    context: int = 2048
    shots: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FidelitySettings(ModelSettings):
    """Whose references a model is compared on: tasks, and documents of each."""

    tasks: list[str] = field(default_factory=lambda: list(AVERAGES["generation"]))
    documents: int = 64


@dataclass(frozen=True)
class UncertaintySettings(FidelitySettings):
    """Also training rows: their longest sample, and how many of them."""

    max_length: int = 512
    rows: int = 400


@dataclass(frozen=True)
class LandscapeSettings(FidelitySettings):
    """Also how the loss is looked at around a model's weights.

    `directions`: random ones, over which the rise of the loss is a mean; `lengths`: of the steps
    along them, relative to each filter's; `reach`: that of the plane's edge; `points`: along it.
    """

    documents: int = 20
    directions: int = 6
    lengths: Sequence[float] = (0.1, 0.2, 0.3, 0.4)
    reach: float = 0.4
    points: int = 9


@dataclass(frozen=True)
class ExplorerSettings(UncertaintySettings):
    """How much the token explorer shows: texts of each kind, and likeliest tokens."""

    documents: int = 6
    rows: int = 10
    shown: int = 5
