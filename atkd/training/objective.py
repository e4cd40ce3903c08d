"""What a step of training minimises: a method's loss, weighed over its scope.

Shapes: N supervised tokens of a micro-batch, M of a whole optimiser step on all processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.losses.fused import Head, weighted_fused_loss
from atkd.losses.matmul import choose
from atkd.losses.weighting import Gather, Weights, border, step_weights
from atkd.runtime.files import InputError
from atkd.training.teacher import LiveTeacher, Signal
from atkd.training.teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from torch import Tensor

    from atkd.data.sequences import Batch


class Piece(NamedTuple):
    """A micro-batch before its student pass: the teacher's view, sample sizes, noise [N]."""

    signal: Signal
    sizes: list[int]
    uncertainty_N: Tensor
    noise_N: Tensor | None


class Distillation:
    """A method's objective; `live` and `cached` are the teachers there are."""

    def __init__(
        self,
        loss: str,
        settings: Mapping[str, Any],
        vocabulary: int,
        live: LiveTeacher | None = None,
        cached: CachedTeacher | None = None,
        seed: int = 0,
    ) -> None:
        self.name, self.settings, self.vocabulary = loss, dict(settings), vocabulary
        self.live, self.cached, self.seed = live, cached, seed
        self.ranked = loss == "atkd"
        self.medians: list[float] = []
        if self.settings.get("scope") == "corpus":
            self.settings["threshold"] = self._threshold()

    def _threshold(self) -> float:
        """The value at position floor((1 - k)(M - 1)) of the corpus' ascending uncertainty."""
        if self.cached is None or self.settings.get("student_fraction", 0) > 0:
            raise InputError(
                "method setting scope: found 'corpus', which needs a teacher's cache and fixed "
                "sequences alone (no student_fraction); expected batch, micro or sample"
            )
        ordered_M = self.cached.uncertainty_M().sort().values
        return ordered_M[border(self.settings["hard_fraction"], len(ordered_M))].item()

    def signal(self, batch: Batch) -> Piece:
        """The teacher's view; without a teacher only the tokens' number matters."""
        import torch

        teacher = self.cached if self.cached and batch.fixed else self.live
        signal = teacher.signal(batch, self.ranked) if teacher else Signal(None, None, None)
        uncertainty_N = signal.uncertainty_N
        if uncertainty_N is None:
            count = int(batch.supervised_BS.sum())
            uncertainty_N = torch.zeros(count, device=batch.input_ids_BT.device)
        random_split = self.ranked and self.settings.get("split") == "random"
        return Piece(
            signal, batch.sizes, uncertainty_N, self._noise(batch) if random_split else None
        )

    def _noise(self, batch: Batch) -> Tensor:
        """A number per token, keyed by (seed, row, position)."""
        from atkd.models.generation import noise

        keys = [f"{self.seed}/{row}/split" for row in batch.rows]
        table_BS = noise(keys, batch.supervised_BS.shape[1]).to(batch.input_ids_BT.device)
        return table_BS[batch.supervised_BS].float()

    def weights(self, pieces: list[Piece], gather: Gather) -> list[Weights]:
        """Token weights within the split's scope, cut back to the micro-batches."""
        import torch

        known = [piece.uncertainty_N for piece in pieces]
        if all(piece.signal.uncertainty_N is not None for piece in pieces):
            self.medians.append(torch.cat(known).median().item())
        noises = [piece.noise_N for piece in pieces if piece.noise_N is not None] or None
        samples = [piece.sizes for piece in pieces]
        return step_weights(self.name, known, self.settings, gather, noises, samples)

    def facts(self) -> dict[str, float]:
        """Mean over steps of the median of the teacher's uncertainty, for provenance."""
        if not self.medians:
            return {}
        return {"median_uncertainty": round(sum(self.medians) / len(self.medians), 6)}

    def loss(
        self, model: Any, hidden_Nd: Tensor, batch: Batch, signal: Piece, weights: Weights
    ) -> Tensor:
        """This micro-batch's part of the step's loss."""
        from atkd.models.checkpoints import head_rows

        teacher = self.cached if self.cached and batch.fixed else self.live
        return weighted_fused_loss(
            self.name,
            hidden_Nd,
            Head(*head_rows(model, self.vocabulary)),
            signal.signal.hidden_Nd,
            teacher and teacher.head,
            batch.targets_N,
            weights,
            self.settings,
            log_normaliser=self._normaliser(hidden_Nd, signal.signal),
        )

    @staticmethod
    def _normaliser(hidden_Nd: Tensor, signal: Signal) -> Tensor | None:
        """The teacher's, unless the loss rounds its operands where the teacher's view did not.

        A token's terms must all come from the same logits, or a divergence falls below zero.
        """
        import torch

        rounds = choose(None, hidden_Nd) == "bfloat16"
        if signal.hidden_Nd is not None and rounds and signal.hidden_Nd.dtype != torch.bfloat16:
            return None
        return signal.log_normaliser_N
