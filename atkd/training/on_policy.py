"""Steps on the current student's own answers, alone or mixed with fixed sequences."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from atkd.data.sequences import Batch, FixedBatches, collate, sample
from atkd.models.generation import NotFiniteError, answers
from atkd.runtime.files import InputError


@dataclass(frozen=True)
class StudentText:
    """How a student answers in training.

    `student_fraction`: share of the steps on its own answers; `text_temperature` 0 is
    greedy; `max_new_tokens`: its longest answer.
    """

    student_fraction: float
    text_temperature: float
    max_new_tokens: int

    @classmethod
    def of(cls, method: Mapping[str, Any]) -> StudentText:
        """A method's settings of its student's text; it has others too."""
        return cls(**{field.name: method[field.name] for field in fields(cls)})


class OnPolicyBatches:
    """The supply of micro-batches of a method with a `student_fraction`.

    A coin per optimiser step, the same on every process, decides whether a step's prompts keep
    their fixed answers or are answered by the student as it is. Noise is keyed by (seed, step,
    row, position), so that micro-batches and processes do not matter.
    """

    def __init__(
        self,
        fixed: FixedBatches,
        model: Callable[[], Any],
        tokenizer: Any,
        settings: StudentText,
        max_length: int,
        seed: int,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        switches: Collection[str] = (),
    ) -> None:
        self.fixed, self.model, self.tokenizer, self.settings = fixed, model, tokenizer, settings
        self.max_length, self.seed, self.autocast = max_length, seed, autocast
        self.switches = set(switches) - {"prompt_doubled"}  # a matter of fixed sequences

    def by_student(self, step: int) -> bool:
        """Whether the student writes this step's answers."""
        coin = random.Random(f"{self.seed}/{step}/coin").random()
        return coin < self.settings.student_fraction

    def __call__(self, step: int, indices: Collection[int]) -> Batch:
        if not self.by_student(step):
            return self.fixed(step, indices)
        sequences, length = self.fixed.sequences, self.max_length
        prompts = [each.ids[: each.prompt] for each in (sequences.samples[i] for i in indices)]
        rows = [sequences.rows[i] for i in indices]
        rooms = [min(self.settings.max_new_tokens, length - len(ids)) for ids in prompts]
        keys = [f"{self.seed}/{step}/{row}" for row in rows]
        temperature = self.settings.text_temperature
        try:
            with self.autocast():
                found = answers(self.model(), prompts, keys, rooms, self.tokenizer, temperature)
        except NotFiniteError as error:
            raise InputError(f"step {step + 1}, data row {rows[error.row]}: {error}") from None
        eos = self.tokenizer.eos_token_id
        pairs = zip(prompts, found, strict=True)
        samples = [sample(*pair, eos, length, self.switches) for pair in pairs]
        return collate(samples, rows, self.fixed.pad, self.fixed.device, fixed=False)
