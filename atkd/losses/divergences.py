"""Divergences of next-token distributions, and their split at the target; all in log space.

Each divergence is one object, defined by its summand over outcomes, and serves whole distributions,
the binary pair (target, anything else) and the rest renormalised without the target. To add one,
write its class here: registered, it is a loss, a `divergence` of the split losses, and fused.

Notation per supervised token (Zhong et al., ACL 2024, section 2): teacher p, student q, next token
g of the training sequence, uncertainty u = 1 - p_g, v = 1 - q_g. With the forward KL, TKD is the
divergence of the binary pairs and DKD that of the rests, so that KL(p||q) = TKD + u DKD exactly.
Shapes: N tokens, V vocabulary rows.

An outcome of probability 0 (a logit of -inf) counts as the mathematics has it: 0 log 0 is 0, and a
divergence that compares some mass with none is inf. A distribution without any mass beside the
target has a rest of zeros, which is renormalised to itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


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
    lowest = torch.finfo(logits_NV.dtype).min  # not -inf, whose log-sum has no gradient
    rest_N = logits_NV.scatter(1, index_N1, lowest).logsumexp(1)
    empty_N = rest_N <= lowest
    rest_N = rest_N.masked_fill(empty_N, -math.inf)
    odds_N = target_N - rest_N
    log_rest_NV = logits_NV - rest_N.masked_fill(empty_N, 0.0)[:, None]
    rest_NV = log_rest_NV.scatter(1, index_N1, 0.0)
    return Split(logsigmoid(odds_N), logsigmoid(-odds_N), rest_NV)


def uncertainty(teacher_logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """UNC = 1 - p_g of the teacher, in [0, 1] [N], exact also where p_g rounds to 1."""
    return split_at_target(floats(teacher_logits_NV), targets_N).log_other_N.exp().detach()


def floats(logits: Tensor) -> Tensor:
    """The same in at least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Divergence(ABC):
    """A divergence D(p, q) of teacher p and student q that is a sum over outcomes.

    A subclass is a frozen dataclass whose fields are the divergence's own parameters: settings of
    every loss that uses it, checked when one is made.
    """

    name: ClassVar[str]
    # A pull of -p, as the forward KL alone has: fused kernels then need one exponential a logit.
    pull_is_minus_p: ClassVar[bool] = False

    @abstractmethod
    def summand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """What each outcome adds to D, in nats; any shape, differentiable in both."""

    @abstractmethod
    def pull(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """q dD/dq of each outcome, up to a multiple of q, which cancels in the logits' gradient."""

    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Summand and pull, which may be one tensor, where q is known as well."""
        return self.summand(log_q, log_p), self.pull(log_q, log_p)

    def whole(self, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
        """D of two sets of logits [N]."""
        return self.summand(student_NV.log_softmax(1), teacher_NV.log_softmax(1)).sum(1)

    def target_term(self, q: Split, p: Split) -> Tensor:
        """TKD: D between (p_g, 1 - p_g) and (q_g, 1 - q_g) [N]."""
        on_target_N = self.summand(q.log_target_N, p.log_target_N)
        return on_target_N + self.summand(q.log_other_N, p.log_other_N)

    def diversity_term(self, q: Split, p: Split, targets_N: Tensor) -> Tensor:
        """DKD: D between p and q renormalised without the target [N]."""
        summand_NV = self.summand(q.log_rest_NV, p.log_rest_NV)
        return summand_NV.scatter(1, targets_N[:, None], 0.0).sum(1)


class Joint(Divergence):
    """A divergence whose summand and pull share most of their work: `both` defines them."""

    def summand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return self.both(log_q, log_p, log_q.exp())[0]

    def pull(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return self.both(log_q, log_p, log_q.exp())[1]

    @abstractmethod
    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable in all three; leaves them as they are."""


class OfProbabilities(Joint):
    """A divergence that takes no logarithm, so that the fused kernels need not form any."""

    @abstractmethod
    def of_probabilities(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """`both` of probabilities."""

    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_probabilities(q, log_p.exp())


DIVERGENCES: dict[str, Divergence] = {}
Kind = TypeVar("Kind", bound=type[Divergence])


def register(kind: Kind) -> Kind:
    """Puts the class, at its default parameters, into DIVERGENCES."""
    DIVERGENCES[kind.name] = kind()
    return kind


def log_ratio(log_a: Tensor, log_b: Tensor) -> Tensor:
    """log (a / b), and 0 where a is 0, so that a times it is 0 there too."""
    ratio = log_a - log_b
    # On a CPU the mask costs two passes of exponentials, and looking whether it is needed none.
    if log_a.is_cpu and log_a.numel() and log_a.detach().amin() > -math.inf:
        return ratio
    return ratio.masked_fill_(log_a == -math.inf, 0.0)


def kl_summand(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Summand of KL(a||b)."""
    return log_a.exp() * log_ratio(log_a, log_b)


@register
@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(p||q), teacher first."""

    name = "forward_kl"
    pull_is_minus_p = True

    def summand(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return kl_summand(log_p, log_q)

    def pull(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        return -log_p.exp()


@register
@dataclass(frozen=True)
class ReverseKL(Joint):
    """KL(q||p), student first."""

    name = "reverse_kl"

    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        pull = log_ratio(log_q, log_p).mul_(q)
        return pull, pull


@register
@dataclass(frozen=True)
class JensenShannon(Joint):
    """beta KL(p||m) + (1 - beta) KL(q||m), m = beta p + (1 - beta) q.

    In [0, H(beta)] nats for 0 < beta < 1 (GKD, Agarwal et al., ICLR 2024).
    """

    name = "jsd"
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta is {self.beta}; expected a number in (0, 1)")

    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p = log_p.exp()
        # A least m keeps 0 log (0 / m) at 0. `logaddexp` of the logarithms, which needs none, would
        # take the time of four exponentials.
        log_m = q.lerp(p, self.beta).clamp_(min=torch.finfo(q.dtype).tiny).log_()
        pull = log_ratio(log_q, log_m).mul_(q).mul_(1 - self.beta)
        return log_ratio(log_p, log_m).mul_(p).mul_(self.beta).add_(pull), pull


@register
@dataclass(frozen=True)
class TotalVariation(OfProbabilities):
    """Half of |p - q|, in [0, 1] (f-distill, Wen et al., ACL 2023)."""

    name = "tvd"

    def of_probabilities(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        gap = q - p
        return gap.abs().mul_(0.5), gap.sign().mul_(q).mul_(0.5)


@register
@dataclass(frozen=True)
class KLMixture(Joint):
    """0.9 KL(p||q) + 0.1 KL(q||p), which the code released with the paper calls JSD."""

    name = "kl_mixture"
    forward_share: ClassVar[float] = 0.9

    def both(self, log_q: Tensor, log_p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p = log_p.exp().mul_(self.forward_share)
        reverse = log_ratio(log_q, log_p).mul_(q).mul_(1 - self.forward_share)
        return log_ratio(log_p, log_q).mul_(p).add_(reverse), reverse - p
