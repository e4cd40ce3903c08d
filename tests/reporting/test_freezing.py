"""Freezing: what keeps a run from being complete and consistent, and what is copied of one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import change_record, write_run

from atkd.analyses import ANALYSES
from atkd.reporting import freezing, report
from atkd.runtime.files import InputError, read_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small finished run."""
    return write_run(tmp_path / "run", families=("llama",), documents=4, tasks=("koala", "bbh"))


def test_freeze_then_redraw(run: Path, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen"
    report.freeze(run, frozen)
    expected = {*freezing.SCORE_FILES, "provenance.json"}
    assert {path.name for path in frozen.iterdir()} == expected
    record = read_json(frozen / "provenance.json")
    assert record["commits"] == ["0123abc"]
    assert record["settings"] == {"abc": {"lr": 0.002}}
    assert set(record["files"]) == set(freezing.SCORE_FILES)
    report.redraw(frozen)
    page = (frozen / "index.html").read_text()
    for words in ("Controls in order", "data:image/svg+xml", "in miniature", "0123abc", "Start-up"):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")
    assert read_json(frozen / "provenance.json") == record


def test_freeze_refuses_an_incomplete_run(run: Path, tmp_path: Path) -> None:
    text = (run / "scores.csv").read_text()
    lines = [line for line in text.splitlines() if ",7b,supervised_kd," not in line]
    write_text(run / "scores.csv", "\n".join(lines) + "\n")
    with pytest.raises(InputError, match="llama/68m/7b/supervised_kd/1: no scores"):
        report.freeze(run, tmp_path / "frozen")
    lines = [line for line in text.splitlines() if ",7b,supervised_kd,1,bbh" not in line]
    write_text(run / "scores.csv", "\n".join(lines) + "\n")
    with pytest.raises(InputError, match="task bbh has no score"):
        report.freeze(run, tmp_path / "frozen")
    (run / "costs.csv").unlink()
    with pytest.raises(InputError, match=r"costs\.csv: file not found"):
        report.freeze(run, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()


def test_freeze_refuses_scores_that_documents_do_not_give(run: Path, tmp_path: Path) -> None:
    lines = (run / "scores.csv").read_text().splitlines()
    parts = lines[1].split(",")
    lines[1] = ",".join([*parts[:-2], str(float(parts[-2]) + 1), parts[-1]])
    write_text(run / "scores.csv", "\n".join(lines) + "\n")
    with pytest.raises(InputError, match="its documents give"):
        report.freeze(run, tmp_path / "frozen")


def test_freeze_refuses_what_its_record_does_not_know(run: Path, tmp_path: Path) -> None:
    keys = read_json(run / "run.json")["runs"]
    change_record(run, runs=[key for key in keys if key != "llama/68m/-/sft/1"])
    with pytest.raises(InputError, match=r"llama/68m/-/sft/1: has scores, but run\.json does not"):
        report.freeze(run, tmp_path / "frozen")
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json: file not found"):
        report.freeze(run, tmp_path / "frozen")


VARIED = {"llama": "supervised_kd+eos_untaught", "opt": "supervised_kd+prompt_taught"}


def two_families(folder: Path) -> Path:
    """A run of deviations whose families have different variants."""
    methods = ("supervised_kd", *VARIED.values())
    run = write_run(
        folder, tuple(VARIED), methods, seeds=2, documents=3, tasks=("koala", "bbh"), config="both"
    )
    others = {(family, name) for family in VARIED for name in VARIED.values()} - {*VARIED.items()}
    scores = pd.read_csv(run / "scores.csv", dtype=str)
    kept = [pair not in others for pair in zip(scores.family, scores.method, strict=True)]
    scores[kept].to_csv(run / "scores.csv", index=False)
    keys = [key.split("/") for key in read_json(run / "run.json")["runs"]]
    keys = [key for key in keys if (key[0], key[3]) not in others]
    change_record(run, runs=["/".join(key) for key in keys])
    return run


def test_freeze_takes_a_run_whose_families_have_other_variants(tmp_path: Path) -> None:
    run = two_families(tmp_path / "run")
    report.freeze(run, tmp_path / "frozen")
    report.redraw(tmp_path / "frozen")
    assert (tmp_path / "frozen/tables/deviations.md").is_file()


def test_freeze_refuses_a_run_that_lacks_a_seed(tmp_path: Path) -> None:
    run = two_families(tmp_path / "run")
    lines = (run / "scores.csv").read_text().splitlines(keepends=True)
    lacking = f"llama,68m,7b,{VARIED['llama']},2,"
    write_text(run / "scores.csv", "".join(line for line in lines if lacking not in line))
    with pytest.raises(InputError, match=r"llama/68m/7b/supervised_kd\+eos_untaught/2: no scores"):
        report.freeze(run, tmp_path / "frozen")


def test_freeze_takes_a_seed_that_lost_a_document(tmp_path: Path) -> None:
    """As where a judge's reply could not be read; what the seed's score says is still checked."""
    folder = write_run(tmp_path / "run", ("llama",), seeds=2, documents=4, tasks=("koala", "bbh"))
    key, name = "llama/68m/7b/supervised_kd/2", folder / "documents.csv.gz"
    rows = pd.read_csv(name)
    lost = (rows.run == key) & (rows.task == "koala") & (rows.metric == "judge")
    left = rows[lost].value.to_numpy()[1:].mean()
    rows.drop(rows[lost & (rows.document == "d000")].index).to_csv(name, index=False)
    with pytest.raises(InputError, match=r"supervised_kd/2/\w+/score: scores\.csv has"):
        report.freeze(folder, tmp_path / "frozen")
    scores = pd.read_csv(folder / "scores.csv")
    mine = (scores.teacher == "7b") & (scores.method == "supervised_kd") & (scores.seed == 2)
    mine &= scores.metric == "score"
    scores.loc[mine & scores.task.isin(["koala", "generation"]), "value"] = left
    bbh = scores[mine & (scores.task == "bbh")].value.iloc[0]
    scores.loc[mine & (scores.task == "average"), "value"] = (left + bbh) / 2
    scores.to_csv(folder / "scores.csv", index=False)
    report.freeze(folder, tmp_path / "frozen")
    report.redraw(tmp_path / "frozen")


def studied(folder: Path) -> Path:
    """A run with a study, whose students have secondary metrics as all others."""
    methods = tuple(ANALYSES["temperatures"].methods)
    run = write_run(folder, ("opt",), methods, seeds=2, documents=4, tasks=("koala", "bbh"))
    change_record(run, analyses=["temperatures"])
    return run


def test_of_a_studys_models_scores_alone_are_frozen(tmp_path: Path) -> None:
    run, frozen = studied(tmp_path / "run"), tmp_path / "frozen"
    report.freeze(run, frozen)
    assert freezing.missing(frozen) == []
    for name, column in ((freezing.DOCUMENTS, "run"), (freezing.SCORES, "method")):
        before, after = (pd.read_csv(folder / name, dtype=str) for folder in (run, frozen))
        of_studies = before[column].str.contains("+", regex=False)
        dropped = of_studies & (before.metric == "bits_per_byte")
        pd.testing.assert_frame_equal(after, before[~dropped].reset_index(drop=True))
        assert dropped.any() and (of_studies & ~dropped).any()


def test_a_frozen_run_shows_the_same_tables(tmp_path: Path) -> None:
    run, frozen = studied(tmp_path / "run"), tmp_path / "frozen"
    report.redraw(run)
    report.freeze(run, frozen)
    report.redraw(frozen)
    names = {path.name for path in (run / "tables").glob("*.md")}
    assert "temperatures.md" in names
    for name in names:
        assert (frozen / "tables" / name).read_bytes() == (run / "tables" / name).read_bytes()
