"""Which cells to compare, and what a comparison says beside its interval.

A gain is a method with ATKD less the same method without. The primary family of tests is the
gain of each of the paper's five baselines, averaged over pairs; all else is exploratory.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.statistics import intervals
from atkd.statistics.estimates import (
    Cell,
    Contrast,
    Scores,
    Sides,
    estimates,
    parts,
    size,
    sort_key,
)

if TYPE_CHECKING:
    import numpy as np

GAIN, POOLED = "gain", "pooled gain"
BASELINES = ("supervised_kd", "reverse_kd", "imitkd", "f_distill", "gkd")
EXPLORATORY, UNDECIDED, HELPS, HURTS = "exploratory", "undecided", "ATKD helps", "ATKD hurts"
EXTRAS = ("improvement", "p", "p_holm", "verdict")
LEVEL = 0.05


def gains(scores: Scores) -> list[Contrast]:
    """ATKD against its baseline: over all pairs that have both, and per pair."""
    pairs: dict[str, list[tuple[Cell, Cell]]] = {}
    for cell in sorted(scores.rows, key=sort_key):
        base = (*cell[:3], cell[3].removesuffix("_atkd"))
        if base != cell and base in scores.rows:
            pairs.setdefault(cell[3], []).append((cell, base))
    pooled = [(tuple(zip(*both, strict=True)), POOLED) for both in pairs.values()]
    single = [(((ours,), (theirs,)), GAIN) for both in pairs.values() for ours, theirs in both]
    return [*pooled, *single]


def controls(scores: Scores) -> list[Contrast]:
    """What must come out in order: teacher, SFT, untrained student; teachers by size."""
    found: dict[Sides, str] = {}
    for family, student, teacher, method in sorted(scores.rows, key=sort_key):
        sft, none = (family, student, "-", "sft"), (family, student, "-", "none")
        large = (family, "-", teacher, "teacher")
        if method == "sft":
            found[(sft,), (none,)] = f"{student} SFT > {student} untrained"
        elif teacher != "-" and method != "teacher":
            found[(large,), (sft,)] = f"{teacher} teacher > {student} SFT"
    teachers = sorted((c for c in scores.rows if c[3] == "teacher"), key=lambda c: size(c[2]))
    for small, large in itertools.combinations(teachers, 2):
        if small[0] == large[0] and size(small[2]) < size(large[2]):
            found[(large,), (small,)] = f"{large[2]} teacher > {small[2]} teacher"
    kept = [item for item in found.items() if {*item[0][0], *item[0][1]} <= {*scores.rows}]
    return sorted(kept, key=lambda item: sort_key(item[0][0][0]))


def differences(scores: Scores) -> list[dict[str, Any]]:
    """Rows of every gain and control: `estimates`' columns and `EXTRAS`.

    `p` and `p_holm` are NaN with fewer than `stats.RELIABLE_SEEDS` seeds, where nothing can be said
    of a method in general. Only the primary family has a `p_holm` and a decided `verdict`.
    """
    compared = gains(scores)
    means = _seed_means(scores, {cell for sides, _ in compared for cell in itertools.chain(*sides)})
    rows = []
    for sides, kind in [*compared, *controls(scores)]:
        for row in estimates(scores, [(sides, kind)]):
            found = intervals.Estimate(*(row[name] for name in intervals.Estimate._fields))
            row |= dict.fromkeys(EXTRAS, math.nan) | {"verdict": ""}
            if kind in (GAIN, POOLED):
                tasks = scores.columns()[row["task"]]
                row["improvement"] = _improvement(means, sides, row["metric"], tasks)
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
        for task, found in parts(scores, metric, ((cell,), ())).items()
        if found is not None
    }


def _improvement(
    means: dict[tuple[Cell, str, str], np.ndarray], sides: Sides, metric: str, tasks: list[str]
) -> float:
    up = 1 if METRICS[metric].higher else -1
    mine, other = (
        [up * means[cell, metric, task] for cell in side for task in tasks] for side in sides
    )
    return intervals.improvement(mine, other)


def is_primary(row: dict[str, Any]) -> bool:
    """Whether a row is in the family that decides: a paper's baseline, over pairs and tasks."""
    where = (row["kind"], row["metric"], row["task"])
    return where == (POOLED, "score", "average") and row["method"][:-5] in BASELINES


def decide(family: list[dict[str, Any]]) -> None:
    """Adds Holm's p-value and a verdict to the primary family's rows."""
    for row, p in zip(family, intervals.holm([row["p"] for row in family]), strict=True):
        word = HELPS if row["value"] > 0 else HURTS
        row["p_holm"], row["verdict"] = p, word if p < LEVEL else UNDECIDED
