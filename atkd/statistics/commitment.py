"""The claims' terms as they were committed before the runs that decide them.

    python -m atkd.statistics.commitment > committed.json

writes today's terms and the commit that holds them; the file goes to `atkd/statistics`. What is
changed after that is post hoc, and reports say so.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from atkd.statistics.claims import CLAIMS, CORRECTIONS, RULES, Claim

FILE = Path(__file__).with_name("committed.json")
SOURCES = ("claims.py", "contrasts.py", "comparisons.py", "decisions.py", "intervals.py")

Terms = Mapping[str, str]  # name of a term -> its value


class Commitment(NamedTuple):
    """The commit, its day, and the terms of each claim in it."""

    commit: str
    day: str
    terms: Mapping[str, Terms]


def terms(claim: Claim) -> Terms:
    """All that decides a claim, in words: where one differs, the claim is another."""
    return {
        "statistic": claim.statistic,
        "scored": f"{claim.measure} ({claim.metric} on {', '.join(claim.tasks)})",
        "resampled": claim.resampled,
        "expected": f"{'>' if claim.higher else '<'} {claim.offset:g}",
        "threshold": f"{claim.threshold.value:g} {claim.threshold.unit}",
        "rule": f"{claim.rule}: {RULES[claim.rule]}",
        "comparisons": ", ".join(claim.labels),
        "family of tests": f"{claim.tests} ({_size(claim.tests)} tests)",
        "needs": claim.needs,
        "models": f"{', '.join(claim.families)}; at least {claim.teachers} teachers of each",
    }


def _size(tests: str) -> int:
    """How many claims are corrected together."""
    assert tests in CORRECTIONS
    return sum(claim.tests == tests for claim in CLAIMS.values())


@cache
def committed() -> Commitment:
    """What `committed.json` holds."""
    return Commitment(**json.loads(FILE.read_text(encoding="utf-8")))


def post_hoc() -> dict[str, list[str]]:
    """Claims whose terms differ from the committed ones -> which; all of a claim's if it is new."""
    found = {}
    for key, claim in CLAIMS.items():
        now, then = terms(claim), committed().terms.get(key, {})
        changed = [name for name, value in now.items() if value != then.get(name)]
        if changed:
            found[key] = changed
    return found


def now() -> Commitment:
    """Today's terms and the last commit of their sources; SystemExit where those are not in it."""
    here = Path(__file__).parent
    changed = _git(here, "status", "--porcelain", "--", *SOURCES)
    if changed:
        raise SystemExit(f"commit these first: {changed}")
    commit, day = _git(here, "log", "-1", "--format=%h %cs", "--", *SOURCES).split()
    return Commitment(commit, day, {key: terms(claim) for key, claim in CLAIMS.items()})


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    print(json.dumps(now()._asdict(), indent=1, ensure_ascii=False))
