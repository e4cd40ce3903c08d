"""Where the threshold between easy and hard tokens lies, and which settings are refused."""

from __future__ import annotations

import pytest
import torch

from atkd import kd_loss
from atkd.losses.divergences import JensenShannon, ReverseKL
from atkd.losses.functional import resolve
from atkd.losses.weighting import (
    WEIGHTINGS,
    AdaptiveTeaching,
    Mean,
    Weights,
    alone,
    border,
    easy_tokens,
    step_weights,
)


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
        AdaptiveTeaching(threshold=0.5, split=split).weights(u_M).target_N > 0
        for split in ("median", "inverse")
    )
    assert plain.tolist() == [False, False, True, True] and (plain == ~inverse).all()


@pytest.mark.parametrize("settings", [{"split": "x"}, {"split": "x", "threshold": 0.5}])
def test_an_unknown_split_is_refused_even_without_tokens(settings: dict) -> None:
    for count in (4, 0):
        logits, targets = torch.rand(count, 3), torch.zeros(count, dtype=torch.long)
        with pytest.raises(ValueError, match="split is 'x'; expected one of median"):
            kd_loss("atkd", logits, logits, targets, **settings)


def test_weights_are_cut_joined_and_scaled_as_one() -> None:
    whole = Weights(torch.arange(5.0), 10 * torch.arange(5.0))
    parts = whole.split([2, 0, 3])
    assert [len(each.target_N) for each in parts] == [2, 0, 3]
    again = Weights.cat(parts)
    assert again.target_N.equal(whole.target_N) and again.diversity_N.equal(whole.diversity_N)
    assert (whole * 0.5).diversity_N.tolist() == [0, 5, 10, 15, 20]
    assert not (whole - again).diversity_N.any()
    chosen = Weights.where(torch.arange(5) < 2, whole, whole * 0)
    assert chosen.target_N.tolist() == [0, 1, 0, 0, 0]
    chosen[torch.tensor([4])] = whole[torch.tensor([4])]
    assert chosen.diversity_N.tolist() == [0, 10, 0, 0, 40]


@pytest.mark.parametrize(
    ("settings", "uncertainty", "rank", "noise"),
    [
        ({}, True, True, False),
        ({"split": "inverse"}, True, True, False),
        ({"threshold": 0.5}, True, False, False),
        ({"split": "random"}, False, False, True),
        ({"split": "random", "threshold": 0.5}, False, False, True),
    ],
)
def test_a_weighting_knows_what_it_looks_at(
    settings: dict, uncertainty: bool, rank: bool, noise: bool
) -> None:
    made = AdaptiveTeaching(**settings)
    assert made.needs_uncertainty == uncertainty and made.provisional == rank
    assert made.needs_noise == noise and made.splits and made.groups
    for plain in (WEIGHTINGS["mean"], WEIGHTINGS["dkd"]):
        assert not (
            plain.needs_uncertainty or plain.provisional or plain.needs_noise or plain.groups
        )


def test_every_loss_is_a_divergence_and_a_weighting() -> None:
    assert resolve("cross_entropy", {})[:2] == (None, Mean())
    assert resolve("jsd", {"beta": 0.1, "easy_weight": 7})[:2] == (JensenShannon(0.1), Mean())
    own = {"reverse": True, "easy_weight": 0.4, "max_new_tokens": 9}
    assert resolve("atkd", own)[:2] == (ReverseKL(), AdaptiveTeaching(easy_weight=0.4))
    for name in ("mean", "kl"):
        with pytest.raises(ValueError, match=f"loss '{name}' is unknown; expected one of forward"):
            resolve(name, {})


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("epoch", "scope is 'epoch'; expected one of batch, micro, sample, corpus"),
        ("corpus", "scope is 'corpus'; expected a threshold beside it"),
        ("sample", "scope is 'sample', but where samples end is not known here"),
    ],
)
def test_a_scope_that_lacks_something_is_refused(scope: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        step_weights(AdaptiveTeaching(), [torch.rand(4)], scope, alone)


@pytest.mark.parametrize(
    ("scope", "hard"),
    [
        ("batch", [[0, 0, 0, 1], [1, 1, 1, 1]]),
        ("micro", [[0, 1, 1, 1], [0, 1, 1, 1]]),
        ("sample", [[1, 1, 1, 1], [1, 0, 1, 1]]),  # nothing is below the lower median of two
    ],
)
def test_each_scope_ranks_its_own_tokens(scope: str, hard: list[list[int]]) -> None:
    unsure = [torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.6, 0.7, 0.8, 0.9])]
    found = step_weights(AdaptiveTeaching(), unsure, scope, alone, None, [[2, 2], [1, 3]])
    assert [(each.target_N > 0).long().tolist() for each in found] == hard
    assert sum(each.target_N.sum().item() for each in found) == pytest.approx(0.8)
