"""What a step of training minimises: a method's loss, weighed over its scope.

Shapes: N supervised tokens of a micro-batch, M of a whole optimiser step on all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.cache import CachedTeacher
from atkd.files import InputError
from atkd.fused import Head, weighted_fused_loss
from atkd.teachers import LiveTeacher, Signal
from atkd.weighting import Weights, token_weights

if TYPE_CHECKING:
    from torch import Tensor

    from atkd.sequences import Batch

Gather = Callable[["Tensor"], "tuple[Tensor, int]"]
SCOPES = ("batch", "micro", "sample", "corpus")


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
        place = int((1 - self.settings["hard_fraction"]) * (len(ordered_M) - 1))
        return ordered_M[place].item()

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
        from atkd.generation import noise

        keys = [f"{self.seed}/{row}/split" for row in batch.rows]
        table_BS = noise(keys, batch.supervised_BS.shape[1]).to(batch.input_ids_BT.device)
        return table_BS[batch.supervised_BS].float()

    def weights(self, pieces: list[Piece], gather: Gather) -> list[Weights]:
        """Token weights within the split's scope, cut back to the micro-batches."""
        import torch

        scope = self.settings.get("scope", "batch")
        if scope in ("micro", "sample"):
            return self._separate(pieces, gather, by_sample=scope == "sample")
        joined_M, start = gather(torch.cat([piece.uncertainty_N for piece in pieces]))
        if all(piece.signal.uncertainty_N is not None for piece in pieces):
            self.medians.append(joined_M.median().item())
        noise_M = None
        if pieces[0].noise_N is not None:
            noise_M = gather(torch.cat([piece.noise_N for piece in pieces]))[0]
        whole = token_weights(self.name, joined_M, self.settings, noise_M)
        sizes = [piece.uncertainty_N.numel() for piece in pieces]
        own = [weight[start : start + sum(sizes)].split(sizes) for weight in whole]
        return [Weights(*parts) for parts in zip(*own, strict=True)]

    def _separate(self, pieces: list[Piece], gather: Gather, by_sample: bool) -> list[Weights]:
        """Each micro-batch (or sample) ranked and averaged by itself, then a plain mean of them."""
        import torch

        cuts = [p.sizes if by_sample else [p.uncertainty_N.numel()] for p in pieces]
        groups = pieces[0].uncertainty_N.new_zeros(sum(map(len, cuts)))
        share = 1 / gather(groups)[0].numel()
        made = []
        for piece, cut in zip(pieces, cuts, strict=True):
            noise = [None] * len(cut) if piece.noise_N is None else piece.noise_N.split(cut)
            parts = zip(piece.uncertainty_N.split(cut), noise, strict=True)
            found = [token_weights(self.name, u, self.settings, n) for u, n in parts]
            made.append(
                Weights(*(share * torch.cat(column) for column in zip(*found, strict=True)))
            )
        return made

    def facts(self) -> dict[str, float]:
        """Mean over steps of the median of the teacher's uncertainty, for provenance."""
        if not self.medians:
            return {}
        return {"median_uncertainty": round(sum(self.medians) / len(self.medians), 6)}

    def loss(
        self, model: Any, hidden_Nd: Tensor, batch: Batch, signal: Piece, weights: Weights
    ) -> Tensor:
        """This micro-batch's part of the step's loss."""
        from atkd.models import head_rows

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
            log_normaliser=signal.signal.log_normaliser_N,
        )
