"""The table of skills: means over documents of a group, by hand, for every kind of model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import change_record, write_run

from atkd.reporting import skills
from atkd.reporting.inputs import run_in


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two families, two seeds; open-ended answers are of two skills."""
    folder = write_run(tmp_path, ("opt", "llama"), seeds=2, documents=12)
    frame = pd.read_csv(folder / "documents.csv.gz", keep_default_na=False)
    open_ended = frame.task.isin(["dolly", "koala"])
    frame.loc[open_ended, "group"] = frame.document.str[-1].map(
        lambda d: "fact" if d < "4" else "hop"
    )
    frame.to_csv(folder / "documents.csv.gz", index=False)
    return folder


def test_a_cell_is_the_mean_of_its_answers(run: Path) -> None:
    made = skills.skills(run_in(run), "llama")
    assert made is not None and made.data is not None
    heads = ["No training", "SFT", "Supervised KD", "Supervised KD + ATKD"]
    assert made.heads[2:] == [*heads, "Teacher 1.1B", "Teacher 7B"]
    frame = pd.read_csv(run / "documents.csv.gz", keep_default_na=False)
    part = frame[(frame.group == "fact") & (frame.metric == "judge")]
    means = made.data.set_index("group")
    kd = part[part.run.str.match("llama/68m/.*/supervised_kd/")]
    assert means.loc["fact", "Supervised KD"] == pytest.approx(kd.value.astype(float).mean())
    large = part[part.run.str.startswith("llama/-/7b/teacher/")]
    assert means.loc["fact", "Teacher 7B"] == pytest.approx(large.value.astype(float).mean())
    assert means.loc["fact", "items"] == kd[["task", "document"]].drop_duplicates().shape[0]
    assert {"BBH g0", "MMLU g2"} <= {row[0] for row in made.rows if row}


def test_real_tasks_have_none(run: Path) -> None:
    change_record(run, source="local")
    frame = pd.read_csv(run / "documents.csv.gz", keep_default_na=False)
    frame[frame.metric != "judge"].to_csv(run / "documents.csv.gz", index=False)
    names = [entry.name for entry in skills.registry.tables() if entry.applies(run_in(run).record)]
    assert "skills_{family}" not in names and "main_{family}" in names
