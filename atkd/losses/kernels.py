"""Closed forms on a tile of logits: each token's loss, and its gradient in place of the logits.

With h_j = q_j dD/dq_j, the pull of outcome j in a divergence (see `Divergence.pull`), the gradient
of D in the logits of q is h_j - q_j sum(h). A split loss a TKD + b DKD has on the binary pair
G = v h_g - q_g h_other and therefore the gradient a G at the target g, and elsewhere
b (h^_j - q^_j sum(h^)) - a G q^_j, with h^ and q^ renormalised without g. Shapes: n rows of a tile,
V vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from atkd.losses.divergences import Divergence, OfProbabilities
from atkd.losses.weighting import Weights, weighed

# (student tile, teacher tile, targets [n, 1], teacher's rest [n], weights) -> losses [n]; both
# tiles are overwritten, the student's by the gradient.
Kernel = Callable[..., Tensor]
Weigh = Callable[[Tensor], Weights]  # of the teacher's uncertainty [n], as the kernel finds it


class Pair(NamedTuple):
    """A distribution seen from its target, each [n]: log p_g, log (1 - p_g), log-sum of the rest.

    The last is the log-sum-exp of all logits but the target's.
    """

    log_target_n: Tensor
    log_other_n: Tensor
    rest_n: Tensor

    def stacked(self) -> Tensor:
        """Log probabilities of (target, anything else) [n, 2]."""
        return torch.stack((self.log_target_n, self.log_other_n), 1)


def pair(target_n: Tensor, rest_n: Tensor) -> Pair:
    """From the target's logit and the log-sum-exp of the others, never through 1 - p_g."""
    odds_n = target_n - rest_n
    return Pair(logsigmoid(odds_n), logsigmoid(-odds_n), rest_n)


def _weights_of(weights: Weights | Weigh, teacher: Pair) -> Weights:
    return weights(teacher.log_other_n.exp()) if callable(weights) else weights


def rest_of(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """Log-sum-exp of every logit but the target's [n]; leaves the logits as they are."""
    target_n1 = logits_nV.gather(1, index_n1)
    rest_n = logits_nV.scatter_(1, index_n1, -math.inf).logsumexp(1)
    logits_nV.scatter_(1, index_n1, target_n1)
    return rest_n


def renormalised_(logits_nV: Tensor, rest_n: Tensor, index_n1: Tensor) -> Tensor:
    """Log probabilities of the rest in place, 0 at the target; a rest without mass stays -inf."""
    shift_n = rest_n.masked_fill(rest_n == -math.inf, 0.0)
    return logits_nV.sub_(shift_n[:, None]).scatter_(1, index_n1, 0.0)


def normalised_(softmax: Callable[..., Tensor], logits_nV: Tensor) -> Tensor:
    """`torch.softmax` or `torch.log_softmax` in place."""
    if logits_nV.is_cpu:  # row by row, so that source and result may be the same
        return softmax(logits_nV, 1, out=logits_nV)
    return logits_nV.copy_(softmax(logits_nV, 1))


def softmax_(logits_nV: Tensor) -> Tensor:
    """Softmax in place; returns the log-sum-exp [n] without another pass of exponentials.

    A row of -inf alone has no mass: it becomes zeros.
    """
    top_n = logits_nV.amax(1)
    if (empty_n := top_n == -math.inf).any():
        return _softmax_with_empty_rows(logits_nV, empty_n)
    normalised_(torch.softmax, logits_nV)
    return top_n - logits_nV.amax(1).log()


def _softmax_with_empty_rows(logits_nV: Tensor, empty_n: Tensor) -> Tensor:
    logits_nV[empty_n] = 0.0
    total_n = softmax_(logits_nV)
    logits_nV[empty_n] = 0.0
    return total_n.masked_fill_(empty_n, -math.inf)


def whole(
    divergence: Divergence,
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor | None,
    weights: Weights,
) -> Tensor:
    """a D(p, q) per token [n]; the gradient in the student's logits is left in `s_nV`.

    The teacher's log-sum of the rest spares a pass over its logits where it is known.
    """
    a_n = weights.target_N
    q_nV, summand_nV, pull_nV = _outcomes_(divergence, s_nV, t_nV, index_n1, rest_n)
    value_n, pulled_n = summand_nV.sum(1), pull_nV.sum(1)
    torch.mul(q_nV, (-a_n * pulled_n)[:, None], out=s_nV).addcmul_(pull_nV, a_n[:, None])
    return weighed(a_n, value_n)


def _outcomes_(
    divergence: Divergence, s_nV: Tensor, t_nV: Tensor, index_n1: Tensor, rest_n: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """q, summand and pull [n, V] of each outcome."""
    if isinstance(divergence, OfProbabilities):
        q_nV, p_nV = normalised_(torch.softmax, s_nV), normalised_(torch.softmax, t_nV)
        return q_nV, *divergence.of_probabilities(q_nV, p_nV)
    log_q_nV = normalised_(torch.log_softmax, s_nV)
    if rest_n is None:
        log_p_nV = normalised_(torch.log_softmax, t_nV)
    else:
        target_n = t_nV.gather(1, index_n1)[:, 0]
        log_p_nV = t_nV.sub_(rest_n.logaddexp(target_n)[:, None])
    q_nV = log_q_nV.exp()
    return q_nV, *divergence.both(log_q_nV, log_p_nV, q_nV)


def split(
    divergence: Divergence,
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor,
    weights: Weights | Weigh,
) -> Tensor:
    """a TKD + b DKD per token [n] of any divergence; the gradient is left in `s_nV`."""
    q = pair(s_nV.gather(1, index_n1)[:, 0], rest_of(s_nV, index_n1))
    p = pair(t_nV.gather(1, index_n1)[:, 0], rest_n)
    weights = _weights_of(weights, p)
    a_n, b_n = weights.target_N, weights.diversity_N
    log_q_nV = renormalised_(s_nV, q.rest_n, index_n1)
    log_p_nV = renormalised_(t_nV, p.rest_n, index_n1)
    q_nV = log_q_nV.exp()
    summand_nV, pull_nV = divergence.both(log_q_nV, log_p_nV, q_nV)
    diversity_n = summand_nV.scatter_(1, index_n1, 0.0).sum(1)
    pulled_n = pull_nV.scatter_(1, index_n1, 0.0).sum(1)
    target_n, slope_n = _on_the_pair(divergence, q, p)
    on_target_n = weighed(a_n, slope_n)
    torch.mul(q_nV, (-weighed(b_n, pulled_n) - on_target_n)[:, None], out=s_nV)
    s_nV.addcmul_(pull_nV, b_n[:, None]).scatter_(1, index_n1, on_target_n[:, None])
    return weighed(a_n, target_n) + weighed(b_n, diversity_n)


def forward_split(
    divergence: Divergence,
    s_nV: Tensor,
    t_nV: Tensor,
    index_n1: Tensor,
    rest_n: Tensor,
    weights: Weights | Weigh,
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
    weights = _weights_of(weights, p)
    a_n, b_n = weights.target_N, weights.diversity_N
    b_n = a_n * p.log_other_n.exp() if undivided else b_n
    b_n = b_n.masked_fill(p.rest_n == -math.inf, 0.0)  # a rest without mass teaches nothing
    sum_n = gap_nV.mul_(t_nV).sum(1)
    if not (sum_n.is_cpu and sum_n.isfinite().all()):  # no probability, no part, be the gap inf
        sum_n = gap_nV.masked_fill_(t_nV == 0, 0.0).sum(1)
    mean_n = sum_n / t_nV.sum(1)  # whose sum is 1 to a few roundings only
    # Where the student's rest alone has no mass the mean is infinite by itself.
    diversity_n = mean_n - p.rest_n + q.rest_n.masked_fill(q.rest_n == -math.inf, 0.0)
    target_n, slope_n = _on_the_pair(divergence, q, p)
    s_nV.mul_((b_n - a_n * slope_n)[:, None]).addcmul_(t_nV, b_n[:, None], value=-1)
    s_nV.scatter_(1, index_n1, (a_n * slope_n)[:, None])
    return weighed(a_n, target_n) + weighed(b_n, diversity_n)


def _from_the_top(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """Takes the rest's largest from all logits; the target's [n] is returned, -inf in its place."""
    target_n1 = logits_nV.gather(1, index_n1)
    top_n1 = logits_nV.scatter_(1, index_n1, -math.inf).amax(1, keepdim=True)
    top_n1.masked_fill_(top_n1 == -math.inf, 0.0)
    logits_nV.sub_(top_n1)
    return (target_n1 - top_n1)[:, 0]


def _on_the_pair(divergence: Divergence, q: Pair, p: Pair) -> tuple[Tensor, Tensor]:
    """TKD [n] and its derivative in the target's logit [n]."""
    log_q_n2, log_p_n2 = q.stacked(), p.stacked()
    q_n2 = log_q_n2.exp()
    summand_n2, pull_n2 = divergence.both(log_q_n2, log_p_n2, q_n2)
    return summand_n2.sum(1), q_n2[:, 1] * pull_n2[:, 0] - q_n2[:, 0] * pull_n2[:, 1]


def cross_entropy(
    s_nV: Tensor, t_nV: Any, index_n1: Tensor, rest_n: Any, weights: Weights
) -> Tensor:
    """-a log q_g per token [n]; leaves a (q - onehot) in `s_nV`."""
    a_n = weights.target_N
    target_n = s_nV.gather(1, index_n1)[:, 0]
    total_n = softmax_(s_nV)
    s_nV.mul_(a_n[:, None]).scatter_add_(1, index_n1, -a_n[:, None])
    return weighed(a_n, total_n - target_n)


def needs_rest(divergence: Divergence | None, splits: bool) -> bool:
    """Whether the kernel needs the teacher's log-sum of the rest, not found on its way."""
    return divergence is not None and splits and not divergence.pull_is_minus_p


def kernel_of(divergence: Divergence | None, splits: bool) -> Kernel:
    """The kernel of a divergence, split at the target or whole; of the cross-entropy if None."""
    if divergence is None:
        return cross_entropy
    if divergence.pull_is_minus_p:
        return partial(forward_split, divergence, undivided=not splits)
    return partial(split if splits else whole, divergence)
