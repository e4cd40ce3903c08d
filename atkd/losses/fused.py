"""The losses of `objectives` from hidden states and heads, without the logits of all tokens.

Same value and gradients as the plain form, which defines the mathematics; `kernels` has the closed
forms and `sweep` the loop over tiles of tokens. Shapes: N tokens, V vocabulary rows, d and e the
widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atkd.losses.functional import IGNORE, check_loss
from atkd.losses.matmul import Head, sum_dtype
from atkd.losses.sweep import Targets, Task, fused_loss, teacher_targets
from atkd.losses.weighting import Weights, token_weights

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
    check_loss(name, settings)
    student, teacher = Head(student_head, student_bias), Head(teacher_head, teacher_bias)
    given = (uncertainty, log_normaliser)
    _check_shapes(student_hidden, student, teacher_hidden, teacher, targets, (mask, *given))
    _check_sizes(len(student_head), vocab_size, tile)
    student, teacher = student.cut(vocab_size), teacher.cut(vocab_size)
    rows_M = _supervised(targets, mask, len(student.weight)).nonzero()[:, 0]
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
    ranked = name == "atkd" and settings.get("split") != "random"
    if known_M is None and ranked and len(rows_M):
        return None
    blind = known_M is None
    return token_weights(
        name, like.new_zeros(len(rows_M), dtype=sum_dtype(like)) if blind else known_M, settings
    )


def _check_shapes(
    hidden: Tensor,
    student: Head,
    theirs: Tensor,
    teacher: Head,
    targets: Tensor,
    per_token: tuple[Tensor | None, ...],
) -> None:
    count, rows = hidden.shape[:1], student.weight.shape[:1]
    mask, uncertainty, log_normaliser = per_token
    wanted = {
        "student hidden": (hidden, (*count, *hidden.shape[-1:])),
        "student head": (student.weight, (*rows, *hidden.shape[-1:])),
        "teacher hidden": (theirs, (*count, *theirs.shape[-1:])),
        "teacher head": (teacher.weight, (*rows, *theirs.shape[-1:])),
        "targets": (targets, count),
        "student bias": (student.bias, rows),
        "teacher bias": (teacher.bias, rows),
        "mask": (mask, count),
        "uncertainty": (uncertainty, count),
        "log_normaliser": (log_normaliser, count),
    }
    given = {name: ends for name, ends in wanted.items() if ends[0] is not None}
    if any(tensor.shape != shape for tensor, shape in given.values()):
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, (tensor, _) in given.items())
        raise ValueError(
            f"shapes do not match: {shown}; expected hidden [N, d] and [N, e], heads [V, d] and "
            "[V, e], biases [V], all others [N]"
        )


def _check_sizes(rows: int, vocab_size: int | None, tile: int | None) -> None:
    if not 2 <= (rows if vocab_size is None else vocab_size) <= rows:
        raise ValueError(
            f"vocab_size is {vocab_size}, heads have {rows} rows; expected 2 to {max(rows, 2)}"
        )
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}; expected at least 1 token")


def _supervised(targets: Tensor, mask: Tensor | None, vocabulary: int) -> Tensor:
    keep = targets != IGNORE if mask is None else mask.bool()
    chosen = targets[keep]
    strange = chosen[(chosen < 0) | (chosen >= vocabulary)]
    if len(strange):
        raise ValueError(
            f"supervised target {int(strange[0])} is outside the vocabulary of {vocabulary} "
            f"(targets {tuple(targets.shape)})"
        )
    return keep
