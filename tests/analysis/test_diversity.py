"""Distinct words and pairs of answers, by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from atkd.analysis import diversity
from atkd.runtime.files import write_jsonl


def test_distinct_n_is_over_all_answers_together() -> None:
    found = diversity.statistics(["a b a b", "a b c"])
    assert found["distinct_1"] == pytest.approx(100 * 3 / 7)
    assert found["distinct_2"] == pytest.approx(100 * 3 / 5)  # a b, b a, b c of five pairs
    assert found["words"] == 3.5


def test_answers_of_one_word_or_none_have_no_pairs() -> None:
    assert diversity.statistics(["", "a"]) == {"distinct_1": 100, "distinct_2": 0, "words": 0.5}
    assert diversity.statistics([])["words"] == 0


def test_the_command_reads_the_named_tasks_of_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"opt/1m/-/sft/1": ["a b", "a c"], "opt/1m/-/none/1": ["a a", "a a"]}
    for run, answers in runs.items():
        for task, answer in zip(("dolly", "koala"), answers, strict=True):
            write_jsonl(tmp_path / f"runs/{run}/samples/{task}.jsonl", [{"answer": answer}])
    argv = ["diversity", "--results", str(tmp_path), "--runs", *runs, "--tasks", "dolly", "koala"]
    monkeypatch.setattr("sys.argv", [*argv, "--output", str(tmp_path / "diversity.csv")])
    diversity.main()
    found = pd.read_csv(tmp_path / "diversity.csv").set_index(["run", "statistic"]).value
    assert found["opt/1m/-/sft/1", "distinct_2"] == 100
    assert found["opt/1m/-/none/1", "distinct_1"] == 25
