"""Metrics by hand and against the reference package; collected files to the byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atkd.evaluation import scores
from atkd.runtime.files import InputError, write_json, write_jsonl

WORDS = ["the", "a", "cat", "dog's", "Sat", "on,", "mat.", "12", "café", "x-y", "\n", "Ünï", "..."]


def test_rouge_l_by_hand() -> None:
    assert scores.rouge_l("the cat sat", "The cat, sat!") == 100.0
    assert scores.rouge_l("", "a") == scores.rouge_l("a", "b") == scores.rouge_l("!", "?") == 0.0
    # common: "cat mat" of 3 and 4 words: P 2/3, R 2/4
    assert scores.rouge_l("cat on mat", "a cat the mat") == pytest.approx(100 * 4 / 7)


@pytest.mark.filterwarnings("ignore")
def test_rouge_l_equals_the_package() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer, draw = rouge_scorer.RougeScorer(["rougeL"]), random.Random(0)
    for _ in range(300):
        answer, target = (" ".join(draw.choices(WORDS, k=draw.randrange(90))) for _ in range(2))
        wanted = 100.0 * scorer.score(target, answer)["rougeL"].fmeasure
        assert scores.rouge_l(answer, target) == pytest.approx(wanted, abs=1e-12)


def test_prefix_match() -> None:
    assert scores.prefix_match(" B\n", "B") == 100.0
    assert scores.prefix_match("The B", "B") == scores.prefix_match("b", "B") == 0.0


def test_means() -> None:
    assert scores.bits_per_byte([(8.0, 1), (0.0, 7)]) == 1.0
    values = [("x", 100.0), ("x", 100.0), ("x", 100.0), ("y", 0.0)]
    assert scores.mean_score("bbh", values) == 50.0
    assert scores.mean_score("mmlu", values) == 75.0


def sample(index: int, answer: str, target: str, group: str = "") -> dict[str, Any]:
    named = {"id": f"d-{index}", "group": group, "prompt": "P", "target": target}
    return named | {"answer": answer, "bits": 10.5, "bytes": 7, "tokens": 3}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method, seed in (("sft", 1), ("none", 1)):
        run = f"opt/125m/-/{method}/{seed}"
        folder = tmp_path / "runs" / run / "samples"
        for task in scores.GENERATION + scores.UNDERSTANDING + ("unseen",):
            answer = "B" if method == "sft" else "C"
            write_jsonl(folder / f"{task}.jsonl", [sample(0, answer, "B"), sample(1, "", "x, y")])
        record = {"stage": "evaluate", "run": run, "tokens": 9, "cost": {"wall_s": 1.5, "cpu_s": 1}}
        write_json(folder / "provenance.json", record)
        rows = scores.score_samples(folder)
        scores.write_csv(folder.parent / "documents.csv.gz", scores.DOCUMENT_COLUMNS, rows)
    base = {"stage": "base", "run": "models/opt/125m/seed1", "steps": 5, "cost": {"wall_s": 2.0}}
    write_json(tmp_path / "models/opt/125m/seed1/base/provenance.json", base)
    old = {"stage": "student", "run": "opt/125m/-/gone/1", "cost": {"wall_s": 2.0}}
    write_json(tmp_path / "students/opt/125m/-/gone/seed1/provenance.json", old)
    return tmp_path


def collected(results: Path) -> dict[str, bytes]:
    paths = sorted((results / "runs").rglob("documents.csv.gz"), reverse=True)
    assert scores.collect("tiny", results, paths) == 2
    names = ("scores.csv", "documents.csv.gz", "costs.csv")
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
    assert collected(results) == files  # byte for byte


def test_the_judge_is_the_score_where_one_ran(results: Path) -> None:
    path = results / "runs/opt/125m/-/sft/1/documents.csv.gz"
    rows = scores.read_documents(path)
    rated = [row | {"metric": "judge", "value": "90"} for row in rows if row["metric"] == "rouge_l"]
    made = {(r["task"], r["metric"]): r["value"] for r in scores.scores_of(rows + rated)}
    assert made["koala", "score"] == made["generation", "score"] == 90
    assert made["koala", "rouge_l"] == made["mmlu", "score"] == 50
    ratio = {"value": "", "numerator": "4", "denominator": "5"}
    made = {(r["task"], r["metric"]): r["value"]
            for r in scores.scores_of(rows + [row | ratio for row in rated])}  # fmt: skip
    assert made["koala", "score"] == made["koala", "judge"] == 80


def test_an_average_needs_all_its_tasks(results: Path) -> None:
    rows = scores.read_documents(results / "runs/opt/125m/-/sft/1/documents.csv.gz")
    made = scores.scores_of([row for row in rows if row["task"] != "drop"])
    assert {row["task"] for row in made} & set(scores.AVERAGES) == {"generation"}


def test_bad_inputs(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no samples found"):
        scores.score_samples(tmp_path / "nothing")
    (results / "runs/x").mkdir()
    odd = results / "runs/x/documents.csv.gz"
    with pytest.raises(InputError, match="expected runs/family/student/teacher/method/seed"):
        scores.collect("tiny", results, [odd])
    write_jsonl(tmp_path / "s/dolly.jsonl", [{"id": "d", "group": ""}])
    with pytest.raises(InputError, match=r"dolly.jsonl:1: field 'target' is missing"):
        scores.score_samples(tmp_path / "s")


def test_command_line_loads_nothing_heavy(results: Path) -> None:
    code = "import sys; import atkd.evaluation.scores; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "numpy", "pandas", "nltk", "rouge_score", "transformers"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, check=True)
    assert json.loads(done.stdout) == []
