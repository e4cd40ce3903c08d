"""Values and gradients where probabilities round to 0 or 1, against float64 in log space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from atkd import fused_kd_loss, kd_loss, token_terms
from atkd.losses.divergences import DIVERGENCES, split_at_target
from atkd.losses.kernels import pair, rest_of

TKD = ("dkd", {"target_weight": 1.0, "diversity_weight": 0.0})
DKD = ("dkd", {"target_weight": 0.0, "diversity_weight": 1.0})
LOSSES = [TKD, DKD, ("atkd", {"threshold": 0.25}), ("forward_kl", {})]
FORMS = ["plain", "fused"]


class Logs(NamedTuple):
    """log p_g, log (1 - p_g), and log p of every outcome renormalised without g (0 at g)."""

    target: float
    other: float
    rest: list[float]


def centred(row: list[float]) -> list[float]:
    """Log-softmax that keeps its digits whatever is added to the row."""
    top = max(row)
    total = math.log(math.fsum(math.exp(each - top) for each in row))
    return [each - top - total for each in row]


def logs(row: list[float], gold: int) -> Logs:
    others = row[:gold] + row[gold + 1 :]
    top, rest = max(others), centred(others)
    odds = row[gold] - top - math.log(math.fsum(math.exp(each - top) for each in others))
    small = math.log1p(math.exp(-abs(odds)))
    return Logs(
        -max(-odds, 0.0) - small, -max(odds, 0.0) - small, [*rest[:gold], 0.0, *rest[gold:]]
    )


def token(student: list[float], teacher: list[float], gold: int, a: float, b: float) -> tuple:
    """a TKD + b DKD and its gradient in the student's logits."""
    q, p = logs(student, gold), logs(teacher, gold)
    u, v = math.exp(p.other), math.exp(q.other)
    tkd = math.exp(p.target) * (p.target - q.target) + u * (p.other - q.other)
    places = [j for j in range(len(student)) if j != gold]
    dkd = math.fsum(math.exp(p.rest[j]) * (p.rest[j] - q.rest[j]) for j in places)
    # q_g - p_g, from whichever of both sides is the smaller.
    slope = u - v if q.target > q.other else math.exp(q.target) - math.exp(p.target)
    slopes = [a * slope] * len(student)
    for j in places:
        held = math.exp(q.rest[j])
        slopes[j] = b * (held - math.exp(p.rest[j])) - a * slope * held
    return a * tkd + b * dkd, slopes


def weights_of(name: str, settings: dict[str, Any], unsure: list[float]) -> list[tuple]:
    """What each token's TKD and DKD weigh."""
    n = len(unsure)
    if name == "forward_kl":
        return [(1 / n, u / n) for u in unsure]
    if name == "dkd":
        return [(settings["target_weight"] / n, settings["diversity_weight"] / n)] * n
    hard = sum(u >= settings["threshold"] for u in unsure)
    ends = ((0.0, 0.2 / max(n - hard, 1)), (0.8 / max(hard, 1),) * 2)
    return [ends[u >= settings["threshold"]] for u in unsure]


def analytic(name: str, settings: dict[str, Any], student: Any, teacher: Any, gold: Any) -> tuple:
    rows = list(zip(student.tolist(), teacher.tolist(), gold.tolist(), strict=True))
    unsure = [math.exp(logs(t, g).other) for _, t, g in rows]
    weights = weights_of(name, settings, unsure)
    found = [token(*row, *pair) for row, pair in zip(rows, weights, strict=True)]
    values, slopes = zip(*found, strict=True)
    return math.fsum(values), torch.tensor(slopes, dtype=torch.float64)


def loss_of(
    form: str, name: str, student: Any, teacher: Any, gold: Any, **settings: Any
) -> torch.Tensor:
    if form == "plain":
        return kd_loss(name, student, teacher, gold, **settings)
    eye = torch.eye(student.shape[1], dtype=student.dtype)
    return fused_kd_loss(name, student, eye, teacher, eye, gold, tile=5, **settings)


def draw(n: int, v: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(n, v, generator=noise, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(v, (n,), generator=noise)


def ladder() -> tuple:
    """Every logit is 1e4, 0 or -1e4."""
    student, teacher, gold = draw(30, 6)
    return *((each * 1.5).round().clamp(-1, 1) * 1e4 for each in (student, teacher)), gold


def certain(student_lead: float, teacher_lead: float) -> Callable[[], tuple]:
    def made() -> tuple:
        student, teacher, gold = draw(12, 6)
        at = torch.nn.functional.one_hot(gold, 6).double()
        return student + student_lead * at, teacher + teacher_lead * at, gold

    return made


CASES = {
    "ladder": ladder,
    "teacher certain": certain(0.0, 60.0),
    "teacher certain beyond underflow": certain(0.0, 1e4),
    "both certain": certain(40.0, 60.0),
    "student certain": certain(60.0, 0.0),
    "student certain of something else": certain(-1e4, 60.0),
}


# Beside 1e4 a float32 has three decimals, and a log-sum-exp no more.
CLOSE = {torch.float32: (1e-6, 3e-8), torch.float64: (1e-12, 1e-15)}
CLOSE_ON_THE_LADDER = {torch.float32: (3e-4, 2e-5), torch.float64: (1e-12, 1e-13)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name,settings", LOSSES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", CLOSE)
def test_extremes_equal_the_analytic_values(
    form: str, name: str, settings: dict[str, Any], case: str, dtype: torch.dtype
) -> None:
    student, teacher, gold = CASES[case]()
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    value, slopes = analytic(name, settings, student, teacher, gold)
    loss = loss_of(form, name, student, teacher, gold, **settings)
    loss.backward()
    rel, atol = (CLOSE_ON_THE_LADDER if case == "ladder" else CLOSE)[dtype]
    assert loss.item() == pytest.approx(value, rel=rel, abs=1e-15)
    torch.testing.assert_close(student.grad.double(), slopes, rtol=rel, atol=atol)


@pytest.mark.parametrize("name,settings", [TKD, ("forward_kl", {})])
@pytest.mark.parametrize("dtype,rtol", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_fused_slope_keeps_its_digits_where_both_are_certain(
    name: str, settings: dict[str, Any], dtype: torch.dtype, rtol: float
) -> None:
    student, teacher, gold = CASES["both certain"]()
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    _, slopes = analytic(name, settings, student, teacher, gold)
    loss_of("fused", name, student, teacher, gold, **settings).backward()
    assert 0 < slopes.abs().max() < 1e-16
    torch.testing.assert_close(student.grad.double(), slopes, rtol=rtol, atol=0.0)


@pytest.mark.parametrize("case", CASES)
def test_token_terms_equal_the_analytic_values(case: str) -> None:
    student, teacher, gold = CASES[case]()
    terms = token_terms(student, teacher, gold)
    for i, row in enumerate(zip(student.tolist(), teacher.tolist(), gold.tolist(), strict=True)):
        u = math.exp(logs(row[1], row[2]).other)
        wanted = {"uncertainty": u, "tkd": token(*row, 1, 0)[0], "dkd": token(*row, 0, 1)[0]}
        wanted["forward_kl"] = token(*row, 1, u)[0]
        for name, value in wanted.items():
            assert terms[name][i].item() == pytest.approx(value, rel=1e-9, abs=1e-15), name


def near(n: int = 16, v: int = 500) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bfloat16 logits that differ in one bit of some, and equal ones."""
    noise = torch.Generator().manual_seed(0)
    teacher = (torch.randn(n, v, generator=noise) * 4).bfloat16()
    step = torch.randint(-1, 2, (n, v), generator=noise) * (torch.arange(n) % 2)[:, None]
    student = (teacher.float() * (1 + step * 2**-8)).bfloat16()
    return student, teacher, torch.randint(v, (n,), generator=noise)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name,beta", [*((n, 0.5) for n in DIVERGENCES), ("jsd", 0.1), ("jsd", 0.9)]
)
def test_no_divergence_is_negative_in_bfloat16(form: str, name: str, beta: float) -> None:
    rows = zip(*near(), strict=True)
    found = [loss_of(form, name, *(each[None] for each in row), beta=beta).item() for row in rows]
    assert min(found) >= -1e-6 and max(found) > 1e-6
    assert max(map(abs, found[::2])) <= 1e-6  # equal ones


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
def test_the_teachers_tail_counts(form: str, name: str) -> None:
    student, teacher, gold = draw(4, 60)
    before = loss_of(form, name, student, teacher, gold).item()
    tail = teacher.scatter(1, gold[:, None], math.inf).argmin(1)
    changed = teacher.index_put((torch.arange(4), tail), torch.tensor(-0.5, dtype=torch.float64))
    assert changed.argmax(1).equal(teacher.argmax(1)) and not changed.equal(teacher)
    ranks = (teacher > changed.gather(1, tail[:, None])).sum(1)
    assert ranks.min() > 20, "not in the tail"
    assert abs(loss_of(form, name, student, changed, gold).item() - before) > 1e-6


@pytest.mark.parametrize("gap", [2.0, 14.0, 30.0, 80.0])
def test_the_split_keeps_its_digits_at_both_ends(gap: float) -> None:
    """log p_g and log u in float32, whichever of both is near 1, to a few roundings."""
    logits_NV = torch.zeros(2, 5)
    logits_NV[0, 0], logits_NV[1, 1:] = gap, gap
    for form in (
        split_at_target,
        lambda logits, g: pair(logits[:, 0], rest_of(logits, g[:, None])),
    ):
        found = form(logits_NV.clone(), torch.zeros(2, dtype=torch.long))
        exact = split_at_target(logits_NV.double(), torch.zeros(2, dtype=torch.long))
        for ours, theirs in zip(found[:2], exact[:2], strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
