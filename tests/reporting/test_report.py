"""The page, freezing, redrawing and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from made_runs import change_record, judge_of, write_run, write_samples

from atkd.reporting import pages, report
from atkd.runtime.files import InputError, read_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small finished run."""
    return write_run(tmp_path / "run", families=("llama",), documents=4, tasks=("koala", "bbh"))


def test_freeze_then_redraw(run: Path, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen"
    report.freeze(run, frozen)
    expected = {*report.SCORE_FILES, "provenance.json"}
    assert {path.name for path in frozen.iterdir()} == expected
    record = read_json(frozen / "provenance.json")
    assert record["commits"] == ["0123abc"]
    assert record["settings"] == {"abc": {"lr": 0.002}}
    assert set(record["files"]) == set(report.SCORE_FILES)
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


@pytest.mark.parametrize("judge", [False, True])
def test_rouge_l_is_among_the_scores_where_a_judge_ran(run: Path, judge: bool) -> None:
    text = (run / "scores.csv").read_text()
    lines = [line for line in text.splitlines(keepends=True) if ",koala,score," in line]
    write_text(run / "scores.csv", text + "".join(lines).replace(",score,", ",rouge_l,"))
    if judge:
        judge_of(run, llm=False).to_csv(run / "documents.csv.gz", index=False)
    assert not any("/rouge_l:" in lack for lack in report.missing(run))
    report.redraw(run)
    scores = (run / "index.html").read_text().split('<h2 id="scores">')[1].split("<h2")[0]
    assert ("LLaMA: ROUGE-L" in scores) == judge


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


def test_summary_says_where_the_time_went(run: Path) -> None:
    report.redraw(run)
    text = report.summary(run)
    for words in ("8 models scored", "2 teacher-student pairs", "start-up"):
        assert words in text
    for words in ("training", "evaluation", "Controls in order", "miniature", "config/paper.yaml"):
        assert words in text


def test_summary_holds_scores_against_a_frozen_run(run: Path, tmp_path: Path) -> None:
    report.redraw(run)
    frozen = write_run(tmp_path / "frozen", ("llama",), seeds=4, documents=3)
    assert f"average scores equal those of {frozen}" in report.summary(run, frozen)
    assert "equal those of" not in report.summary(run, run)


def test_command_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["report", "summary", "--run", str(run)])
    report.main()
    assert "where the time went" in capsys.readouterr().out
    assert json.dumps(report.gather(run))


def test_help_says_what_each_command_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["freeze"]):
        monkeypatch.setattr("sys.argv", ["report", *arguments, "--help"])
        with pytest.raises(SystemExit):
            report.main()
        shown = " ".join(capsys.readouterr().out.split())
        for name in arguments or report.COMMANDS:
            assert report.COMMANDS[name].about in shown


def test_the_page_leaves_other_outputs_alone(run: Path) -> None:
    """Tables and figures belong to their own rules: the page must not touch them."""
    report.redraw(run)
    kept = [*(run / "tables").iterdir(), *(run / "figures").iterdir(), run / "scores.csv"]
    before = [path.stat().st_mtime_ns for path in kept]
    report.html(run)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_answers_are_linked_where_there_are_samples(run: Path) -> None:
    report.redraw(run)
    assert "samples.html" not in (run / "index.html").read_text()
    write_samples(run, "llama/68m/7b/supervised_kd/1", ["yes"])
    report.html(run)
    assert '<a href="samples.html">' in (run / "index.html").read_text()
    assert "yes" in (run / "samples.html").read_text()


@pytest.mark.parametrize(("source", "name"), [("world", "mine"), ("local", "world_lab")])
def test_the_world_is_known_by_its_source(source: str, name: str, tmp_path: Path) -> None:
    options = {"families": ("llama",), "documents": 2, "tasks": ("koala", "bbh")}
    run = write_run(tmp_path, config=name, source=source, **options)
    report.redraw(run)
    world = source == "world"
    assert (pages.MINIATURE in report.summary(run)) == world
    assert ("in miniature" in (run / "index.html").read_text()) == world
    for path in (*run.glob("tables/*.md"), *run.glob("tables/*.tex")):
        text = path.read_text()
        starts = ("main_", "bits_", "gains", "controls", "skills_", "improved", "efficiency")
        told = path.stem.startswith(starts)
        assert ("generated analogues" in text) == (world and told), path
        assert world or "(world)" not in text, path
    for path in run.glob("figures/*.txt"):
        assert ("analogues" in path.read_text()) == world, path


@pytest.mark.parametrize("lack", ["file", "source", "object"])
def test_a_wrong_record_is_named(run: Path, lack: str) -> None:
    record = read_json(run / "run.json")
    (run / "run.json").unlink()
    if lack == "source":
        del record["source"]
    if lack != "file":
        write_text(run / "run.json", json.dumps([] if lack == "object" else record))
    message = {
        "file": r"run\.json: file not found; expected the run's record",
        "source": r"run\.json: key 'source' is missing; expected config, source, seeds",
        "object": r"run\.json: key 'config' is missing",
    }
    with pytest.raises(InputError, match=message[lack]):
        report.redraw(run)
