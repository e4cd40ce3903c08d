"""Arrays in, estimates with intervals out; seeds and documents are crossed, not nested.

Every method and seed answers the same documents, so a value is
``mean + seed effect + document effect + residual`` and an interval needs both components.
Suffixes name dimensions: S seeds, D documents, T tasks; leading dimensions (...) are a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from atkd.statistics import tdist

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

DOCUMENTS_ONLY = "documents only"
SEEDS_AND_DOCUMENTS = "seeds and documents"
RELIABLE_SEEDS = 3  # with two, a 95 % interval covers 92 to 97 % (benchmarks/coverage.md)


class Estimate(NamedTuple):
    """A mean with a two-sided interval; `over` says what the interval generalises to.

    `share` is what seeds carry of the variance, `freedom` the degrees of freedom of the rest.
    """

    value: float
    low: float
    high: float
    error: float
    share: float
    freedom: float
    seeds: int
    documents: int
    over: str


class Components(NamedTuple):
    """One task's mean: per seed (..., S), and its variance over documents, in parts (...).

    `document` is the variance of the mean due to documents, the residual included; `residual` the
    part due to the residual alone (zero with one seed, where nothing tells them apart).
    """

    seed_means: Array
    document: Array
    residual: Array
    freedom: float
    documents: int


def ratio_values(numerator_SD: Array, denominator_SD: Array) -> Array:
    """Values (S, D) whose mean over documents is sum(numerator) / sum(denominator) for each seed.

    Linearised about each seed's ratio, so that their spread is the ratio's spread (delta method).
    """
    ratio_S1 = numerator_SD.sum(1, keepdims=True) / denominator_SD.sum(1, keepdims=True)
    scale_S1 = denominator_SD.mean(1, keepdims=True)
    return ratio_S1 + (numerator_SD - ratio_S1 * denominator_SD) / scale_S1


def components(values_SD: Array, groups: Sequence[str] | None = None) -> Components:
    """Two-way variance components of the mean of `values_SD`, shape (..., S, D).

    For a comparison pass differences, same seeds and documents on both sides. Without `groups`
    this is the textbook two-way analysis of variance without replication. With `groups` (D,) the
    mean is the plain mean of the groups' means, and the groups are fixed: documents vary within
    theirs (or about the common mean, if some group has one document only). ValueError if an array
    is empty or not finite.
    """
    import numpy as np

    values_SD = np.asarray(values_SD, dtype=float)
    if values_SD.ndim < 2 or not values_SD.size or not np.isfinite(values_SD).all():
        raise ValueError(f"expected finite values (seeds, documents), found {values_SD.shape}")
    seeds, documents = values_SD.shape[-2:]
    names = np.zeros(documents) if groups is None else np.asarray(groups)
    _, group_D, count_G = np.unique(names, return_inverse=True, return_counts=True)
    weights_D = 1.0 / (len(count_G) * count_G[group_D])
    if count_G.min() < 2:
        group_D, count_G = np.zeros(documents, int), np.array([documents])
    means_S, columns_D = values_SD @ weights_D, values_SD.mean(-2)
    if documents < 2:
        unknown = np.full(means_S.shape[:-1], math.nan)
        return Components(means_S, unknown, unknown, math.nan, documents)
    square_D = weights_D**2 * (count_G / (count_G - 1))[group_D]
    document = _centred(columns_D, group_D, count_G) ** 2 @ square_D
    rest_SD = _centred(values_SD - columns_D[..., None, :], group_D, count_G)
    residual = (rest_SD**2 @ square_D).sum(-1) / (max(seeds - 1, 1) * seeds)
    freedom = max(1.0 / float((weights_D**2).sum()) - len(count_G), 1.0)
    return Components(means_S, document, residual, freedom, documents)


def _centred(values_D: Array, group_D: Array, count_G: Array) -> Array:
    """Values (..., D) less the mean of their group."""
    import numpy as np

    members_DG = np.eye(len(count_G))[group_D] / count_G
    return values_D - (values_D @ members_DG)[..., group_D]


def contrast(
    ours: Sequence[Array],
    theirs: Sequence[Array] = (),
    denominators: Sequence[Array] | None = None,
    groups: Sequence[str] | None = None,
) -> Components | None:
    """Components of the mean of `ours`, less the mean of `theirs` where there are any.

    Sides are (S, D), the same seeds and documents in the same order, NaN where a document has no
    value: it is then left out on all sides. Sides are averaged document by document before
    anything varies, for models that answer the same documents do not err independently. With
    `denominators` (one a side, ours first) a side's mean is a ratio of sums; with `groups` (D,)
    it is the plain mean of groups. None if no document is shared.
    """
    import numpy as np

    sides = [*ours, *theirs]
    kept_D = np.isfinite(np.concatenate(sides)).all(0)
    if not kept_D.any():
        return None
    picked = [side[:, kept_D] for side in sides]
    if denominators is not None:
        picked = [ratio_values(v, d[:, kept_D]) for v, d in zip(picked, denominators, strict=True)]
    values_SD = np.mean(picked[: len(ours)], axis=0)
    if theirs:
        values_SD = values_SD - np.mean(picked[len(ours) :], axis=0)
    return components(values_SD, None if groups is None else np.asarray(groups)[kept_D])


class Moments(NamedTuple):
    """A mean, its standard error, seeds' share of the variance, freedom of the rest; each (...)."""

    value: Array
    error: Array
    share: Array
    freedom: Array


def moments(tasks: Sequence[Components]) -> Moments:
    """The plain average of tasks' means, and what its interval is made of.

    Tasks have their own documents but share the seeds: the seeds' part of the variance is that of
    each seed's average over tasks, which holds the residual too; to it comes what all seeds share,
    the documents' variance less the residual (zero if negative), with Satterthwaite's freedom.
    """
    import numpy as np

    means_S = np.mean([task.seed_means for task in tasks], axis=0)
    seeds, scale = means_S.shape[-1], len(tasks) ** 2
    document_T = np.stack([task.document for task in tasks], -1) / scale
    residual_T = np.stack([task.residual for task in tasks], -1) / scale
    shared = np.maximum((document_T - residual_T).sum(-1), 0.0)
    seed = means_S.var(-1, ddof=1) / seeds if seeds > 1 else np.zeros_like(shared)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (document_T**2 / [task.freedom for task in tasks]).sum(-1)
        freedom = document_T.sum(-1) ** 2 / below
        share = np.nan_to_num(seed / (seed + shared))
    freedom = np.nan_to_num(freedom, nan=math.inf, posinf=math.inf)
    return Moments(means_S.mean(-1), np.sqrt(seed + shared), share, freedom)


def estimate(tasks: Sequence[Components], level: float = 0.95) -> Estimate:
    """The plain average of one or more tasks' means (no batch), with its interval.

    With one seed the interval is over documents only; NaN where a task has a single document.
    """
    value, error, share, freedom = (float(part) for part in moments(tasks))
    seeds, documents = len(tasks[0].seed_means), sum(task.documents for task in tasks)
    parts = reference(share, seeds, freedom)
    half = error * tdist.quantile(0.5 + level / 2, parts) if error > 0 else error
    over = SEEDS_AND_DOCUMENTS if seeds > 1 else DOCUMENTS_ONLY
    rest = (error, share, freedom, seeds, documents, over)
    return Estimate(value, value - half, value + half, *rest)


def p_value(found: Estimate) -> float:
    """Two-sided p-value of no difference, over seeds and documents; NaN below `RELIABLE_SEEDS`."""
    if found.seeds < RELIABLE_SEEDS or math.isnan(found.error):
        return math.nan
    if found.error == 0:
        return float(found.value == 0)
    parts = reference(found.share, found.seeds, found.freedom)
    return 2.0 * tdist.cdf(-abs(found.value) / found.error, parts)


def detectable(found: Estimate, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true effect that a test like this one would find with probability `power`.

    Bloom's (1995) multiple of the standard error: with t at two degrees its power is 0.77.
    """
    if not found.error > 0:
        return found.error
    parts = reference(found.share, found.seeds, found.freedom)
    return found.error * sum(tdist.quantile(q, parts) for q in (0.5 + level / 2, power))


def reference(share: float, seeds: int, freedom: float) -> list[tuple[float, float]]:
    """What value / error is compared with: (weight, degrees of freedom) of Student's t.

    Seeds and documents weigh as they do in the variance. Satterthwaite's single t lets a 95 %
    interval cover 92 % at three seeds that carry nine tenths of the variance, and a test at 1 % err
    three times too often; the mixture holds its level (benchmarks/coverage.md).
    """
    parts = [(share, seeds - 1.0), (1.0 - share, freedom)]
    return [(weight, degrees) for weight, degrees in parts if weight > 0]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given; NaN stays, yet counts."""
    adjusted, running = [math.nan] * len(p_values), 0.0
    known = [place for place, p in enumerate(p_values) if not math.isnan(p)]
    for rank, place in enumerate(sorted(known, key=lambda place: p_values[place])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


def improvement(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """Probability that a run of ours scores higher than a run of theirs on a task picked at random.

    Sides hold, per task, the scores of its runs (seeds). Every run is compared with every run of
    the other side, ties count half, and tasks weigh the same: Agarwal et al. (2021), rliable.
    """
    import numpy as np

    found = []
    for mine, other in zip(ours, theirs, strict=True):
        sign = np.sign(np.asarray(mine)[:, None] - np.asarray(other))
        found.append(float(0.5 + 0.5 * sign.mean()))
    return sum(found) / len(found)


def interquartile_mean(values: Array) -> float:
    """Mean of what is left of all values, flattened, without a quarter at each end (rliable's)."""
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=float), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())
