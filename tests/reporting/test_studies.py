"""Tables and figures of studies: levels and differences, from the score file by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import change_record, drawn, write_run

from atkd.analyses import ANALYSES, BOTH, is_study
from atkd.reporting import figures, studies
from atkd.reporting.inputs import run_in
from atkd.reporting.table import read

NAMES = ("token_study", "hard_fraction_sweep", "temperatures", "remedies")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two families, three seeds, the methods of four studies at every pair."""
    methods = tuple(dict.fromkeys(name for each in NAMES for name in ANALYSES[each].methods))
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, ("opt", "llama"), methods, seeds=3, documents=12)
    change_record(folder, analyses=[*NAMES, "scopes"])
    return folder


@pytest.fixture(scope="module")
def tables(run: Path) -> Path:
    drawn(run, run / "tables")
    return run / "tables"


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_a_mean_over_seeds_and_pairs_less_that_of_another(
    name: str, run: Path, tables: Path
) -> None:
    scores = pd.read_csv(run / "scores.csv").query("metric == 'score' and task == 'average'")
    means = scores.groupby(["family", "teacher", "method"]).value.mean()
    data = pd.read_csv(tables / f"{name}.csv")
    against = ANALYSES[name].against
    assert set(data.method) == set(ANALYSES[name].methods)
    for row in data.itertuples():
        where = slice(None) if row.family == studies.POOLED else (row.family, row.teacher)
        level = means.xs(row.method, level="method").loc[where]
        other = means.xs(against, level="method").loc[where]
        assert row.value == pytest.approx(pd.Series(level).mean(), abs=2e-6)
        if row.method != against:
            wanted = pd.Series(level).mean() - pd.Series(other).mean()
            assert row.change_value == pytest.approx(wanted, abs=3e-6)
            assert row.change_low < row.change_value < row.change_high
        else:
            assert pd.isna(row.change_value)


def test_blocks_are_the_mean_and_then_every_pair(tables: Path) -> None:
    shown = read(tables / "hard_fraction_sweep.json")
    blocks = [row[0] for row in shown.rows if row]
    assert list(dict.fromkeys(blocks))[:2] == ["mean of 5 pairs", "OPT 125M ← 1.3B"]
    arms = [row[1] for row in shown.rows if row][:6]
    assert arms == ["Supervised KD", "0.1", "0.3", "0.5", "0.7", "0.9"]
    assert "less" in shown.heads[3].lower() and "How ATKD depends on k" in shown.notes[0]


def test_figures_are_drawn_of_what_was_studied(run: Path, tables: Path, tmp_path: Path) -> None:
    found = figures.draw(tables, tmp_path, run / "run.json")
    assert {*NAMES} <= {*found} and "scopes" not in found and "learning_rates" not in found
    text = (tmp_path / "token_study.txt").read_text(encoding="utf-8")
    assert "seeds: 3" in text and "95 %" in text and "higher is better" in text


def test_main_tables_leave_studies_out(tables: Path) -> None:
    assert "hardest" not in (tables / "main_opt.md").read_text(encoding="utf-8")
    assert BOTH not in set(pd.read_csv(tables / "main_opt.csv").method)


def test_every_study_has_one_table_and_one_figure() -> None:
    for kind in (studies.registry.tables(), studies.registry.figures()):
        names = [entry.name for entry in kind if entry.section == "studies"]
        assert names == [name for name in ANALYSES if is_study(name)]
        assert not any(entry.applies(run_record()) for entry in kind if entry.section == "studies")


def run_record() -> object:
    """The record of a run without analyses."""
    return type("Record", (), {"analyses": []})()


def test_an_incomplete_study_has_no_table(run: Path) -> None:
    assert studies.study_table("scopes", run_in(run)) is None
