"""What a step of training minimises: a method's loss, weighed over its scope, and its state.

Shapes: N supervised tokens of a micro-batch, M of a whole optimiser step on all processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from atkd.losses.functional import resolve
from atkd.losses.fused import Head, weighted_fused_loss
from atkd.losses.matmul import choose
from atkd.losses.weighting import DEFAULT_SCOPE, Gather, Weights, border, step_weights
from atkd.models.checkpoints import head_rows
from atkd.models.generation import noise
from atkd.runtime.files import InputError
from atkd.training.teacher import LiveTeacher, TeacherSignal
from atkd.training.teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from atkd.data.sequences import Batch


class Objective(ABC):
    """What the loop knows of a method, and what of it a checkpoint keeps.

    `step` is the number of the optimiser step, counted from 0; the loop sets it before each.
    `state` is everything a method carries from step to step: numbers, text and tensors by name.
    All names are there once the objective is made; checkpoints keep the first process's values.
    """

    def __init__(self) -> None:
        self.step = 0
        self.state: dict[str, Any] = {}

    @abstractmethod
    def signal(self, batch: Batch) -> Any:
        """What the loss needs of a micro-batch before the student sees it (teacher's view)."""

    @abstractmethod
    def weights(self, pieces: list[Any], gather: Gather) -> list[Any]:
        """Weights of each micro-batch's tokens within the step."""

    @abstractmethod
    def loss(
        self, model: Any, hidden_Nd: Tensor, batch: Batch, signal: Any, weights: Any
    ) -> Tensor:
        """This micro-batch's part of the step's sum, from hidden states at supervised positions."""

    def facts(self) -> dict[str, float]:
        """What is worth knowing after the last step, for provenance."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, and whose it is."""
        return {"objective": type(self).__name__, "state": self.state}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Takes a checkpoint's state; InputError if another kind of objective wrote it."""
        found = kept["objective"], sorted(kept["state"])
        wanted = type(self).__name__, sorted(self.state)
        if found != wanted:
            raise InputError(
                f"checkpoint: holds the state {found[1]} of an objective {found[0]}; expected "
                f"{wanted[1]} of {wanted[0]}; delete the job's folder work/ to train anew"
            )
        self.state = dict(kept["state"])


class Piece(NamedTuple):
    """A micro-batch before its student pass: the teacher's view, sample sizes, noise [N]."""

    signal: TeacherSignal
    sizes: list[int]
    uncertainty_N: Tensor
    noise_N: Tensor | None


class Distillation(Objective):
    """A loss of `losses` under a method's settings; `live` and `cached` are the teachers there are.

    Its state is the sum, over steps whose uncertainty is known, of the median of a step's u on
    this process, and the number of those steps.
    """

    def __init__(
        self,
        loss: str,
        settings: Mapping[str, Any],
        vocabulary: int,
        live: LiveTeacher | None = None,
        cached: CachedTeacher | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.settings, self.vocabulary = loss, dict(settings), vocabulary
        self.live, self.cached, self.seed = live, cached, seed
        self.scope = self.settings.get("scope", DEFAULT_SCOPE)
        if self.scope == "corpus":
            self.settings["threshold"] = self._threshold()
        self.weighting = resolve(loss, self.settings).weighting
        self.state = {"median_sum": 0.0, "median_steps": 0}

    def _threshold(self) -> float:
        """The value at position floor((1 - k)(M - 1)) of the corpus' ascending uncertainty."""
        if self.cached is None or self.settings.get("student_fraction", 0) > 0:
            raise InputError(
                "method setting scope: found 'corpus', which needs a teacher's cache and fixed "
                "sequences alone (no student_fraction); expected batch, micro or sample"
            )
        ordered_M = self.cached.uncertainty_M().sort().values
        return ordered_M[border(self.settings["hard_fraction"], len(ordered_M))].item()

    def _teacher(self, batch: Batch) -> LiveTeacher | CachedTeacher | None:
        return self.cached if self.cached and batch.fixed else self.live

    def signal(self, batch: Batch) -> Piece:
        """The teacher's view; without a teacher only the tokens' number matters."""
        teacher, signal = self._teacher(batch), TeacherSignal(None, None, None)
        if teacher is not None:
            signal = teacher.signal(batch, self.weighting.asks)
        uncertainty_N = signal.uncertainty_N
        if uncertainty_N is None:
            count = int(batch.supervised_BS.sum())
            uncertainty_N = torch.zeros(count, device=batch.input_ids_BT.device)
        noise_N = self._noise(batch) if self.weighting.needs_noise else None
        return Piece(signal, batch.sizes, uncertainty_N, noise_N)

    def _noise(self, batch: Batch) -> Tensor:
        """A number per token, keyed by (seed, row, position)."""
        keys = [f"{self.seed}/{row}/split" for row in batch.rows]
        table_BS = noise(keys, batch.supervised_BS.shape[1]).to(batch.input_ids_BT.device)
        return table_BS[batch.supervised_BS].float()

    def weights(self, pieces: list[Piece], gather: Gather) -> list[Weights]:
        """Token weights within the split's scope, cut back to the micro-batches."""
        known = [piece.uncertainty_N for piece in pieces]
        if all(piece.signal.uncertainty_N is not None for piece in pieces):
            self.state["median_sum"] += torch.cat(known).median().item()
            self.state["median_steps"] += 1
        noises = [piece.noise_N for piece in pieces if piece.noise_N is not None] or None
        samples = [piece.sizes for piece in pieces]
        return step_weights(self.weighting, known, self.scope, gather, noises, samples)

    def facts(self) -> dict[str, float]:
        """Mean over steps of the median of the teacher's uncertainty."""
        steps = self.state["median_steps"]
        return {"median_uncertainty": round(self.state["median_sum"] / steps, 6)} if steps else {}

    def loss(
        self, model: Any, hidden_Nd: Tensor, batch: Batch, signal: Piece, weights: Weights
    ) -> Tensor:
        """This micro-batch's part of the step's loss."""
        teacher = self._teacher(batch)
        return weighted_fused_loss(
            self.name,
            hidden_Nd,
            Head(*head_rows(model, self.vocabulary)),
            signal.signal.hidden_Nd,
            None if teacher is None else teacher.head,
            batch.targets_N,
            weights,
            self.settings,
            log_normaliser=self._normaliser(hidden_Nd, signal.signal),
        )

    @staticmethod
    def _normaliser(hidden_Nd: Tensor, signal: TeacherSignal) -> Tensor | None:
        """The teacher's, unless the loss rounds its operands where the teacher's view did not.

        A token's terms must all come from the same logits, or a divergence falls below zero.
        """
        rounds = choose(None, hidden_Nd) == "bfloat16"
        if signal.hidden_Nd is not None and rounds and signal.hidden_Nd.dtype != torch.bfloat16:
            return None
        return signal.log_normaliser_N


# The class of each loss that needs more than `Distillation` does, made with the same arguments.
OBJECTIVES: dict[str, Callable[..., Objective]] = {}


def make_objective(loss: str, *arguments: Any, **options: Any) -> Objective:
    """The objective of a method's loss: its own of OBJECTIVES, or `Distillation`."""
    return OBJECTIVES.get(loss, Distillation)(loss, *arguments, **options)
