"""Training curves: means of windows of the log, tokens read by their ends."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from atkd.analysis import curves
from atkd.runtime.files import write_json, write_jsonl


def training(folder: Path, count: int, **facts: object) -> Path:
    """A training's log of every third step, its loss being the step's number."""
    write_jsonl(
        folder / "metrics.jsonl", [{"step": 3 * n, "loss": 3 * n} for n in range(1, count + 1)]
    )
    record = {"stage": "student", "run": "opt/1m/1b/gkd/1", "steps": 3 * count, "first_step": 0}
    write_json(folder / "provenance.json", record | {"tokens": 600} | facts)
    return folder


def test_windows_are_means_of_all_logged_steps(tmp_path: Path) -> None:
    found = curves.rows_of(training(tmp_path, 100))
    assert len(found) == curves.WINDOWS
    assert [row["step"] for row in found] == [15 * n for n in range(1, 21)]
    assert float(found[0]["loss"]) == pytest.approx((3 + 6 + 9 + 12 + 15) / 5)
    assert found[9]["share"] == "0.5000" and found[9]["tokens"] == 300
    assert found[-1]["tokens"] == 600


def test_a_short_log_has_a_window_a_step(tmp_path: Path) -> None:
    assert [row["step"] for row in curves.rows_of(training(tmp_path, 4))] == [3, 6, 9, 12]


def test_tokens_of_a_resumed_training_are_those_of_the_whole(tmp_path: Path) -> None:
    found = curves.rows_of(training(tmp_path, 100, first_step=150, tokens=300))
    assert found[-1]["tokens"] == 600


def test_models_that_were_taken_over_have_no_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "a", 10)
    (tmp_path / "b").mkdir()
    output = tmp_path / "curves.csv"
    models = [str(tmp_path / name) for name in "ab"]
    monkeypatch.setattr("sys.argv", ["curves", "--models", *models, "--output", str(output)])
    curves.main()
    assert set(pd.read_csv(output).run) == {"opt/1m/1b/gkd/1"}
