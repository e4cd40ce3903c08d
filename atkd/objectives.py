"""Distillation objectives: divergences, their target / non-target split, ATKD, the methods.

Every function takes logits already aligned with targets (the caller has shifted) and works in log
space, in at least float32. Notation per supervised token (Zhong et al., ACL 2024, section 2):
teacher p, student q, next token g of the training sequence, uncertainty u = 1 - p_g, v = 1 - q_g;
TKD is the binary KL between (p_g, u) and (q_g, v), DKD the KL between p and q renormalised without
g, so that KL(p||q) = TKD + u DKD exactly. Shapes: N tokens, V vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100


class Split(NamedTuple):
    """One distribution split at the target: log p_g [N], log u [N], log p of the rest [N, V].

    `log_rest_NV` is renormalised without g and holds 0 at g, where it is not used.
    """

    log_target_N: Tensor
    log_other_N: Tensor
    log_rest_NV: Tensor


class Weights(NamedTuple):
    """What multiplies each token's terms in the step's sum: target term [N], diversity term [N]."""

    target_N: Tensor
    diversity_N: Tensor


def split_at_target(logits_NV: Tensor, targets_N: Tensor) -> Split:
    """Splits softmax(logits) at the target without ever forming 1 - p_g."""
    index_N1 = targets_N[:, None]
    target_N = logits_NV.gather(1, index_N1)[:, 0]
    rest_NV = logits_NV.scatter(1, index_N1, float("-inf"))
    rest_N = rest_NV.logsumexp(1)
    total_N = logits_NV.logsumexp(1)
    log_rest_NV = (logits_NV - rest_N[:, None]).scatter(1, index_N1, 0.0)
    return Split(target_N - total_N, rest_N - total_N, log_rest_NV)


def target_term(p: Split, q: Split) -> Tensor:
    """TKD, binary KL between (p_g, 1 - p_g) and (q_g, 1 - q_g), in nats [N]."""
    on_target_N = p.log_target_N.exp() * (p.log_target_N - q.log_target_N)
    return on_target_N + p.log_other_N.exp() * (p.log_other_N - q.log_other_N)


def diversity_term(p: Split, q: Split, targets_N: Tensor) -> Tensor:
    """DKD, KL between p and q renormalised without the target, in nats [N]."""
    gap_NV = p.log_rest_NV.exp() * (p.log_rest_NV - q.log_rest_NV)
    return gap_NV.scatter(1, targets_N[:, None], 0.0).sum(1)


def uncertainty(teacher_logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """UNC = 1 - p_g of the teacher, in [0, 1] [N], exact also where p_g rounds to 1."""
    return split_at_target(_floats(teacher_logits_NV), targets_N).log_other_N.exp().detach()


def forward_kl(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """KL(p||q) in nats [N]."""
    log_q_NV, log_p_NV = student_NV.log_softmax(1), teacher_NV.log_softmax(1)
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(1)


def reverse_kl(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """KL(q||p) in nats [N]."""
    return forward_kl(teacher_NV, student_NV)


def jsd(student_NV: Tensor, teacher_NV: Tensor, beta: float = 0.5) -> Tensor:
    """Jensen-Shannon, beta KL(p||m) + (1 - beta) KL(q||m) with m = beta p + (1 - beta) q [N].

    In [0, H(beta)] nats, for 0 < beta < 1 (GKD, Agarwal et al. 2024).
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; expected a number in (0, 1)")
    log_q_NV, log_p_NV = student_NV.log_softmax(1), teacher_NV.log_softmax(1)
    log_m_NV = (log_p_NV + math.log(beta)).logaddexp(log_q_NV + math.log(1 - beta))
    from_teacher_NV = log_p_NV.exp() * (log_p_NV - log_m_NV)
    from_student_NV = log_q_NV.exp() * (log_q_NV - log_m_NV)
    return (beta * from_teacher_NV + (1 - beta) * from_student_NV).sum(1)


def tvd(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """Total variation, half the sum of |p - q|, in [0, 1] [N] (f-distill, Wen et al. 2023)."""
    return 0.5 * (student_NV.softmax(1) - teacher_NV.softmax(1)).abs().sum(1)


PURE = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd, "tvd": tvd}
SPLIT = ("dkd", "atkd")


def easy_tokens(uncertainty_M: Tensor, hard_fraction: float = 0.5, split: str = "median") -> Tensor:
    """Which tokens of the split's scope are easy, bool [M].

    `median`: easy if u is strictly below the value at position floor((1 - k)(M - 1)) of the
    ascending u (k = 0.5: the lower median, as in the official code). `topk`: the round(k M) most
    uncertain are hard, and a tie at the border is hard as a whole. `inverse` exchanges easy and
    hard of `median`: a control of the mechanism.
    """
    ordered_M, count = uncertainty_M.sort().values, uncertainty_M.numel()
    if split == "inverse":
        return ~easy_tokens(uncertainty_M, hard_fraction, "median")
    if split == "median":
        return uncertainty_M < ordered_M[int((1 - hard_fraction) * (count - 1))]
    if split == "topk":
        hard = round(hard_fraction * count)
        border = ordered_M[count - hard] if hard else float("inf")
        return uncertainty_M < border
    raise ValueError(f"split is {split!r}; expected 'median', 'topk' or 'inverse'")


def token_weights(name: str, uncertainty_M: Tensor, settings: Mapping[str, Any]) -> Weights:
    """Weights of all tokens of one scope; they depend on the teacher alone and carry no gradient.

    For ATKD (paper eq. 5) an empty group contributes zero and the other group keeps its weight.
    """
    count = uncertainty_M.numel()
    if name == "atkd":
        return _atkd_weights(uncertainty_M, settings)
    if name == "dkd":
        ones_M = uncertainty_M.new_ones(count) / max(count, 1)
        return Weights(
            ones_M * settings.get("target_weight", 0.2),
            ones_M * settings.get("diversity_weight", 1.0),
        )
    share_M = uncertainty_M.new_ones(count) / max(count, 1)
    return Weights(share_M, share_M * uncertainty_M)


def _atkd_weights(uncertainty_M: Tensor, settings: Mapping[str, Any]) -> Weights:
    easy_weight = _fraction("easy_weight", settings.get("easy_weight", 0.2))
    hard_fraction = _fraction("hard_fraction", settings.get("hard_fraction", 0.5))
    if not uncertainty_M.numel():
        return Weights(uncertainty_M, uncertainty_M)
    easy_M = easy_tokens(uncertainty_M, hard_fraction, settings.get("split", "median"))
    easy_M = easy_M.to(uncertainty_M.dtype)
    hard_M = 1 - easy_M
    target_M = hard_M * ((1 - easy_weight) / hard_M.sum().clamp(min=1))
    return Weights(target_M, target_M + easy_M * (easy_weight / easy_M.sum().clamp(min=1)))


def weighted_loss(
    name: str,
    student_NV: Tensor,
    teacher_NV: Tensor | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
) -> Tensor:
    """Sum over these tokens of weight x term: a piece of the step's loss, additive over pieces.

    name is `cross_entropy`, a key of PURE, `dkd` or `atkd`; with settings["reverse"] the split
    terms take the student as the first argument (Reverse KD + ATKD).
    """
    student_NV = _floats(student_NV)
    if name == "cross_entropy":
        log_q_N = student_NV.log_softmax(1).gather(1, targets_N[:, None])[:, 0]
        return -(weights.target_N * log_q_N).sum()
    teacher_NV = _floats(teacher_NV).detach()
    if name in PURE:
        options = {"beta": settings["beta"]} if "beta" in settings else {}
        return (weights.target_N * PURE[name](student_NV, teacher_NV, **options)).sum()
    p, q = split_at_target(teacher_NV, targets_N), split_at_target(student_NV, targets_N)
    if settings.get("reverse", False):
        p, q = q, p
    target_N, diversity_N = target_term(p, q), diversity_term(p, q, targets_N)
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
    targets != -100). Differentiable in the student's logits only. ValueError on a shape mismatch,
    an unknown name, or a supervised target outside the vocabulary. No supervised token: an exact
    zero that keeps the graph.
    """
    if name not in PURE and name not in SPLIT:
        raise ValueError(f"loss {name!r} is unknown; expected one of {[*PURE, *SPLIT]}")
    keep = _supervised(student_logits, teacher_logits, targets, mask)
    if not bool(keep.any()):
        return student_logits.sum() * 0.0
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
    p = split_at_target(_floats(teacher_logits[keep]).detach(), targets_N)
    q = split_at_target(_floats(student_logits[keep]), targets_N)
    terms = {"tkd": target_term(p, q), "dkd": diversity_term(p, q, targets_N)}
    terms["uncertainty"] = p.log_other_N.exp()
    return terms | {"forward_kl": terms["tkd"] + terms["uncertainty"] * terms["dkd"]}


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


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a number in [0, 1]")
    return value


def _floats(logits: Tensor) -> Tensor:
    import torch

    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Method:
    """One row: divergence x sequences x settings; no divergence: the student is not trained."""

    divergence: str | None
    sequences: str = "ground_truth"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's distribution enters the loss."""
        return self.divergence not in (None, "cross_entropy")


ATKD_SETTINGS = {"easy_weight": 0.2, "hard_fraction": 0.5, "split": "median", "scope": "batch"}

METHODS: dict[str, Method] = {
    "none": Method(None),
    "sft": Method("cross_entropy"),
    "supervised_kd": Method("forward_kl"),
    "supervised_kd_atkd": Method("atkd", settings=ATKD_SETTINGS | {"reverse": False}),
    "reverse_kd": Method("reverse_kl"),
    "reverse_kd_atkd": Method("atkd", settings=ATKD_SETTINGS | {"reverse": True}),
    "dkd": Method("dkd", settings={"target_weight": 0.2, "diversity_weight": 1.0}),
}
