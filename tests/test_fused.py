"""The tiled losses equal the plain ones, in value and in every gradient, whatever the tile."""

from __future__ import annotations

import pytest
import torch

from atkd import kd_loss
from atkd.divergences import uncertainty
from atkd.fused import Head, fused_kd_loss, fused_uncertainty, weighted_fused_loss
from atkd.objectives import weighted_loss
from atkd.weighting import Weights

CASES = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("jsd", {}),
    ("jsd", {"beta": 0.1}),
    ("tvd", {}),
    ("dkd", {}),
    ("atkd", {}),
    ("atkd", {"hard_fraction": 0.3, "split": "topk"}),
    ("atkd", {"reverse": True}),
]


def make(
    n: int, v: int, dtype: torch.dtype = torch.float64, scale: float = 1.0, seed: int = 0
) -> dict:
    noise = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=noise, dtype=torch.float64) * scale).to(dtype)

    return {
        "student_hidden": draw(n, 6).requires_grad_(),
        "student_head": draw(v, 6).requires_grad_(),
        "teacher_hidden": draw(n, 9),
        "teacher_head": draw(v, 9),
        "targets": torch.randint(v, (n,), generator=noise),
    }


def plain(name: str, settings: dict, parts: dict, biases: tuple = (None, None)) -> torch.Tensor:
    linear = torch.nn.functional.linear
    student = linear(parts["student_hidden"], parts["student_head"], biases[0])
    teacher = linear(parts["teacher_hidden"], parts["teacher_head"], biases[1])
    return kd_loss(name, student, teacher, parts["targets"], **settings)


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss * 3, inputs))


@pytest.mark.parametrize("name,settings", CASES)
@pytest.mark.parametrize("n,v,tile", [(1, 2, 256), (7, 5, 3), (40, 33, 16), (33, 70, 8)])
def test_value_and_gradients_equal_the_plain_form(
    name: str, settings: dict, n: int, v: int, tile: int
) -> None:
    parts = make(n, v)
    ours = fused_kd_loss(name, *parts.values(), tile=tile, **settings)
    theirs = plain(name, settings, parts)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    wanted = (parts["student_hidden"], parts["student_head"])
    for one, two in zip(gradients(ours, *wanted), gradients(theirs, *wanted), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name,settings", CASES)
def test_float32_within_a_hundred_thousandth(name: str, settings: dict) -> None:
    parts, exact = make(64, 300, torch.float32), make(64, 300)
    ours = fused_kd_loss(name, *parts.values(), tile=16, **settings)
    theirs = plain(name, settings, exact)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (one,) = gradients(ours, parts["student_head"])
    (two,) = gradients(theirs, exact["student_head"])
    assert (one - two).norm() <= 1e-5 * two.norm()


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "atkd"])
def test_biases_and_rows_beyond_the_vocabulary(name: str) -> None:
    parts = make(20, 30)
    bias = (
        torch.randn(30, dtype=torch.float64).requires_grad_(),
        torch.randn(30, dtype=torch.float64),
    )
    cut = {key: value[:24] if "head" in key else value for key, value in parts.items()}
    cut["targets"] = parts["targets"] = parts["targets"] % 24
    ours = fused_kd_loss(
        name, *parts.values(), student_bias=bias[0], teacher_bias=bias[1], vocab_size=24, tile=7
    )
    theirs = plain(name, {}, cut, (bias[0][:24], bias[1][:24]))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    one, two = gradients(ours, bias[0])[0], gradients(theirs, bias[0])[0]
    torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-12)
    assert (one[24:] == 0).all()


@pytest.mark.parametrize("name,settings", CASES)
def test_extreme_logits_stay_finite(name: str, settings: dict) -> None:
    parts = make(12, 9, torch.float32, scale=60.0)
    loss = fused_kd_loss(name, *parts.values(), **settings)
    found = gradients(loss, parts["student_hidden"], parts["student_head"])
    assert torch.isfinite(loss) and all(torch.isfinite(each).all() for each in found)


def test_known_uncertainty_changes_nothing() -> None:
    parts = make(30, 20)
    logits = parts["teacher_hidden"] @ parts["teacher_head"].T
    known = uncertainty(logits, parts["targets"])
    found = fused_uncertainty(
        parts["teacher_hidden"], Head(parts["teacher_head"]), parts["targets"], tile=4
    )
    torch.testing.assert_close(found, known)
    one = fused_kd_loss("atkd", *parts.values())
    two = fused_kd_loss("atkd", *parts.values(), uncertainty=known)
    torch.testing.assert_close(one, two)


def test_cross_entropy_tile_equals_the_plain_one() -> None:
    parts = make(30, 20)
    weights = Weights(torch.rand(30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64))
    head, hidden = parts["student_head"], parts["student_hidden"]
    ours = weighted_fused_loss(
        "cross_entropy", hidden, Head(head), None, None, parts["targets"], weights, {}, tile=7
    )
    theirs = weighted_loss("cross_entropy", hidden @ head.T, None, parts["targets"], weights, {})
    torch.testing.assert_close(ours, theirs)
    for one, two in zip(
        gradients(ours, hidden, head), gradients(theirs, hidden, head), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_mask_and_nothing_supervised() -> None:
    parts = make(10, 8)
    mask = torch.arange(10) < 4
    few = {key: value if "head" in key else value[:4] for key, value in parts.items()}
    torch.testing.assert_close(
        fused_kd_loss("atkd", *parts.values(), mask), fused_kd_loss("atkd", *few.values())
    )
    loss = fused_kd_loss("atkd", *parts.values(), mask & False)
    assert loss.item() == 0 and (gradients(loss, parts["student_head"])[0] == 0).all()


@pytest.mark.parametrize("name", ["student_hidden", "teacher_head", "targets"])
def test_mismatch_is_refused(name: str) -> None:
    parts = make(10, 8)
    parts[name] = parts[name][:-1]
    with pytest.raises(ValueError, match="shapes do not match"):
        fused_kd_loss("atkd", *parts.values())
