"""The comparisons that the paper's claims are about, made of a run's record.

Of its record and not of its scores, so that a model which should be there and is not shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from atkd.methods import BASELINES, METHODS, title_of
from atkd.models.families import family_title, size
from atkd.statistics.comparisons import WRAPPER
from atkd.statistics.estimates import Cell, Contrast, RunRecord

PAPER = ("opt", "pythia", "llama")  # the paper's model families
WRAPPED = {row.base: name for name, row in METHODS.items() if row.wrapper == WRAPPER}


class Comparison(NamedTuple):
    """A contrast of cells, multiplied by `scale` (mean of sides -> sum of differences)."""

    contrast: Contrast
    scale: float = 1.0


Compare = Callable[[RunRecord], dict[str, Comparison]]  # label -> comparison


def pairs(record: RunRecord) -> list[Cell]:
    """The run's pairs of the paper's families, without a method."""
    found = [Cell(**pair, method="") for pair in record.pairs]
    return [pair for pair in found if pair.family in PAPER]


def gain(among: Sequence[Cell], bases: Sequence[str] = BASELINES) -> Comparison:
    """ATKD less its baseline, mean over pairs and baselines."""
    theirs = tuple(pair._replace(method=base) for base in bases for pair in among)
    ours = tuple(cell._replace(method=WRAPPED[cell.method]) for cell in theirs)
    return Comparison(Contrast(ours, theirs, "gain"))


def growth(among: Sequence[Cell], methods: Sequence[str] = BASELINES) -> Contrast:
    """Students of the largest teacher less those of the smallest, mean over all and methods."""
    ends: dict[tuple[str, str], list[Cell]] = {}
    for pair in sorted(among, key=lambda pair: size(pair.teacher)):
        ends.setdefault((pair.family, pair.student), []).append(pair)
    small, large = (
        tuple(group[at]._replace(method=method) for group in ends.values() for method in methods)
        for at in (0, -1)
    )
    return Contrast(large, small, "growth")


def repair(among: Sequence[Cell]) -> Comparison:
    """`growth` with ATKD less `growth` without."""
    plain, adaptive = growth(among), growth(among, [WRAPPED[base] for base in BASELINES])
    ours, theirs = adaptive.ours + plain.theirs, adaptive.theirs + plain.ours
    return Comparison(Contrast(ours, theirs, "repair"), scale=2.0)


def pair_label(pair: Cell) -> str:
    """How a pair is written in a sentence."""
    return f"{family_title(pair.family)} {pair.student} <- {pair.teacher}"


def by_baseline(record: RunRecord) -> dict[str, Comparison]:
    """The gain on each baseline, over pairs."""
    return {title_of(base): gain(pairs(record), [base]) for base in BASELINES}


def by_family(record: RunRecord) -> dict[str, Comparison]:
    """The gain in each family, over its pairs and baselines."""
    found = {
        family_title(family): [pair for pair in pairs(record) if pair.family == family]
        for family in PAPER
    }
    return {title: gain(among) for title, among in found.items()}


def by_pair(record: RunRecord) -> dict[str, Comparison]:
    """The gain at each pair, over baselines."""
    return {pair_label(pair): gain([pair]) for pair in pairs(record)}


def by_cell(*families: str) -> Compare:
    """The gain of each baseline at each pair of some families."""
    return lambda record: {
        f"{title_of(base)}, {pair_label(pair)}": gain([pair], [base])
        for base in BASELINES
        for pair in pairs(record)
        if pair.family in families
    }


def growth_of(*families: str) -> Compare:
    """What the largest teacher does to students of plain methods, in some families."""
    return lambda record: {
        "": Comparison(growth([pair for pair in pairs(record) if pair.family in families]))
    }


def over_dkd(record: RunRecord) -> dict[str, Comparison]:
    """Supervised KD + ATKD less Decoupled KD, over pairs."""
    ours, theirs = (
        tuple(pair._replace(method=method) for pair in pairs(record))
        for method in (WRAPPED["supervised_kd"], "dkd")
    )
    return {"": Comparison(Contrast(ours, theirs, "remedy"))}


def pairs_with(record: RunRecord, *methods: str) -> list[Cell]:
    """The pairs of the paper's families at which all of some methods were trained."""
    cells = set(record.cells)
    return [
        pair
        for pair in pairs(record)
        if all(pair._replace(method=method) in cells for method in methods)
    ]


def less(ours: str, theirs: str) -> Compare:
    """One method less another, over the pairs that have both."""
    return lambda record: {"": _less(pairs_with(record, ours, theirs), ours, theirs)}


def less_each(ours: str, theirs: Mapping[str, str]) -> Compare:
    """One method less each of others, by label, each over the pairs that have all of them."""

    def compare(record: RunRecord) -> dict[str, Comparison]:
        among = pairs_with(record, ours, *theirs.values())
        return {label: _less(among, ours, other) for label, other in theirs.items()}

    return compare


def less_more(ours: str, theirs: str) -> Compare:
    """One method less another, with a student's largest teacher less the same with its smallest."""

    def compare(record: RunRecord) -> dict[str, Comparison]:
        among = pairs_with(record, ours, theirs)
        mine, other = growth(among, [ours]), growth(among, [theirs])
        up, down = mine.ours + other.theirs, mine.theirs + other.ours
        return {"": Comparison(Contrast(up, down, "study"), scale=2.0)}

    return compare


def _less(among: Sequence[Cell], ours: str, theirs: str) -> Comparison:
    mine, others = (
        tuple(pair._replace(method=method) for pair in among) for method in (ours, theirs)
    )
    return Comparison(Contrast(mine, others, "study"))
