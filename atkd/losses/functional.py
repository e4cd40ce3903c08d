"""Distillation losses on logits.

Every loss takes logits already aligned with targets (the caller has shifted) and works in log
space, in at least float32. `divergences` holds the mathematics of a token, `weighting` what each
token weighs; a loss is their weighted sum. Shapes: N tokens, V vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from atkd.losses.divergences import (
    DIVERGENCES,
    Divergence,
    floats,
    split_at_target,
    uncertainty,
)
from atkd.losses.weighting import WEIGHTINGS, Weighting, Weights, weighed

IGNORE = -100
CROSS_ENTROPY = "cross_entropy"  # the one loss without a teacher
SPLIT_BY = ("divergence", "reverse")  # settings that name what a split loss splits
Row = TypeVar("Row", Divergence, Weighting, "Softening")


@dataclass(frozen=True)
class Softening:
    """Both distributions at a temperature T, softmax(logits / T) (Hinton et al., 2015).

    `t_squared` multiplies the loss by T squared, which keeps its gradients' size. Uncertainty, by
    which tokens are ranked, stays that of the teacher itself, at T = 1.
    """

    temperature: float = 1.0
    t_squared: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")

    @property
    def factor(self) -> float:
        """What multiplies the loss."""
        return self.temperature**2 if self.t_squared else 1.0

    def soften(self, logits: Tensor) -> Tensor:
        """Logits at the temperature, or what logits are linear in."""
        return logits if self.temperature == 1 else logits / self.temperature


class Loss(NamedTuple):
    """What a loss's name and settings come to; without a divergence it is the cross-entropy."""

    divergence: Divergence | None
    weighting: Weighting
    softening: Softening = Softening()


def resolve(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss of a name under those of the settings that are its own.

    Args:
        name: `cross_entropy`, a divergence (its mean over tokens, or over some of them), or a
            weighting that splits one.
        settings: other names than its own are not looked at; `check_loss` refuses unknown ones.
    Raises:
        ValueError: an unknown name, or a setting out of its range.
    """
    if name == CROSS_ENTROPY:
        return Loss(None, WEIGHTINGS["mean"])
    softening = configured(Softening(), settings)
    if name in DIVERGENCES:
        mean = configured(WEIGHTINGS["mean"], settings)
        return Loss(configured(DIVERGENCES[name], settings), mean, softening)
    _check_name(name)
    weighting = configured(WEIGHTINGS[name], settings)
    return Loss(split_divergence(settings), weighting, softening)


def configured(row: Row, settings: Mapping[str, Any]) -> Row:
    """A registry's row with those of the settings that it has."""
    own = {each.name for each in fields(row)}
    return replace(row, **{name: value for name, value in settings.items() if name in own})


def split_divergence(settings: Mapping[str, Any]) -> Divergence:
    """The divergence whose target and diversity terms a split loss weighs; forward KL by default.

    settings["reverse"] is short for the reverse KL (Reverse KD + ATKD); any other divergence gives
    the divergence-matched form. ValueError if it is unknown.
    """
    name = settings.get("divergence", "reverse_kl" if settings.get("reverse") else "forward_kl")
    if name not in DIVERGENCES:
        raise ValueError(f"divergence is {name!r}; expected one of {', '.join(DIVERGENCES)}")
    return configured(DIVERGENCES[name], settings)


def loss_names() -> tuple[str, ...]:
    """The losses with a teacher: each divergence, each weighting that splits one."""
    return (*DIVERGENCES, *(name for name, row in WEIGHTINGS.items() if row.splits))


def setting_names() -> tuple[str, ...]:
    """The settings of all losses."""
    rows: list[Any] = [*DIVERGENCES.values(), *WEIGHTINGS.values(), Softening()]
    return (*dict.fromkeys(each.name for row in rows for each in fields(row)), *SPLIT_BY)


LOSSES, SETTINGS = loss_names(), setting_names()


def check_loss(name: str, settings: Mapping[str, Any]) -> Loss:
    """`resolve` that takes a loss with a teacher alone, and no setting that none of them has."""
    _check_name(name)
    for each in settings:
        if each not in setting_names():
            known = ", ".join(setting_names())
            raise ValueError(f"setting {each!r} is unknown; expected one of {known}")
    split_divergence(settings)
    return resolve(name, settings)


def _check_name(name: str) -> None:
    if name not in loss_names():
        raise ValueError(f"loss {name!r} is unknown; expected one of {', '.join(loss_names())}")


def weighted_loss(
    name: str,
    student_NV: Tensor,
    teacher_NV: Tensor | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
) -> Tensor:
    """Sum over these tokens of weight x term: a piece of the step's loss, additive over pieces.

    Args:
        name: see `resolve`.
        teacher_NV: None where the loss has no teacher; carries no gradient.
        weights: a weight [N] for each term.
        settings: see `resolve`.
    Shape:
        logits [N, V], targets [N].
    Returns:
        Scalar in nats, differentiable in the student's logits.
    Raises:
        ValueError: an unknown name, a setting out of its range, no teacher where one is needed.
    """
    divergence, weighting, softening = resolve(name, settings)
    student_NV = softening.soften(floats(student_NV))
    if divergence is None:
        log_q_N = student_NV.log_softmax(1).gather(1, targets_N[:, None])[:, 0]
        return -weighed(weights.target_N, log_q_N).sum()
    if teacher_NV is None:
        raise ValueError(f"loss {name!r} compares with a teacher; found no logits of one")
    teacher_NV = softening.soften(floats(teacher_NV).detach())
    weights = weights * softening.factor
    if not weighting.splits:
        return weighed(weights.target_N, divergence.whole(student_NV, teacher_NV)).sum()
    q, p = split_at_target(student_NV, targets_N), split_at_target(teacher_NV, targets_N)
    target_N, diversity_N = divergence.target_term(q, p), divergence.diversity_term(q, p, targets_N)
    target_N = weighed(weights.target_N, target_N)
    return (target_N + weighed(weights.diversity_N, diversity_N)).sum()


def kd_loss(
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Mean distillation loss over supervised tokens (ATKD: its weighted sum of two means).

    Args:
        name: a divergence (`forward_kl`, `reverse_kl`, `jsd`, `tvd`, `kl_mixture`), `dkd` or
            `atkd`.
        student_logits, teacher_logits: unnormalised, aligned with the targets.
        targets: the next token at each position; -100 is not supervised unless a mask is given.
        mask: True where supervised; None: targets != -100.
        settings: `beta` (jsd); `target_weight`, `diversity_weight`, `suppressed` (dkd);
            `easy_weight`, `hard_fraction`, `split`, `threshold`, `seed` (atkd); `divergence`, the
            one that dkd and atkd split, or `reverse`, short for the reverse KL; `tokens`, `easy`
            or `hard` for the mean over those alone, by `hard_fraction` (all but atkd);
            `temperature`, `t_squared` (all).
    Shape:
        logits [..., V], targets and mask [...].
    Returns:
        Scalar in nats, differentiable in the student's logits alone. No supervised token: a zero
        that keeps the graph.
    Raises:
        ValueError: shapes that do not match, an unknown name or setting, a setting out of range, a
            supervised target outside the vocabulary.
    Source:
        Zhong et al., ACL 2024, section 2 and eq. 5; the divergences' own in `divergences`.
    """
    weighting = check_loss(name, settings).weighting
    keep = _supervised(student_logits, teacher_logits, targets, mask)
    student_NV, teacher_NV, targets_N = student_logits[keep], teacher_logits[keep], targets[keep]
    weights = weighting.weights(uncertainty(teacher_NV, targets_N))
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
    """ATKD: easy_weight mean_easy(DKD) + (1 - easy_weight) mean_hard(TKD + DKD).

    Args:
        easy_weight: lambda of the paper, in [0, 1].
        hard_fraction: k, the share of tokens that are hard, in [0, 1].
        split: how the teacher's uncertainty, over all supervised tokens given, parts easy from
            hard: `median`, `topk`, or the controls `random` and `inverse`.
        reverse: student first in both terms.
    Shape:
        as in `kd_loss`.
    Returns:
        Scalar in nats; an empty group contributes zero, the other keeps its weight.
    Raises:
        ValueError: as in `kd_loss`.
    Source:
        Zhong et al., ACL 2024, eq. 5.
    """
    settings = {"easy_weight": easy_weight, "hard_fraction": hard_fraction, "split": split}
    return kd_loss(
        "atkd", student_logits, teacher_logits, targets, mask, **settings, reverse=reverse
    )


def token_terms(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """The forward KL of each supervised token and its parts.

    Shape:
        logits [..., V], targets and mask [...].
    Returns:
        `tkd`, `dkd` and `forward_kl` = tkd + uncertainty x dkd in nats, `uncertainty` in [0, 1],
        each [N].
    Raises:
        ValueError: as in `kd_loss`.
    Source:
        Zhong et al., ACL 2024, section 2.
    """
    keep = _supervised(student_logits, teacher_logits, targets, mask)
    targets_N = targets[keep]
    p = split_at_target(floats(teacher_logits[keep]).detach(), targets_N)
    q = split_at_target(floats(student_logits[keep]), targets_N)
    forward = DIVERGENCES["forward_kl"]
    tkd_N, dkd_N = forward.target_term(q, p), forward.diversity_term(q, p, targets_N)
    u_N = p.log_other_N.exp()
    whole_N = tkd_N + weighed(u_N, dkd_N)
    return {"tkd": tkd_N, "dkd": dkd_N, "uncertainty": u_N, "forward_kl": whole_N}


def check_targets(chosen: Tensor, vocabulary: int, shapes: str) -> None:
    """ValueError naming the first supervised target that is outside the vocabulary."""
    outside = chosen[(chosen < 0) | (chosen >= vocabulary)]
    if len(outside):
        raise ValueError(
            f"supervised target {int(outside[0])} is outside the vocabulary of {vocabulary} "
            f"({shapes})"
        )


def supervised(targets: Tensor, mask: Tensor | None) -> Tensor:
    """Which positions are supervised, bool [...]."""
    return targets != IGNORE if mask is None else mask.bool()


def _supervised(student: Tensor, teacher: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    shapes += f", targets {tuple(targets.shape)}"
    if student.shape != teacher.shape or student.shape[:-1] != targets.shape:
        raise ValueError(f"shapes do not match: {shapes}; expected [..., V], [..., V], [...]")
    if student.shape[-1] < 2:
        raise ValueError(f"vocabulary has {student.shape[-1]} rows; expected at least 2 ({shapes})")
    if mask is not None and mask.shape != targets.shape:
        raise ValueError(f"mask {tuple(mask.shape)} does not match targets ({shapes})")
    keep = supervised(targets, mask)
    check_targets(targets[keep], student.shape[-1], shapes)
    return keep
