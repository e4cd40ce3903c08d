"""The paper's claims and their rules in Markdown.

    python -m atkd.statistics.claims_page > results/CLAIMS.md

All of it comes from the registry.
"""

from __future__ import annotations

from atkd.statistics.claims import (
    AVERAGE,
    CLAIMS,
    CORRECTIONS,
    NEEDS,
    RULES,
    SEEDS,
    VERDICTS,
    Claim,
    Threshold,
)
from atkd.statistics.commitment import committed, post_hoc
from atkd.statistics.comparisons import LEVEL
from atkd.statistics.intervals import RELIABLE_SEEDS

INTRO = f"""# The paper's claims, and what decides them

Written by `python -m atkd.statistics.claims_page` from the rows of `atkd/statistics/claims.py`; a
test compares the two. Statistic, threshold, rule and family of tests of a claim are fixed before
the runs that decide it. A one-seed run of an earlier world was known before; it decides none.

- Claims and their places follow the paper's abstract and public summaries of it, in other words.
- A verdict is about the run that it is computed from: in the world, tiny models on generated tasks.
- Methods run by the protocol `stated`, without switches of the released code.
- Unless a row says otherwise, what is compared is the {AVERAGE}, and what
  would differ in another run is the {SEEDS}. A seed redraws
  what the configuration's `seeds_cover` says; of teachers that stay, a verdict holds for those.
- Comparisons are paired: same seeds, same documents. Intervals are 95 % and uncorrected, as in
  [README.md](README.md#reading-the-numbers). All seeds of a run's record enter, at least
  {RELIABLE_SEEDS}; their number is set before the run, and none is added after a look.
- p-values are two-sided, the level is {100 * LEVEL:g} %. They are corrected (Holm) over all claims
  of a family of tests, measured or not. Each family answers a question of its own: in about
  {100 * LEVEL:g} % of runs, at most, it wrongly calls something supported or contradicted, and
  in as many something equivalent.
- The [controls](README.md#reading-the-numbers) come first: where a larger teacher is not the better
  model, a claim about larger teachers says little.
"""
HEADS = ("claim", "paper", "statistic", "expected", "least that matters", "rule", "needs")


def page() -> str:
    """The whole page."""
    found = [INTRO, f"{since()}\n", "## Verdicts\n", *listed(VERDICTS)]
    found += ["## Rules\n", *listed(RULES)]
    found += ["## Thresholds\n", "| least that matters | why |\n| --- | --- |"]
    kinds = dict.fromkeys(claim.threshold for claim in CLAIMS.values())
    found += [row(amount(kind), kind.why) for kind in kinds]
    for name, about in CORRECTIONS.items():
        found.append(section(name, about))
    return "\n".join(found) + "\n"


def since() -> str:
    """When these terms were committed, and what has been changed after that."""
    before = committed()
    rows = [f"`{key}` ({', '.join(names)})" for key, names in post_hoc().items()]
    changed = f" Changed since, and post hoc: {'; '.join(rows)}." if rows else ""
    return f"These terms were committed in {before.commit} on {before.day}.{changed}"


def listed(texts: dict[str, str]) -> list[str]:
    """Names and what they mean, as a list."""
    return [*(f"- **{name}**: {text}" for name, text in texts.items()), ""]


def section(tests: str, about: str) -> str:
    """One family of tests: its claims in a table."""
    rows = [cells(key, claim) for key, claim in CLAIMS.items() if claim.tests == tests]
    count = "1 test" if len(rows) == 1 else f"{len(rows)} tests"
    head = f"\n## {tests.capitalize()} ({count})\n\n{about}\n"
    return "\n".join([head, row(*HEADS), row(*["---"] * len(HEADS)), *(row(*r) for r in rows)])


def cells(key: str, claim: Claim) -> tuple[str, ...]:
    """A claim's cells, in the order of `HEADS`."""
    return (
        f"**{claim.title}** (`{key}`). {claim.says}",
        claim.where,
        f"{claim.statistic}{exceptions(claim)}",
        f"{'>' if claim.higher else '<'} {claim.offset:g}",
        amount(claim.threshold),
        claim.rule + (f": {', '.join(claim.labels)}" if claim.labels != ("",) else ""),
        NEEDS[claim.needs].about,
    )


def exceptions(claim: Claim) -> str:
    """Where a claim departs from what the introduction says of all."""
    scored = f"; scored: {claim.measure}" if claim.measure != AVERAGE else ""
    return scored + (f"; resampled: {claim.resampled}" if claim.resampled != SEEDS else "")


def amount(kind: Threshold) -> str:
    """A threshold with its unit."""
    return f"{kind.value} {kind.unit}"


def row(*texts: str) -> str:
    """A table's line."""
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


if __name__ == "__main__":
    print(page(), end="")
