"""The tiled losses equal the plain ones, in value and in every gradient, whatever the tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atkd import kd_loss
from atkd.losses import fused, matmul
from atkd.losses.divergences import DIVERGENCES, split_at_target, uncertainty
from atkd.losses.functional import weighted_loss
from atkd.losses.fused import Head, fused_kd_loss, fused_targets, weighted_fused_loss
from atkd.losses.weighting import AdaptiveTeaching, Weights

DOUBLE = {torch.float16: torch.float64, torch.int64: torch.int64}
WHOLE = [(name, {}) for name in DIVERGENCES]
MATCHED = [(name, {"divergence": of}) for name in ("dkd", "atkd") for of in DIVERGENCES]
CASES = [
    *WHOLE,
    *MATCHED,
    ("jsd", {"beta": 0.1}),
    ("dkd", {"target_weight": 0.0}),
    ("atkd", {"hard_fraction": 0.3, "split": "topk"}),
    ("atkd", {"split": "inverse", "easy_weight": 0.6}),
    ("atkd", {"split": "random", "seed": 3}),
    ("atkd", {"threshold": 0.9}),
    ("atkd", {"reverse": True}),
    ("atkd", {"temperature": 3.0}),
    ("atkd", {"temperature": 0.5, "t_squared": True, "split": "random"}),
    ("jsd", {"temperature": 2.0, "t_squared": True}),
    ("forward_kl", {"temperature": 2.0, "tokens": "easy"}),
    ("forward_kl", {"tokens": "hard", "hard_fraction": 0.3}),
    ("tvd", {"tokens": "hard"}),
    ("dkd", {"tokens": "easy", "target_weight": 1.0}),
    ("dkd", {"suppressed": True}),
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


def check(
    name: str, settings: dict, parts: dict, tile: int | None = None, rtol: float = 1e-9
) -> None:
    """Value and both gradients of the fused form are those of the plain one."""
    ours = fused_kd_loss(name, *parts.values(), tile=tile, **settings)
    theirs = plain(name, settings, parts)
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-12)
    wanted = (parts["student_hidden"], parts["student_head"])
    for one, two in zip(gradients(ours, *wanted), gradients(theirs, *wanted), strict=True):
        terms = sum(each.abs().max().item() for each in wanted)  # whose sum a gradient is
        torch.testing.assert_close(one, two, rtol=10 * rtol, atol=1e-2 * rtol * terms)


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss * 3, inputs))


@pytest.mark.parametrize("name,settings", CASES)
@pytest.mark.parametrize("n,v,tile", [(1, 2, 256), (7, 5, 3), (40, 33, 16), (33, 70, 8)])
def test_value_and_gradients_equal_the_plain_form(
    name: str, settings: dict, n: int, v: int, tile: int
) -> None:
    check(name, settings, make(n, v), tile)


@pytest.mark.parametrize("name,settings", CASES)
def test_float32_within_a_hundred_thousandth(name: str, settings: dict) -> None:
    parts, exact = make(64, 300, torch.float32), make(64, 300)
    ours = fused_kd_loss(name, *parts.values(), tile=16, **settings)
    theirs = plain(name, settings, exact)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    found, wanted = (
        gradients(loss, of["student_hidden"], of["student_head"])
        for loss, of in ((ours, parts), (theirs, exact))
    )
    for one, two in zip(found, wanted, strict=True):
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


@pytest.mark.parametrize("name,settings", CASES)
def test_extreme_logits_equal_the_plain_form(name: str, settings: dict) -> None:
    noise = torch.Generator().manual_seed(5)
    eye = torch.eye(6, dtype=torch.float64)
    student, teacher = (
        torch.randint(-1, 2, (20, 6), generator=noise).double() * 1e4 for _ in range(2)
    )
    targets = torch.randint(6, (20,), generator=noise)
    parts = {
        "student_hidden": student.requires_grad_(),
        "student_head": eye.requires_grad_(),
        "teacher_hidden": teacher,
        "teacher_head": eye.detach(),
        "targets": targets,
    }
    check(name, settings, parts, 7)


@pytest.mark.parametrize("name,settings", CASES)
def test_bfloat16_inputs_equal_the_plain_form_to_their_rounding(name: str, settings: dict) -> None:
    parts = make(40, 50, torch.bfloat16)
    ours = fused_kd_loss(name, *parts.values(), tile=16, **settings)
    theirs = plain(name, settings, parts)
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    wanted = (parts["student_hidden"], parts["student_head"])
    for one, two in zip(gradients(ours, *wanted), gradients(theirs, *wanted), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - two).norm() < 1e-2 * two.norm()


@pytest.mark.parametrize("name,settings", CASES)
def test_bfloat16_products_err_by_their_rounding_alone(name: str, settings: dict) -> None:
    if name == "atkd":  # the split compares uncertainties: given here, so that no token changes
        settings = {**settings, "uncertainty": torch.linspace(0.01, 0.99, 64)}
    parts = make(64, 300, torch.float32, scale=0.7)
    wanted = (parts["student_hidden"], parts["student_head"])
    low, full = (
        fused_kd_loss(name, *parts.values(), tile=20, products=products, **settings)
        for products in ("bfloat16", "float32")
    )
    assert low.item() == pytest.approx(full.item(), rel=2e-2) and low.item() != full.item()
    for one, two in zip(gradients(low, *wanted), gradients(full, *wanted), strict=True):
        assert one.dtype == torch.float32
        assert (one - two).norm() < (
            0.1 if "tvd" in (name, *settings.values()) else 0.02
        ) * two.norm()


def relative_errors(found: list[torch.Tensor], exact: list[torch.Tensor]) -> list[float]:
    pairs = zip(found, exact, strict=True)
    return [((one - two).norm() / two.norm()).item() for one, two in pairs]


@pytest.mark.case(
    "loss",
    "Half-precision hidden states of 4,096 tokens, loss times a scale of 1,024 or 65,536",
    "the fused gradient errs no more than the plain one, below 0.1 % (2 % at 1,024, inf at 65,536 "
    "before)",
)
@pytest.mark.parametrize("scale", [1, 1024, 65536])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "atkd"])
def test_half_precision_keeps_its_digits_under_a_loss_scale(name: str, scale: int) -> None:
    parts = make(4096, 120, torch.float16, scale=0.5)
    exact = {key: each.detach().to(DOUBLE[each.dtype]) for key, each in parts.items()}
    wanted = [exact[key].requires_grad_() for key in ("student_hidden", "student_head")]
    slopes = torch.autograd.grad(plain(name, {}, exact), wanted)
    inputs = (parts["student_hidden"], parts["student_head"])
    ours = torch.autograd.grad(fused_kd_loss(name, *parts.values()) * scale, inputs)
    theirs = torch.autograd.grad(plain(name, {}, parts) * scale, inputs)
    assert all(each.dtype == torch.float16 for each in ours)
    errors = relative_errors([each.double() / scale for each in ours], slopes)
    plain_errors = relative_errors([each.double() / scale for each in theirs], slopes)
    for error, other in zip(errors, plain_errors, strict=True):
        assert error < 1e-3 and error < 1.1 * other


def test_autocast_chooses_bfloat16_products_and_an_unknown_choice_is_refused() -> None:
    parts = make(20, 30, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = fused_kd_loss("forward_kl", *parts.values())
    chosen = fused_kd_loss("forward_kl", *parts.values(), products="bfloat16")
    assert cast.item() == chosen.item()
    wanted = parts["student_head"]
    once = torch.autograd.grad(cast, wanted, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(cast, wanted)[0], once)
    with pytest.raises(ValueError, match="products is 'fp8'"):
        fused_kd_loss("forward_kl", *parts.values(), products="fp8")


def spread(n: int, v: int, seed: int = 0) -> dict:
    """A case whose first half is far more certain than its last: ranks seen so far mislead."""
    parts = make(n, v, seed=seed)
    certain = torch.arange(n, dtype=torch.float64)[:, None].flip(0) / n * 2
    parts["teacher_hidden"] = parts["teacher_hidden"] * certain
    return parts


class Counter:
    """Counts the tokens that a loop over tiles visits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.visits: list[int] = []
        visit = fused.TileLoop._visit

        def counted(this: fused.TileLoop, tile_n: torch.Tensor, weights: object) -> None:
            self.visits.append(len(tile_n))
            visit(this, tile_n, weights)

        monkeypatch.setattr(fused.TileLoop, "_visit", counted)


RANKED = [{}, {"split": "topk", "hard_fraction": 0.3}, {"split": "inverse", "easy_weight": 0.7}]
RANKED += [{"hard_fraction": 0.0}, {"hard_fraction": 1.0}, {"easy_weight": 1.0}]


@pytest.mark.parametrize("of", DIVERGENCES)
@pytest.mark.parametrize("settings", RANKED)
def test_wrong_provisional_weights_are_repaired_exactly(
    settings: dict, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_order(this: fused.Buffers, count: int) -> list[torch.Tensor]:
        return list(torch.arange(count).split(this.most)) if count else []

    monkeypatch.setattr(fused.Buffers, "tiles", in_order)
    counter = Counter(monkeypatch)
    parts = spread(80, 30)
    check("atkd", {**settings, "divergence": of}, parts, 8)
    if 0 < settings.get("hard_fraction", 0.5) < 1:
        assert sum(counter.visits) > 80 + 10, "too few repairs: the test shows nothing"


@pytest.mark.parametrize("settings", RANKED)
def test_few_provisional_weights_are_wrong_when_tiles_are_samples(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    check("atkd", settings, spread(400, 30), 50)
    assert 400 <= sum(counter.visits) < 440


@pytest.mark.parametrize("settings", RANKED)
@pytest.mark.parametrize("tied", [2, 30, 79, 80])
def test_ties_change_the_groups_and_stay_exact(settings: dict, tied: int) -> None:
    parts = make(80, 30)
    order = uncertainty(
        parts["teacher_hidden"] @ parts["teacher_head"].T, parts["targets"]
    ).argsort()
    same = order[40 - tied // 2 : 40 - tied // 2 + tied]
    parts["teacher_hidden"][same] = parts["teacher_hidden"][order[40]].clone()
    parts["targets"][same] = parts["targets"][order[40]].clone()
    check("atkd", settings, parts, 8)


def test_a_tie_in_the_first_tile_costs_one_product_not_a_second_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = Counter(monkeypatch)
    parts = make(80, 30)
    parts["teacher_hidden"][:] = 1.0
    parts["targets"][:] = 4
    fused_kd_loss("atkd", *parts.values(), tile=8)
    assert sum(counter.visits) == 80 + 8


def test_provisional_weights_are_final_after_the_last_tile() -> None:
    like_M = torch.zeros(10, dtype=torch.float64)
    found = fused.ProvisionalWeights(AdaptiveTeaching(), like_M)
    u_M = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found.learn(torch.arange(10), u_M)
    _, wrong = found.missing()
    assert not len(wrong) and not found.tied


def both_forms(
    loss: Callable[[], torch.Tensor], logits: int, monkeypatch: pytest.MonkeyPatch
) -> list[torch.Tensor]:
    """The loss where its logits just fit one call of the kernel, and where they just do not."""
    losses = []
    for limit in (logits, logits - 1):
        monkeypatch.setattr(fused, "AT_ONCE", limit)
        losses.append(loss())
    return losses


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name,settings", CASES)
def test_both_sides_of_the_threshold_are_the_same_function(
    name: str, settings: dict, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "CHUNK", 5 * 70)
    parts, exact = make(64, 70, torch.float32), make(64, 70)
    head, given = Head(parts["teacher_head"]), {}
    if known:
        given = fused_targets(parts["teacher_hidden"], head, parts["targets"])._asdict()
    losses = both_forms(
        lambda: fused_kd_loss(name, *parts.values(), **settings, **given), 64 * 70, monkeypatch
    )
    truth = plain(name, settings, exact)
    slopes = gradients(truth, exact["student_hidden"], exact["student_head"])
    for loss in losses:
        assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
        found = gradients(loss, parts["student_hidden"], parts["student_head"])
        assert max(relative_errors(found, slopes)) < 1e-5


@pytest.mark.parametrize("name", ["cross_entropy", "forward_kl", "jsd", "atkd"])
def test_both_sides_of_the_threshold_under_a_cached_teacher(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "CHUNK", 5 * 33)
    parts = make(40, 33)
    hidden, head, theirs, head_t, targets = parts.values()
    known = fused_targets(theirs, Head(head_t), targets)
    weights = AdaptiveTeaching().weights(known.uncertainty)
    teacher = (None, None) if name == "cross_entropy" else (theirs, Head(head_t))
    rest = (targets, weights, {})
    losses = both_forms(
        lambda: weighted_fused_loss(
            name, hidden, Head(head), *teacher, *rest, log_normaliser=known.log_normaliser
        ),
        40 * 33,
        monkeypatch,
    )
    theirs_NV = None if name == "cross_entropy" else theirs @ head_t.T
    exact = weighted_loss(name, hidden @ head.T, theirs_NV, *rest)
    slopes = gradients(exact, hidden, head)
    for loss in losses:
        torch.testing.assert_close(loss, exact, rtol=1e-9, atol=1e-12)
        for one, two in zip(gradients(loss, hidden, head), slopes, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("limit", [0, 1 << 22])
def test_the_same_inputs_give_the_same_bits(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "AT_ONCE", limit)
    parts = make(64, 300, torch.float32)
    first, again = (fused_kd_loss("atkd", *parts.values()) for _ in range(2))
    assert first.item() == again.item()
    wanted = (parts["student_hidden"], parts["student_head"])
    for one, two in zip(gradients(first, *wanted), gradients(again, *wanted), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name,settings", CASES)
def test_up_to_the_threshold_nothing_is_guessed_and_the_kernel_called_once(
    name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    monkeypatch.setattr(fused, "ProvisionalWeights", lambda *_: pytest.fail("a weight was guessed"))
    monkeypatch.setattr(fused, "AT_ONCE", 80 * 30)
    check(name, settings, make(80, 30))
    assert counter.visits == []


@pytest.mark.parametrize(
    ("limit", "tile", "visits"), [(2400, None, []), (2399, None, [80]), (2400, 40, [40, 40])]
)
def test_the_threshold_and_a_smaller_tile_are_honoured(
    limit: int, tile: int | None, visits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    monkeypatch.setattr(fused, "AT_ONCE", limit)
    check("forward_kl", {}, make(80, 30), tile)
    assert counter.visits == visits


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any result holds."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor):
                self.most = max(self.most, each.numel())
        return result


@pytest.mark.parametrize("name,settings", CASES)
def test_beyond_the_threshold_no_tensor_is_tokens_times_vocabulary(
    name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, v, tile = 400, 90, 20
    parts = make(n, v)
    monkeypatch.setattr(fused, "AT_ONCE", n * v - 1)
    monkeypatch.setitem(matmul.TILE_BYTES, "cpu", tile * v * 2 * 8)
    with Largest() as largest:
        fused_kd_loss(name, *parts.values(), **settings).backward()
    assert largest.most == 2 * tile * v


def test_known_uncertainty_changes_nothing() -> None:
    parts = make(30, 20)
    logits = parts["teacher_hidden"] @ parts["teacher_head"].T
    known = uncertainty(logits, parts["targets"])
    head = Head(parts["teacher_head"])
    found = fused_targets(parts["teacher_hidden"], head, parts["targets"], tile=4)
    torch.testing.assert_close(found.uncertainty, known)
    one = fused_kd_loss("atkd", *parts.values())
    two = fused_kd_loss("atkd", *parts.values(), uncertainty=known)
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name,settings", CASES)
def test_known_normaliser_changes_nothing(name: str, settings: dict) -> None:
    parts = make(30, 20)
    known = fused_targets(parts["teacher_hidden"], Head(parts["teacher_head"]), parts["targets"], 4)
    given = {"uncertainty": known.uncertainty, "log_normaliser": known.log_normaliser}
    one = fused_kd_loss(name, *parts.values(), **settings, **given, tile=7)
    torch.testing.assert_close(one, fused_kd_loss(name, *parts.values(), **settings, tile=7))
    exact = split_at_target(parts["teacher_hidden"] @ parts["teacher_head"].T, parts["targets"])
    torch.testing.assert_close(known.uncertainty, exact.log_other_N.exp())


def test_normaliser_of_the_rest_survives_a_certain_teacher() -> None:
    parts = make(6, 9, torch.float32)
    logits = parts["teacher_hidden"] @ parts["teacher_head"].T
    head = Head(parts["teacher_head"], torch.zeros(9).index_fill(0, parts["targets"][:1], 1e4))
    found = fused_targets(parts["teacher_hidden"][:1], head, parts["targets"][:1])
    exact = logits[:1].scatter(1, parts["targets"][:1, None], float("-inf")).logsumexp(1)
    assert found.uncertainty.item() == 0
    torch.testing.assert_close(found.log_normaliser, exact)


@pytest.mark.parametrize("name,settings", CASES)
def test_finite_differences_agree(name: str, settings: dict) -> None:
    parts = make(3, 4)
    rest = list(parts.values())[2:]

    def loss(hidden: torch.Tensor, head: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return fused_kd_loss(name, hidden, head, *rest, student_bias=bias, tile=2, **settings)

    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (parts["student_hidden"], parts["student_head"], bias))


def test_gradients_are_handed_over_and_a_second_pass_forms_them_again() -> None:
    parts = make(10, 8)
    loss = fused_kd_loss("atkd", *parts.values())
    (loss * 2).backward(retain_graph=True)
    once = parts["student_head"].grad.clone()
    loss.backward()
    torch.testing.assert_close(parts["student_head"].grad, 1.5 * once)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_the_head_gradient_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    run = fused.TileLoop.run

    def watched(this: fused.TileLoop) -> tuple:
        total, grads = run(this)
        made.append(grads[1].data_ptr())
        return total, grads

    monkeypatch.setattr(fused.TileLoop, "run", watched)
    parts = make(10, 8)
    fused_kd_loss("atkd", *parts.values(), vocab_size=8).backward()
    assert parts["student_head"].grad.data_ptr() == made[0]


def test_without_gradients_only_the_value_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make(10, 8)
    exact = fused_kd_loss("atkd", *parts.values()).item()
    frozen = {key: value.detach() for key, value in parts.items()}
    for name in ("to_hidden", "add_to_head"):
        monkeypatch.setattr(fused.Slopes, name, lambda *_: pytest.fail("a gradient was formed"))
    with torch.no_grad():
        assert fused_kd_loss("atkd", *parts.values()).item() == exact
    assert not fused_kd_loss("atkd", *frozen.values()).requires_grad


def test_a_frozen_head_gets_no_gradient() -> None:
    parts = make(10, 8)
    parts["student_head"] = parts["student_head"].detach()
    (found,) = gradients(fused_kd_loss("jsd", *parts.values()), parts["student_hidden"])
    (exact,) = gradients(plain("jsd", {}, parts), parts["student_hidden"])
    torch.testing.assert_close(found, exact)


def test_tiles_fit_the_memory_and_small_vocabularies_take_one() -> None:
    like = torch.zeros(1)
    large, small = fused.Buffers(50272, 2, None, like), fused.Buffers(640, 2, None, like)
    assert 200 < large.most < 250 and large.logits(2).shape == (2, 2, 50272)
    assert [len(tile) for tile in small.tiles(5000)] == [5000]
    assert sorted(torch.cat(list(large.tiles(1001))).tolist()) == list(range(1001))


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


@pytest.mark.parametrize("name", [*DIVERGENCES, "dkd", "atkd"])
def test_nothing_supervised_keeps_every_graph(name: str) -> None:
    parts = make(6, 8)
    ends = (parts["student_hidden"], parts["student_head"], torch.zeros(8).requires_grad_())
    nothing = torch.full((6,), -100)
    rest = (parts["teacher_hidden"], parts["teacher_head"], nothing)
    loss = fused_kd_loss(name, ends[0], ends[1], *rest, student_bias=ends[2])
    assert loss.item() == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(loss, ends))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"student_hidden": torch.zeros(2, 3, 4)}, r"student hidden \(2, 3, 4\).*expected hidden"),
        ({"student_bias": torch.zeros(1)}, r"student bias \(1,\)"),
        ({"teacher_bias": torch.zeros(4)}, r"teacher bias \(4,\)"),
        ({"uncertainty": torch.zeros(13)}, r"uncertainty \(13,\)"),
        ({"log_normaliser": torch.zeros(9)}, r"log_normaliser \(9,\)"),
        ({"mask": torch.ones(9, dtype=torch.bool)}, r"mask \(9,\)"),
        ({"vocab_size": 99}, "vocab_size is 99, heads have 8 rows; expected 2 to 8"),
        ({"vocab_size": 1}, "vocab_size is 1,"),
        ({"tile": -1}, "tile is -1; expected at least 1"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fused_kd_loss("atkd", **make(10, 8) | change)


@pytest.mark.parametrize("name", ["student_hidden", "teacher_head", "targets"])
def test_mismatch_is_refused(name: str) -> None:
    parts = make(10, 8)
    parts[name] = parts[name][:-1]
    with pytest.raises(ValueError, match="shapes do not match"):
        fused_kd_loss("atkd", *parts.values())
