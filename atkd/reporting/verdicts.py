"""The table of verdicts: what a run says of each claim of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atkd.reporting import registry
from atkd.reporting.inputs import Run
from atkd.reporting.table import Table, number, probability
from atkd.statistics import commitment, decisions
from atkd.statistics.claims import CLAIMS, NOT_MEASURED, UNDECIDED, VERDICTS
from atkd.statistics.decisions import Verdict
from atkd.statistics.probed import PROBED, analysed

if TYPE_CHECKING:
    import pandas as pd

COUNTED = (*reversed([*VERDICTS]),)  # supported first


def probes_of(run: Run) -> dict[str, pd.DataFrame]:
    """The files of the probes that claims are made of, those that are there."""
    found = {probe: run.analysis(probe, ()) for probe in {name for name, _ in PROBED.values()}}
    return {probe: frame for probe, frame in found.items() if frame is not None}


def verdicts_of(run: Run) -> list[Verdict]:
    """A verdict on every claim, from a run's scores and probes."""
    return decisions.verdicts(run.scores, analysed(run.record, probes_of(run)))


@registry.table(
    "claims",
    category="Claims",
    section="claims",
    caption=(
        "What this run says of each claim of the paper: supported, contradicted, equivalent (no "
        "difference that matters), undecided or not measured, by rules fixed before the run."
    ),
)
def claims(run: Run) -> Table:
    """A row per claim, in the order of families of tests."""
    import pandas as pd

    found = verdicts_of(run)
    rows: list[list[str] | None] = []
    for row, before in zip(found, [found[0], *found], strict=False):
        if row.tests != before.tests:
            rows.append(None)
        rows.append(_row(row))
    return Table(
        f"The paper's claims ({run.title})",
        [
            "Verdict", "Claim", "Difference [interval]", "Expected", "Least that matters",
            "Detectable", "p (Holm)", "Seeds",
        ],
        rows,
        [
            _counts(found),
            "Supported and contradicted: p below 5 % after Holm's correction over the claim's "
            "family of tests. Equivalent: shown to be smaller than the least that matters. "
            "Undecided: neither; Detectable is the smallest true difference that a single test "
            "would find four times in five. Of claims about several comparisons the decisive one "
            "is shown.",
            "Intervals: 95 %, uncorrected. Rules, thresholds and families of tests: "
            "results/CLAIMS.md.",
            _committed(),
        ],
        pd.DataFrame([row._asdict() | {"post_hoc": _changes(row.claim)} for row in found]),
    )  # fmt: skip


def _row(row: Verdict) -> list[str]:
    claim = CLAIMS[row.claim]
    title = row.title + (f" ({row.comparison})" if row.comparison else "")
    word = f"{row.verdict}, post hoc" if _changes(row.claim) else row.verdict
    if row.verdict == NOT_MEASURED:
        missing = row.sentence.partition("missing: ")[2].rstrip(".")
        return [word, title, f"missing: {missing}", "", "", "", "", ""]
    sign = ">" if claim.higher else "<"
    low, high = number(row.low), number(row.high)
    level = number(row.value, 2, "+") + (f" [{low}, {high}]" if low else "")
    unit = "" if row.unit == "points" else f" {row.unit}"
    p = probability(row.p_holm) if row.p_holm == row.p_holm else ""
    return [
        word,
        title,
        level + unit,
        f"{sign} {claim.offset:g}",
        number(row.threshold, 1),
        number(row.detectable),
        p,
        str(row.seeds),
    ]


def _changes(claim: str) -> str:
    """Which of a claim's terms are others than those committed before the run."""
    return ", ".join(commitment.post_hoc().get(claim, []))


def _committed() -> str:
    """Since when the rules stand."""
    before = commitment.committed()
    since = f"The claims' terms were committed in {before.commit} on {before.day}"
    changed = commitment.post_hoc()
    if not changed:
        return f"{since} and are unchanged."
    rows = [f"{CLAIMS[key].title} ({', '.join(names)})" for key, names in changed.items()]
    return f"{since}; changed since, and post hoc: {'; '.join(rows)}."


def _counts(found: list[Verdict]) -> str:
    """How many claims have each verdict."""
    words = [row.verdict for row in found]
    counts = [f"{words.count(word)} {word}" for word in COUNTED if word in words]
    few = " A verdict needs three seeds." if {*words} <= {UNDECIDED, NOT_MEASURED} else ""
    return f"Of {len(found)} claims: {', '.join(counts)}.{few}"
