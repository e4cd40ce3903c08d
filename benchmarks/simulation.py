"""Simulated comparisons with known variances, and the intervals and tests that are tried on them.

Drawn from the documents' gains of a frozen run; what is tried is `statistics.intervals` itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atkd.statistics import comparisons, estimates, intervals  # noqa: E402
from atkd.tasks import AVERAGES  # noqa: E402

Array = np.ndarray
Tasks = list[Array]  # per task: each document's gain less the task's mean, (D,)
CHUNK = 1000


class Setting(NamedTuple):
    """What is drawn; variances in units of that of one seed's mean over documents.

    `seed_ratio` is the variance between seeds, half of it common to all tasks and half each
    task's own; `residual` the share of the documents' variance that is new with every seed.
    """

    seeds: int
    residual: float
    seed_ratio: float

    @property
    def known(self) -> float:
        """Variance of the mean over seeds and documents."""
        return 1 - self.residual + (self.residual + self.seed_ratio) / self.seeds

    @property
    def share(self) -> float:
        """Share of it that seeds carry, the residual included."""
        return 1 - (1 - self.residual) / self.known


def observed(run: Path) -> dict[str, Tasks]:
    """One baseline's gains per task and document in a frozen run: over pairs, a pair, a task."""
    scores = estimates.load(run / "scores.csv", run / "documents.csv.gz")
    pooled, one, *_ = comparisons.gains(scores)
    tasks = AVERAGES["average"]

    def mean(cells: tuple[estimates.Cell, ...], task: str) -> Array:
        rows = [next(iter(scores.rows[cell].values())) for cell in cells]
        return scores.values[task, "score"][rows].mean(0)

    def gains(contrast: estimates.Contrast, task: str) -> Array:
        found = mean(contrast.ours, task) - mean(contrast.theirs, task)
        return found - found.mean()

    return {
        f"mean of {len(pooled.ours)} pairs": [gains(pooled, task) for task in tasks],
        "one pair": [gains(one, task) for task in tasks],
        "one pair, one task of 0 or 100": [gains(one, "mmlu")],
    }


def spread(run: Path) -> tuple[float, float]:
    """Residual, and the seeds' share, of the same gain in a frozen run of several seeds."""
    scores = estimates.load(run / "scores.csv", run / "documents.csv.gz")
    found = estimates.parts(scores, "score", comparisons.gains(scores)[0])
    tasks = [found[task] for task in AVERAGES["average"]]
    residual, shared = (
        sum(float(part) for part in parts)
        for parts in ([t.residual * len(t.seed_means) for t in tasks],
                      [t.document - t.residual for t in tasks])
    )  # fmt: skip
    return residual / (residual + max(shared, 0.0)), float(intervals.moments(tasks).share)


def draw(
    tasks: Tasks, setting: Setting, count: int, rng: np.random.Generator, limit: int | None = None
) -> list[Array]:
    """`count` simulated comparisons whose true difference is zero: per task (count, S, D).

    Document effects and residuals are drawn with replacement from the observed gains (so that
    their odd shapes stay), seed effects from a normal distribution; `limit` documents a task.
    """
    scale = np.sqrt(setting.seed_ratio * variance(tasks, limit) / 2)
    common_S1 = scale * rng.normal(size=(count, setting.seeds, 1))
    found = []
    for task in tasks:
        size = limit or len(task)
        document_D = np.sqrt(1 - setting.residual) * rng.choice(task, (count, 1, size))
        rest_SD = np.sqrt(setting.residual) * rng.choice(task, (count, setting.seeds, size))
        own_S1 = scale * np.sqrt(len(tasks)) * rng.normal(size=(count, setting.seeds, 1))
        found.append(document_D + rest_SD + common_S1 + own_S1)
    return found


def variance(tasks: Tasks, limit: int | None = None) -> float:
    """Variance of one seed's mean over documents: the unit of all variances here."""
    return sum(task.var() / (limit or len(task)) for task in tasks) / len(tasks) ** 2


INVERSE = np.array([0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
SHARES = np.linspace(0.0, 1.0, 101)


@functools.cache
def quantiles(seeds: int) -> Array:
    """0.975 quantiles of `reference` at `INVERSE` (1 / freedom of documents) and `SHARES`."""
    freedoms = [1 / x if x else np.inf for x in INVERSE]
    mixtures = [intervals.reference(share, seeds, d) for d in freedoms for share in SHARES]
    found = [intervals.mixture_quantile(0.975, parts) for parts in mixtures]
    return np.reshape(found, (len(INVERSE), len(SHARES)))


def quantile(share: Array, seeds: int, freedom: Array) -> Array:
    """`quantiles` read off between its points."""
    rows = np.stack([np.interp(share, SHARES, row) for row in quantiles(seeds)])
    place = np.interp(1 / freedom, INVERSE, np.arange(len(INVERSE)))
    low = np.minimum(place.astype(int), len(INVERSE) - 2)
    each = np.arange(len(share))
    return rows[low, each] + (place - low) * (rows[low + 1, each] - rows[low, each])


Bounds = tuple[Array, Array]


def around(found: intervals.Moments, seeds: int) -> Bounds:
    """The interval that such moments mean."""
    half = found.error * quantile(found.share, seeds, found.freedom)
    return found.value - half, found.value + half


def student(value: Array, error: Array, freedom: Array) -> Bounds:
    """A plain t interval."""
    return around(intervals.Moments(value, error, np.zeros(len(value)), freedom), 2)


def harness(tasks: list[intervals.Components], rng: np.random.Generator) -> Bounds:
    """What the tables print."""
    return around(intervals.moments(tasks), tasks[0].seed_means.shape[-1])


def satterthwaite(tasks: list[intervals.Components], rng: np.random.Generator) -> Bounds:
    """The same components, a negative one of the seeds set to zero, textbook degrees of freedom."""
    means_S = np.mean([task.seed_means for task in tasks], axis=0)
    seeds, scale = means_S.shape[-1], len(tasks) ** 2
    document_T, residual_T = (
        np.stack([getattr(task, name) for task in tasks], -1) / scale
        for name in ("document", "residual")
    )
    freedom_T = np.array([task.freedom for task in tasks])
    document_T = np.maximum(document_T, residual_T)
    seed, rest = means_S.var(-1, ddof=1) / seeds, residual_T.sum(-1)
    used = seed > rest
    variance = document_T.sum(-1) + np.where(used, seed - rest, 0)
    below = seed**2 / (seeds - 1) + (residual_T**2 / ((seeds - 1) * freedom_T)).sum(-1)
    below = (document_T**2 / freedom_T).sum(-1) + np.where(used, below, 0)
    return student(means_S.mean(-1), np.sqrt(variance), variance**2 / below)


def seeds_only(tasks: list[intervals.Components], rng: np.random.Generator) -> Bounds:
    """A t interval over the seeds' means: documents taken as all there are."""
    means_S = np.mean([task.seed_means for task in tasks], axis=0)
    seeds = means_S.shape[-1]
    error = means_S.std(-1, ddof=1) / np.sqrt(seeds)
    return student(means_S.mean(-1), error, np.full(len(error), seeds - 1.0))


def documents_only(tasks: list[intervals.Components], rng: np.random.Generator) -> Bounds:
    """A t interval over the documents of all seeds' average: seeds taken as all there are."""
    merged = [
        task._replace(
            seed_means=task.seed_means.mean(-1, keepdims=True),
            residual=np.zeros(len(task.document)),
        )
        for task in tasks
    ]
    return around(intervals.moments(merged), 2)  # no share of seeds: their number is idle


def nested_bootstrap(tasks: list[intervals.Components], rng: np.random.Generator) -> Bounds:
    """Percentiles of 400 resamples of seeds, then of each seed's documents on their own.

    Means over resampled documents are drawn from their normal limit; documents' variance within a
    seed is what two seeds share plus what they do not.
    """
    means_S = np.mean([task.seed_means for task in tasks], axis=0)
    count, seeds = means_S.shape
    within = sum(t.document + t.residual * (seeds - 1) for t in tasks) / len(tasks) ** 2
    picked = rng.integers(seeds, size=(count, 400, seeds))
    noise = rng.normal(size=(count, 400, seeds)) * np.sqrt(within)[:, None, None]
    found = (np.take_along_axis(means_S[:, None, :], picked, -1) + noise).mean(-1)
    low, high = np.quantile(found, [0.025, 0.975], axis=1)
    return low, high


METHODS: dict[str, Callable[..., Bounds]] = {
    "harness": harness,
    "Satterthwaite": satterthwaite,
    "nested bootstrap": nested_bootstrap,
    "seeds only": seeds_only,
    "documents only": documents_only,
}


def chunks(count: int) -> Iterator[int]:
    """`count` in pieces that fit into memory."""
    while count > 0:
        yield min(count, CHUNK)
        count -= CHUNK


def coverage(
    tasks: Tasks,
    setting: Setting,
    count: int,
    rng: np.random.Generator,
    methods: dict[str, Callable[..., Bounds]] | None = None,
    limit: int | None = None,
) -> dict[str, tuple[float, float]]:
    """Per method the share of intervals that hold the truth, and their mean relative width.

    The width's unit is that of the interval that knows the variance.
    """
    methods = METHODS if methods is None else methods
    held, wide = dict.fromkeys(methods, 0.0), dict.fromkeys(methods, 0.0)
    unit = 2 * 1.959964 * np.sqrt(setting.known * variance(tasks, limit))
    for size in chunks(count):
        found = [intervals.components(task) for task in draw(tasks, setting, size, rng, limit)]
        for name, method in methods.items():
            low, high = method(found, rng)
            held[name] += float(((low <= 0) & (high >= 0)).sum()) / count
            wide[name] += float((high - low).sum()) / unit / count
    return {name: (held[name], wide[name]) for name in methods}


def family(
    tasks: Tasks, setting: Setting, count: int, rng: np.random.Generator, shared: float, real: int
) -> tuple[float, float, float]:
    """Five gains, correlated by `shared`, `real` of them as large as one test finds at 80 %.

    Returns how often some gain that is zero is called real, without and with Holm's correction,
    and the share of the real ones found with it (NaN without any).
    """
    parts = intervals.reference(setting.share, setting.seeds, np.inf)
    effect = sum(intervals.mixture_quantile(q, parts) for q in (0.975, 0.8))
    effect *= np.sqrt(setting.known * variance(tasks))
    single, corrected, found = 0, 0, 0
    for size in chunks(count):
        p_values = []
        common = draw(tasks, setting, size, rng)
        for place in range(5):
            own = draw(tasks, setting, size, rng)
            values = [
                np.sqrt(shared) * a + np.sqrt(1 - shared) * b + (place < real) * effect
                for a, b in zip(common, own, strict=True)
            ]
            p_values.append(p_of([intervals.components(task) for task in values]))
        for p_G in zip(*p_values, strict=True):
            adjusted = intervals.holm(p_G)
            single += min(p_G[real:]) < comparisons.LEVEL
            corrected += min(adjusted[real:]) < comparisons.LEVEL
            found += sum(p < comparisons.LEVEL for p in adjusted[:real])
    return single / count, corrected / count, found / (count * real) if real else float("nan")


def p_of(tasks: list[intervals.Components]) -> list[float]:
    """The harness's p-value of every simulated comparison."""
    rest = (tasks[0].seed_means.shape[-1], 0, intervals.SEEDS_AND_DOCUMENTS)
    return [
        intervals.p_value(intervals.Estimate(value, 0.0, 0.0, error, share, freedom, *rest))
        for value, error, share, freedom in zip(*intervals.moments(tasks), strict=True)
    ]
