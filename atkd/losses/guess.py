"""ATKD's weights before the uncertainty of all tokens is known, and what they turn out to lack.

The weights rank the teacher's uncertainty over the whole scope, but a sweep learns it tile by
tile. So each token first gets the group that its rank among the tokens seen so far suggests. The
sizes of the groups, hence the two groups' weights, are known beforehand unless uncertainties tie
at their border. Loss and gradients are linear in the weights: visiting the few tokens whose group
was wrong with the difference of the weights makes the sums exact. Shapes: M tokens of the scope, n
of a tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atkd.losses.weighting import Weights, easy_tokens, token_weights

if TYPE_CHECKING:
    from torch import Tensor


class Guess:
    """ATKD's weights before all uncertainties are known: each token's group among those seen."""

    def __init__(self, settings: Mapping[str, Any], like_M: Tensor) -> None:
        import torch

        self.settings = settings
        self.rule = (settings.get("hard_fraction", 0.5), settings.get("split", "median"))
        ranks_M = torch.arange(len(like_M), dtype=like_M.dtype, device=like_M.device)
        untied = token_weights("atkd", ranks_M, settings)  # the groups' sizes, unless u ties
        easy_M = easy_tokens(ranks_M, *self.rule)
        self.easy, self.hard = (self._first(untied, chosen) for chosen in (easy_M, ~easy_M))
        self.weights = Weights(torch.zeros_like(like_M), torch.zeros_like(like_M))
        self.uncertainty_M = torch.zeros_like(like_M)
        self.seen = like_M.new_zeros(0)
        self.tied = False

    @staticmethod
    def _first(weights: Weights, chosen_M: Tensor) -> list[Tensor]:
        return [each[chosen_M][:1].sum() for each in weights]

    def learn(self, tile_n: Tensor, uncertainty_n: Tensor) -> None:
        """Weighs a tile's tokens by their rank among all seen so far; the last tile knows all.

        Sets `tied` if the first tile has a tie at the border of its groups.
        """
        import torch

        self.uncertainty_M[tile_n] = uncertainty_n
        first, self.seen = not len(self.seen), torch.cat((self.seen, uncertainty_n))
        if len(self.seen) == len(self.uncertainty_M):
            known = token_weights("atkd", self.uncertainty_M, self.settings)
            pieces = [each[tile_n] for each in known]
        else:
            easy_n = easy_tokens(self.seen, *self.rule)[-len(tile_n) :]
            ranks_n = torch.arange(len(tile_n), device=easy_n.device)
            self.tied = first and bool(easy_n.sum() != easy_tokens(ranks_n, *self.rule).sum())
            pieces = [
                torch.where(easy_n, easy, hard)
                for easy, hard in zip(self.easy, self.hard, strict=True)
            ]
        for each_M, piece_n in zip(self.weights, pieces, strict=True):
            each_M[tile_n] = piece_n

    def missing(self) -> tuple[Weights, Tensor]:
        """What the true weights have more than those given, and where it is not nothing [W]."""
        known = token_weights("atkd", self.uncertainty_M, self.settings)
        short = Weights(*(k - g for k, g in zip(known, self.weights, strict=True)))
        return short, ((short[0] != 0) | (short[1] != 0)).nonzero()[:, 0]
