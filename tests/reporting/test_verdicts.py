"""The table of verdicts: the rows of `decisions`, with what probes add."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import drawn, write_run

from atkd.methods import BASELINES
from atkd.reporting import verdicts
from atkd.reporting.inputs import run_in
from atkd.reporting.table import number
from atkd.runtime.files import write_text
from atkd.statistics import commitment, decisions
from atkd.statistics.claims import CLAIMS, NOT_MEASURED
from atkd.statistics.contrasts import WRAPPED

METHODS = (*BASELINES, *WRAPPED.values(), "dkd")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), methods=METHODS, seeds=3, documents=6)


def test_a_row_for_every_claim_says_what_was_decided(run: Path, tmp_path: Path) -> None:
    table = drawn(run, tmp_path)["claims"]
    rows = [row for row in table.rows if row]
    found = decisions.verdicts(run_in(run).scores)
    assert [row[0].removesuffix(", post hoc") for row in rows] == [one.verdict for one in found]
    assert len(rows) == len(CLAIMS)
    for row, one in zip(rows, found, strict=True):
        assert row[1].startswith(one.title)
        if one.verdict == NOT_MEASURED:
            assert row[2].startswith("missing: ")
        else:
            assert row[2].startswith(number(one.value, 2, "+")) and row[7] == "3"
    assert table.notes[0].startswith(f"Of {len(CLAIMS)} claims: ")


def test_a_probe_measures_its_claims(run: Path) -> None:
    runs = run_in(run).record.runs
    rows = [f"{key},distinct_2,{20 + 3 * ('_atkd' in key) + n % 2},9" for n, key in enumerate(runs)]
    write_text(run / "analyses/diversity.csv", "run,statistic,value,answers\n" + "\n".join(rows))
    found = {row.claim: row for row in verdicts.verdicts_of(run_in(run))}
    assert (
        found["more_diverse"].value == pytest.approx(3, abs=1) and found["more_diverse"].seeds == 3
    )
    assert found["tkd_narrows"].verdict == NOT_MEASURED
    (run / "analyses/diversity.csv").unlink()


def test_a_claim_changed_since_it_was_committed_is_marked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = drawn(run, tmp_path)["claims"]
    assert commitment.committed().commit in table.notes[-1]
    monkeypatch.setattr(commitment, "post_hoc", lambda: {"gain_average": ["threshold"]})
    table = drawn(run, tmp_path)["claims"]
    marked = [row[0] for row in table.rows if row and row[0].endswith(", post hoc")]
    assert len(marked) == 1 and "ATKD helps on average (threshold)" in table.notes[-1]
    kept = pd.read_csv(tmp_path / "claims.csv").set_index("claim").post_hoc
    assert kept["gain_average"] == "threshold" and kept.notna().sum() == 1
