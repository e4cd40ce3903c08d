"""Divergences of next-token distributions, and their split at the target; all in log space.

Each divergence is defined once, as its summand over outcomes, and serves whole distributions, the
binary pair (target, anything else) and the rest renormalised without the target. Notation per
supervised token (Zhong et al., ACL 2024, section 2): teacher p, student q, next token g of the
training sequence, uncertainty u = 1 - p_g, v = 1 - q_g. With the forward KL, TKD is the divergence
of the binary pairs and DKD that of the rests, so that KL(p||q) = TKD + u DKD exactly. Shapes: N
tokens, V vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

BETA = 0.5  # weight of the teacher in the Jensen-Shannon mixture
FORWARD_SHARE = 0.9  # of the released code's stand-in for the Jensen-Shannon divergence


class Split(NamedTuple):
    """One distribution split at the target: log p_g [N], log u [N], log p of the rest [N, V].

    `log_rest_NV` is renormalised without g and holds 0 at g, where it is not used.
    """

    log_target_N: Tensor
    log_other_N: Tensor
    log_rest_NV: Tensor


def split_at_target(logits_NV: Tensor, targets_N: Tensor) -> Split:
    """Splits softmax(logits) at the target without ever forming 1 - p_g."""
    index_N1 = targets_N[:, None]
    target_N = logits_NV.gather(1, index_N1)[:, 0]
    rest_N = logits_NV.scatter(1, index_N1, float("-inf")).logsumexp(1)
    total_N = rest_N.logaddexp(target_N)
    log_rest_NV = (logits_NV - rest_N[:, None]).scatter(1, index_N1, 0.0)
    return Split(target_N - total_N, rest_N - total_N, log_rest_NV)


def uncertainty(teacher_logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """UNC = 1 - p_g of the teacher, in [0, 1] [N], exact also where p_g rounds to 1."""
    return split_at_target(floats(teacher_logits_NV), targets_N).log_other_N.exp().detach()


def forward_kl(log_q: Tensor, log_p: Tensor, beta: float = BETA) -> Tensor:
    """Summand of KL(p||q), teacher first."""
    return log_p.exp() * (log_p - log_q)


def reverse_kl(log_q: Tensor, log_p: Tensor, beta: float = BETA) -> Tensor:
    """Summand of KL(q||p), student first."""
    return forward_kl(log_p, log_q)


def jsd(log_q: Tensor, log_p: Tensor, beta: float = BETA) -> Tensor:
    """Summand of beta KL(p||m) + (1 - beta) KL(q||m), m = beta p + (1 - beta) q.

    The sum lies in [0, H(beta)] nats for 0 < beta < 1 (GKD, Agarwal et al. 2024).
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; expected a number in (0, 1)")
    log_m = (log_p + math.log(beta)).logaddexp(log_q + math.log(1 - beta))
    return beta * forward_kl(log_m, log_p) + (1 - beta) * forward_kl(log_m, log_q)


def tvd(log_q: Tensor, log_p: Tensor, beta: float = BETA) -> Tensor:
    """Summand of the total variation, half of |p - q|; the sum lies in [0, 1] (Wen et al. 2023)."""
    return 0.5 * (log_q.exp() - log_p.exp()).abs()


def kl_mixture(log_q: Tensor, log_p: Tensor, beta: float = BETA) -> Tensor:
    """Summand of 0.9 KL(p||q) + 0.1 KL(q||p), which the released code calls JSD."""
    forward = FORWARD_SHARE * forward_kl(log_q, log_p)
    return forward + (1 - FORWARD_SHARE) * reverse_kl(log_q, log_p)


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    each.__name__: each for each in (forward_kl, reverse_kl, jsd, tvd, kl_mixture)
}


def divergence(name: str, student_NV: Tensor, teacher_NV: Tensor, beta: float = BETA) -> Tensor:
    """The named divergence of two sets of logits in nats (tvd: a probability) [N]."""
    return DIVERGENCES[name](student_NV.log_softmax(1), teacher_NV.log_softmax(1), beta).sum(1)


def target_term(name: str, q: Split, p: Split, beta: float = BETA) -> Tensor:
    """TKD: the divergence between (p_g, 1 - p_g) and (q_g, 1 - q_g) [N]."""
    on_target_N = DIVERGENCES[name](q.log_target_N, p.log_target_N, beta)
    return on_target_N + DIVERGENCES[name](q.log_other_N, p.log_other_N, beta)


def diversity_term(name: str, q: Split, p: Split, targets_N: Tensor, beta: float = BETA) -> Tensor:
    """DKD: the divergence between p and q renormalised without the target [N]."""
    summand_NV = DIVERGENCES[name](q.log_rest_NV, p.log_rest_NV, beta)
    return summand_NV.scatter(1, targets_N[:, None], 0.0).sum(1)


def floats(logits: Tensor) -> Tensor:
    """The same in at least float32."""
    import torch

    return logits if logits.dtype == torch.float64 else logits.float()
