"""Score files and samples of made-up runs, for tests of statistics and reporting."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atkd import methods
from atkd.evaluation.metrics import rater, score_metric
from atkd.evaluation.scores import COST_COLUMNS, DOCUMENT_COLUMNS, SCORE_COLUMNS
from atkd.models.families import size
from atkd.reporting import inputs, score_tables
from atkd.reporting.table import Table
from atkd.runtime.files import read_json, write_json, write_jsonl, write_text
from atkd.tasks import AVERAGES

PAIRS = {
    "opt": ("125m", ["1.3b", "2.7b", "6.7b"]),
    "pythia": ("410m", ["1.4b", "2.8b"]),
    "llama": ("68m", ["1.1b", "7b"]),
}
NOW = ("supervised_kd", "supervised_kd_atkd")
TASKS = (*AVERAGES["average"], "unseen")


def cells(families: list[str], methods: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """The grid's (family, student, teacher, method)."""
    out = []
    for family in families:
        student, teachers = PAIRS[family]
        out += [(family, student, "-", "none"), (family, student, "-", "sft")]
        out += [(family, "-", teacher, "teacher") for teacher in teachers]
        out += [(family, student, t, m) for t in teachers for m in methods]
    return out


def level(cell: tuple[str, str, str, str]) -> float:
    """Expected score of a cell: ATKD gains 3 points and more with larger teachers."""
    _, _, teacher, method = cell
    bigger = np.log10(max(size(teacher), 1e9) / 1e9)
    if method in ("none", "sft", "teacher"):
        return {"none": 12.0, "sft": 30.0, "teacher": 48.0 + 8.0 * bigger}[method]
    base = methods.METHODS[method].base if method in methods.METHODS else ""
    shift = 1.5 * (sum(map(ord, base or method)) % 7 - 3)
    gain = 3.0 + 3.0 * bigger if base else 0.0
    return 37.0 - 3.0 * bigger + shift + gain


def task_rows(
    run: str, task: str, values: np.ndarray, source: str
) -> tuple[list[list[object]], dict[str, float]]:
    """A run's document rows of one task, score and bits of each, and the task's own two means."""
    size = 40 + np.arange(len(values)) % 30
    bits = size * (2.6 - values / 60)
    groups = [f"g{i % 3}" if task in ("bbh", "mmlu") else "" for i in range(len(values))]
    metric = score_metric(task, rater(source, False))
    rows: list[list[object]] = []
    for i, group in enumerate(groups):
        name = [run, task, f"d{i:03d}", group]
        rows += [[*name, metric, values[i], "", ""], [*name, "bits_per_byte", "", bits[i], size[i]]]
    by_group = pd.Series(values).groupby(groups).mean().mean()
    score = by_group if task == "bbh" else values.mean()
    return rows, {"score": score, "bits_per_byte": bits.sum() / size.sum()}


def write_run(
    folder: Path,
    families: tuple[str, ...] = tuple(PAIRS),
    methods: tuple[str, ...] = NOW,
    seeds: int = 1,
    documents: int = 30,
    config: str = "world",
    tasks: tuple[str, ...] = TASKS,
    source: str = "world",
) -> Path:
    """Writes scores.csv, documents.csv.gz, costs.csv, run.json and a job's provenance, seeded."""
    rng = np.random.default_rng(7)
    hard = {task: rng.normal(0, 9, documents) for task in tasks}
    rows, scores, costs = [], [], []
    grid = cells(list(families), methods)
    write_record(folder, grid, seeds, config=config, source=source, tasks=tasks)
    for cell in grid:
        for seed in range(1, seeds + 1):
            run = "/".join([*cell, str(seed)])
            luck = rng.normal(0, 0.7)
            means: dict[str, dict[str, float]] = {"score": {}, "bits_per_byte": {}}
            for task in tasks:
                values = np.clip(
                    level(cell) + luck + hard[task] + rng.normal(0, 5, documents), 0, 100
                )
                made, found = task_rows(run, task, values, source)
                rows += made
                for metric, value in found.items():
                    means[metric][task] = value
            for metric, found in means.items():
                for name, part in AVERAGES.items():
                    part = [t for t in part if t in found]
                    if part:
                        found[name] = float(np.mean([found[t] for t in part]))
                for task, value in found.items():
                    line = [config, *cell, seed, task, metric, f"{value:.6f}", documents]
                    scores.append(line)
            stages = {"none": [], "teacher": ["teacher"]}.get(cell[3], ["student"])
            for stage in [*stages, "evaluate"]:
                wall = 4.0 + 4.0 * rng.random()
                costs.append([run, stage, wall, wall * 0.98, 2.3, 512.0, 9000, 2200.0, 300])
    write_text(folder / "documents.csv.gz", text(["run", *DOCUMENT_COLUMNS], rows))
    write_text(folder / "scores.csv", text([*SCORE_COLUMNS], scores))
    write_text(folder / "costs.csv", text([*COST_COLUMNS], costs))
    job = {
        "stage": "student",
        "run": "opt/125m/-/sft/1",
        "seed": 1,
        "settings": {"lr": 0.002},
        "settings_hash": "abc",
        "commit": "0123abc",
        "versions": {"python": "3.11.2"},
    }
    write_json(folder / "students" / "sft.provenance.json", job)
    return folder


def write_record(
    folder: Path,
    grid: list[tuple[str, str, str, str]],
    seeds: int = 1,
    config: str = "world",
    source: str = "world",
    tasks: tuple[str, ...] = TASKS,
) -> None:
    """The run.json of a grid."""
    pairs = [cell[:3] for cell in grid if "-" not in cell]
    record = {
        "config": config,
        "source": source,
        "seeds": list(range(1, seeds + 1)),
        "tasks": [task for task in tasks if task in AVERAGES["average"]],
        "extra_tasks": [task for task in tasks if task not in AVERAGES["average"]],
        "families": list(dict.fromkeys(cell[0] for cell in grid)),
        "pairs": [
            {"family": family, "student": student, "teacher": teacher}
            for family, student, teacher in dict.fromkeys(pairs)
        ],
        "methods": list(dict.fromkeys(cell[3] for cell in grid)),
        "judge": False,
        "analyses": [],
        "runs": ["/".join([*cell, str(seed)]) for cell in grid for seed in range(1, seeds + 1)],
    }
    write_json(folder / "run.json", record)


def change_record(folder: Path, **facts: object) -> None:
    """Says other things in a run's record."""
    write_json(folder / "run.json", read_json(folder / "run.json") | facts)


def register_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of methods that are none of the paper's, one wrapping the other."""
    monkeypatch.setitem(methods.METHODS, "mine", methods.Method("mine", "forward_kl"))
    monkeypatch.setitem(methods.METHODS, "mine_atkd", methods.wrapped("mine", "atkd"))


def text(header: list[str], rows: list[list[object]]) -> str:
    """CSV text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def drawn(folder: Path, output: Path, name: str | None = None) -> dict[str, Table]:
    """Tables of a run by name; `name` stands in for the configuration's."""
    run = inputs.run_in(folder)
    run.name = name
    return {table.name: table for table in score_tables.draw(run, output)}


def write_samples(folder: Path, key: str, answers: list[str], task: str = "koala") -> None:
    """Samples and document scores of one run and task: answer i scores 10 * i."""
    rows = [
        {"id": f"d{i}", "group": "", "prompt": f"ask {i}", "target": f"ref {i}", "answer": text}
        for i, text in enumerate(answers)
    ]
    write_jsonl(folder / "runs" / key / "samples" / f"{task}.jsonl", rows)
    lines = ["task,document,group,metric,value,numerator,denominator"]
    for i in range(len(answers)):
        lines += [f"{task},d{i},,bits_per_byte,,6,4", f"{task},d{i},,rouge_l,{10 * i},,"]
    write_text(folder / "runs" / key / "documents.csv.gz", "\n".join(lines) + "\n")


def judge_of(folder: Path, llm: bool) -> pd.DataFrame:
    """A run's documents with a judge whose ratings turn ROUGE-L around; its record says so."""
    change_record(folder, judge=llm)
    frame = pd.read_csv(folder / "documents.csv.gz").replace({"metric": {"judge": "rouge_l"}})
    rated = frame[frame.metric == "rouge_l"].assign(metric="judge")
    rated["value"] = 100 - rated.value
    if llm:
        rated["numerator"], rated["denominator"], rated["value"] = rated.value / 10, 10.0, math.nan
    return pd.concat([frame, rated])
