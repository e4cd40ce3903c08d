"""The losses of `objectives` from hidden states and heads, without the logits of all tokens.

Same value and gradients as the plain form, which defines the mathematics; `kernels` has the closed
forms and `sweep` the loop over tiles of tokens. Shapes: N tokens, V vocabulary rows, d and e the
widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atkd.objectives import IGNORE, check_name
from atkd.products import Head, sum_dtype
from atkd.sweep import Targets, Task, fused_loss, teacher_targets
from atkd.weighting import Weights, token_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Head", "Targets", "fused_kd_loss", "fused_targets", "fused_uncertainty"]
__all__ += ["weighted_fused_loss"]


def fused_targets(
    hidden_Nd: Tensor,
    head: Head,
    targets_N: Tensor,
    tile: int | None = None,
    *,
    products: str | None = None,
) -> Targets:
    """Uncertainty and log-normaliser of every token by one product, tile by tile; no gradient."""
    import torch

    every_N = torch.arange(len(targets_N), device=targets_N.device)
    return teacher_targets(hidden_Nd, head, targets_N, every_N, tile, products)


def fused_uncertainty(
    hidden_Nd: Tensor, head: Head, targets_N: Tensor, tile: int | None = None
) -> Tensor:
    """UNC = 1 - p_g [N] by one product, tile by tile; no gradient."""
    return fused_targets(hidden_Nd, head, targets_N, tile).uncertainty


def weighted_fused_loss(
    name: str,
    student_hidden_Nd: Tensor,
    student: Head,
    teacher_hidden_Nd: Tensor | None,
    teacher: Head | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
    tile: int | None = None,
    *,
    log_normaliser: Tensor | None = None,
    products: str | None = None,
) -> Tensor:
    """`objectives.weighted_loss` without its logits; differentiable in the student alone.

    `log_normaliser` [N], where known, is that of `Targets`; the rest as in `fused_kd_loss`.
    """
    import torch

    every_N = torch.arange(len(targets_N), device=targets_N.device)
    task = Task(
        name=name,
        settings=settings,
        targets_M=targets_N,
        rows_M=every_N,
        hidden_Nd=teacher_hidden_Nd,
        teacher=teacher,
        weights=weights,
        log_normaliser_M=log_normaliser,
        tile=tile,
        products=products,
    )
    return fused_loss(task, student_hidden_Nd, student)


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
    log_normaliser: Tensor | None = None,
    vocab_size: int | None = None,
    tile: int | None = None,
    products: str | None = None,
    **settings: Any,
) -> Tensor:
    """`kd_loss` from hidden states [N, d], [N, e] and heads [V, d], [V, e], targets [N]; in nats.

    `uncertainty` and `log_normaliser` [N], where known, are those of `fused_targets`. `vocab_size`
    cuts head rows beyond the tokenizer. `tile`: tokens whose logits exist at a time, by default as
    many as fit 120 MB on a CPU and 1 GiB on a GPU. `products`: "float32" leaves operands in their
    own dtype, "bfloat16" rounds them and keeps float32 sums, None is "bfloat16" under bfloat16
    autocast. Settings as in `kd_loss`. ValueError with the shapes on a mismatch. Gradients are
    formed along with the value; a second backward pass forms them anew.
    """
    check_name(name)
    student = Head(student_head, student_bias).cut(vocab_size)
    teacher = Head(teacher_head, teacher_bias).cut(vocab_size)
    keep = _supervised(student_hidden, student, teacher_hidden, teacher, targets, mask)
    rows_M = keep.nonzero()[:, 0]
    if not len(rows_M):
        return student_hidden.sum() * 0.0 + student.weight.sum() * 0.0
    given = (uncertainty, log_normaliser)
    known_M, rest_M = (each if each is None else each[rows_M].detach() for each in given)
    if known_M is None and name == "atkd" and settings.get("threshold") is not None:
        ends = (teacher_hidden, teacher, targets[rows_M], rows_M)
        known_M, rest_M = teacher_targets(*ends, tile, products)
    task = Task(
        name=name,
        settings=settings,
        targets_M=targets[rows_M],
        rows_M=rows_M,
        hidden_Nd=teacher_hidden,
        teacher=teacher,
        weights=_weights(name, settings, known_M, student_hidden, rows_M),
        log_normaliser_M=rest_M,
        tile=tile,
        products=products,
    )
    return fused_loss(task, student_hidden, student)


def _weights(
    name: str,
    settings: Mapping[str, Any],
    known_M: Tensor | None,
    like: Tensor,
    rows_M: Tensor,
) -> Weights | None:
    """The tokens' weights, unless they rank an uncertainty that is yet to be found."""
    if known_M is None and name == "atkd" and settings.get("split") != "random":
        return None
    blind = known_M is None
    return token_weights(
        name, like.new_zeros(len(rows_M), dtype=sum_dtype(like)) if blind else known_M, settings
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
