"""Means by hand, the score where a judge ran, collected files to the byte."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atkd.evaluation import metrics, scores
from atkd.runtime.files import InputError, read_json, write_csv, write_json, write_jsonl
from atkd.statistics.estimates import read_csv
from atkd.tasks import AVERAGES, TASKS

RECORD = {"config": "tiny", "source": "hub", "judge": False, "runs": ["opt/125m/-/sft/1"]}
WORLD = RECORD | {"source": "world"}


def test_means() -> None:
    assert metrics.ratio_of_sums([(8.0, 1), (0.0, 7)]) == 1.0
    values = [("x", 100.0), ("x", 100.0), ("x", 100.0), ("y", 0.0)]
    assert metrics.mean_score("bbh", values) == 50.0
    assert metrics.mean_score("mmlu", values) == 75.0


def sample(index: int, answer: str, target: str, group: str = "") -> dict[str, Any]:
    named = {"id": f"d-{index}", "group": group, "prompt": "P", "target": target}
    return named | {"answer": answer, "bits": 10.5, "bytes": 7, "tokens": 3}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method, seed in (("sft", 1), ("none", 1)):
        run = f"opt/125m/-/{method}/{seed}"
        folder = tmp_path / "runs" / run / "samples"
        for task in TASKS:
            answer = "B" if method == "sft" else "C"
            write_jsonl(folder / f"{task}.jsonl", [sample(0, answer, "B"), sample(1, "", "x, y")])
        record = {"stage": "evaluate", "run": run, "tokens": 9, "cost": {"wall_s": 1.5, "cpu_s": 1}}
        write_json(folder / "provenance.json", record)
        rows = scores.score_samples(folder)
        write_csv(folder.parent / "documents.csv.gz", scores.DOCUMENT_COLUMNS, rows)
    base = {"stage": "base", "run": "models/opt/125m/seed1", "steps": 5, "cost": {"wall_s": 2.0}}
    write_json(tmp_path / "models/opt/125m/seed1/base/provenance.json", base)
    old = {"stage": "student", "run": "opt/125m/-/gone/1", "cost": {"wall_s": 2.0}}
    write_json(tmp_path / "students/opt/125m/-/gone/seed1/provenance.json", old)
    return tmp_path


def collected(results: Path) -> dict[str, bytes]:
    paths = sorted((results / "runs").rglob("documents.csv.gz"), reverse=True)
    assert scores.collect(RECORD, results, paths) == 2
    names = ("scores.csv", "documents.csv.gz", "costs.csv", "run.json")
    return {name: (results / name).read_bytes() for name in names}


def test_collect(results: Path) -> None:
    files = collected(results)
    lines = files["scores.csv"].decode().splitlines()
    assert lines[0] == "config,family,student,teacher,method,seed,task,metric,value,n"
    assert "tiny,opt,125m,-,sft,1,average,score,50.000000,16" in lines
    assert "tiny,opt,125m,-,none,1,understanding,score,0.000000,6" in lines
    assert "tiny,opt,125m,-,sft,1,dolly,rouge_l,50.000000,2" in lines
    assert "tiny,opt,125m,-,sft,1,bbh,bits_per_byte,1.500000,2" in lines
    assert lines[1:] == sorted(lines[1:]) and len(lines) == 1 + 2 * (9 * 3 + 3 + 6)
    costs = files["costs.csv"].decode().splitlines()
    assert costs[0] == "run,stage,wall_s,cpu_s,startup_s,peak_memory_mb,tokens,tokens_per_s,steps"
    assert costs[1] == "models/opt/125m/seed1,base,2.0,,,,,,5"
    assert [line.split(",")[0] for line in costs[2:]] == ["opt/125m/-/none/1", "opt/125m/-/sft/1"]
    assert read_json(results / "run.json") == RECORD
    assert collected(results) == files  # byte for byte


def test_the_judge_is_the_score_where_one_ran(results: Path) -> None:
    path = results / "runs/opt/125m/-/sft/1/documents.csv.gz"
    rows = scores.read_documents(path)
    rated = [row | {"metric": "judge", "value": "90"} for row in rows if row["metric"] == "rouge_l"]
    made = {(r["task"], r["metric"]): r["value"] for r in scores.scores_of(rows + rated, "exact")}
    assert made["koala", "score"] == made["generation", "score"] == 90
    assert made["koala", "rouge_l"] == made["mmlu", "score"] == 50
    ratio = {"value": "", "numerator": "4", "denominator": "5"}
    made = {(r["task"], r["metric"]): r["value"]
            for r in scores.scores_of(rows + [row | ratio for row in rated], "model")}  # fmt: skip
    assert made["koala", "score"] == made["koala", "judge"] == 80
    made = {(r["task"], r["metric"]): r["value"] for r in scores.scores_of(rows + rated)}
    assert made["koala", "score"] == made["koala", "rouge_l"] == 50  # as the record says


def test_an_average_needs_all_its_tasks(results: Path) -> None:
    rows = scores.read_documents(results / "runs/opt/125m/-/sft/1/documents.csv.gz")
    made = scores.scores_of([row for row in rows if row["task"] != "drop"])
    assert {row["task"] for row in made} & set(AVERAGES) == {"generation"}


def test_bad_inputs(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no samples found"):
        scores.score_samples(tmp_path / "nothing")
    (results / "runs/x").mkdir()
    odd = results / "runs/x/documents.csv.gz"
    with pytest.raises(InputError, match="expected runs/family/student/teacher/method/seed"):
        scores.collect(RECORD, results, [odd])
    write_jsonl(tmp_path / "s/dolly.jsonl", [{"id": "d", "group": ""}])
    with pytest.raises(InputError, match=r"dolly.jsonl:1: field 'target' is missing"):
        scores.score_samples(tmp_path / "s")
    write_jsonl(tmp_path / "t/doly.jsonl", [sample(0, "a", "b")])
    with pytest.raises(InputError, match=r"doly.jsonl: unknown task 'doly'; expected one of dolly"):
        scores.score_samples(tmp_path / "t")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"config": "tiny", "runs": []}, "--record: key 'source' is missing; expected config"),
        (RECORD | {"judge": "no"}, "--record: judge: found 'no'; expected true or false"),
        (RECORD | {"config": 1}, "--record: config: found 1; expected a name"),
    ],
)
def test_a_record_that_says_too_little(results: Path, record: Any, message: str) -> None:
    paths = sorted((results / "runs").rglob("documents.csv.gz"))
    with pytest.raises(InputError, match=message):
        scores.collect(record, results, paths)
    assert not (results / "scores.csv").exists()


def test_the_exact_judges_rows_follow_a_runs_own(results: Path) -> None:
    """What a run's own rows and its exact judge's say together; a language model's come last."""
    paths = sorted((results / "runs").rglob("documents.csv.gz"))
    exact = []
    for path in paths:
        rated = [
            row | {"metric": "judge", "value": "90.000000"}
            for row in scores.read_documents(path)
            if row["metric"] == "rouge_l"
        ]
        exact.append(path.with_name("judge_documents.csv.gz"))
        write_csv(exact[-1], scores.DOCUMENT_COLUMNS, rated)
    assert scores.collect(WORLD, results, paths, exact) == 2
    rows = scores.read_documents(results / "documents.csv.gz", ("run", *scores.DOCUMENT_COLUMNS))
    run = [row for row in rows if row["run"] == "opt/125m/-/sft/1"]
    own = len(scores.read_documents(paths[1]))
    assert [row["metric"] == "judge" for row in run] == [False] * own + [True] * (len(run) - own)
    assert len(run) == own + 2 * 6
    assert "tiny,opt,125m,-,sft,1,koala,score,90.000000,2" in (results / "scores.csv").read_text()
    with pytest.raises(InputError, match=r"run .*none/1, task dolly: .*rated no answer, expected"):
        scores.collect(WORLD, results, paths, exact[1:])
    with pytest.raises(InputError, match="no documents of run opt/125m/-/sft/1; expected its own"):
        scores.collect(WORLD, results, paths[:1], exact[1:])


EXACT = {"metric": "judge", "value": "90", "numerator": "", "denominator": ""}
MODEL = {"metric": "judge", "value": "", "numerator": "4", "denominator": "5"}
UNREAD = {"metric": "judge_unparsable", "value": "100", "numerator": "", "denominator": ""}


def rated(change: dict[str, Any], *documents: str, task: str = "koala") -> list[dict[str, Any]]:
    return [{"task": task, "document": name, "group": ""} | change for name in documents]


OWN = rated({"metric": "rouge_l", "value": "50", "numerator": "", "denominator": ""}, "a", "b")
EXTRA = rated({"metric": "rouge_l", "value": "50"}, "x", task="unseen")


@pytest.mark.parametrize(
    ("by", "rows", "message"),
    [
        pytest.param(
            "exact", OWN, "run r, task koala: the exact judge rated no answer, expected one",
            marks=pytest.mark.case(
                "judge",
                "The exact judge's ratings of one run are missing",
                "run r, task koala: the exact judge rated no answer, expected one",
            ),
        ),
        ("exact", [*OWN, *EXTRA, *rated(EXACT, "a", "b")], "task unseen: the exact judge rated no"),
        ("exact", [*OWN, *rated(EXACT, "a")], "exact judge did not rate document 'b'; rate this"),
        ("exact", [*OWN, *rated(EXACT, "a", "b", "c")], "judge rated unknown document 'c'; rate"),
        ("exact", [*OWN, *rated(MODEL, "a", "b")], "found the language model's rating, expected"),
        ("model", [*OWN, *rated(UNREAD, "a", "b")], "the language model rated no answer, expected"),
        ("model", [*OWN, *rated(MODEL, "a")], "the language model did not rate document 'b'"),
        ("", [*OWN, *rated(MODEL, "a", "b")], "the language model's rating, expected no ratings"),
        pytest.param(
            "model", [*OWN, *rated(MODEL, "a"), *rated(EXACT, "b")],
            "run r, task koala: found the exact judge's rating, expected ratings of the language "
            "model",
            marks=pytest.mark.case(
                "judge",
                "Ratings of an exact judge and of a language model in one task",
                "run r, task koala: found the exact judge's rating, expected ratings of the "
                "language model",
            ),
        ),
    ],
)  # fmt: skip
def test_a_score_never_changes_its_kind(
    by: metrics.Rater, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        scores.check_rated("r", rows, by)


@pytest.mark.case(
    "judge",
    "A language model whose reply to one answer of two is unreadable",
    "The task's score is over the answers that were rated (4 of 5 points: 80); n counts them.",
)
def test_answers_without_a_rating_are_left_out_and_counted() -> None:
    rows = [*OWN, *rated(MODEL, "a"), *rated(UNREAD | {"value": "0"}, "a"), *rated(UNREAD, "b")]
    scores.check_rated("r", rows, "model")
    found = {row["metric"]: (row["value"], row["n"]) for row in scores.scores_of(rows, "model")}
    assert found["score"] == found["judge"] == (80, 1)
    assert found["judge_unparsable"] == (50, 2) and found["rouge_l"] == (50, 2)


def test_who_rates_is_the_records_word() -> None:
    assert metrics.rater("world", False) == "exact" and metrics.rater("world", True) == "model"
    assert metrics.rater("hub", True) == "model" and metrics.rater("hub", False) == ""
    assert metrics.score_metric("koala", "") == "rouge_l"
    assert metrics.score_metric("koala", "exact") == metrics.score_metric("unseen", "model")
    assert metrics.score_metric("mmlu", "model") == "prefix_match"


def test_command_line(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = collected(results)
    paths = sorted(map(str, (results / "runs").rglob("documents.csv.gz")))
    argv = ["score", "collect", "--record", json.dumps(RECORD), "--results", str(results)]
    monkeypatch.setattr("sys.argv", [*argv, "--documents", *paths])
    for name in files:
        (results / name).unlink()
    scores.main()
    assert {name: (results / name).read_bytes() for name in files} == files


def test_command_line_loads_nothing_heavy(results: Path) -> None:
    code = "import sys; import atkd.evaluation.scores; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "numpy", "pandas", "nltk", "rouge_score", "transformers", "lm_eval"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.case(
    "data",
    "A document's value that is NaN in documents.csv.gz (it became the score)",
    "bbh: prefix_match is nan over its documents; expected a number",
)
def test_a_value_that_is_no_number_is_not_averaged(results: Path, says: str) -> None:
    path = results / "runs/opt/125m/-/sft/1/documents.csv.gz"
    rows = scores.read_documents(path)
    rows[0]["value"] = "nan"
    write_csv(path, scores.DOCUMENT_COLUMNS, rows)
    with pytest.raises(InputError, match=f"opt/125m/-/sft/1: {says}"):
        collected(results)


@pytest.mark.parametrize("read", [scores.read_documents, read_csv])
@pytest.mark.case("machine", "scores in a damaged .gz", "damaged or no gzip file (Error -3 while")
def test_damaged_scores_are_named(read: Callable[..., Any], tmp_path: Path, says: str) -> None:
    path = tmp_path / "documents.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" * 99)[:10] + b"\xff" * 99)
    with pytest.raises(InputError) as caught:
        read(path, ("a", "b"))
    assert f"{path}: {says}" in str(caught.value)
    with pytest.raises(InputError, match="is a folder, expected a file"):
        read(tmp_path, ("a", "b"))
