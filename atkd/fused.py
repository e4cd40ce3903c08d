"""The losses of `objectives` from hidden states and heads, tile by tile over the tokens.

Logits of a tile of rows exist only while its loss and closed-form gradient are formed; tokens x
vocabulary is never built. Vocabulary-sized products: student and teacher logits, the gradients of
hidden states and of the head; one more for the teacher's uncertainty where a split needs it and
nobody knows it. Same value and gradients as the plain form, which defines the mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.objectives import IGNORE, SPLIT, check_name, split_divergence
from atkd.weighting import Weights, token_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE = 256


class Head(NamedTuple):
    """An output projection: weight [V, d], bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def logits(self, hidden_nd: Tensor, least: torch.dtype) -> Tensor:
        """Logits [n, V] in at least the dtype `least`."""
        import torch

        logits_nV = torch.nn.functional.linear(hidden_nd, self.weight, self.bias)
        return logits_nV if logits_nV.dtype == torch.float64 else logits_nV.to(least)


class Split(NamedTuple):
    """The target taken out of a tile: log p_g, log (1 - p_g), normaliser of the rest, each [n]."""

    log_target_n: Tensor
    log_other_n: Tensor
    rest_n: Tensor


def take_target(logits_nV: Tensor, index_n1: Tensor) -> Split:
    """Splits a tile at the target and replaces the target's logit, in place, by one of weight 0."""
    target_n = logits_nV.gather(1, index_n1)[:, 0]
    logits_nV.scatter_(1, index_n1, -math.inf)
    rest_n = logits_nV.logsumexp(1)
    total_n = rest_n.logaddexp(target_n)
    return Split(target_n - total_n, rest_n - total_n, rest_n)


def normalised(logits_nV: Tensor, split: Split, index_n1: Tensor) -> Tensor:
    """In place: log probabilities of the rest without the target, 0 at the target, where unused."""
    return logits_nV.sub_(split.rest_n[:, None]).scatter_(1, index_n1, 0.0)


def dot(left_nV: Tensor, right_nV: Tensor) -> Tensor:
    """Row-wise inner product [n] without a [n, V] intermediate."""
    return (left_nV[:, None, :] @ right_nV[:, :, None])[:, 0, 0]


def forward_split(
    s_nV: Tensor, t_nV: Tensor, index_n1: Tensor, weights: Weights, whole: bool = False
) -> Tensor:
    """Sum of a TKD + b DKD of a tile; leaves the gradient in the student's logits in `s_nV`.

    At g: a (q_g - p_g). Elsewhere: (b - a (q_g - p_g)) q^_j - b p^_j. `whole`: b = a u, KL(p||q).
    """
    a_n, b_n = weights
    q, p = take_target(s_nV, index_n1), take_target(t_nV, index_n1)
    b_n = a_n * p.log_other_n.exp() if whole else b_n
    log_q_nV, log_p_nV = normalised(s_nV, q, index_n1), normalised(t_nV, p, index_n1)
    p_nV = log_p_nV.exp().scatter_(1, index_n1, 0.0)
    diversity_n = dot(p_nV, log_p_nV) - dot(p_nV, log_q_nV)
    on_target_n = p.log_target_n.exp() * (p.log_target_n - q.log_target_n)
    target_n = on_target_n + p.log_other_n.exp() * (p.log_other_n - q.log_other_n)
    gap_n = p.log_other_n.exp() - q.log_other_n.exp()
    log_q_nV.exp_().mul_((b_n - a_n * gap_n)[:, None])
    log_q_nV.addcmul_(p_nV, b_n[:, None], value=-1).scatter_(1, index_n1, (a_n * gap_n)[:, None])
    return (a_n * target_n + b_n * diversity_n).sum()


def reverse_split(s_nV: Tensor, t_nV: Tensor, index_n1: Tensor, weights: Weights) -> Tensor:
    """The same with the student as first argument: KL(q^||p^) and the binary KL the other way.

    At g: a G, with G = q_g v (log(q_g / p_g) - log(v / u)).
    Elsewhere: q^_j (b (log(q^_j / p^_j) - DKD) - a G).
    """
    a_n, b_n = weights
    q, p = take_target(s_nV, index_n1), take_target(t_nV, index_n1)
    log_q_nV, log_p_nV = normalised(s_nV, q, index_n1), normalised(t_nV, p, index_n1)
    q_nV = log_q_nV.exp().scatter_(1, index_n1, 0.0)
    ratio_nV = log_q_nV.sub_(log_p_nV)
    diversity_n = dot(q_nV, ratio_nV)
    on_target_n, off_target_n = q.log_target_n - p.log_target_n, q.log_other_n - p.log_other_n
    target_n = q.log_target_n.exp() * on_target_n + q.log_other_n.exp() * off_target_n
    pull_n = (q.log_target_n + q.log_other_n).exp() * (on_target_n - off_target_n) * a_n
    ratio_nV.mul_(b_n[:, None]).sub_((b_n * diversity_n + pull_n)[:, None]).mul_(q_nV)
    ratio_nV.scatter_(1, index_n1, pull_n[:, None])
    return (a_n * target_n + b_n * diversity_n).sum()


def pure(name: str, beta: float) -> Callable[[Tensor, Tensor, Tensor, Weights], Tensor]:
    """A divergence of whole distributions: its gradient is w q (f - <q, f>), f its slope in q."""
    slopes = {"reverse_kl": _reverse_slope, "tvd": _tvd_slope, "jsd": _jsd_slope(beta)}
    slope = slopes[name]

    def kernel(s_nV: Tensor, t_nV: Tensor, _: Tensor, weights: Weights) -> Tensor:
        log_q_nV = s_nV.sub_(s_nV.logsumexp(1, keepdim=True))
        log_p_nV = t_nV.sub_(t_nV.logsumexp(1, keepdim=True))
        q_nV = log_q_nV.exp()
        value_n, slope_nV = slope(log_q_nV, log_p_nV, q_nV)
        slope_nV.sub_(dot(q_nV, slope_nV)[:, None]).mul_(q_nV).mul_(weights.target_N[:, None])
        s_nV.copy_(slope_nV)
        return (weights.target_N * value_n).sum()

    return kernel


def _reverse_slope(log_q_nV: Tensor, log_p_nV: Tensor, q_nV: Tensor) -> tuple[Tensor, Tensor]:
    slope_nV = log_q_nV.sub_(log_p_nV)
    return dot(q_nV, slope_nV), slope_nV


def _tvd_slope(log_q_nV: Tensor, log_p_nV: Tensor, q_nV: Tensor) -> tuple[Tensor, Tensor]:
    gap_nV = q_nV - log_p_nV.exp_()
    return 0.5 * gap_nV.abs().sum(1), gap_nV.sign_().mul_(0.5)


def _jsd_slope(beta: float) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def slope(log_q_nV: Tensor, log_p_nV: Tensor, q_nV: Tensor) -> tuple[Tensor, Tensor]:
        log_m_nV = (log_p_nV + math.log(beta)).logaddexp(log_q_nV + math.log(1 - beta))
        p_nV = log_p_nV.exp()
        teacher_n = dot(p_nV, log_p_nV.sub_(log_m_nV))
        slope_nV = log_q_nV.sub_(log_m_nV)
        return beta * teacher_n + (1 - beta) * dot(q_nV, slope_nV), slope_nV.mul_(1 - beta)

    return slope


def cross_entropy(s_nV: Tensor, _: Any, index_n1: Tensor, weights: Weights) -> Tensor:
    """Sum of -w log q_g; leaves w (q - onehot) in `s_nV`."""
    log_q_nV = s_nV.sub_(s_nV.logsumexp(1, keepdim=True))
    log_q_n = log_q_nV.gather(1, index_n1)[:, 0]
    log_q_nV.exp_().scatter_add_(1, index_n1, -log_q_nV.new_ones(index_n1.shape))
    log_q_nV.mul_(weights.target_N[:, None])
    return -(weights.target_N * log_q_n).sum()


def kernel_of(name: str, settings: Mapping[str, Any]) -> Callable[..., Tensor]:
    """(student tile, teacher tile, targets [n, 1], weights) -> sum; the gradient stays in s_nV."""
    if name == "cross_entropy":
        return cross_entropy
    if name == "forward_kl":
        return partial(forward_split, whole=True)
    if name in SPLIT:
        kernels = {"forward_kl": forward_split, "reverse_kl": reverse_split}
        return kernels[split_divergence(settings)]
    return pure(name, settings.get("beta", 0.5))


def fused_uncertainty(hidden_Nd: Tensor, head: Head, targets_N: Tensor, tile: int = TILE) -> Tensor:
    """UNC = 1 - p_g [N] by one product, tile by tile; no gradient."""
    import torch

    found = []
    with torch.no_grad():
        for start in range(0, len(targets_N), tile):
            logits_nV = head.logits(hidden_Nd[start : start + tile], torch.float32)
            index_n1 = targets_N[start : start + tile, None]
            found.append(take_target(logits_nV, index_n1).log_other_n.exp())
    return torch.cat(found) if found else hidden_Nd.new_zeros(0)


def fused_targets(
    hidden_Nd: Tensor, head: Head, targets_N: Tensor, tile: int = TILE
) -> tuple[Tensor, Tensor]:
    """UNC = 1 - p_g [N] and the normaliser of all ids but the target [N], by one product."""
    import torch

    found = []
    with torch.no_grad():
        for start in range(0, len(targets_N), tile):
            logits_nV = head.logits(hidden_Nd[start : start + tile], torch.float32)
            split = take_target(logits_nV, targets_N[start : start + tile, None])
            found.append((split.log_other_n.exp(), split.rest_n))
    if not found:
        return hidden_Nd.new_zeros(0), hidden_Nd.new_zeros(0)
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def weighted_fused_loss(
    name: str,
    student_hidden_Nd: Tensor,
    student: Head,
    teacher_hidden_Nd: Tensor | None,
    teacher: Head | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
    tile: int = TILE,
    uncertainty: Tensor | None = None,
    log_normaliser: Tensor | None = None,
) -> Tensor:
    """`objectives.weighted_loss` without its logits; differentiable in the student alone."""
    import torch

    kernel = kernel_of(name, settings)

    class Tiled(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, hidden_Nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None
        ) -> Tensor:
            grads = _zeros_like(ctx, hidden_Nd, weight_Vd, bias_V)
            total = hidden_Nd.new_zeros((), dtype=weights.target_N.dtype)
            for start in range(0, len(targets_N), tile):
                rows = slice(start, start + tile)
                s_nV = Head(weight_Vd, bias_V).logits(hidden_Nd[rows], torch.float32)
                t_nV = teacher and teacher.logits(teacher_hidden_Nd[rows], torch.float32)
                part = Weights(*(each[rows] for each in weights))
                total += kernel(s_nV, t_nV, targets_N[rows, None], part)
                _accumulate(grads, s_nV.to(hidden_Nd.dtype), hidden_Nd, weight_Vd, rows)
            ctx.grads = grads
            return total

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            return tuple(
                None if grad is None else grad * upstream.to(grad.dtype) for grad in ctx.grads
            )

    return Tiled.apply(student_hidden_Nd, student.weight, student.bias)


def _zeros_like(ctx: Any, *inputs: Tensor | None) -> list[Tensor | None]:
    import torch

    wanted = zip(inputs, ctx.needs_input_grad, strict=True)
    return [torch.zeros_like(value) if needed else None for value, needed in wanted]


def _accumulate(
    grads: list[Any], s_nV: Tensor, hidden_Nd: Tensor, weight_Vd: Tensor, rows: slice
) -> None:
    if grads[0] is not None:
        grads[0][rows] = s_nV @ weight_Vd
    if grads[1] is not None:
        grads[1].addmm_(s_nV.T, hidden_Nd[rows])
    if grads[2] is not None:
        grads[2] += s_nV.sum(0)


def fused_kd_loss(
    name: str,
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    uncertainty: Tensor | None = None,
    vocab_size: int | None = None,
    tile: int = TILE,
    **settings: Any,
) -> Tensor:
    """`kd_loss` from hidden states [N, d] and heads [V, d], targets [N]; a scalar in nats.

    `uncertainty` [N], where known, saves a product; `vocab_size` cuts head rows beyond the
    tokenizer. ValueError with the shapes on a mismatch.
    """
    check_name(name)
    student, teacher = (
        Head(weight[:vocab_size], None if bias is None else bias[:vocab_size])
        for weight, bias in ((student_head, student_bias), (teacher_head, teacher_bias))
    )
    keep = _supervised(student_hidden, student, teacher_hidden, teacher, targets, mask)
    if not bool(keep.any()):
        return student_hidden.sum() * 0.0 + student.weight.sum() * 0.0
    targets_N, theirs_Nd = targets[keep], teacher_hidden[keep].detach()
    teacher = Head(*(None if each is None else each.detach() for each in teacher))
    if uncertainty is None:
        uncertainty_N = fused_uncertainty(theirs_Nd, teacher, targets_N, tile)
    else:
        uncertainty_N = uncertainty[keep].detach()
    weights = token_weights(name, uncertainty_N, settings)
    return weighted_fused_loss(
        name, student_hidden[keep], student, theirs_Nd, teacher, targets_N, weights, settings, tile
    )


def _supervised(
    hidden: Tensor,
    student: Head,
    theirs: Tensor,
    teacher: Head,
    targets: Tensor,
    mask: Tensor | None,
) -> Tensor:
    found = [
        tuple(each.shape) for each in (hidden, student.weight, theirs, teacher.weight, targets)
    ]
    names = "student hidden, student head, teacher hidden, teacher head, targets"
    shapes = f"{names}: {', '.join(map(str, found))}; expected [N, d], [V, d], [N, e], [V, e], [N]"
    fits = len(hidden) == len(theirs) == len(targets) and len(student.weight) == len(teacher.weight)
    widths = (
        hidden.shape[-1] == student.weight.shape[1] and theirs.shape[-1] == teacher.weight.shape[1]
    )
    if not (fits and widths) or (mask is not None and mask.shape != targets.shape):
        raise ValueError(f"shapes do not match: {shapes}")
    keep = targets != IGNORE if mask is None else mask.bool()
    chosen = targets[keep]
    if bool(((chosen < 0) | (chosen >= len(student.weight))).any()):
        raise ValueError(f"a supervised target is outside the vocabulary ({shapes})")
    return keep
