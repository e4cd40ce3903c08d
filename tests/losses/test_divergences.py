"""A divergence is one object: what is written once is a loss, a split loss and a fused one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from atkd import fused_kd_loss, kd_loss
from atkd.losses.divergences import DIVERGENCES, Divergence, JensenShannon, log_ratio
from atkd.losses.functional import configured


@dataclass(frozen=True)
class Hellinger(Divergence):
    """Squared Hellinger distance times a factor of its own."""

    name = "hellinger"
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"factor is {self.factor}; expected more than 0")

    def summand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return 0.5 * self.factor * ((0.5 * log_q).exp() - (0.5 * log_p).exp()) ** 2

    def pull(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return (0.5 * (log_q + log_p)).exp().mul_(-0.5 * self.factor)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIVERGENCES, "hellinger", Hellinger())


def draw(n: int = 24, v: int = 17) -> tuple[Tensor, ...]:
    noise = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(n, v, generator=noise, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(v, (n,), generator=noise)


def test_a_new_one_is_a_loss_with_its_own_setting() -> None:
    student, teacher, targets = draw()
    p, q = teacher.softmax(1), student.detach().softmax(1)
    exact = 1 - (p * q).sqrt().sum(1)
    assert kd_loss("hellinger", student, teacher, targets).item() == pytest.approx(exact.mean())
    doubled = kd_loss("hellinger", student, teacher, targets, factor=2.0).item()
    assert doubled == pytest.approx(2 * exact.mean())
    with pytest.raises(ValueError, match="factor is -1; expected more than 0"):
        kd_loss("hellinger", student, teacher, targets, factor=-1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hellinger", {"factor": 3.0}),
        ("dkd", {"divergence": "hellinger", "factor": 3.0}),
        ("atkd", {"divergence": "hellinger", "factor": 3.0}),
    ],
)
def test_a_new_one_is_split_and_fused(name: str, settings: dict) -> None:
    student, teacher, targets = draw()
    eye = torch.eye(17, dtype=torch.float64)
    plain = kd_loss(name, student, teacher, targets, **settings)
    fused = fused_kd_loss(name, student, eye, teacher, eye, targets, tile=7, **settings)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=0.0)
    (one,), (two,) = (torch.autograd.grad(loss, student) for loss in (fused, plain))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-14)
    mild = {key: value for key, value in settings.items() if key != "factor"}
    once = kd_loss(name, student, teacher, targets, **mild).item()
    assert plain.item() == pytest.approx(3 * once)


def test_none_can_be_without_its_derivative() -> None:
    class Half(Divergence):
        name = "half"

        def summand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
            return log_q * log_p

    with pytest.raises(TypeError, match="pull"):
        Half()
    assert all(name == each.name for name, each in DIVERGENCES.items())


@pytest.mark.parametrize("beta", [0, 1, -0.5])
def test_a_parameter_out_of_range_is_refused_wherever_it_is_used(beta: float) -> None:
    student, teacher, targets = draw()
    eye, words = torch.eye(17, dtype=torch.float64), rf"beta is {beta}; expected a number in \(0, 1"
    with pytest.raises(ValueError, match=words):
        JensenShannon(beta)
    for name, settings in (("jsd", {}), ("dkd", {"divergence": "jsd"})):
        with pytest.raises(ValueError, match=words):
            kd_loss(name, student, teacher, targets, beta=beta, **settings)
        with pytest.raises(ValueError, match=words):
            fused_kd_loss(name, student, eye, teacher, eye, targets, beta=beta, **settings)
    assert kd_loss("forward_kl", student, teacher, targets, beta=beta) > 0  # not its own


@pytest.mark.parametrize("name", [*DIVERGENCES, "hellinger"])
def test_summand_and_pull_together_are_each_by_itself(name: str) -> None:
    student, teacher, _ = draw()
    log_q, log_p = student.detach().log_softmax(1), teacher.log_softmax(1)
    kept = log_q.clone(), log_p.clone()
    summand, pull = DIVERGENCES[name].both(log_q, log_p, log_q.exp())
    torch.testing.assert_close(summand, DIVERGENCES[name].summand(log_q, log_p))
    torch.testing.assert_close(pull, DIVERGENCES[name].pull(log_q, log_p))
    assert torch.equal(log_q, kept[0]) and torch.equal(log_p, kept[1])


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_outcomes_whose_probability_underflows_add_nothing_and_pull_nothing(
    name: str, beta: float
) -> None:
    faint = torch.tensor([-95.0, -200.0, -1e4])  # e^-95 is subnormal in float32, the others are 0
    log_q, log_p = (each.flatten() for each in torch.meshgrid(faint, faint, indexing="ij"))
    divergence = configured(DIVERGENCES[name], {"beta": beta})
    for each in divergence.both(log_q, log_p, log_q.exp()):
        assert each.abs().max() < 1e-36


@pytest.mark.parametrize("v", [0, 3])
def test_a_ratio_is_nothing_where_its_numerator_is(v: int) -> None:
    log_b = torch.full((2, v), -2.0)
    log_a = torch.full((2, v), -1.0)
    assert (log_ratio(log_a, log_b) == 1).all()
    log_a[:, 1:] = -math.inf
    assert (log_ratio(log_a, log_b)[:, 1:] == 0).all()
    assert (log_ratio(log_a, log_a)[:, 1:] == 0).all()
    assert log_ratio(log_a * math.nan, log_b).isnan().all()
