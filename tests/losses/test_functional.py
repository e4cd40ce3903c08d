"""Objectives against a float64 reference written from the equations, and their identities."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import atkd
from atkd.losses import functional
from atkd.losses.divergences import DIVERGENCES, split_at_target, uncertainty
from atkd.losses.weighting import AdaptiveTeaching, easy_tokens


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def reference_jsd(p: list[float], q: list[float], beta: float) -> float:
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def tv(p: list[float], q: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


REFERENCES = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": lambda p, q: reference_jsd(p, q, 0.5),
    "tvd": tv,
    "kl_mixture": lambda p, q: 0.9 * kl(p, q) + 0.1 * kl(q, p),
}


def reference_matched(name: str, student: list[float], teacher: list[float], gold: int) -> tuple:
    """(u, divergence of the binary pairs, divergence of the renormalised rests)."""
    p, q = softmax(teacher), softmax(student)
    u, v = sum(p) - p[gold], sum(q) - q[gold]
    rest = [j for j in range(len(p)) if j != gold]
    pairs = REFERENCES[name]([p[gold], u], [q[gold], v])
    return u, pairs, REFERENCES[name]([p[j] / u for j in rest], [q[j] / v for j in rest])


def reference_terms(student: list[float], teacher: list[float], gold: int) -> dict[str, float]:
    p, q = softmax(teacher), softmax(student)
    u, v = sum(p) - p[gold], sum(q) - q[gold]
    rest = [j for j in range(len(p)) if j != gold]
    return {
        "tkd": kl([p[gold], u], [q[gold], v]),
        "dkd": kl([p[j] / u for j in rest], [q[j] / v for j in rest]),
        "tkd_rev": kl([q[gold], v], [p[gold], u]),
        "dkd_rev": kl([q[j] / v for j in rest], [p[j] / u for j in rest]),
        "forward_kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": reference_jsd(p, q, 0.5),
        "jsd_0.1": reference_jsd(p, q, 0.1),
        "tvd": sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
        "u": u,
        "v": v,
    }


def reference_atkd(rows: list[dict[str, float]], weight: float, share: float, suffix: str) -> float:
    ordered = sorted(row["u"] for row in rows)
    threshold = ordered[math.floor((1 - share) * (len(rows) - 1))]
    easy = [row[f"dkd{suffix}"] for row in rows if row["u"] < threshold]
    hard = [row[f"tkd{suffix}"] + row[f"dkd{suffix}"] for row in rows if not row["u"] < threshold]
    total = weight * sum(easy) / len(easy) if easy else 0.0
    return total + ((1 - weight) * sum(hard) / len(hard) if hard else 0.0)


def make(n: int, v: int, seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, ...]:
    noise = torch.Generator().manual_seed(seed)
    student = torch.randn(n, v, generator=noise, dtype=torch.float64) * scale
    teacher = torch.randn(n, v, generator=noise, dtype=torch.float64) * scale
    return student, teacher, torch.randint(v, (n,), generator=noise)


def reference(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor) -> list[dict]:
    rows = zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True)
    return [reference_terms(*row) for row in rows]


@pytest.mark.parametrize("n,v", [(1, 2), (7, 3), (26, 11), (40, 50)])
def test_terms_equal_the_reference(n: int, v: int) -> None:
    student, teacher, targets = make(n, v, seed=n)
    rows = reference(student, teacher, targets)
    terms = atkd.token_terms(student, teacher, targets)
    for name, key in [("tkd", "tkd"), ("dkd", "dkd"), ("uncertainty", "u"), ("forward_kl",) * 2]:
        expected = torch.tensor([row[key] for row in rows], dtype=torch.float64)
        torch.testing.assert_close(terms[name], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "tvd", "dkd"])
def test_mean_losses_equal_the_reference(name: str) -> None:
    student, teacher, targets = make(23, 9)
    rows = reference(student, teacher, targets)
    values = [row.get(name, 0.2 * row["tkd"] + row["dkd"]) for row in rows]
    if name == "dkd":
        values = [0.2 * row["tkd"] + row["dkd"] for row in rows]
    loss = atkd.kd_loss(name, student, teacher, targets)
    assert loss.item() == pytest.approx(sum(values) / len(values), rel=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 26, 27])
def test_atkd_equals_the_reference(n: int, share: float, reverse: bool) -> None:
    student, teacher, targets = make(n, 9, seed=n)
    rows = reference(student, teacher, targets)
    loss = atkd.atkd_loss(student, teacher, targets, hard_fraction=share, reverse=reverse)
    expected = reference_atkd(rows, 0.2, share, "_rev" if reverse else "")
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_every_divergence_equals_the_reference_whole_and_split(name: str) -> None:
    student, teacher, targets = make(23, 9, seed=5)
    rows = list(zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True))
    whole = [REFERENCES[name](softmax(t), softmax(s)) for s, t, _ in rows]
    found = atkd.kd_loss(name, student, teacher, targets).item()
    assert found == pytest.approx(sum(whole) / 23, rel=1e-10)
    terms = [reference_matched(name, *row) for row in rows]
    dkd = sum(0.2 * target + diversity for _, target, diversity in terms) / 23
    found = atkd.kd_loss("dkd", student, teacher, targets, divergence=name).item()
    assert found == pytest.approx(dkd, rel=1e-10)
    matched = [{"u": u, "tkd_x": target, "dkd_x": rest} for u, target, rest in terms]
    found = atkd.kd_loss("atkd", student, teacher, targets, divergence=name).item()
    assert found == pytest.approx(reference_atkd(matched, 0.2, 0.5, "_x"), rel=1e-9)


@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_a_temperature_softens_both_and_ranks_by_neither(name: str, temperature: float) -> None:
    student, teacher, targets = make(27, 9, seed=3)
    soft = zip(
        (student / temperature).tolist(),
        (teacher / temperature).tolist(),
        targets.tolist(),
        teacher.tolist(),
        strict=True,
    )
    rows = [reference_terms(s, t, g) | {"u": 1 - softmax(own)[g]} for s, t, g, own in soft]
    if name == "atkd":
        expected = reference_atkd(rows, 0.2, 0.5, "")
    else:
        mixed = {
            "dkd": lambda row: 0.2 * row["tkd"] + row["dkd"],
            "kl_mixture": lambda row: 0.9 * row["forward_kl"] + 0.1 * row["reverse_kl"],
        }
        expected = sum(mixed.get(name, lambda row: row[name])(row) for row in rows) / len(rows)
    found = atkd.kd_loss(name, student, teacher, targets, temperature=temperature).item()
    assert found == pytest.approx(expected, rel=1e-9)
    options = {"temperature": temperature, "t_squared": True}
    squared = atkd.kd_loss(name, student, teacher, targets, **options).item()
    assert squared == pytest.approx(expected * temperature**2, rel=1e-9)


def test_the_square_of_the_temperature_keeps_the_gradients_size() -> None:
    """At a high temperature T^2 KL has a gradient like a squared error of logits (Hinton)."""
    student, teacher, targets = make(50, 9, seed=4)
    student.requires_grad_()
    sizes = []
    for temperature in (50.0, 100.0):
        options = {"temperature": temperature, "t_squared": True}
        loss = atkd.kd_loss("forward_kl", student, teacher, targets, **options)
        sizes.append(torch.autograd.grad(loss, student)[0].norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "dkd"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_easy_or_hard_tokens_alone_equal_the_reference(name: str, share: float) -> None:
    student, teacher, targets = make(26, 9, seed=6)
    rows = reference(student, teacher, targets)
    values = [0.2 * row["tkd"] + row["dkd"] if name == "dkd" else row[name] for row in rows]
    ordered = sorted(row["u"] for row in rows)
    threshold = ordered[math.floor((1 - share) * (len(rows) - 1))]
    easy = [value for value, row in zip(values, rows, strict=True) if row["u"] < threshold]
    hard = [value for value, row in zip(values, rows, strict=True) if not row["u"] < threshold]
    for tokens, part in (("easy", easy), ("hard", hard), ("all", values)):
        options = {"tokens": tokens, "hard_fraction": share}
        found = atkd.kd_loss(name, student, teacher, targets, **options).item()
        assert found == pytest.approx(sum(part) / max(len(part), 1), rel=1e-9)


def test_tkd_and_suppressed_dkd_are_the_forward_kl() -> None:
    student, teacher, targets = make(26, 9, seed=7)
    for tokens in ("all", "easy", "hard"):
        options = {"target_weight": 1.0, "suppressed": True, "tokens": tokens}
        parts = atkd.kd_loss("dkd", student, teacher, targets, **options).item()
        whole = atkd.kd_loss("forward_kl", student, teacher, targets, tokens=tokens).item()
        assert parts == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, "temperature is 0; expected a number above 0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"tokens": "some"}, "tokens is 'some'; expected one of all, easy, hard"),
        ({"hard_fraction": 1.5}, "hard_fraction is 1.5; expected a number in"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        atkd.kd_loss("forward_kl", *make(3, 4), **options)


def test_the_random_split_ignores_uncertainty_and_keeps_the_shares() -> None:
    u, noise = torch.rand(101), torch.rand(101)
    weights = AdaptiveTeaching(split="random").weights(u, noise)
    assert torch.equal(weights.target_N > 0, noise >= noise.median())
    assert weights.diversity_N.sum().item() == pytest.approx(1.0)
    one, two = (AdaptiveTeaching(split="random", seed=seed).weights(u) for seed in (1, 2))
    assert not torch.equal(one.target_N, two.target_N)
    again = AdaptiveTeaching(split="random", seed=1).weights(1 - u)
    assert torch.equal(one.target_N, again.target_N)


def test_a_threshold_replaces_the_rank() -> None:
    u = torch.tensor([0.1, 0.2, 0.3, 0.9])
    weights = AdaptiveTeaching(threshold=0.25).weights(u)
    assert (weights.target_N > 0).tolist() == [False, False, True, True]


def test_the_order_of_samples_never_matters() -> None:
    student, teacher, targets = make(41, 9)
    order = torch.randperm(41, generator=torch.Generator().manual_seed(1))
    for options in ({}, {"split": "topk"}, {"split": "inverse"}, {"reverse": True}):
        one = atkd.kd_loss("atkd", student, teacher, targets, **options)
        two = atkd.kd_loss("atkd", student[order], teacher[order], targets[order], **options)
        assert one.item() == pytest.approx(two.item(), rel=1e-12)


@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    student, teacher, targets = make(20, 9)
    one = atkd.kd_loss(name, student, teacher, targets)
    two = atkd.kd_loss(name, student + 300.0, teacher - 200.0, targets)
    assert one.item() == pytest.approx(two.item(), rel=1e-9)


def test_jsd_weighs_the_teacher_by_beta() -> None:
    student, teacher, targets = make(23, 9)
    expected = [row["jsd_0.1"] for row in reference(student, teacher, targets)]
    loss = atkd.kd_loss("jsd", student, teacher, targets, beta=0.1)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-10)
    with pytest.raises(ValueError, match="beta is 1"):
        atkd.kd_loss("jsd", student, teacher, targets, beta=1)


def test_identity_forward_and_reverse() -> None:
    student, teacher, targets = make(50, 13)
    q, p = split_at_target(student, targets), split_at_target(teacher, targets)
    for name, share in (("forward_kl", p.log_other_N.exp()), ("reverse_kl", q.log_other_N.exp())):
        each = DIVERGENCES[name]
        whole = each.target_term(q, p) + share * each.diversity_term(q, p, targets)
        torch.testing.assert_close(whole, each.whole(student, teacher), rtol=1e-11, atol=0.0)
        exact = [row[name] for row in reference(student, teacher, targets)]
        assert whole.tolist() == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(
    "name,options",
    [
        ("forward_kl", {}),
        ("reverse_kl", {}),
        ("jsd", {}),
        ("jsd", {"beta": 0.1}),
        ("tvd", {}),
        ("dkd", {}),
        ("atkd", {}),
        ("atkd", {"reverse": True}),
        ("kl_mixture", {}),
        ("dkd", {"divergence": "reverse_kl"}),
        ("atkd", {"divergence": "jsd", "beta": 0.3}),
        ("atkd", {"divergence": "tvd"}),
        ("atkd", {"split": "random"}),
    ],
)
def test_gradients(name: str, options: dict) -> None:
    student, teacher, targets = make(6, 5)
    student.requires_grad_()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return atkd.kd_loss(name, logits, teacher, targets, **options)

    assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_stay_finite(name: str, scale: float) -> None:
    student, teacher, targets = (t.float() if t.is_floating_point() else t for t in make(8, 6))
    student = (torch.sign(student) * scale).requires_grad_()
    loss = atkd.kd_loss(name, student, torch.sign(teacher) * scale, targets)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_uncertainty_survives_certainty() -> None:
    teacher = torch.tensor([[60.0, 0.0, 0.0]])
    found = uncertainty(teacher, torch.tensor([0])).item()
    assert found == pytest.approx(2 * math.exp(-60), rel=1e-5)


def test_ties_and_the_median_are_hard() -> None:
    u = torch.tensor([0.1, 0.2, 0.2, 0.9])
    assert easy_tokens(u).tolist() == [True, False, False, False]
    assert easy_tokens(torch.full((5,), 0.3)).sum() == 0
    assert easy_tokens(u, 0.5, "topk").tolist() == [True, False, False, False]
    assert easy_tokens(u, 0.0, "topk").all()
    assert easy_tokens(u, 0.5, "inverse").tolist() == [False, True, True, True]


def test_pieces_add_up_to_the_whole() -> None:
    student, teacher, targets = make(20, 7)
    weights = AdaptiveTeaching().weights(uncertainty(teacher, targets))
    pieces = [
        functional.weighted_loss(
            "atkd",
            student[s],
            teacher[s],
            targets[s],
            weights[s],
            {},
        )
        for s in (slice(0, 3), slice(3, 20))
    ]
    assert sum(pieces).item() == pytest.approx(atkd.atkd_loss(student, teacher, targets).item())


def test_mask_shape_and_gradient_to_student_only() -> None:
    student, teacher, targets = make(12, 6)
    student, teacher = student.view(3, 4, 6), teacher.view(3, 4, 6).requires_grad_()
    student.requires_grad_()
    targets = targets.view(3, 4).clone()
    targets[0] = -100
    loss = atkd.atkd_loss(student, teacher, targets)
    loss.backward()
    assert teacher.grad is None and (student.grad[0] == 0).all() and (student.grad[1] != 0).any()
    same = atkd.atkd_loss(student[1:], teacher[1:], targets[1:])
    assert loss.item() == pytest.approx(same.item(), rel=1e-12)


def padded(rows: list[torch.Tensor], length: int, left: bool, fill: float) -> torch.Tensor:
    """Rows [T, ...] of unequal lengths as one [B, length, ...]."""
    batch = rows[0].new_full((len(rows), length, *rows[0].shape[1:]), fill)
    for b, row in enumerate(rows):
        batch[b, slice(length - len(row), length) if left else slice(len(row))] = row
    return batch


@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_neither_side_nor_amount_of_padding_matters(name: str, fused: bool, masked: bool) -> None:
    student, teacher, targets = make(19, 9)
    targets[-1] = 2  # padding's id is a target too
    rows = [each.split([3, 9, 2, 5]) for each in (student, teacher, targets)]
    truth, exact = [], atkd.kd_loss(name, student, teacher, targets)
    for length, left in ((9, False), (9, True), (14, False), (23, True)):
        batch = [padded(each, length, left, 2) for each in rows]
        keep = padded([torch.ones(len(row)) for row in rows[2]], length, left, 0).bool()
        mask = keep if masked else None
        batch[2] = batch[2] if masked else batch[2].masked_fill(~keep, functional.IGNORE)
        batch[0].requires_grad_()
        if fused:
            ends = [batch[0].flatten(0, 1), batch[1].flatten(0, 1), batch[2].flatten()]
            eye = torch.eye(9, dtype=torch.float64)
            flat = mask if mask is None else mask.flatten()
            loss = atkd.fused_kd_loss(name, ends[0], eye, ends[1], eye, ends[2], flat, tile=4)
        else:
            loss = atkd.kd_loss(name, *batch, mask)
        assert loss.item() == pytest.approx(exact.item(), rel=1e-12)
        (slope,) = torch.autograd.grad(loss, batch[0])
        assert (slope[~keep] == 0).all()
        truth.append(slope[keep])
    for slope in truth[1:]:
        torch.testing.assert_close(slope, truth[0], rtol=1e-10, atol=1e-14)


def test_nothing_supervised_is_zero_with_a_graph() -> None:
    student, teacher, targets = make(3, 4)
    student.requires_grad_()
    loss = atkd.atkd_loss(student, teacher, torch.full_like(targets, -100))
    loss.backward()
    assert loss.item() == 0 and (student.grad == 0).all()


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "tvd", "dkd", "atkd"])
def test_nothing_supervised_is_zero_whatever_the_logits(name: str) -> None:
    student = torch.full((3, 4), -math.inf, dtype=torch.bfloat16, requires_grad=True)
    nothing = torch.full((3,), -100)
    loss = atkd.kd_loss(name, student, torch.zeros(3, 4), nothing)
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    assert (student.grad == 0).all()
    with pytest.raises(ValueError, match="easy_weight is 5"):
        atkd.kd_loss("atkd", student, torch.zeros(3, 4), nothing, easy_weight=5)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="setting 'easy_wieght' is unknown; expected one of beta"):
        atkd.kd_loss("atkd", *make(5, 4), easy_wieght=0.9)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda s, t, g: (s[:, :3], t, g), r"\(5, 3\)"),
        (lambda s, t, g: (s, t, g[:2]), r"targets \(2,\)"),
        (lambda s, t, g: (s, t, g + 4), "outside the vocabulary"),
    ],
)
def test_mismatch_is_refused(change, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        atkd.atkd_loss(*change(*make(5, 4)))


@pytest.mark.parametrize("option", [{"easy_weight": 1.5}, {"hard_fraction": -0.1}, {"split": "x"}])
def test_settings_outside_their_range_are_refused(option: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        atkd.atkd_loss(*make(5, 4), **option)


SIZES = (st.integers(1, 12), st.integers(2, 20), st.integers(0, 10**6), st.floats(0.1, 8))


def either(fused: bool, name: str, student: torch.Tensor, teacher: torch.Tensor, *rest: Any) -> Any:
    """The loss by the plain form, or by the fused one with an identity for both heads."""
    if not fused:
        return atkd.kd_loss(name, student, teacher, rest[0], beta=rest[1]).item()
    eye = torch.eye(student.shape[1], dtype=student.dtype)
    return atkd.fused_kd_loss(name, student, eye, teacher, *(eye, rest[0]), beta=rest[1]).item()


@settings(max_examples=25, deadline=None)
@given(*SIZES, st.floats(0.02, 0.98), st.booleans())
def test_divergences_are_positive_bounded_and_zero_only_when_equal(
    n: int, v: int, seed: int, scale: float, beta: float, fused: bool
) -> None:
    student, teacher, targets = make(n, v, seed, scale)
    entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    bounds = {"forward_kl": math.inf, "reverse_kl": math.inf, "jsd": entropy, "tvd": 1.0}
    mild = teacher / scale
    moved = mild.clone()
    moved[0, 0] += 0.05
    for name, most in bounds.items():
        assert -1e-12 <= either(fused, name, student, teacher, targets, beta) <= most + 1e-12
        assert abs(either(fused, name, teacher, teacher, targets, beta)) < 1e-12
        assert abs(either(fused, name, teacher + 3, teacher, targets, beta)) < 1e-12
        assert either(fused, name, moved, mild, targets, beta) > 1e-12


@settings(max_examples=25, deadline=None)
@given(*SIZES, st.floats(0.02, 0.98), st.booleans())
def test_exchanging_teacher_and_student_exchanges_the_directions(
    n: int, v: int, seed: int, scale: float, beta: float, fused: bool
) -> None:
    student, teacher, targets = make(n, v, seed, scale)
    for one, two, other in (("reverse_kl", "forward_kl", beta), ("jsd", "jsd", 1 - beta)):
        found = either(fused, one, student, teacher, targets, beta)
        swapped = either(fused, two, teacher, student, targets, other)
        assert found == pytest.approx(swapped, rel=1e-9, abs=1e-12)
