"""The closed forms on a tile: derivatives of the divergences, and what they leave in the tile."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from atkd.losses.divergences import DIVERGENCES, uncertainty
from atkd.losses.functional import LOSSES, configured, resolve, weighted_loss
from atkd.losses.kernels import kernel_of, needs_rest, normalised_, pair, rest_of, softmax_
from atkd.losses.weighting import Weights

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=noise, dtype=DOUBLE) * 3).to(dtype)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_pull_gives_the_gradient_in_the_logits(name: str, beta: float) -> None:
    s_NV = draw(6, 11).requires_grad_()
    log_p_NV = draw(6, 11, seed=1).log_softmax(1)
    divergence = configured(DIVERGENCES[name], {"beta": beta})
    value = divergence.summand(s_NV.log_softmax(1), log_p_NV).sum()
    (exact_NV,) = torch.autograd.grad(value, s_NV)
    pull_NV = divergence.pull(s_NV.detach().log_softmax(1), log_p_NV)
    ours_NV = pull_NV - s_NV.detach().softmax(1) * pull_NV.sum(1, keepdim=True)
    torch.testing.assert_close(ours_NV, exact_NV, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("of", DIVERGENCES)
@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy"])
@pytest.mark.parametrize("v", [2, 3, 40])
def test_value_of_each_token_and_gradient_left_in_the_tile(name: str, of: str, v: int) -> None:
    settings = {"divergence": of, "beta": 0.3}
    s_NV, t_NV = draw(9, v).requires_grad_(), draw(9, v, seed=1)
    targets_N = torch.arange(9) % v
    weights = Weights(draw(9, seed=2).abs(), draw(9, seed=3).abs())
    exact = weighted_loss(name, s_NV, t_NV, targets_N, weights, settings)
    (exact_NV,) = torch.autograd.grad(exact, s_NV)
    tile_NV, index_N1 = s_NV.detach().clone(), targets_N[:, None]
    rest_N = rest_of(t_NV, index_N1)
    divergence, weighting, _ = resolve(name, settings)
    kernel = kernel_of(divergence, weighting.splits)
    value_N = kernel(tile_NV, t_NV, index_N1, rest_N, weights)
    torch.testing.assert_close(value_N.sum(), exact.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(tile_NV, exact_NV, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of", DIVERGENCES)
def test_weights_may_wait_for_the_uncertainty(of: str) -> None:
    divergence, weighting, _ = resolve("atkd", {"divergence": of})
    kernel, index_N1 = kernel_of(divergence, splits=True), torch.arange(9)[:, None]
    rest_N, u_N = rest_of(draw(9, 12), index_N1), uncertainty(draw(9, 12), index_N1[:, 0])
    found = []
    for weights in (weighting.weights(u_N), weighting.weights):
        tile_NV = draw(9, 12, seed=1)
        value_N = kernel(tile_NV, draw(9, 12), index_N1, rest_N, weights)
        found.append((value_N, tile_NV))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("of", "splits"),
    [
        (of, splits)
        for of, splits in itertools.product(DIVERGENCES, (False, True))
        if not needs_rest(DIVERGENCES[of], splits)
    ],
)
def test_a_rest_that_is_known_changes_nothing(of: str, splits: bool) -> None:
    weights, index_N1 = Weights(draw(9).abs(), draw(9).abs()), torch.arange(9)[:, None]
    found = []
    for rest_N in (None, rest_of(draw(9, 12), index_N1)):
        tile_NV = draw(9, 12, seed=1)
        kernel = kernel_of(DIVERGENCES[of], splits)
        found.append((kernel(tile_NV, draw(9, 12), index_N1, rest_N, weights), tile_NV))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("softmax", [torch.softmax, torch.log_softmax])
def test_normalised_in_place(softmax: Any) -> None:
    logits_NV = draw(4, 300, dtype=torch.float32)
    exact_NV = softmax(logits_NV, 1)
    assert normalised_(softmax, logits_NV) is logits_NV and torch.equal(logits_NV, exact_NV)


def test_the_rest_is_found_without_the_target_and_the_tile_kept() -> None:
    logits_NV, index_N1 = draw(5, 7), torch.tensor([[0], [3], [6], [1], [2]])
    kept_NV = logits_NV.clone()
    exact_N = kept_NV.exp().scatter(1, index_N1, 0.0).sum(1).log()
    torch.testing.assert_close(rest_of(logits_NV, index_N1), exact_N)
    assert torch.equal(logits_NV, kept_NV)


def test_a_certain_target_keeps_its_uncertainty_in_log_space() -> None:
    found = pair(torch.tensor([1e4]), torch.tensor([-1e4]))
    assert found.log_target_n.item() == 0 and found.log_other_n.item() == -2e4


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_softmax_in_place_returns_the_log_sum(shift: float) -> None:
    logits_NV = (draw(4, 300, dtype=torch.float32) + shift).requires_grad_(False)
    exact_N, exact_NV = logits_NV.double().logsumexp(1), logits_NV.double().softmax(1)
    found_N = softmax_(logits_NV)
    torch.testing.assert_close(found_N.double(), exact_N, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits_NV.double(), exact_NV, rtol=1e-5, atol=1e-9)
