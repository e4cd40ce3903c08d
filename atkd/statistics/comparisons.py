"""Which cells to compare, and what a comparison says beside its interval.

A gain is a method with ATKD less the same method without. The primary family of tests is the
gain of each of the paper's five baselines, averaged over pairs; all else is exploratory.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.methods import BASELINES, METHODS
from atkd.models.families import size
from atkd.statistics import intervals
from atkd.statistics.estimates import (
    Cell,
    Contrast,
    RunRecord,
    Scores,
    estimates,
    parts,
    sort_key,
)

if TYPE_CHECKING:
    import numpy as np

WRAPPER = "atkd"  # whose gain is asked for
GAIN, POOLED = "gain", "pooled gain"
EXPLORATORY, UNDECIDED, HELPS, HURTS = "exploratory", "undecided", "ATKD helps", "ATKD hurts"
EXTRAS = ("improvement", "p", "p_holm", "verdict")
LEVEL = 0.05


def base_of(method: str) -> str:
    """The method that ATKD was added to; empty for one without it, and for an unknown one."""
    row = METHODS.get(method)
    return row.base if row is not None and row.wrapper == WRAPPER else ""


def has_gains(record: RunRecord) -> bool:
    """Whether some method of a run's grid is in it with ATKD and without."""
    cells = set(record.cells)
    return any(cell._replace(method=base_of(cell.method)) in cells for cell in cells)


def gains(scores: Scores) -> list[Contrast]:
    """ATKD against its baseline.

    Args:
        scores: the values of a run.

    Returns:
        Per method with ATKD the mean over all pairs that have both sides (`POOLED`), then every
        pair alone (`GAIN`).
    """
    pairs: dict[str, list[tuple[Cell, Cell]]] = {}
    for cell in sorted(scores.rows, key=sort_key):
        base = cell._replace(method=base_of(cell.method))
        if base in scores.rows:
            pairs.setdefault(cell.method, []).append((cell, base))
    pooled = [
        Contrast(tuple(ours for ours, _ in both), tuple(theirs for _, theirs in both), POOLED)
        for both in pairs.values()
    ]
    single = [
        Contrast((ours,), (theirs,), GAIN) for both in pairs.values() for ours, theirs in both
    ]
    return [*pooled, *single]


def controls(scores: Scores) -> list[Contrast]:
    """What must come out in order: teacher, SFT, untrained student; teachers by size.

    Args:
        scores: the values of a run.

    Returns:
        The comparisons whose sides were both run, each once; `kind` says what is expected.
    """
    found: dict[Contrast, None] = {}
    for cell in sorted(scores.rows, key=sort_key):
        student, teacher = cell.student, cell.teacher
        sft = cell._replace(teacher="-", method="sft")
        if cell.method == "sft":
            untrained = cell._replace(method="none")
            found[Contrast((cell,), (untrained,), f"{student} SFT > {student} untrained")] = None
        elif teacher != "-" and cell.method != "teacher":
            large = cell._replace(student="-", method="teacher")
            found[Contrast((large,), (sft,), f"{teacher} teacher > {student} SFT")] = None
    teachers = sorted((c for c in scores.rows if c.method == "teacher"), key=lambda c: size(c[2]))
    for small, large in itertools.combinations(teachers, 2):
        if small.family == large.family and size(small.teacher) < size(large.teacher):
            kind = f"{large.teacher} teacher > {small.teacher} teacher"
            found[Contrast((large,), (small,), kind)] = None
    kept = [one for one in found if {*one.ours, *one.theirs} <= {*scores.rows}]
    return sorted(kept, key=lambda one: sort_key(one.ours[0]))


def differences(scores: Scores) -> list[dict[str, Any]]:
    """Every gain and control with its interval, gains also with what they decide.

    Args:
        scores: the values of a run.

    Returns:
        Rows with `estimates`' columns and `EXTRAS`. `p` and `p_holm` are NaN with fewer than
        `intervals.RELIABLE_SEEDS` seeds, where nothing can be said of a method in general. Only the
        primary family has a `p_holm` and a decided `verdict`.
    """
    compared = gains(scores)
    means = _seed_means(scores, {cell for one in compared for cell in (*one.ours, *one.theirs)})
    rows = []
    for one in [*compared, *controls(scores)]:
        for row in estimates(scores, [one]):
            row |= dict.fromkeys(EXTRAS, math.nan) | {"verdict": ""}
            if one.kind in (GAIN, POOLED):
                found = intervals.Estimate(*(row[name] for name in intervals.Estimate._fields))
                tasks = scores.columns()[row["task"]]
                row["improvement"] = _improvement(means, one, row["metric"], tasks)
                row["p"], row["verdict"] = intervals.p_value(found), EXPLORATORY
            rows.append(row)
    decide([row for row in rows if is_primary(row)])
    return rows


def _seed_means(scores: Scores, cells: set[Cell]) -> dict[tuple[Cell, str, str], np.ndarray]:
    """Each cell's scores by seed, per metric and task."""
    return {
        (cell, metric, task): found.seed_means
        for cell in cells
        for metric in scores.metrics()
        for task, found in parts(scores, metric, Contrast((cell,))).items()
        if found is not None
    }


def _improvement(
    means: dict[tuple[Cell, str, str], np.ndarray], one: Contrast, metric: str, tasks: list[str]
) -> float:
    up = 1 if METRICS[metric].higher else -1
    mine, other = (
        [up * means[cell, metric, task] for cell in side for task in tasks]
        for side in (one.ours, one.theirs)
    )
    return intervals.improvement(mine, other)


def is_primary(row: dict[str, Any]) -> bool:
    """Whether a row is in the family that decides: a paper's baseline, over pairs and tasks."""
    where = (row["kind"], row["metric"], row["task"])
    return where == (POOLED, "score", "average") and base_of(row["method"]) in BASELINES


def decide(family: list[dict[str, Any]]) -> None:
    """Adds Holm's p-value and a verdict to the primary family's rows, in place."""
    for row, p in zip(family, intervals.holm([row["p"] for row in family]), strict=True):
        word = HELPS if row["value"] > 0 else HURTS
        row["p_holm"], row["verdict"] = p, word if p < LEVEL else UNDECIDED
