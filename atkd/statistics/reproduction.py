"""Whether a run repeats another one: the same scores, or scores that differ as seeds do.

Seeds of one cell differ by what bases, orders and processors make of them. Their variance, pooled
over the reference's cells, is the noise; a cell differs beyond it if its mean's difference does,
corrected (Holm) over all cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atkd.statistics.estimates import KEYS, Cell, as_configured
from atkd.statistics.intervals import Estimate, holm, p_value

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
SAME = 1e-6  # scores are written to six decimals


@dataclass(frozen=True)
class Difference:
    """A cell that both runs have: mean score less the reference's, and its corrected p-value."""

    cell: Cell
    value: float
    p_holm: float

    @property
    def beyond_noise(self) -> bool:
        """Whether it is more than seeds make."""
        return self.p_holm < LEVEL


@dataclass(frozen=True)
class Reproduction:
    """`same` of `shared` scores (cell and seed) are equal; `noise` is the seeds' deviation."""

    shared: int
    same: int
    noise: float
    differences: list[Difference]

    @property
    def beyond_noise(self) -> list[Difference]:
        """The cells that differ by more than seeds make."""
        return [each for each in self.differences if each.beyond_noise]


def averages(scores: pd.DataFrame) -> pd.DataFrame:
    """Average scores of methods as configured: a row per cell, a column per seed."""
    part = scores[(scores.metric == "score") & (scores.task == "average")]
    return as_configured(part).pivot(index=KEYS, columns="seed", values="value")


def reproduction(own: pd.DataFrame, reference: pd.DataFrame) -> Reproduction:
    """Compares average scores with a reference's.

    Args:
        own: a run's scores.csv.
        reference: that of another run of the same configuration, several seeds of it.

    Returns:
        What is equal and what differs; without several seeds in the reference no noise is known,
        and no cell differs beyond it.
    """
    mine, theirs = averages(own), averages(reference)
    cells = [cell for cell in mine.index if cell in set(theirs.index)]
    mine, theirs = mine.loc[cells], theirs.loc[cells]
    seeds = [seed for seed in mine if seed in set(theirs)]
    gaps = (mine[seeds] - theirs[seeds]).abs()
    shared, same = int(gaps.notna().sum().sum()), int((gaps <= SAME).sum().sum())
    freedom = int((theirs.notna().sum(axis=1) - 1).clip(lower=0).sum())
    squares = float(theirs.sub(theirs.mean(axis=1), axis=0).pow(2).sum().sum())
    noise = math.sqrt(squares / freedom) if freedom else math.nan
    found = [_difference(mine.loc[cell], theirs.loc[cell], noise, freedom) for cell in cells]
    p_values = holm([p for _, p in found])
    rows = zip(cells, found, p_values, strict=True)
    return Reproduction(
        shared, same, noise, [Difference(Cell(*cell), gap, p) for cell, (gap, _), p in rows]
    )


def _difference(
    mine: pd.Series, theirs: pd.Series, noise: float, freedom: int
) -> tuple[float, float]:
    """A cell's difference, and its p-value under the pooled noise; 1 where none is known."""
    ours, others = mine.dropna(), theirs.dropna()
    gap = float(ours.mean() - others.mean())
    error = noise * math.sqrt(1 / len(ours) + 1 / len(others))
    if not error > 0:
        return gap, 1.0
    # Student's t of the pooled variance: as many degrees of freedom as seeds less one.
    tested = Estimate(gap, math.nan, math.nan, error, 1.0, math.inf, freedom + 1, 0, "seeds")
    p = p_value(tested)
    return gap, 1.0 if math.isnan(p) else p


def told(found: Reproduction, name: str) -> str:
    """A reproduction in words, for a run's last lines."""
    if not found.differences:
        return f"shares no model with {name}"
    text = f"{found.same} of {found.shared} average scores equal those of {name}"
    if math.isnan(found.noise):
        return f"{text}, which has too few seeds to know its noise"
    rest = f"seeds differ by {found.noise:.2f} points (standard deviation)"
    beyond = found.beyond_noise
    if not beyond:
        return f"{text}; none of {len(found.differences)} models differs beyond noise, {rest}"
    shown = ", ".join(f"{'/'.join(each.cell)} {each.value:+.1f}" for each in beyond[:5])
    more = f" and {len(beyond) - 5} more" if len(beyond) > 5 else ""
    return f"{text}; beyond noise: {shown}{more}; {rest}"
