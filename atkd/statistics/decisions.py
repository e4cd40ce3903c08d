"""Verdicts on the paper's claims: from a run's scores, or from an analysis's estimates.

A claim's comparisons are estimated by `estimates.parts` and `intervals.estimate`, turned into one
p-value by the claim's rule, corrected (Holm) over all claims of its family of tests, measured or
not, and read as one of `claims.VERDICTS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from atkd.models.families import family_title
from atkd.runtime.files import InputError
from atkd.statistics import intervals
from atkd.statistics.claims import (
    CLAIMS,
    CONTRADICTED,
    CORRECTIONS,
    EQUIVALENT,
    NEEDS,
    NOT_MEASURED,
    SUPPORTED,
    UNDECIDED,
    Claim,
)
from atkd.statistics.comparisons import LEVEL
from atkd.statistics.contrasts import Comparison, pairs
from atkd.statistics.estimates import Cell, RunRecord, Scores, parts
from atkd.statistics.intervals import RELIABLE_SEEDS, Estimate

Estimates = Mapping[str, Estimate]  # label of a comparison -> its estimate
_NAN = math.nan
NONE = Estimate(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, seeds=0, documents=0, over="")


class Outcome(NamedTuple):
    """What a claim's comparisons say together.

    `p`: of no difference, two-sided. `as_claimed`: whether it goes the claim's way. `equivalent`:
    p-value of a difference that matters. `decisive`: label of the comparison that is shown.
    """

    p: float
    as_claimed: bool
    equivalent: float
    decisive: str


class Verdict(NamedTuple):
    """A claim's verdict.

    `value`, `low`, `high`, `detectable`: of the decisive comparison, in `unit`; the interval is
    95 %, uncorrected. `p_holm`, `equivalent_holm`: corrected over the claim's family of tests.
    """

    claim: str
    title: str
    tests: str
    verdict: str
    comparison: str
    comparisons: int
    value: float
    low: float
    high: float
    unit: str
    threshold: float
    detectable: float
    p: float
    p_holm: float
    equivalent: float
    equivalent_holm: float
    seeds: int
    documents: int
    over: str
    sentence: str


def verdicts(scores: Scores, analysed: Mapping[str, Estimates] | None = None) -> list[Verdict]:
    """A verdict on every claim.

    Args:
        scores: the values of a run.
        analysed: claim -> estimates of its comparisons, for claims that an analysis measures; in
            the direction of the claim's `statistic`, not of the claim.

    Returns:
        A row for each row of `CLAIMS`, in their order.

    Raises:
        InputError: `analysed` names an unknown claim or one that scores decide, or lacks a
            comparison.
    """
    found: dict[str, Estimates] = {}
    absent: dict[str, list[str]] = {}
    for key, claim in CLAIMS.items():
        absent[key] = lacking(claim, scores)
        found[key] = {} if absent[key] else measured(claim, scores)
    for key, given in (analysed or {}).items():
        found[key], absent[key] = checked(key, given), []
    return judged(found, absent)


def checked(key: str, given: Estimates) -> Estimates:
    """An analysis's estimates for a claim, if they are those that it needs; InputError if not."""
    waiting = [name for name, claim in CLAIMS.items() if claim.compare is None]
    if key not in waiting:
        raise InputError(f"found estimates for claim {key!r}; expected one of {', '.join(waiting)}")
    wanted, has = set(CLAIMS[key].labels), set(given)
    if wanted != has:
        raise InputError(
            f"claim {key!r}: found comparisons {sorted(has)}; expected {sorted(wanted)}"
        )
    return given


def lacking(claim: Claim, scores: Scores) -> list[str]:
    """What a claim needs and a run's scores do not have, in words; empty where all is there."""
    record = scores.record
    if claim.compare is None or not NEEDS[claim.needs].met(record):
        return [NEEDS[claim.needs].about]
    absent = [f"family {name}" for name in claim.families if not _teachers(record, name)]
    absent = absent or [
        f"a second teacher for {family_title(name)} {student}"
        for name in claim.families
        for student, teachers in _teachers(record, name).items()
        if len(teachers) < claim.teachers
    ]
    absent += [f"task {name}" for name in claim.tasks if (name, claim.metric) not in scores.values]
    return absent or missing_runs(claim.compare(record).values(), scores)


def _teachers(record: RunRecord, family: str) -> dict[str, set[str]]:
    """Students of a family -> their teachers."""
    found: dict[str, set[str]] = {}
    for pair in pairs(record):
        if pair.family == family:
            found.setdefault(pair.student, set()).add(pair.teacher)
    return found


def missing_runs(comparisons: Iterable[Comparison], scores: Scores) -> list[str]:
    """Models that comparisons need and a run's scores, or its grid, lack.

    A method that the whole grid lacks is named once; of single models, three are.
    """
    record = scores.record
    sides = (side for one in comparisons for side in (one.contrast.ours, one.contrast.theirs))
    cells = list(dict.fromkeys(cell for side in sides for cell in side))
    methods = dict.fromkeys(cell.method for cell in cells if cell.method not in record.methods)
    if methods:
        return [f"method {name}" for name in methods]
    planned: dict[Cell, list[int]] = {cell: [] for cell in cells}
    for key in record.runs:
        *names, seed = key.split("/")
        if Cell(*names) in planned:
            planned[Cell(*names)].append(int(seed))
    absent = ["/".join(cell) for cell, seeds in planned.items() if not seeds]
    absent += [
        f"{'/'.join(cell)}/{seed}"
        for cell, seeds in planned.items()
        for seed in seeds
        if seed not in scores.rows.get(cell, {})
    ]
    more = [f"{len(absent) - 3} more"] if len(absent) > 3 else []
    return [f"run {name}" for name in absent[:3]] + more


def measured(claim: Claim, scores: Scores) -> Estimates:
    """Estimates of a claim's comparisons from scores that have all it needs.

    Raises:
        InputError: the sides of a comparison share no seed, or no document of a task.
    """
    found = {}
    for label, one in claim.compare(scores.record).items() if claim.compare else ():
        by_task = parts(scores, claim.metric, one.contrast)
        known = [part for task in claim.tasks if (part := by_task[task]) is not None]
        if len(known) < len(claim.tasks):
            names = ", ".join(task for task in claim.tasks if by_task[task] is None)
            where = f" ({label})" if label else ""
            raise InputError(
                f"claim {claim.title!r}{where}: both sides share no seed, or no document of {names}"
            )
        found[label] = scaled(intervals.estimate(known), one.scale)
    return found


def scaled(found: Estimate, by: float) -> Estimate:
    """The estimate of a multiple; a negative one turns the interval around."""
    low, high = sorted((by * found.low, by * found.high))
    return found._replace(value=by * found.value, low=low, high=high, error=abs(by) * found.error)


def above(found: Estimate, bound: float) -> float:
    """One-sided p-value of a difference that is at most `bound`; NaN with too few seeds."""
    rest = found._replace(value=found.value - bound)
    both = intervals.p_value(rest)
    return both / 2 if rest.value > 0 else 1 - both / 2


def outcome(claim: Claim, found: Estimates) -> Outcome:
    """A claim's comparisons by its rule.

    `some` is `every` of the opposite: not every comparison falls short.
    """
    way = 1 if claim.higher else -1
    towards = {label: scaled(one, way) for label, one in found.items()}
    ahead = {label: above(one, way * claim.offset) for label, one in towards.items()}
    behind = {label: above(scaled(one, -1), -way * claim.offset) for label, one in towards.items()}
    if any(map(math.isnan, ahead.values())):
        order, p, as_claimed, equivalent = _values(towards), math.nan, False, math.nan
    else:
        for_it, against = (
            (min(intervals.holm([*ahead.values()])), max(behind.values()))
            if claim.rule == "some"
            else (max(ahead.values()), min(intervals.holm([*behind.values()])))
        )
        order, p, as_claimed = ahead, min(1.0, 2 * min(for_it, against)), for_it < against
        size = claim.threshold.value
        equivalent = max(
            max(above(one, -size), above(scaled(one, -1), -size)) for one in towards.values()
        )
    pick = min if claim.rule == "some" else max
    return Outcome(p, as_claimed, equivalent, pick(order, key=lambda label: order[label]))


def _values(towards: Estimates) -> dict[str, float]:
    """What orders comparisons where no p-value does: the largest stands for the least p."""
    return {label: -one.value for label, one in towards.items()}


def judged(found: Mapping[str, Estimates], absent: Mapping[str, list[str]]) -> list[Verdict]:
    """Verdicts from estimates of all claims' comparisons.

    Args:
        found: claim -> its estimates, none where it is not measured.
        absent: claim -> what is missing.

    Returns:
        A row a claim. Holm's correction counts every claim of a family of tests, measured or not,
        so that measuring another one later never raises a corrected p-value.
    """
    outcomes = {
        key: outcome(CLAIMS[key], estimates)
        if estimates
        else Outcome(math.nan, False, math.nan, "")
        for key, estimates in found.items()
    }
    holm: dict[str, tuple[float, float]] = {}
    for tests in CORRECTIONS:
        keys = [key for key in found if CLAIMS[key].tests == tests]
        zero = intervals.holm([outcomes[key].p for key in keys])
        small = intervals.holm([outcomes[key].equivalent for key in keys])
        holm |= dict(zip(keys, zip(zero, small, strict=True), strict=True))
    return [_verdict(key, found[key], absent[key], outcomes[key], *holm[key]) for key in found]


def decide(claim: Claim, result: Outcome, p_holm: float, equivalent_holm: float) -> str:
    """The verdict on a claim that was measured."""
    if claim.equivalence and equivalent_holm < LEVEL:
        return EQUIVALENT
    if p_holm < LEVEL:
        return SUPPORTED if result.as_claimed else CONTRADICTED
    return UNDECIDED


def _verdict(
    key: str,
    found: Estimates,
    absent: list[str],
    result: Outcome,
    p_holm: float,
    equivalent_holm: float,
) -> Verdict:
    claim = CLAIMS[key]
    word = decide(claim, result, p_holm, equivalent_holm) if found else NOT_MEASURED
    shown = found[result.decisive] if found else NONE
    detectable = intervals.detectable(shown)
    told = (
        _told(claim, word, shown, detectable, p_holm) if found else f"missing: {', '.join(absent)}"
    )
    return Verdict(
        claim=key,
        title=claim.title,
        tests=claim.tests,
        verdict=word,
        comparison=result.decisive,
        comparisons=len(found),
        value=shown.value,
        low=shown.low,
        high=shown.high,
        unit=claim.threshold.unit,
        threshold=claim.threshold.value,
        detectable=detectable,
        p=result.p,
        p_holm=p_holm,
        equivalent=result.equivalent,
        equivalent_holm=equivalent_holm,
        seeds=shown.seeds,
        documents=shown.documents,
        over=shown.over,
        sentence=f"{claim.title}: {word}; {_of(claim, result, found)}{told}.",
    )


def _of(claim: Claim, result: Outcome, found: Estimates) -> str:
    """Which of several comparisons a sentence is about."""
    if len(found) < 2:
        return ""
    most = "most" if claim.rule == "some" else "least"
    return f"of {len(found)} comparisons {result.decisive} supports it {most}: "


def _told(claim: Claim, word: str, shown: Estimate, detectable: float, p_holm: float) -> str:
    """Estimate, interval and what decided, in words."""
    unit, size = claim.threshold.unit, claim.threshold.value
    text = f"{shown.value:+.2f} {unit} [{shown.low:+.2f}, {shown.high:+.2f}]"
    if shown.seeds < RELIABLE_SEEDS:
        few = f"a verdict needs {RELIABLE_SEEDS} seeds, found {shown.seeds}"
        return f"{text} over {shown.over}; {few}"
    if word == EQUIVALENT:
        return f"{text}, less than {size:g} whatever its sign"
    text += f", p (Holm) {p_holm:.3f}"
    least = shown.low if claim.higher else -shown.high
    if word == SUPPORTED and claim.rule != "some" and least < size:
        return f"{text}; it may be less than the {size:g} that matter"
    if word == UNDECIDED:
        return f"{text}; a single test finds {detectable:.2f} four times in five"
    return text
