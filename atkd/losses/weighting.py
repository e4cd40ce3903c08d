"""What each token's terms weigh in a step's loss: plain means, DKD's factors, ATKD's two groups.

Weights depend on the teacher alone and carry no gradient. Shape: M tokens, all of one scope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("median", "topk", "random", "inverse")
SCOPES = ("batch", "micro", "sample", "corpus")
Gather = Callable[["Tensor"], "tuple[Tensor, int]"]


class Weights(NamedTuple):
    """What multiplies each token's terms in the step's sum.

    `target_N` weighs the target term, or the whole divergence of a loss without a split;
    `diversity_N` weighs the diversity term.
    """

    target_N: Tensor
    diversity_N: Tensor


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


def token_weights(
    name: str,
    uncertainty_M: Tensor,
    settings: Mapping[str, Any],
    noise_M: Tensor | None = None,
) -> Weights:
    """Weights of all tokens of one scope.

    `noise_M`, one number a token, is what the split `random` ranks; drawn from settings["seed"]
    where it is missing. settings["threshold"], where given, replaces the rank (scope `corpus`).
    """
    share_M = uncertainty_M.new_ones(uncertainty_M.numel()) / max(uncertainty_M.numel(), 1)
    if name == "dkd":
        target_weight = settings.get("target_weight", 0.2)
        return Weights(share_M * target_weight, share_M * settings.get("diversity_weight", 1.0))
    if name != "atkd":
        return Weights(share_M, share_M)
    return _atkd_weights(uncertainty_M, settings, noise_M)


def step_weights(
    name: str,
    uncertainties: Sequence[Tensor],
    settings: Mapping[str, Any],
    gather: Gather,
    noises: Sequence[Tensor] | None = None,
    samples: Sequence[list[int]] | None = None,
) -> list[Weights]:
    """Weights of each micro-batch's tokens, so that the step's loss is one sum over all of them.

    `uncertainties`: u [N] of each of this process's micro-batches of one optimiser step. `gather`
    joins every process's [n] to one [M] and tells where this process's part starts. Scope `batch`
    ranks and averages over all tokens of the step; `corpus` does so with settings["threshold"] for
    the rank; `micro` ranks within each micro-batch, `sample` within each sample (`samples`: their
    tokens), and takes the plain mean of those. `noises` [N]: see `token_weights`. ValueError on
    another scope, or one that lacks what it needs.
    """
    import torch

    scope = settings.get("scope", "batch")
    if scope not in SCOPES:
        raise ValueError(f"scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    if scope == "corpus" and settings.get("threshold") is None:
        raise ValueError("scope is 'corpus'; expected a threshold beside it")
    sizes = [u_N.numel() for u_N in uncertainties]
    if scope == "sample" and samples is None:
        raise ValueError("scope is 'sample', but where samples end is not known here")
    if scope in ("micro", "sample"):
        cuts = samples if scope == "sample" else [[size] for size in sizes]
        return _separate_weights(name, uncertainties, settings, gather, noises, cuts)
    joined_M, start = gather(torch.cat(list(uncertainties)))
    noise_M = None if noises is None else gather(torch.cat(list(noises)))[0]
    whole = token_weights(name, joined_M, settings, noise_M)
    own = [weight_M[start : start + sum(sizes)].split(sizes) for weight_M in whole]
    return [Weights(*pair) for pair in zip(*own, strict=True)]


def gatherer(run: Any) -> Callable[[Tensor], tuple[Tensor, int]]:
    """Joins every process's [n] tensor to one [M]; also gives where this process's part starts.

    `run`: Accelerate's handle on the processes.
    """
    import torch

    def gather(local_n: Tensor) -> tuple[Tensor, int]:
        if run.num_processes == 1:
            return local_n, 0
        counts = run.gather(torch.tensor([local_n.numel()], device=local_n.device)).tolist()
        padded = torch.nn.functional.pad(local_n, (0, max(counts) - local_n.numel()))
        rows = run.gather(padded[None])
        joined_M = torch.cat([row[:count] for row, count in zip(rows, counts, strict=True)])
        return joined_M, sum(counts[: run.process_index])

    return gather


def _separate_weights(
    name: str,
    uncertainties: Sequence[Tensor],
    settings: Mapping[str, Any],
    gather: Gather,
    noises: Sequence[Tensor] | None,
    cuts: Sequence[list[int]],
) -> list[Weights]:
    """Each group of a micro-batch's `cuts` by itself, then the plain mean over groups."""
    import torch

    share = 1 / gather(uncertainties[0].new_zeros(sum(map(len, cuts))))[0].numel()
    made = []
    for index, (u_N, cut) in enumerate(zip(uncertainties, cuts, strict=True)):
        noise = [None] * len(cut) if noises is None else noises[index].split(cut)
        groups = zip(u_N.split(cut), noise, strict=True)
        found = [token_weights(name, part, settings, number) for part, number in groups]
        made.append(Weights(*(share * torch.cat(part) for part in zip(*found, strict=True))))
    return made


def _atkd_weights(
    uncertainty_M: Tensor, settings: Mapping[str, Any], noise_M: Tensor | None
) -> Weights:
    easy_weight = _fraction("easy_weight", settings.get("easy_weight", 0.2))
    hard_fraction = _fraction("hard_fraction", settings.get("hard_fraction", 0.5))
    split = settings.get("split", "median")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if not uncertainty_M.numel():
        return Weights(uncertainty_M, uncertainty_M)
    if settings.get("threshold") is not None and split != "random":
        easy_M = (uncertainty_M < settings["threshold"]) ^ (split == "inverse")
    elif split == "random":
        noise_M = _noise(uncertainty_M, settings) if noise_M is None else noise_M
        easy_M = easy_tokens(noise_M, hard_fraction, split)
    else:
        easy_M = easy_tokens(uncertainty_M, hard_fraction, split)
    easy_M = easy_M.to(uncertainty_M.dtype)
    hard_M = 1 - easy_M
    target_M = hard_M * ((1 - easy_weight) / hard_M.sum().clamp(min=1))
    return Weights(target_M, target_M + easy_M * (easy_weight / easy_M.sum().clamp(min=1)))


def _noise(like_M: Tensor, settings: Mapping[str, Any]) -> Tensor:
    import torch

    source = torch.Generator().manual_seed(settings.get("seed", 0))
    return torch.rand(like_M.numel(), generator=source).to(like_M.device)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a number in [0, 1]")
    return value
