"""What was committed before the runs is kept beside what is asked today."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest

from atkd.statistics import claims_page, commitment
from atkd.statistics.claims import CLAIMS, Claim, Threshold

KEY = "gain_average"
CHANGES = {
    "statistic": {"statistic": "another"},
    "scored": {"tasks": ("mmlu",)},
    "resampled": {"resampled": "seed"},
    "expected": {"higher": False},
    "threshold": {"threshold": Threshold(0.25, "points", "")},
    "rule": {"rule": "every"},
    "comparisons": {"labels": ("a", "b")},
    "needs": {"needs": "unseen"},
    "models": {"teachers": 2},
}


def changed(monkeypatch: pytest.MonkeyPatch, **fields: object) -> Claim:
    """The claim `KEY` with other fields."""
    claim = dataclasses.replace(CLAIMS[KEY], **fields)
    monkeypatch.setitem(CLAIMS, KEY, claim)
    return claim


def test_every_claim_was_committed_before_its_runs() -> None:
    before = commitment.committed()
    assert set(before.terms) == set(CLAIMS)
    assert len(before.commit) >= 7 and before.day.startswith("20")


@pytest.mark.parametrize("term", CHANGES)
def test_a_changed_term_is_post_hoc(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    already = commitment.post_hoc().get(KEY, [])
    changed(monkeypatch, **CHANGES[term])
    assert commitment.post_hoc()[KEY] == sorted({*already, term}, key=[*CHANGES].index)
    assert f"post hoc: `{KEY}` ({term})" in claims_page.since()


def test_words_and_reasons_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before = commitment.post_hoc()
    claim = CLAIMS[KEY]
    changed(monkeypatch, says="In other words.", threshold=claim.threshold._replace(why="So."))
    assert commitment.post_hoc() == before


def test_a_family_with_one_more_test_changes_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLAIMS, "new", CLAIMS[KEY])
    found = commitment.post_hoc()
    alike = {key for key, claim in CLAIMS.items() if claim.tests == CLAIMS[KEY].tests}
    assert all("family of tests" in found[key] for key in alike)
    assert len(found["new"]) == len(commitment.terms(CLAIMS[KEY]))


def test_what_is_committed_is_what_the_commit_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"status": "", "log": "abc1234 2026-01-02"}
    monkeypatch.setattr(commitment, "_git", lambda folder, verb, *_: answers[verb])
    found = commitment.now()
    assert found[:2] == ("abc1234", "2026-01-02")
    assert json.loads(json.dumps(found.terms)) == {
        key: commitment.terms(claim) for key, claim in CLAIMS.items()
    }
    answers["status"] = " M claims.py"
    with pytest.raises(SystemExit, match=r"commit these first: M? ?.*claims\.py"):
        commitment.now()


def test_its_sources_exist_and_git_is_asked_in_their_folder(tmp_path) -> None:
    folder = commitment.FILE.parent
    assert all((folder / name).is_file() for name in commitment.SOURCES)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert commitment._git(tmp_path, "status", "--porcelain") == ""
