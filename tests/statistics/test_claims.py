"""The registry of claims: whole, consistent, and printed as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from atkd import config
from atkd.analyses import ANALYSES
from atkd.methods import BASELINES
from atkd.plan import Plan
from atkd.statistics import claims, claims_page
from atkd.statistics.claims import CLAIMS, Claim
from atkd.statistics.estimates import RunRecord

EACH = pytest.mark.parametrize("claim", CLAIMS.values(), ids=[*CLAIMS])


def everything() -> RunRecord:
    """The record of the world's run with every analysis."""
    found = yaml.safe_load((ROOT / "config/world.yaml").read_text(encoding="utf-8"))
    return RunRecord(**Plan(config.checked(found | {"analyses": [*ANALYSES]})).record())


def test_the_page_is_written_from_the_registry() -> None:
    written = (ROOT / "results/CLAIMS.md").read_text(encoding="utf-8")
    command = "python -m atkd.statistics.claims_page > results/CLAIMS.md"
    assert written == claims_page.page(), f"run: {command}"
    assert command in claims_page.__doc__


def test_the_command_prints_the_page_and_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys; runpy.run_module('atkd.statistics.claims_page', run_name='__main__')\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, claims_page.page()), done.stderr


def test_the_page_has_every_claim_once_with_its_rule() -> None:
    lines = claims_page.page().splitlines()
    for key, claim in CLAIMS.items():
        (line,) = [line for line in lines if f"(`{key}`)" in line]
        for part in (claim.title, claim.says, claim.where, claim.statistic, claim.rule):
            assert part in line
        assert f"| {claim.threshold.value} {claim.threshold.unit} |" in line
        assert (f"scored: {claim.measure}" in line) == (claim.measure != claims.AVERAGE)
        assert (f"resampled: {claim.resampled}" in line) == (claim.resampled != claims.SEEDS)
    assert all(line.count("|") == 8 for line in lines if "(`" in line)


@EACH
def test_a_claim_refers_to_rows_that_exist(claim: Claim) -> None:
    assert claim.tests in claims.CORRECTIONS
    assert claim.needs in claims.NEEDS
    assert claim.rule in claims.RULES
    assert claim.threshold.value > 0 and claim.threshold.why


@EACH
def test_a_claim_is_told_in_full(claim: Claim) -> None:
    assert claim.says.endswith(".") and claim.where and claim.measure and claim.resampled
    assert not claim.statistic.endswith(".")
    if claim.compare is None:
        assert (len(claim.labels) > 1) == (claim.rule != "one"), "names of its comparisons"
    elif claim.labels != ("",):
        assert tuple(claim.compare(everything())) == claim.labels


def test_what_a_run_decides_today() -> None:
    waiting = {key for key, claim in CLAIMS.items() if claim.compare is None}
    assert {CLAIMS[key].tests for key in waiting} == {"mechanism", "consequences"}
    headline = [key for key, claim in CLAIMS.items() if claim.tests == "headline"]
    assert len(headline) == 5 and not waiting.intersection(headline)
    assert [key for key, claim in CLAIMS.items() if claim.tests == "baselines"] == [
        f"gain_{base}" for base in BASELINES
    ]


def test_every_row_of_the_other_tables_is_used() -> None:
    rows = CLAIMS.values()
    assert {claim.tests for claim in rows} == set(claims.CORRECTIONS)
    assert {claim.needs for claim in rows} == set(claims.NEEDS)
    assert {claim.rule for claim in rows} == set(claims.RULES)


def test_titles_are_distinct() -> None:
    titles = [claim.title for claim in CLAIMS.values()]
    assert len(set(titles)) == len(titles)
