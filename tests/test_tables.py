"""Tables from score files: values, gains, controls, wording, errors. `write_run` makes a run."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atkd import estimates, tables
from atkd.files import InputError, write_json, write_text

PAIRS = {"opt": ("125m", ["1.3b", "2.7b", "6.7b"]), "pythia": ("410m", ["1.4b", "2.8b"])}
PAIRS |= {"llama": ("68m", ["1.1b", "7b"])}
NOW = ("supervised_kd", "supervised_kd_atkd")
TASKS = (*estimates.TASKS, "unseen")


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
    bigger = np.log10(max(estimates.size(teacher), 1e9) / 1e9)
    if method in ("none", "sft", "teacher"):
        return {"none": 12.0, "sft": 30.0, "teacher": 48.0 + 8.0 * bigger}[method]
    shift = 1.5 * (sum(map(ord, method.removesuffix("_atkd"))) % 7 - 3)
    gain = 3.0 + 3.0 * bigger if method.endswith("_atkd") else 0.0
    return 37.0 - 3.0 * bigger + shift + gain


def task_rows(
    run: str, task: str, values: np.ndarray
) -> tuple[list[list[object]], dict[str, float]]:
    """A run's document rows of one task, score and bits of each, and the task's own two means."""
    size = 40 + np.arange(len(values)) % 30
    bits = size * (2.6 - values / 60)
    groups = [f"g{i % 3}" if task in ("bbh", "mmlu") else "" for i in range(len(values))]
    metric = "prefix_match" if task in ("mmlu", "drop", "bbh") else "rouge_l"
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
) -> Path:
    """Writes scores.csv, documents.csv.gz, costs.csv and one job's provenance, seeded."""
    rng = np.random.default_rng(7)
    hard = {task: rng.normal(0, 9, documents) for task in tasks}
    rows, scores, costs = [], [], []
    for cell in cells(list(families), methods):
        for seed in range(1, seeds + 1):
            run = "/".join([*cell, str(seed)])
            luck = rng.normal(0, 0.7)
            means: dict[str, dict[str, float]] = {"score": {}, "bits_per_byte": {}}
            for task in tasks:
                values = np.clip(
                    level(cell) + luck + hard[task] + rng.normal(0, 5, documents), 0, 100
                )
                made, found = task_rows(run, task, values)
                rows += made
                for metric, value in found.items():
                    means[metric][task] = value
            for metric, found in means.items():
                for name, part in estimates.AVERAGES.items():
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
    header = ["run", "task", "document", "group", "metric", "value", "numerator", "denominator"]
    write_text(folder / "documents.csv.gz", text(header, rows))
    header = ["config", *estimates.KEYS, "seed", "task", "metric", "value", "n"]
    write_text(folder / "scores.csv", text(header, scores))
    header = [*estimates.COST_COLUMNS, "tokens", "tokens_per_s", "steps"]
    write_text(folder / "costs.csv", text(header, costs))
    job = {"stage": "student", "run": "opt/125m/-/sft/1", "seed": 1, "settings": {"lr": 0.002}}
    job |= {"settings_hash": "abc", "commit": "0123abc", "versions": {"python": "3.11.2"}}
    write_json(folder / "students" / "sft.provenance.json", job)
    return folder


def text(header: list[str], rows: list[list[object]]) -> str:
    """CSV text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole grid with one seed."""
    return write_run(tmp_path_factory.mktemp("run"))


def drawn(folder: Path, output: Path, **options: object) -> dict[str, tables.Table]:
    """Tables of a run by name."""
    names = {"scores": "scores.csv", "documents": "documents.csv.gz", "costs": "costs.csv"}
    found = tables.draw(output, **{key: folder / name for key, name in names.items()}, **options)
    return {table.name: table for table in found}


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
        "ROUGE-L",
    ):
        assert words in text
    assert text.count("Supervised KD + ATKD") == 3
    assert "(world)" not in drawn(run, tmp_path, title="lab")["main_opt"].markdown()
    latex = found["main_opt"].latex()
    assert r"\toprule" in latex
    assert r"$\leftarrow$" in latex
    assert "95 \\%" in latex
    assert "Unseen (world)" in found["extra_opt"].heads


def test_controls_in_and_out_of_order(run: Path, tmp_path: Path) -> None:
    table = drawn(run, tmp_path)["controls"]
    assert table.notes[0] == "Controls in order: all 15 comparisons."
    scores = (run / "scores.csv").read_text()
    packed = pd.read_csv(run / "documents.csv.gz", keep_default_na=False)
    swap = {"llama/68m/-/sft/1": "llama/68m/-/none/1", "llama/68m/-/none/1": "llama/68m/-/sft/1"}
    packed["run"] = packed.run.replace(swap)
    packed.to_csv(tmp_path / "documents.csv.gz", index=False)
    write_text(tmp_path / "scores.csv", scores)
    _, _, found = tables.build(
        estimates.load(tmp_path / "scores.csv", tmp_path / "documents.csv.gz")
    )
    assert found[0].notes[0].startswith("CONTROLS OUT OF ORDER: 1 of 15")
    assert "LLaMA" in found[0].markdown()
    assert "OUT OF ORDER" in found[0].markdown()


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


def test_bad_input_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: file not found"):
        estimates.load(tmp_path / "nowhere.csv", run / "documents.csv.gz")
    write_text(tmp_path / "scores.csv", "config,family\nworld,opt\n")
    with pytest.raises(InputError, match="column 'student' is missing"):
        estimates.load(tmp_path / "scores.csv", run / "documents.csv.gz")
    lines = (run / "scores.csv").read_text().replace("opt,125m,-,sft,1", "opt,125m,-,sft,2")
    write_text(tmp_path / "scores.csv", lines)
    with pytest.raises(InputError, match="no rows for run opt/125m/-/sft/2"):
        estimates.load(tmp_path / "scores.csv", run / "documents.csv.gz")


@pytest.mark.parametrize("name", ["stats", "estimates", "tables", "figures", "report"])
def test_loads_nothing_heavy(name: str) -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'numpy'}"
    code = f"import sys, atkd.{name}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
