"""Arrays in, estimates with intervals out; seeds and documents are crossed, not nested.

Every method and seed answers the same documents, so a value is
``mean + seed effect + document effect + residual`` and an interval needs both components.
Suffixes name dimensions: S seeds, D documents, T tasks; leading dimensions (...) are a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

Mixture = Sequence[tuple[float, float]]  # weight, degrees of freedom of Student's t
DOCUMENTS_ONLY = "documents only"
SEEDS_ONLY = "seeds"
SEEDS_AND_DOCUMENTS = "seeds and documents"
NORMAL = 1e7  # degrees of freedom from which t is the normal distribution
RELIABLE_SEEDS = 3  # with two, a 95 % interval covers 92 to 97 % (benchmarks/coverage.md)


class Estimate(NamedTuple):
    """A mean with a two-sided interval, in the unit of its values.

    `error` is the standard error, `share` what seeds carry of its square, `freedom` the degrees of
    freedom of the rest. `over` says what the interval generalises to.
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
    """One task's mean and its variance over documents, in parts.

    Shape:
        seed_means: (..., S), the mean over documents of each seed.
        document: (...), the variance of the mean due to documents, the residual included.
        residual: (...), the part due to the residual alone; zero with one seed, where nothing
            tells them apart.
    """

    seed_means: Array
    document: Array
    residual: Array
    freedom: float
    documents: int


def ratio_values(numerator_SD: Array, denominator_SD: Array) -> Array:
    """Values whose mean over documents is sum(numerator) / sum(denominator) for each seed.

    Linearised about each seed's ratio, so that their spread is the ratio's spread.

    Shape:
        numerator_SD, denominator_SD, returned: (S, D).

    Source:
        The delta method.
    """
    ratio_S1 = numerator_SD.sum(1, keepdims=True) / denominator_SD.sum(1, keepdims=True)
    scale_S1 = denominator_SD.mean(1, keepdims=True)
    return ratio_S1 + (numerator_SD - ratio_S1 * denominator_SD) / scale_S1


def components(values_SD: Array, groups: Sequence[str] | Array | None = None) -> Components:
    """Two-way variance components of a mean over documents.

    For a comparison pass differences, same seeds and documents on both sides.

    Args:
        values_SD: the values.
        groups: each document's group, where the mean is the plain mean of the groups' means. Groups
            are fixed: documents vary within theirs, or about the common mean if some group has one
            document only.

    Shape:
        values_SD: (..., S, D); groups: (D,).

    Raises:
        ValueError: the array is empty or not finite.

    Source:
        Without groups, the textbook two-way analysis of variance without replication.
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
    groups: Sequence[str] | Array | None = None,
) -> Components | None:
    """Components of the mean of `ours`, less the mean of `theirs` where there are any.

    Sides are averaged document by document before anything varies, for models that answer the same
    documents do not err independently.

    Args:
        ours, theirs: each model's values, the same seeds and documents in the same order; a
            document that is NaN anywhere is left out on all sides.
        denominators: one a side, ours first, where a side's mean is a ratio of sums.
        groups: as for `components`.

    Shape:
        each side and denominator: (S, D); groups: (D,).

    Returns:
        The components; None if no document is shared.
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
    the documents' variance less the residual (zero if negative).

    Args:
        tasks: one or more tasks' components, of the same seeds and batch.

    Source:
        Degrees of freedom of the documents' part: Satterthwaite (1946).
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
    """The plain average of tasks' means, with its interval.

    Args:
        tasks: one or more tasks' components, without a batch.
        level: the interval's coverage.

    Returns:
        The estimate. With one seed its interval is over documents only; it is NaN where a task has
        a single document.
    """
    value, error, share, freedom = (float(part) for part in moments(tasks))
    seeds, documents = len(tasks[0].seed_means), sum(task.documents for task in tasks)
    parts = reference(share, seeds, freedom)
    half = error * mixture_quantile(0.5 + level / 2, parts) if error > 0 else error
    over = SEEDS_AND_DOCUMENTS if seeds > 1 else DOCUMENTS_ONLY
    rest = (error, share, freedom, seeds, documents, over)
    return Estimate(value, value - half, value + half, *rest)


def over_seeds(values: Sequence[float], documents: int = 0, level: float = 0.95) -> Estimate:
    """The mean of one value for each seed, with Student's interval.

    Args:
        values: one for each seed, of what has no value for a document by itself.
        documents: how many they were taken from.
        level: the interval's coverage.

    Returns:
        The estimate; with one seed its interval is unknown.
    """
    seeds = len(values)
    value = sum(values) / seeds
    error = half = math.nan
    if seeds > 1:
        squares = sum((each - value) ** 2 for each in values)
        error = math.sqrt(squares / (seeds - 1) / seeds)
        half = error * mixture_quantile(0.5 + level / 2, reference(1.0, seeds, math.inf))
    rest = (error, 1.0, math.inf, seeds, documents, SEEDS_ONLY)
    return Estimate(value, value - half, value + half, *rest)


def p_value(found: Estimate) -> float:
    """Two-sided p-value of no difference, over seeds and documents.

    Args:
        found: the difference.

    Returns:
        A probability; NaN below `RELIABLE_SEEDS` seeds or where the error is unknown.
    """
    if found.seeds < RELIABLE_SEEDS or math.isnan(found.error):
        return math.nan
    if found.error == 0:
        return float(found.value == 0)
    parts = reference(found.share, found.seeds, found.freedom)
    return 2.0 * mixture_cdf(-abs(found.value) / found.error, parts)


def detectable(found: Estimate, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true effect that a test like this one would find with probability `power`.

    Args:
        found: the difference.
        level: of the interval that has to leave zero out.
        power: how often.

    Returns:
        An effect in the unit of the difference; NaN where the error is unknown.

    Source:
        Bloom (1995), a multiple of the standard error; with t at two degrees its power is 0.77.
    """
    if not found.error > 0:
        return found.error
    parts = reference(found.share, found.seeds, found.freedom)
    return found.error * sum(mixture_quantile(q, parts) for q in (0.5 + level / 2, power))


def reference(share: float, seeds: int, freedom: float) -> list[tuple[float, float]]:
    """What value / error is compared with: a mixture of Student's t.

    Seeds and documents weigh as they do in the variance. Satterthwaite's single t lets a 95 %
    interval cover 92 % at three seeds that carry nine tenths of the variance, and a test at 1 % err
    three times too often; the mixture holds its level.

    Args:
        share: what seeds carry of the variance.
        seeds: their number.
        freedom: degrees of freedom of the documents' part.

    Returns:
        (weight, degrees of freedom) of the parts that weigh anything.

    Source:
        Simulation, benchmarks/coverage.md.
    """
    parts = [(share, seeds - 1.0), (1.0 - share, freedom)]
    return [(weight, degrees) for weight, degrees in parts if weight > 0]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family of tests.

    Args:
        p_values: of all its tests; NaN stays NaN, yet counts as a test.

    Returns:
        Adjusted p-values in the order given.

    Source:
        Holm (1979), step-down.
    """
    adjusted, running = [math.nan] * len(p_values), 0.0
    known = [place for place, p in enumerate(p_values) if not math.isnan(p)]
    for rank, place in enumerate(sorted(known, key=lambda place: p_values[place])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


TIE = 9  # decimals of a score


def improvement(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """Probability that a run of ours scores higher than a run of theirs on a task picked at random.

    Every run is compared with every run of the other side, ties count half, tasks weigh the same.
    Scores that differ by their rounding alone, as means of one thing in another order do, tie.

    Args:
        ours, theirs: per task the scores of its runs (seeds), higher is better.

    Source:
        Agarwal et al. (2021), rliable's probability of improvement.
    """
    import numpy as np

    found = []
    for mine, other in zip(ours, theirs, strict=True):
        sign = np.sign(np.round(np.asarray(mine)[:, None] - np.asarray(other), TIE))
        found.append(float(0.5 + 0.5 * sign.mean()))
    return sum(found) / len(found)


def interquartile_mean(values: Array) -> float:
    """Mean of what is left of all values without a quarter at each end.

    Args:
        values: of any shape, flattened.

    Source:
        Agarwal et al. (2021), rliable's IQM.
    """
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=float), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def mixture_cdf(value: float, parts: Mixture) -> float:
    """Distribution function of a mixture of Student's t; the lower tail keeps its precision.

    Args:
        value: where.
        parts: (weight, degrees of freedom), weights adding up to one; infinity is the normal
            distribution.
    """
    return sum(weight * _cdf(value, freedom) for weight, freedom in parts)


def mixture_quantile(probability: float, parts: Mixture) -> float:
    """Inverse of `mixture_cdf` by Newton's method, absolute error under 1e-9.

    Args:
        probability: between 0 and 1.
        parts: as for `mixture_cdf`.

    Returns:
        The quantile; NaN if a part has no degrees of freedom.
    """
    if any(math.isnan(freedom) for _, freedom in parts):
        return math.nan
    if probability < 0.5:
        return -mixture_quantile(1.0 - probability, parts)
    value = NormalDist().inv_cdf(probability)  # left of the root, where Newton only climbs
    for _ in range(200):
        slope = sum(weight * _density(value, freedom) for weight, freedom in parts)
        step = (probability - mixture_cdf(value, parts)) / slope
        value += step
        if abs(step) < 1e-10 * max(1.0, value):
            break
    return value


def _cdf(value: float, freedom: float) -> float:
    if freedom > NORMAL:
        return 0.5 * math.erfc(-value / math.sqrt(2))
    tail = 0.5 * _incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + value * value))
    return 1.0 - tail if value > 0 else tail


def _density(value: float, freedom: float) -> float:
    if freedom > NORMAL:
        return math.exp(-value * value / 2) / math.sqrt(2 * math.pi)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale -= 0.5 * math.log(freedom * math.pi)
    return math.exp(scale - (freedom + 1) / 2 * math.log1p(value * value / freedom))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz's method)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(2000):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + step - 1.0) * (a + step))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + step - 1.0) * (a + step))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        fraction *= c * d
        if abs(1.0 - c * d) < 1e-15:
            break
    return front * (fraction - 1.0)
