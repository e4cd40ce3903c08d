"""Closed forms on a tile of logits: each token's loss, and its gradient in place of the logits.

The divergences themselves are those of `divergences`; this module adds their derivatives. With
h_j = q_j dD/dq_j, the pull of outcome j (up to a multiple of q_j, which cancels), the gradient of
D in the logits of q is h_j - q_j sum(h). A split loss a TKD + b DKD has on the binary pair
G = v h_g - q_g h_other and therefore the gradient a G at the target g, and elsewhere
b (h^_j - q^_j sum(h^)) - a G q^_j, with h^ and q^ renormalised without g. The pulls of the reverse
KL are its summands. Shapes: n rows of a tile, V vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.losses.divergences import BETA, DIVERGENCES, FORWARD_SHARE
from atkd.losses.functional import SPLIT, split_divergence
from atkd.losses.weighting import Weights

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Callable[["Tensor", "Tensor | None", "Tensor", "Tensor | None", Weights], "Tensor"]


class Pair(NamedTuple):
    """A distribution seen from its target, each [n]: log p_g, log (1 - p_g), log-sum of the rest.

    The last is the log-sum-exp of all logits but the target's.
    """

    log_target_n: Tensor
    log_other_n: Tensor
    rest_n: Tensor

    def stacked(self) -> Tensor:
        """Log probabilities of (target, anything else) [n, 2]."""
        import torch

        return torch.stack((self.log_target_n, self.log_other_n), 1)


def pair(target_n: Tensor, rest_n: Tensor) -> Pair:
    """From the target's logit and the log-sum-exp of the others, never through 1 - p_g."""
    total_n = rest_n.logaddexp(target_n)
    return Pair(target_n - total_n, rest_n - total_n, rest_n)


def rest_of(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """Log-sum-exp of every logit but the target's [n]; leaves the logits as they are."""
    target_n1 = logits_nV.gather(1, index_n1)
    rest_n = logits_nV.scatter_(1, index_n1, -math.inf).logsumexp(1)
    logits_nV.scatter_(1, index_n1, target_n1)
    return rest_n


def softmax_(logits_nV: Tensor) -> Tensor:
    """Softmax in place; returns the log-sum-exp [n] without another pass of exponentials."""
    import torch

    top_n = logits_nV.amax(1)
    if logits_nV.is_cpu:  # row by row, so that source and result may be the same
        torch.softmax(logits_nV, 1, out=logits_nV)
    else:
        logits_nV.copy_(logits_nV.softmax(1))
    return top_n - logits_nV.amax(1).log()


def _forward_pull(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    return -log_p.exp()


def _reverse_pull(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    return log_q.exp().mul_(log_q - log_p)


def _jsd_pull(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    log_m = (log_p + math.log(beta)).logaddexp(log_q + math.log(1 - beta))
    return log_q.exp().mul_(log_m.sub_(log_q)).mul_(beta - 1)


def _tvd_pull(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    q = log_q.exp()
    return q.mul_((q - log_p.exp()).sign_().mul_(0.5))


def _mixture_pull(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    reverse = _reverse_pull(log_q, log_p, beta).mul_(1 - FORWARD_SHARE)
    return reverse.sub_(log_p.exp(), alpha=FORWARD_SHARE)


PULLS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": _forward_pull,
    "reverse_kl": _reverse_pull,
    "jsd": _jsd_pull,
    "tvd": _tvd_pull,
    "kl_mixture": _mixture_pull,
}


def whole(
    name: str,
    beta: float,
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor,
    weights: Weights,
) -> Tensor:
    """a D(p, q) per token [n]; the gradient in the student's logits is left in `s_nV`."""
    a_n = weights.target_N
    p = pair(t_nV.gather(1, index_n1)[:, 0], rest_n)
    log_q_nV = s_nV.sub_(s_nV.logsumexp(1, keepdim=True))
    log_p_nV = t_nV.sub_((rest_n - p.log_other_n)[:, None])
    pull_nV = PULLS[name](log_q_nV, log_p_nV, beta)
    total_n = pull_nV.sum(1)
    value_n = total_n
    if name != "reverse_kl":
        value_n = DIVERGENCES[name](log_q_nV, log_p_nV, beta).sum(1)
    log_q_nV.exp_().mul_((-a_n * total_n)[:, None]).addcmul_(pull_nV, a_n[:, None])
    return a_n * value_n


def split(
    name: str,
    beta: float,
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor,
    weights: Weights,
) -> Tensor:
    """a TKD + b DKD per token [n] of any divergence; the gradient is left in `s_nV`."""
    a_n, b_n = weights
    q = pair(s_nV.gather(1, index_n1)[:, 0], rest_of(s_nV, index_n1))
    p = pair(t_nV.gather(1, index_n1)[:, 0], rest_n)
    log_q_nV = s_nV.sub_(q.rest_n[:, None]).scatter_(1, index_n1, 0.0)
    log_p_nV = t_nV.sub_(p.rest_n[:, None]).scatter_(1, index_n1, 0.0)
    pull_nV = PULLS[name](log_q_nV, log_p_nV, beta).scatter_(1, index_n1, 0.0)
    diversity_n = total_n = pull_nV.sum(1)
    if name != "reverse_kl":
        summand_nV = DIVERGENCES[name](log_q_nV, log_p_nV, beta)
        diversity_n = summand_nV.scatter_(1, index_n1, 0.0).sum(1)
    target_n, slope_n = _on_the_pair(name, beta, q, p)
    log_q_nV.exp_().mul_((-b_n * total_n - a_n * slope_n)[:, None])
    log_q_nV.addcmul_(pull_nV, b_n[:, None]).scatter_(1, index_n1, (a_n * slope_n)[:, None])
    return a_n * target_n + b_n * diversity_n


def forward_split(
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor,
    weights: Weights,
    *,
    undivided: bool = False,
) -> Tensor:
    """`split` of the forward KL with one exponential per logit; `undivided`: b = a u, KL(p||q).

    DKD = sum of p^_j (t_j - s_j), less the teacher's log-sum of the rest, plus the student's. All
    are taken from the rest's largest logit, lest what logits share costs digits of a difference;
    `rest_n` is found that way too and not looked at.
    """
    target_s_n, target_t_n = (_from_the_top(each, index_n1) for each in (s_nV, t_nV))
    gap_nV = (t_nV - s_nV).scatter_(1, index_n1, 0.0)
    p, q = pair(target_t_n, softmax_(t_nV)), pair(target_s_n, softmax_(s_nV))
    a_n, b_n = weights
    b_n = a_n * p.log_other_n.exp() if undivided else b_n
    mean_n = gap_nV.mul_(t_nV).sum(1) / t_nV.sum(1)  # whose sum is 1 to a few roundings only
    diversity_n = mean_n - p.rest_n + q.rest_n
    target_n, slope_n = _on_the_pair("forward_kl", BETA, q, p)
    s_nV.mul_((b_n - a_n * slope_n)[:, None]).addcmul_(t_nV, b_n[:, None], value=-1)
    s_nV.scatter_(1, index_n1, (a_n * slope_n)[:, None])
    return a_n * target_n + b_n * diversity_n


def _from_the_top(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """Takes the rest's largest from all logits; the target's [n] is returned, -inf in its place."""
    target_n1 = logits_nV.gather(1, index_n1)
    top_n1 = logits_nV.scatter_(1, index_n1, -math.inf).amax(1, keepdim=True)
    logits_nV.sub_(top_n1)
    return (target_n1 - top_n1)[:, 0]


def _on_the_pair(name: str, beta: float, q: Pair, p: Pair) -> tuple[Tensor, Tensor]:
    """TKD [n] and its derivative in the target's logit [n]."""
    log_q_n2, log_p_n2 = q.stacked(), p.stacked()
    pull_n2, q_n2 = PULLS[name](log_q_n2, log_p_n2, beta), log_q_n2.exp()
    slope_n = q_n2[:, 1] * pull_n2[:, 0] - q_n2[:, 0] * pull_n2[:, 1]
    return DIVERGENCES[name](log_q_n2, log_p_n2, beta).sum(1), slope_n


def cross_entropy(
    s_nV: Tensor, t_nV: Any, index_n1: Tensor, rest_n: Any, weights: Weights
) -> Tensor:
    """-a log q_g per token [n]; leaves a (q - onehot) in `s_nV`."""
    a_n = weights.target_N
    target_n = s_nV.gather(1, index_n1)[:, 0]
    total_n = softmax_(s_nV)
    s_nV.mul_(a_n[:, None]).scatter_add_(1, index_n1, -a_n[:, None])
    return a_n * (total_n - target_n)


def needs_rest(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the kernel takes the teacher's log-sum of the rest, or finds it on its way."""
    whole_or_split = split_divergence(settings) if name in SPLIT else name
    return whole_or_split not in ("forward_kl", "cross_entropy")


def kernel_of(name: str, settings: Mapping[str, Any]) -> Kernel:
    """(student tile, teacher tile, targets [n, 1], teacher's rest [n], weights) -> losses [n].

    Both tiles are overwritten, the student's by the gradient.
    """
    beta = settings.get("beta", BETA)
    if name == "cross_entropy":
        return cross_entropy
    if name not in SPLIT:
        return (
            partial(forward_split, undivided=True)
            if name == "forward_kl"
            else (partial(whole, name, beta))
        )
    of = split_divergence(settings)
    return forward_split if of == "forward_kl" else partial(split, of, beta)
