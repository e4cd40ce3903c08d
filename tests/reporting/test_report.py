"""The page, freezing, redrawing and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import judge_of, write_run, write_samples

from atkd.reporting import freezing, pages, report
from atkd.runtime.files import InputError, read_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small finished run."""
    return write_run(tmp_path / "run", families=("llama",), documents=4, tasks=("koala", "bbh"))


@pytest.mark.parametrize("judge", [False, True])
def test_rouge_l_is_among_the_scores_where_a_judge_ran(run: Path, judge: bool) -> None:
    text = (run / "scores.csv").read_text()
    lines = [line for line in text.splitlines(keepends=True) if ",koala,score," in line]
    write_text(run / "scores.csv", text + "".join(lines).replace(",score,", ",rouge_l,"))
    if judge:
        judge_of(run, llm=False).to_csv(run / "documents.csv.gz", index=False)
    assert not any("/rouge_l:" in lack for lack in freezing.missing(run))
    report.redraw(run)
    scores = (run / "index.html").read_text().split('<h2 id="scores">')[1].split("<h2")[0]
    assert ("LLaMA: ROUGE-L" in scores) == judge


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
