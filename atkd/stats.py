"""Arrays in, estimates with intervals out; seeds and documents are crossed, not nested.

Every method and seed answers the same documents, so a value is
``mean + seed effect + document effect + residual`` and an interval needs both components.
Suffixes name dimensions: S seeds, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

DOCUMENTS_ONLY = "documents only"
SEEDS_AND_DOCUMENTS = "seeds and documents"


class Estimate(NamedTuple):
    """A mean with a two-sided t interval; `over` says what the interval generalises to."""

    value: float
    low: float
    high: float
    error: float
    freedom: float
    seeds: int
    documents: int
    over: str


class Components(NamedTuple):
    """Variance components of one task's mean, each in units of the variance of that mean."""

    seed_means: Array
    document: float
    residual: float
    effective: float
    documents: int


def ratio_values(numerator_SD: Array, denominator_SD: Array) -> Array:
    """Values (S, D) whose mean over documents is sum(numerator) / sum(denominator) for each seed.

    Linearised about each seed's ratio, so that their spread is the ratio's spread (delta method).
    """
    ratio_S1 = numerator_SD.sum(1, keepdims=True) / denominator_SD.sum(1, keepdims=True)
    scale_S1 = denominator_SD.mean(1, keepdims=True)
    return ratio_S1 + (numerator_SD - ratio_S1 * denominator_SD) / scale_S1


def group_weights(groups: Sequence[str]) -> Array:
    """Document weights (D,) under which the mean is the plain mean of the groups' means."""
    import numpy as np

    _, index, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[index])


def components(values_SD: Array, weights_D: Array | None = None) -> Components:
    """Two-way variance components of the (weighted) mean of `values_SD`, shape (S, D).

    For a paired comparison pass differences, same seeds and documents on both sides. `weights_D`
    (D,) need not sum to one; None weighs documents equally, where this is the textbook two-way
    analysis of variance without replication. ValueError if an array is empty or not finite.
    """
    import numpy as np

    values_SD = np.asarray(values_SD, dtype=float)
    if values_SD.ndim != 2 or not values_SD.size or not np.isfinite(values_SD).all():
        raise ValueError(f"expected finite values (seeds, documents), found {values_SD.shape}")
    seeds, documents = values_SD.shape
    weights_D = np.ones(documents) if weights_D is None else np.asarray(weights_D, dtype=float)
    weights_D = weights_D / weights_D.sum()
    means_S = values_SD @ weights_D
    columns_D = values_SD.mean(0)
    square, cube = (weights_D**2).sum(), (weights_D**3).sum()
    spread = 1.0 + square - 2.0 * cube / square  # expected share of a unit variance: 1 - 1/D
    if documents < 2 or spread <= 0:
        return Components(means_S, math.nan, math.nan, 1.0 / square, documents)
    centred_D = columns_D - means_S.mean()
    document = float((weights_D**2 * centred_D**2).sum() / spread)
    if seeds == 1:
        return Components(means_S, document, 0.0, 1.0 / square, documents)
    rest_SD = values_SD - means_S[:, None] - centred_D
    residual = float((weights_D**2 * rest_SD**2).sum() / (spread * (seeds - 1) * seeds))
    return Components(means_S, document, residual, 1.0 / square, documents)


def paired(
    sides: Sequence[Array],
    denominators: Sequence[Array] | None = None,
    groups: Sequence[str] | None = None,
) -> Components | None:
    """Components of one side's mean, or of the first side's minus the second's.

    Sides are (S, D), the same seeds and documents in the same order, NaN where a document has no
    value: it is then left out on both sides. With `denominators` (same shapes) a side's mean is a
    ratio of sums; with `groups` (D,) it is the plain mean of groups. None if nothing is shared.
    """
    import numpy as np

    kept_D = np.isfinite(np.concatenate(sides)).all(0)
    if not kept_D.any():
        return None
    picked = [side[:, kept_D] for side in sides]
    if denominators is not None:
        picked = [ratio_values(v, d[:, kept_D]) for v, d in zip(picked, denominators, strict=True)]
    weights_D = None if groups is None else group_weights(np.asarray(groups)[kept_D])
    return components(picked[0] if len(picked) == 1 else picked[0] - picked[1], weights_D)


def estimate(tasks: Sequence[Components], level: float = 0.95) -> Estimate:
    """The plain average of one or more tasks' means, with its interval.

    Tasks have their own documents but share the seeds: seed variance is that of each seed's
    average over tasks, document variances add. Degrees of freedom are Satterthwaite's. With one
    seed the interval is over documents only.
    """
    import numpy as np

    count = len(tasks)
    means_S = np.mean([task.seed_means for task in tasks], axis=0)
    seeds, documents = len(means_S), sum(task.documents for task in tasks)
    terms = [
        (max(task.document, task.residual) / count**2, max(task.effective - 1, 1e-9))
        for task in tasks
    ]
    variance = sum(term for term, _ in terms)
    if seeds > 1:
        rest = sum(task.residual for task in tasks) / count**2
        seed = float(np.var(means_S, ddof=1)) / seeds
        # A negative component is zero: then the document terms alone carry the variance.
        if seed > rest:
            variance += seed - rest
            terms.append((seed, seeds - 1))
            terms += [
                (task.residual / count**2, (seeds - 1) * max(task.effective - 1, 1e-9))
                for task in tasks
            ]
    below = sum(term**2 / freedom for term, freedom in terms)
    freedom = variance**2 / below if below > 0 else math.inf
    error = math.sqrt(variance) if variance >= 0 else math.nan
    half = error * t_quantile(0.5 + level / 2, freedom) if error > 0 else error
    value = float(means_S.mean())
    over = SEEDS_AND_DOCUMENTS if seeds > 1 else DOCUMENTS_ONLY
    return Estimate(value, value - half, value + half, error, freedom, seeds, documents, over)


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t with `freedom` (> 0, any real) degrees; absolute error under 1e-9."""
    from statistics import NormalDist

    if math.isnan(freedom):
        return math.nan
    if freedom > 1e7:
        return NormalDist().inv_cdf(probability)
    if probability < 0.5:
        return -t_quantile(1.0 - probability, freedom)
    value = NormalDist().inv_cdf(probability)  # left of the root, where Newton only climbs
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale -= 0.5 * math.log(freedom * math.pi)
    for _ in range(200):
        slope = math.exp(scale - (freedom + 1) / 2 * math.log1p(value * value / freedom))
        step = (probability - t_cdf(value, freedom)) / slope
        value += step
        if abs(step) < 1e-10 * max(1.0, value):
            break
    return value


def t_cdf(value: float, freedom: float) -> float:
    """Student's t distribution function."""
    tail = 0.5 * _incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + value * value))
    return 1.0 - tail if value > 0 else tail


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz's algorithm)."""
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
