"""Estimates of the claims that probes measure: one value for each seed, whose mean is estimated.

A probe's files hold a value for each model; what a claim is about is a difference or mean of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from atkd.analyses import BOTH, DKD, LANDSCAPES, on
from atkd.methods import BASELINES
from atkd.models.families import size
from atkd.statistics.contrasts import WRAPPED, pairs, pairs_with
from atkd.statistics.estimates import Cell, RunRecord
from atkd.statistics.intervals import Estimate, over_seeds

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = "references"  # texts that no model was trained on


def uncertainty_falls(record: RunRecord, frame: pd.DataFrame) -> Estimate | None:
    """Mean uncertainty in percent: largest teacher less smallest, mean over families."""
    part = frame[(frame.role == "teacher") & (frame.statistic == "mean")]
    part = part[part.texts == REFERENCES]
    found = {(row.family, row.model, row.seed): row.value for row in part.itertuples()}

    def value(seed: int) -> float | None:
        gaps = []
        for family in dict.fromkeys(pair.family for pair in pairs(record)):
            models = [pair.teacher for pair in pairs(record) if pair.family == family]
            ordered = sorted(dict.fromkeys(models), key=size)
            ends = [found.get((family, ordered[at], seed)) for at in (0, -1)]
            gaps.append(_less(ends[1], ends[0], 100))
        return _mean(gaps)

    return _over(record, value, int(part.tokens.max()) if len(part) else 0)


def uncertainty_marks_difficulty(record: RunRecord, frame: pd.DataFrame) -> Estimate | None:
    """Rank correlation of a teacher's uncertainty and its SFT student's loss, mean over pairs."""
    part = frame[(frame.statistic == "rank_correlation") & (frame.texts == REFERENCES)]
    keys = ("family", "student", "model", "seed")
    found = {tuple(getattr(row, k) for k in keys): row.value for row in part.itertuples()}

    def value(seed: int) -> float | None:
        return _mean(found.get((*pair[:3], seed)) for pair in pairs(record))

    return _over(record, value, int(part.tokens.max()) if len(part) else 0)


def tkd_narrows(record: RunRecord, frame: pd.DataFrame) -> Estimate | None:
    """distinct-2 of students taught on easy tokens: TKD + DKD less DKD, mean over pairs."""
    with_tkd, without = on(BOTH, "easy"), on(DKD, "easy")
    sides = [
        (pair._replace(method=with_tkd), pair._replace(method=without))
        for pair in pairs_with(record, with_tkd, without)
    ]
    return _distinct(record, frame, sides)


def more_diverse(record: RunRecord, frame: pd.DataFrame) -> Estimate | None:
    """distinct-2: method + ATKD less the method, mean over the five baselines and pairs."""
    sides = [
        (pair._replace(method=WRAPPED[base]), pair._replace(method=base))
        for base in BASELINES
        for pair in pairs(record)
    ]
    return _distinct(record, frame, sides)


RISE_AT = 0.2  # the steps' length, relative to each filter's, at which landscapes are compared


def rises(frame: pd.DataFrame) -> dict[str, float]:
    """Run -> what its loss rises by, on average, by steps of the length `RISE_AT`."""
    centre = frame[frame.kind == "centre"].set_index("run").loss
    steps = frame[(frame.kind == "step") & ((frame.x.abs() - RISE_AT).abs() < 1e-9)]
    return dict((steps.groupby("run").loss.mean() - centre).items())


def flatter_landscape(record: RunRecord, frame: pd.DataFrame) -> Estimate | None:
    """Logarithm of the rise: Supervised KD + ATKD less Supervised KD, mean over pairs."""
    found = {run: math.log(rise) for run, rise in rises(frame).items() if rise > 0}
    taken = {"/".join(run.split("/")[:3]) for run in found}
    sides = [
        (pair._replace(method=LANDSCAPES[1]), pair._replace(method=LANDSCAPES[0]))
        for pair in pairs(record)
        if "/".join(pair[:3]) in taken
    ]
    return _differences(record, found, sides, int(frame.tokens.max()))


# Claim -> the probe whose file it is made of, and how.
PROBED: Mapping[str, tuple[str, Callable[[RunRecord, pd.DataFrame], Estimate | None]]] = {
    "uncertainty_falls": ("uncertainty", uncertainty_falls),
    "uncertainty_marks_difficulty": ("uncertainty", uncertainty_marks_difficulty),
    "tkd_narrows": ("diversity", tkd_narrows),
    "more_diverse": ("diversity", more_diverse),
    "flatter_landscape": ("landscape", flatter_landscape),
}


def analysed(
    record: RunRecord, frames: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, Estimate]]:
    """Claim -> its estimate, of those whose probes are there and whole."""
    found = {}
    for claim, (probe, estimate) in PROBED.items():
        made = estimate(record, frames[probe]) if probe in frames else None
        if made is not None:
            found[claim] = {"": made}
    return found


def _distinct(
    record: RunRecord, frame: pd.DataFrame, sides: Sequence[tuple[Cell, Cell]]
) -> Estimate | None:
    part = frame[frame.statistic == "distinct_2"]
    found = dict(zip(part.run, part.value, strict=True))
    return _differences(record, found, sides, int(part.answers.max()) if len(part) else 0)


def _differences(
    record: RunRecord,
    found: Mapping[str, float],
    sides: Sequence[tuple[Cell, Cell]],
    documents: int,
) -> Estimate | None:
    """The mean over pairs of cells of the first less the second, seed by seed."""

    def value(seed: int) -> float | None:
        def of(cell: Cell) -> float | None:
            return found.get("/".join([*cell, str(seed)]))

        return _mean(_less(of(ours), of(theirs)) for ours, theirs in sides)

    return _over(record, value, documents)


def _less(one: float | None, other: float | None, scale: float = 1) -> float | None:
    return None if one is None or other is None else scale * (one - other)


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where one is missing, or all are."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def _over(
    record: RunRecord, value: Callable[[int], float | None], documents: int
) -> Estimate | None:
    values = [value(seed) for seed in record.seeds]
    known = [each for each in values if each is not None]
    return over_seeds(known, documents) if known and len(known) == len(values) else None
