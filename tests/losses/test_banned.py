"""Outcomes of probability 0: logits of -inf, as of a model that bans tokens.

The oracle here works on probabilities, with 0 log 0 = 0 and a log (a / 0) = inf written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from atkd import fused_kd_loss, kd_loss, token_terms
from atkd.losses.divergences import DIVERGENCES

V, BETA = 11, 0.3
LOSSES = [
    *((name, name) for name in DIVERGENCES),
    *((name, of) for name in ("dkd", "atkd") for of in DIVERGENCES),
]
# Which logits are -inf: the student's, the teacher's. The target is row 0 of every token.
BANS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "teacher bans two": ((), (3, 7)),
    "both ban the same two": ((3, 7), (3, 7)),
    "student bans one of the teacher's two": ((3,), (3, 7)),
    "student bans two": ((3, 7), ()),
    "teacher bans the target": ((), (0,)),
    "both ban the target": ((0,), (0,)),
    "teacher allows the target alone": ((), range(1, V)),
    "both allow the target alone": (range(1, V), range(1, V)),
    "student allows the target alone": (range(1, V), ()),
}


def kl(a: list[float], b: list[float]) -> float:
    parts = [x * math.log(x / y) if y else math.inf for x, y in zip(a, b, strict=True) if x]
    return math.fsum(parts) if math.inf not in parts else math.inf


def divergence(name: str, q: list[float], p: list[float]) -> float:
    if name == "forward_kl":
        return kl(p, q)
    if name == "reverse_kl":
        return kl(q, p)
    if name == "kl_mixture":
        return 0.9 * kl(p, q) + 0.1 * kl(q, p)
    if name == "tvd":
        return 0.5 * math.fsum(abs(x - y) for x, y in zip(p, q, strict=True))
    mixture = [BETA * x + (1 - BETA) * y for x, y in zip(p, q, strict=True)]
    return BETA * kl(p, mixture) + (1 - BETA) * kl(q, mixture)


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(each) for each in row]
    return [each / math.fsum(weights) for each in weights]


def terms(of: str, student: list[float], teacher: list[float]) -> tuple[float, float, float]:
    """TKD, DKD and the whole divergence; the target is row 0."""
    q, p = softmax(student), softmax(teacher)
    pairs = [[row[0], math.fsum(row[1:])] for row in (q, p)]
    rests = [
        [each / pair[1] if pair[1] else 0.0 for each in row[1:]]
        for row, pair in zip((q, p), pairs, strict=True)
    ]
    return divergence(of, *pairs), divergence(of, *rests), divergence(of, q, p)


def expected(name: str, of: str, students: list[Any], teachers: list[Any]) -> float:
    """The loss of tokens that are all hard (threshold -1) under the settings of `SETTINGS`."""
    found = [terms(of, *row) for row in zip(students, teachers, strict=True)]
    if name == of:
        return sum(whole for *_, whole in found) / len(found)
    first, second = {"dkd": (0.2, 1.0), "atkd": (0.8, 0.8)}[name]
    return sum(first * tkd + second * dkd for tkd, dkd, _ in found) / len(found)


def drawn(bans: tuple[Sequence[int], Sequence[int]], n: int = 3, v: int = V) -> Any:
    """Logits of student and teacher [n, v], and what is added to each to ban rows [v]."""
    noise = torch.Generator().manual_seed(1)
    logits = [torch.randn(n, v, generator=noise, dtype=torch.float64) for _ in range(2)]
    biases = [torch.zeros(v, dtype=torch.float64) for _ in range(2)]
    for bias, rows in zip(biases, bans, strict=True):
        bias[[row for row in rows if row < v]] = -math.inf
    return *logits, *biases


def losses(name: str, of: str, parts: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Value and gradient in the student's logits of the plain and of the fused form."""
    student, teacher, ours, theirs = parts
    settings = {"beta": BETA} | ({} if name == of else {"divergence": of})
    settings |= {"threshold": -1.0} if name == "atkd" else {}
    targets, eye = torch.zeros(len(student), dtype=torch.long), torch.eye(student.shape[1])
    eye = eye.to(student.dtype)
    student = student.clone().requires_grad_()
    plain = kd_loss(name, student + ours, teacher + theirs, targets, **settings)
    biases = {"student_bias": ours, "teacher_bias": theirs}
    fused = fused_kd_loss(name, student, eye, teacher, eye, targets, tile=2, **biases, **settings)
    both = [plain, fused]
    return both, [torch.autograd.grad(loss, student)[0] for loss in both]


@pytest.mark.parametrize("v", [V, 2])
@pytest.mark.parametrize("case", BANS)
@pytest.mark.parametrize("name,of", LOSSES)
def test_values_are_the_mathematics(name: str, of: str, case: str, v: int) -> None:
    student, teacher, ours, theirs = parts = drawn(BANS[case], v=v)
    value = expected(name, of, (student + ours).tolist(), (teacher + theirs).tolist())
    found, slopes = losses(name, of, parts)
    for loss, slope in zip(found, slopes, strict=True):
        assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert math.isinf(value) or slope.isfinite().all()
    if math.isfinite(value):
        torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-12)


@pytest.mark.case(
    "loss",
    "Forward KL, one token, 11 outcomes of which the teacher bans two by logits of -inf",
    "as with -1e9 in their place, in value and gradient, plain and fused (it was NaN)",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name,of", LOSSES)
def test_banned_rows_count_as_those_of_no_probability(
    name: str, of: str, dtype: torch.dtype
) -> None:
    parts = [each.to(dtype) for each in drawn(BANS["both ban the same two"], n=1)]
    low = [*parts[:2], *(bias.clamp(min=-1e9) for bias in parts[2:])]
    found, slopes = losses(name, of, parts)
    wanted, exact = losses(name, of, low)
    for one, two in zip([*found, *slopes], [*wanted, *exact], strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, two)


@pytest.mark.case(
    "loss",
    "Reverse KL of a student that gives probability to what its teacher bans",
    "inf, in the plain and the fused form",
)
def test_a_divergence_from_no_mass_is_infinite() -> None:
    found, _ = losses("reverse_kl", "reverse_kl", drawn(BANS["teacher bans two"]))
    assert [loss.item() for loss in found] == [math.inf, math.inf]


@pytest.mark.parametrize("case", BANS)
def test_the_parts_add_up_to_the_forward_kl(case: str) -> None:
    student, teacher, ours, theirs = drawn(BANS[case])
    targets = torch.zeros(len(student), dtype=torch.long)
    found = token_terms(student + ours, teacher + theirs, targets)
    rows = zip((student + ours).tolist(), (teacher + theirs).tolist(), strict=True)
    for place, row in enumerate(rows):
        tkd, dkd, whole = terms("forward_kl", *row)
        assert found["tkd"][place].item() == pytest.approx(tkd, rel=1e-9, abs=1e-12)
        assert found["dkd"][place].item() == pytest.approx(dkd, rel=1e-9, abs=1e-12)
        assert found["forward_kl"][place].item() == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("form", ["plain", "fused"])
def test_what_is_no_number_stays_none(form: str) -> None:
    student, teacher, ours, theirs = drawn(((), ()))
    teacher[1, 5] = math.nan
    found, _ = losses("atkd", "forward_kl", (student, teacher, ours, theirs))
    assert found[form == "fused"].isnan()
