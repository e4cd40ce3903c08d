"""The table of methods under settings of their own: levels and changes, from the score file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import drawn, write_run

from atkd.reporting import sweeps
from atkd.reporting.inputs import run_in
from atkd.statistics.estimates import Cell

METHODS = (
    "supervised_kd",
    "supervised_kd+learning_rate=0.002",
    "supervised_kd+learning_rate=5e-4",
    "supervised_kd_atkd",
    "supervised_kd_atkd+hard_fraction=0.3",
    "gkd+beta=0.1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), ("opt",), METHODS, seeds=3, documents=12)


def test_a_row_is_the_mean_over_pairs_and_its_change(run: Path) -> None:
    made = sweeps.sweeps(run_in(run))
    assert made is not None and made.data is not None
    scores = pd.read_csv(run / "scores.csv").query("metric == 'score' and task == 'average'")
    means = scores.groupby("method").value.mean()
    for row in made.data.itertuples():
        name = row.of if row.at == sweeps.CONFIGURED else f"{row.of}+{row.setting}={row.at}"
        assert row.value == pytest.approx(means[name], abs=2e-6)
        if row.at != sweeps.CONFIGURED and row.of != "gkd":
            assert row.change_value == pytest.approx(means[name] - means[row.of], abs=3e-6)
            assert row.change_low < row.change_value < row.change_high


def test_values_are_in_order_behind_the_configured_one(run: Path) -> None:
    made = sweeps.sweeps(run_in(run))
    assert made is not None
    assert [row[:3] if row else None for row in made.rows] == [
        ["beta", "GKD", "0.1"],
        None,
        ["k", "Supervised KD + ATKD", "as configured"],
        ["k", "Supervised KD + ATKD", "0.3"],
        None,
        ["learning rate", "Supervised KD", "as configured"],
        ["learning rate", "Supervised KD", "5e-4"],
        ["learning rate", "Supervised KD", "0.002"],
    ]
    assert made.rows[0] and made.rows[0][-2:] == ["", ""]  # nothing to compare it with


def test_the_other_tables_and_figures_show_methods_as_configured(run: Path, tmp_path: Path) -> None:
    found = drawn(run, tmp_path)
    assert "sweeps" in found and "learning rate" not in found["main_opt"].markdown()
    assert not sweeps.has_sweeps(run_in(write_run(tmp_path / "plain", ("opt",))).record)


def test_a_cell_of_two_settings_stands_under_both() -> None:
    both = Cell("opt", "125m", "1.3b", "gkd+beta=0.1+steps=9")
    found = sweeps.swept([both])
    assert [*found] == [("beta", "gkd+steps=9", "0.1"), ("steps", "gkd+beta=0.1", "9")]
