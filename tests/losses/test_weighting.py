"""Where the threshold between easy and hard tokens lies, and which settings are refused."""

from __future__ import annotations

import pytest
import torch

from atkd.losses.weighting import border, easy_tokens, token_weights


@pytest.mark.parametrize(
    ("hard_fraction", "count", "position"),
    [(0.5, 26, 12), (0.5, 1, 0), (0.9, 11, 1), (0.8, 6, 1), (0.8, 11, 2), (0.0, 5, 4), (1, 5, 0)],
)
def test_the_threshold_lies_where_the_definition_says(
    hard_fraction: float, count: int, position: int
) -> None:
    assert border(hard_fraction, count) == position
    easy = easy_tokens(torch.arange(count, dtype=torch.float64), hard_fraction)
    assert int(easy.sum()) == position


def test_a_threshold_keeps_the_inverse_split_inverse() -> None:
    u_M = torch.tensor([0.1, 0.4, 0.6, 0.9])
    plain, inverse = (
        token_weights("atkd", u_M, {"threshold": 0.5, "split": split}).target_N > 0
        for split in ("median", "inverse")
    )
    assert plain.tolist() == [False, False, True, True] and (plain == ~inverse).all()


@pytest.mark.parametrize("settings", [{"split": "x"}, {"split": "x", "threshold": 0.5}])
def test_an_unknown_split_is_refused_even_without_tokens(settings: dict) -> None:
    for u_M in (torch.rand(4), torch.zeros(0)):
        with pytest.raises(ValueError, match="split is 'x'; expected one of median"):
            token_weights("atkd", u_M, settings)
