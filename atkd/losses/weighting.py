"""What each token's terms weigh in a step's loss: plain means, DKD's factors, ATKD's two groups.

Weights depend on the teacher alone and carry no gradient. Shapes: N tokens of a micro-batch, M of
one scope.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

SPLITS = ("median", "topk", "random", "inverse")
TOKENS = ("all", "easy", "hard")
SCOPES = ("batch", "micro", "sample", "corpus")
DEFAULT_SCOPE = "batch"
Index = slice | Tensor
Gather = Callable[[Tensor], tuple[Tensor, int]]


@dataclass(frozen=True)
class Weights:
    """What multiplies each token's terms in the step's sum.

    `target_N` weighs the target term, or the whole divergence of a loss without a split;
    `diversity_N` weighs the diversity term. Indexing, scaling and subtracting act on both.
    """

    target_N: Tensor
    diversity_N: Tensor

    def __getitem__(self, index: Index) -> Weights:
        return Weights(self.target_N[index], self.diversity_N[index])

    def __setitem__(self, index: Index, value: Weights) -> None:
        self.target_N[index] = value.target_N
        self.diversity_N[index] = value.diversity_N

    def __mul__(self, factor: float) -> Weights:
        return Weights(factor * self.target_N, factor * self.diversity_N)

    def __sub__(self, other: Weights) -> Weights:
        return Weights(self.target_N - other.target_N, self.diversity_N - other.diversity_N)

    def largest(self) -> Tensor:
        """The largest size of any, a scalar."""
        return torch.stack((self.target_N.abs().amax(), self.diversity_N.abs().amax())).amax()

    def split(self, sizes: Sequence[int]) -> list[Weights]:
        """Consecutive runs of these sizes, which add up to the number of tokens."""
        ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
        return [self[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    @staticmethod
    def cat(parts: Sequence[Weights]) -> Weights:
        """One behind the other."""
        targets, diversities = [w.target_N for w in parts], [w.diversity_N for w in parts]
        return Weights(torch.cat(targets), torch.cat(diversities))

    @staticmethod
    def where(chosen_N: Tensor, one: Weights, other: Weights) -> Weights:
        """`one` where chosen, `other` elsewhere."""
        return Weights(
            torch.where(chosen_N, one.target_N, other.target_N),
            torch.where(chosen_N, one.diversity_N, other.diversity_N),
        )


def weighed(weight_N: Tensor, term_N: Tensor) -> Tensor:
    """Weight x term [N]; what weighs nothing adds nothing, be it infinite."""
    return (weight_N * term_N).masked_fill(weight_N == 0, 0.0)


def easy_tokens(uncertainty_M: Tensor, hard_fraction: float = 0.5, split: str = "median") -> Tensor:
    """Which tokens of the split's scope are easy, bool [M].

    `median`: easy if u is strictly below the value at position floor((1 - k)(M - 1)) of the
    ascending u (k = 0.5: the lower median, as in the official code). `topk`: the round(k M) most
    uncertain are hard, and a tie at the border is hard as a whole. `inverse` exchanges easy and
    hard of `median`, and `random` takes noise [M] in place of u: controls of the mechanism.
    """
    ordered_M, count = uncertainty_M.sort().values, uncertainty_M.numel()
    if split == "inverse":
        return ~easy_tokens(uncertainty_M, hard_fraction, "median")
    if split in ("median", "random"):
        return uncertainty_M < ordered_M[border(hard_fraction, count)]
    if split == "topk":
        hard = round(hard_fraction * count)
        return uncertainty_M < (ordered_M[count - hard] if hard else math.inf)
    raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")


def border(hard_fraction: float, count: int) -> int:
    """Position of the threshold among `count` ascending uncertainties: floor((1 - k)(count - 1)).

    In decimal fractions, as k is written: floats would put 0.1 x 10 below 1.
    """
    return math.floor((1 - Fraction(str(hard_fraction))) * (count - 1))


@dataclass(frozen=True)
class Weighting(ABC):
    """How the tokens of one scope are weighed.

    A subclass is a frozen dataclass whose fields are the settings, checked when one is made.
    """

    name: ClassVar[str]
    splits: ClassVar[bool] = False  # whether target and diversity terms weigh apart

    @property
    def groups(self) -> bool:
        """Whether tokens fall into easy and hard ones."""
        return False

    @property
    def needs_uncertainty(self) -> bool:
        """Whether the weights look at the teacher's uncertainty."""
        return False

    @property
    def asks(self) -> bool:
        """Whether the uncertainty is worth finding: weights look at it, or it tells of groups."""
        return self.groups or self.needs_uncertainty

    @property
    def has_threshold(self) -> bool:
        """Whether an uncertainty that is given parts easy from hard tokens."""
        return False

    @property
    def provisional(self) -> bool:
        """Whether tokens can be weighed, but for few, before all uncertainties are known.

        That is where they fall into two groups by rank, and a group's tokens weigh the same.
        """
        return False

    @property
    def needs_noise(self) -> bool:
        """Whether noise, one number a token, takes the uncertainty's place."""
        return False

    def easy(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Tensor:
        """Which tokens of one scope are easy, bool [M], M > 0, where there are `groups`."""
        raise NotImplementedError(f"{self.name} has no easy and hard tokens")

    @abstractmethod
    def weights(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Weights:
        """Weights of all tokens of one scope; without `noise_M`, noise is drawn from the seed."""


WEIGHTINGS: dict[str, Weighting] = {}
Kind = TypeVar("Kind", bound=type[Weighting])


def register(kind: Kind) -> Kind:
    """Puts the class, at its default settings, into WEIGHTINGS."""
    WEIGHTINGS[kind.name] = kind()
    return kind


def check_share(name: str, value: float) -> None:
    """ValueError unless the setting of this name is a share."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a number in [0, 1]")


def equal_shares(like_M: Tensor) -> Tensor:
    """1 / M for each token."""
    return like_M.new_ones(like_M.numel()) / max(like_M.numel(), 1)


@dataclass(frozen=True)
class EqualShares(Weighting):
    """The same share for every token, or for every easy or every hard one and none for the rest.

    `tokens`: all, easy or hard; `hard_fraction`: the share of tokens that are hard.
    """

    tokens: str = "all"
    hard_fraction: float = 0.5

    def __post_init__(self) -> None:
        check_share("hard_fraction", self.hard_fraction)
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens is {self.tokens!r}; expected one of {', '.join(TOKENS)}")

    @property
    def groups(self) -> bool:
        return self.tokens != "all"

    @property
    def needs_uncertainty(self) -> bool:
        return self.groups

    def easy(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Tensor:
        return easy_tokens(uncertainty_M, self.hard_fraction)

    def shares(self, uncertainty_M: Tensor) -> Tensor:
        """Each token's [M], whose sum is 1 if there is a token to weigh."""
        if not self.groups or not uncertainty_M.numel():
            return equal_shares(uncertainty_M)
        chosen_M = self.easy(uncertainty_M) ^ (self.tokens == "hard")
        return chosen_M.to(uncertainty_M.dtype) / chosen_M.sum().clamp(min=1)


@register
@dataclass(frozen=True)
class Mean(EqualShares):
    """The plain mean over tokens, or over the easy or the hard ones alone."""

    name = "mean"

    def weights(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Weights:
        share_M = self.shares(uncertainty_M)
        return Weights(share_M, share_M)


@register
@dataclass(frozen=True)
class DecoupledKD(EqualShares):
    """The mean of target_weight TKD + diversity_weight DKD (Zhao et al., CVPR 2022).

    `suppressed`: DKD times the teacher's uncertainty, as the forward KL has it.
    """

    name = "dkd"
    splits = True
    target_weight: float = 0.2
    diversity_weight: float = 1.0
    suppressed: bool = False

    @property
    def needs_uncertainty(self) -> bool:
        return self.groups or self.suppressed

    def weights(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Weights:
        share_M = self.shares(uncertainty_M)
        factor_M = uncertainty_M if self.suppressed else 1.0
        return Weights(share_M * self.target_weight, share_M * self.diversity_weight * factor_M)


@register
@dataclass(frozen=True)
class AdaptiveTeaching(Weighting):
    """ATKD: easy_weight mean_easy(DKD) + (1 - easy_weight) mean_hard(TKD + DKD).

    An empty group contributes zero, the other keeps its weight. `split`: see `easy_tokens`; `seed`
    is that of the split `random` where no noise is given. `threshold`, if given, is the
    uncertainty that replaces the rank (Zhong et al., ACL 2024, eq. 5).
    """

    name = "atkd"
    splits = True
    easy_weight: float = 0.2
    hard_fraction: float = 0.5
    split: str = "median"
    threshold: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("easy_weight", self.easy_weight)
        check_share("hard_fraction", self.hard_fraction)
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; expected one of {', '.join(SPLITS)}")

    @property
    def groups(self) -> bool:
        return True

    @property
    def needs_noise(self) -> bool:
        return self.split == "random"

    @property
    def provisional(self) -> bool:
        return self.needs_uncertainty and not self.has_threshold

    @property
    def needs_uncertainty(self) -> bool:
        return not self.needs_noise

    @property
    def has_threshold(self) -> bool:
        return self.threshold is not None

    def easy(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Tensor:
        if self.needs_noise:
            noise_M = self._noise(uncertainty_M) if noise_M is None else noise_M
            return easy_tokens(noise_M, self.hard_fraction, self.split)
        if self.threshold is not None:
            return (uncertainty_M < self.threshold) ^ (self.split == "inverse")
        return easy_tokens(uncertainty_M, self.hard_fraction, self.split)

    def weights(self, uncertainty_M: Tensor, noise_M: Tensor | None = None) -> Weights:
        if not uncertainty_M.numel():
            return Weights(uncertainty_M, uncertainty_M)
        easy_M = self.easy(uncertainty_M, noise_M).to(uncertainty_M.dtype)
        hard_M = 1 - easy_M
        target_M = hard_M * ((1 - self.easy_weight) / hard_M.sum().clamp(min=1))
        share_of_easy = self.easy_weight / easy_M.sum().clamp(min=1)
        return Weights(target_M, target_M + easy_M * share_of_easy)

    def _noise(self, like_M: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(self.seed)
        return torch.rand(like_M.numel(), generator=source).to(like_M.device)


def step_weights(
    weighting: Weighting,
    uncertainties: Sequence[Tensor],
    scope: str,
    gather: Gather,
    noises: Sequence[Tensor] | None = None,
    samples: Sequence[list[int]] | None = None,
) -> list[Weights]:
    """Weights of each micro-batch's tokens, so that the step's loss is one sum over all of them.

    Args:
        uncertainties: u [N] of each of this process's micro-batches of one optimiser step.
        scope: `batch` ranks and averages over all tokens of the step; `corpus` does so with the
            weighting's threshold for the rank; `micro` ranks within each micro-batch, `sample`
            within each sample, and takes the plain mean of those.
        gather: joins every process's [n] to one [M] and tells where this process's part starts.
        noises: numbers [N] in place of u, see `Weighting.needs_noise`.
        samples: each micro-batch's numbers of tokens by sample.
    Raises:
        ValueError: another scope, or one that lacks what it needs.
    """
    cuts = _cuts(weighting, uncertainties, scope, samples)
    if cuts is not None:
        return _separate_weights(weighting, uncertainties, gather, noises, cuts)
    sizes = [u_N.numel() for u_N in uncertainties]
    joined_M, start = gather(torch.cat(list(uncertainties)))
    noise_M = None if noises is None else gather(torch.cat(list(noises)))[0]
    whole = weighting.weights(joined_M, noise_M)
    return whole[start : start + sum(sizes)].split(sizes)


def gatherer(run: Any) -> Gather:
    """Joins every process's [n] tensor to one [M]; also gives where this process's part starts.

    `run`: Accelerate's handle on the processes.
    """

    def gather(local_n: Tensor) -> tuple[Tensor, int]:
        if run.num_processes == 1:
            return local_n, 0
        counts = run.gather(torch.tensor([local_n.numel()], device=local_n.device)).tolist()
        padded = torch.nn.functional.pad(local_n, (0, max(counts) - local_n.numel()))
        rows = run.gather(padded[None])
        joined_M = torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])
        return joined_M, sum(counts[: run.process_index])

    return gather


def alone(local_n: Tensor) -> tuple[Tensor, int]:
    """The `Gather` of a single process."""
    return local_n, 0


def _cuts(
    weighting: Weighting,
    uncertainties: Sequence[Tensor],
    scope: str,
    samples: Sequence[list[int]] | None,
) -> Sequence[list[int]] | None:
    """Sizes of the parts of each micro-batch that are ranked by themselves; None: all as one."""
    if scope not in SCOPES:
        raise ValueError(f"scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    if scope == "corpus" and not weighting.has_threshold:
        raise ValueError("scope is 'corpus'; expected a threshold beside it")
    if scope == "sample" and samples is None:
        raise ValueError("scope is 'sample', but where samples end is not known here")
    if scope == "micro":
        return [[u_N.numel()] for u_N in uncertainties]
    return samples if scope == "sample" else None


def _separate_weights(
    weighting: Weighting,
    uncertainties: Sequence[Tensor],
    gather: Gather,
    noises: Sequence[Tensor] | None,
    cuts: Sequence[list[int]],
) -> list[Weights]:
    """Each part of a micro-batch's `cuts` by itself, then the plain mean over all parts."""
    share = 1 / gather(uncertainties[0].new_zeros(sum(map(len, cuts))))[0].numel()
    made = []
    for index, (u_N, cut) in enumerate(zip(uncertainties, cuts, strict=True)):
        noise = [None] * len(cut) if noises is None else noises[index].split(cut)
        parts = zip(u_N.split(cut), noise, strict=True)
        made.append(Weights.cat([weighting.weights(*part) for part in parts]) * share)
    return made
