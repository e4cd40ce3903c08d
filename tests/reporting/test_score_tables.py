"""Tables from score files: values, gains, controls, wording, errors. `write_run` makes a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import NOW, change_record, drawn, write_run

from atkd.reporting import score_tables
from atkd.reporting.inputs import run_in
from atkd.reporting.table import read
from atkd.runtime.files import InputError, write_text
from atkd.statistics import estimates


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole grid with one seed."""
    return write_run(tmp_path_factory.mktemp("run"))


def test_values_are_those_of_the_scores(run: Path, tmp_path: Path) -> None:
    drawn(run, tmp_path)
    cells = pd.read_csv(tmp_path / "estimates.csv", keep_default_na=False)
    keys = [*estimates.KEYS, "task", "metric"]
    scores = pd.read_csv(run / "scores.csv", keep_default_na=False)
    both = cells.merge(scores, on=keys, suffixes=("", "_scores"))
    assert len(both) == len(cells) == len(scores)
    assert np.allclose(both.value, both.value_scores, atol=2e-6)


def test_gain_is_atkd_minus_its_baseline(run: Path, tmp_path: Path) -> None:
    drawn(run, tmp_path)
    cells = pd.read_csv(tmp_path / "estimates.csv").set_index([*estimates.KEYS, "task", "metric"])
    gains = pd.read_csv(tmp_path / "differences.csv").query("kind == 'gain'")
    assert len(gains) == 7 * 12 * 2
    for row in gains.itertuples():
        where = (row.family, row.student, row.teacher)
        pair = [cells.value[(*where, m, row.task, row.metric)] for m in NOW]
        assert row.value == pytest.approx(pair[1] - pair[0], abs=3e-6)
        assert row.low < row.value < row.high
        assert row.over == "documents only"


def test_tables_say_what_they_are(run: Path, tmp_path: Path) -> None:
    found = drawn(run, tmp_path)
    text = (tmp_path / "main_opt.md").read_text()
    for words in (
        "MMLU (world)",
        "not the real sets",
        "seeds: 1",
        "documents only",
        "240",
        "the exact judge's rating",
    ):
        assert words in text
    assert text.count("Supervised KD + ATKD") == 3
    named = drawn(run, tmp_path, name="lab")["main_opt"]
    assert named.title == "OPT: score (lab)" and "MMLU (world)" in named.heads
    assert read(tmp_path / "main_opt.json").rows == named.rows
    latex = found["main_opt"].latex()
    assert r"\toprule" in latex
    assert r"$\leftarrow$" in latex
    assert "95 \\%" in latex
    assert "Unseen (world)" in found["extra_opt"].heads


def add_metric(folder: Path, task: str, metric: str, values: list[float]) -> None:
    """A further metric of a task's first documents, the same for every run."""
    frame = pd.read_csv(folder / "documents.csv.gz", keep_default_na=False)
    part = frame[(frame.task == task) & (frame.metric == "rouge_l")].assign(metric=metric)
    part["value"] = part.document.map({f"d{n:03d}": value for n, value in enumerate(values)})
    pd.concat([frame, part]).to_csv(folder / "documents.csv.gz", index=False)


@pytest.mark.case(
    "data",
    "a task with two references of four that have no Latin letter and no digit, in its tables",
    "ROUGE-L compares words of letters a-z and digits alone; it is 0, whatever the answer, for 2 "
    "of 4 references of Koala, which have none.",
)
def test_references_rouge_cannot_read_are_said_under_the_table(tmp_path: Path, says: str) -> None:
    tasks = ("dolly", "koala", "bbh", "unseen")
    options = {"families": ("opt",), "documents": 4, "tasks": tasks, "source": "local"}
    folder = write_run(tmp_path / "run", **options)
    before = drawn(folder, tmp_path / "before")
    add_metric(folder, "koala", "wordless_references", [100.0, 0.0, 100.0, 0.0])
    after = drawn(folder, tmp_path / "after")
    for name, table in after.items():
        told = name in ("main_opt", "gains", "controls", "efficiency", "improved")
        assert [note for note in table.notes if note != says] == before[name].notes
        assert (says in table.notes) == told, name
    for task in ("dolly", "koala", "unseen"):
        add_metric(folder, task, "judge", [50.0] * 4)
    change_record(folder, judge=True)
    rated = drawn(folder, tmp_path / "rated")
    assert says not in rated["main_opt"].notes and says in rated["rouge_l_opt"].notes
    assert says in rated["judge_agreement"].notes


def test_controls_in_and_out_of_order(run: Path, tmp_path: Path) -> None:
    table = drawn(run, tmp_path)["controls"]
    assert table.notes[0] == "Controls in order: all 15 comparisons."
    scores = (run / "scores.csv").read_text()
    packed = pd.read_csv(run / "documents.csv.gz", keep_default_na=False)
    swap = {"llama/68m/-/sft/1": "llama/68m/-/none/1", "llama/68m/-/none/1": "llama/68m/-/sft/1"}
    packed["run"] = packed.run.replace(swap)
    packed.to_csv(tmp_path / "documents.csv.gz", index=False)
    write_text(tmp_path / "scores.csv", scores)
    shutil.copyfile(run / "run.json", tmp_path / "run.json")
    (found,) = score_tables.tables(run_in(tmp_path), ["controls"])
    assert found.notes[0].startswith("CONTROLS OUT OF ORDER: 1 of 15")
    assert "LLaMA" in found.markdown()
    assert "OUT OF ORDER" in found.markdown()


def test_seeds_make_the_interval_one_over_both(tmp_path: Path) -> None:
    folder = write_run(tmp_path, families=("llama",), seeds=3, documents=8, config="lab")
    drawn(folder, tmp_path)
    gains = pd.read_csv(tmp_path / "differences.csv")
    assert set(gains.over) == {"seeds and documents"}
    assert set(gains.seeds) == {3}


@pytest.mark.parametrize(("seeds", "over"), [(1, "documents only"), (3, "seeds and documents")])
def test_what_detectable_covers_is_said(seeds: int, over: str, tmp_path: Path) -> None:
    options = {"families": ("opt",), "documents": 4, "tasks": ("koala", "bbh")}
    found = drawn(write_run(tmp_path, seeds=seeds, **options), tmp_path / "tables")
    for name in ("gains", "controls", "main_opt", "bits_per_byte_opt"):
        (note,) = [note for note in found[name].notes if "Detectable:" in note]
        assert f"would find over {over}, two-sided 5 %" in note
        assert "uncorrected, unlike p (Holm)" in note


def test_a_corner_of_the_grid(tmp_path: Path) -> None:
    """One family, one task, no ATKD: draws what there is."""
    options = {"families": ("opt",), "methods": ("gkd",), "tasks": ("koala",), "documents": 3}
    found = drawn(write_run(tmp_path, **options), tmp_path)
    assert "main_opt" in found
    assert "extra_opt" not in found


def test_a_method_that_no_row_knows_goes_by_its_own_name(tmp_path: Path) -> None:
    options = {"families": ("opt",), "tasks": ("koala",), "documents": 3}
    found = drawn(write_run(tmp_path, methods=("gkd", "odd_atkd"), **options), tmp_path)
    assert "| 125M ← 1.3B | odd_atkd |" in found["main_opt"].markdown()
    assert not found["gains"].rows


def test_an_unknown_table_is_named(run: Path) -> None:
    with pytest.raises(InputError, match="found 'nothing'; expected one of controls, gains, "):
        score_tables.tables(run_in(run), ["nothing"])


def test_bad_input_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: file not found"):
        estimates.load(tmp_path / "nowhere.csv", run / "documents.csv.gz")
    write_text(tmp_path / "scores.csv", "config,family\nworld,opt\n")
    with pytest.raises(InputError, match="column 'student' is missing"):
        estimates.load(tmp_path / "scores.csv", run / "documents.csv.gz")
    shutil.copyfile(run / "run.json", tmp_path / "run.json")
    lines = (run / "scores.csv").read_text().replace("opt,125m,-,sft,1", "opt,125m,-,sft,2")
    write_text(tmp_path / "scores.csv", lines)
    with pytest.raises(InputError, match="no rows for run opt/125m/-/sft/2"):
        estimates.load(tmp_path / "scores.csv", run / "documents.csv.gz")


@pytest.mark.parametrize(
    "name",
    [
        "statistics.intervals",
        "statistics.estimates",
        "reporting.score_tables",
        "reporting.figures",
        "reporting.registry",
        "reporting.pages",
        "reporting.report",
    ],
)
def test_loads_nothing_heavy(name: str) -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'numpy', 'jinja2'}"
    code = f"import sys, atkd.{name}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
