"""Distillation losses on logits.

Every loss takes logits already aligned with targets (the caller has shifted) and works in log
space, in at least float32. `divergences` holds the mathematics of a token, `weighting` what each
token weighs; a loss is their weighted sum. Shapes: N tokens, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atkd.losses.divergences import (
    BETA,
    DIVERGENCES,
    divergence,
    diversity_term,
    floats,
    split_at_target,
    target_term,
    uncertainty,
)
from atkd.losses.weighting import Weights, token_weights

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
SPLIT = ("dkd", "atkd")
LOSSES = (*DIVERGENCES, *SPLIT)
SETTINGS = ("beta", "target_weight", "diversity_weight", "easy_weight", "hard_fraction", "split")
SETTINGS += ("divergence", "reverse", "threshold", "seed")


def split_divergence(settings: Mapping[str, Any]) -> str:
    """The divergence whose target and diversity terms a split loss weighs; forward KL by default.

    settings["reverse"] is short for the reverse KL (Reverse KD + ATKD); any other divergence gives
    the divergence-matched form. ValueError if it is unknown.
    """
    name = settings.get("divergence", "reverse_kl" if settings.get("reverse") else "forward_kl")
    if name not in DIVERGENCES:
        raise ValueError(f"divergence is {name!r}; expected one of {', '.join(DIVERGENCES)}")
    return name


def weighted_loss(
    name: str,
    student_NV: Tensor,
    teacher_NV: Tensor | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
) -> Tensor:
    """Sum over these tokens of weight x term: a piece of the step's loss, additive over pieces.

    name is `cross_entropy`, a divergence, `dkd` or `atkd`.
    """
    student_NV = floats(student_NV)
    if name == "cross_entropy":
        log_q_N = student_NV.log_softmax(1).gather(1, targets_N[:, None])[:, 0]
        return -(weights.target_N * log_q_N).sum()
    teacher_NV, beta = floats(teacher_NV).detach(), settings.get("beta", BETA)
    if name in DIVERGENCES:
        return (weights.target_N * divergence(name, student_NV, teacher_NV, beta)).sum()
    of = split_divergence(settings)
    q, p = split_at_target(student_NV, targets_N), split_at_target(teacher_NV, targets_N)
    target_N = target_term(of, q, p, beta)
    diversity_N = diversity_term(of, q, p, targets_N, beta)
    return (weights.target_N * target_N + weights.diversity_N * diversity_N).sum()


def kd_loss(
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Mean distillation loss over supervised tokens, scalar in nats (ATKD: eq. 5's weighted sum).

    Logits [..., V] aligned with targets [...]; mask [...] bool, True where supervised (None:
    targets != -100). Settings: `beta` (jsd); `target_weight`, `diversity_weight` (dkd); those of
    `atkd_loss` (atkd); `divergence`, the one that dkd and atkd split. Differentiable in the
    student's logits only. ValueError on a shape mismatch, an unknown name or setting, or a
    supervised target outside the vocabulary. No supervised token: a zero that keeps the graph.
    """
    check_loss(name, settings)
    keep = _supervised(student_logits, teacher_logits, targets, mask)
    student_NV, teacher_NV, targets_N = student_logits[keep], teacher_logits[keep], targets[keep]
    weights = token_weights(name, uncertainty(teacher_NV, targets_N), settings)
    return weighted_loss(name, student_NV, teacher_NV, targets_N, weights, settings)


def atkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    easy_weight: float = 0.2,
    hard_fraction: float = 0.5,
    split: str = "median",
    reverse: bool = False,
) -> Tensor:
    """ATKD (Zhong et al. 2024, eq. 5): lambda mean_easy(DKD) + (1 - lambda) mean_hard(TKD + DKD).

    Tokens are ranked by the teacher's uncertainty over all supervised tokens given. Shapes and
    errors as in `kd_loss`; an empty group contributes zero, the other keeps its weight.
    """
    settings = {"easy_weight": easy_weight, "hard_fraction": hard_fraction, "split": split}
    return kd_loss(
        "atkd", student_logits, teacher_logits, targets, mask, **settings, reverse=reverse
    )


def token_terms(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Per supervised token, in nats: tkd, dkd, forward_kl, and uncertainty in [0, 1], each [N]."""
    keep = _supervised(student_logits, teacher_logits, targets, mask)
    targets_N = targets[keep]
    p = split_at_target(floats(teacher_logits[keep]).detach(), targets_N)
    q = split_at_target(floats(student_logits[keep]), targets_N)
    terms = {"tkd": target_term("forward_kl", q, p)}
    terms["dkd"] = diversity_term("forward_kl", q, p, targets_N)
    terms["uncertainty"] = p.log_other_N.exp()
    return terms | {"forward_kl": terms["tkd"] + terms["uncertainty"] * terms["dkd"]}


def check_loss(name: str, settings: Mapping[str, Any]) -> None:
    """ValueError unless `name` is a loss and every setting is one of some loss."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; expected one of {', '.join(LOSSES)}")
    for each in settings:
        if each not in SETTINGS:
            raise ValueError(f"setting {each!r} is unknown; expected one of {', '.join(SETTINGS)}")
    split_divergence(settings)


def _supervised(student: Tensor, teacher: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    shapes += f", targets {tuple(targets.shape)}"
    if student.shape != teacher.shape or student.shape[:-1] != targets.shape:
        raise ValueError(f"shapes do not match: {shapes}; expected [..., V], [..., V], [...]")
    if student.shape[-1] < 2:
        raise ValueError(f"vocabulary has {student.shape[-1]} rows; expected at least 2 ({shapes})")
    if mask is not None and mask.shape != targets.shape:
        raise ValueError(f"mask {tuple(mask.shape)} does not match targets ({shapes})")
    keep = targets != IGNORE if mask is None else mask.bool()
    chosen = targets[keep]
    outside = (chosen < 0) | (chosen >= student.shape[-1])
    if bool(outside.any()):
        found = int(chosen[outside][0])
        raise ValueError(f"supervised target {found} is outside the vocabulary ({shapes})")
    return keep
