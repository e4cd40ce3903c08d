"""The settings of a training, built once from its command line's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atkd.methods import Recipe
from atkd.runtime.cli import settings_of


@dataclass(frozen=True)
class Optimisation:
    """A configuration's keys under training.<role>; the learning rate's schedule is a cosine.

    `steps` of the optimiser, or `epochs`; `batch_size` samples a step, over all processes;
    `micro_batch_size` of them at a time (all at once where it is absent); `max_length` in tokens;
    `packed`: whether a base's texts are joined to blocks of that length; `saved_dtype`: of the
    weights that are saved; `lora_rank`: of adapters, which are trained alone where it is given;
    `stop_at`: the share of the steps after which training ends.
    """

    batch_size: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    beta2: float
    clip: float
    max_length: int
    checkpoint_every: int
    gradient_checkpointing: bool
    optimiser: str
    packed: bool
    saved_dtype: str
    stop_at: float = 1
    steps: int | None = None
    epochs: float | None = None
    micro_batch_size: int | None = None
    lora_rank: int | None = None

    def step_count(self, per_epoch: int) -> int:
        """Optimiser steps of the whole training, from those of an epoch."""
        return self.steps or max(1, round((self.epochs or 0) * per_epoch))

    def last_step(self, steps: int) -> int:
        """The step after which training ends, of `steps` that its schedule is made for."""
        return max(1, round(self.stop_at * steps))


@dataclass(frozen=True)
class Compute:
    """Where a training runs, in what arithmetic, whether its processes share the model."""

    device: str
    precision: str
    teacher_dtype: str
    sharded: bool = False


@dataclass(frozen=True)
class TrainingSettings:
    """All of them; `source` is a base's alone, and only a student's recipe is given."""

    family: str
    training: Optimisation
    compute: Compute
    source: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: Recipe("cross_entropy"))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TrainingSettings:
        """From JSON; InputError on a key that is unknown or missing."""
        kinds = {"training": Optimisation, "compute": Compute, "recipe": Recipe}
        parts = {
            name: settings_of(kinds[name], value) if name in kinds else value
            for name, value in given.items()
        }
        return settings_of(cls, parts)
