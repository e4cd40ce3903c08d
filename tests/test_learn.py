"""Models learn: a small real run; the same with shuffled outputs must not pass for learning."""

from __future__ import annotations

import csv
import os
import random
import shutil
from pathlib import Path

import pytest
from helpers import Snakemake, copy_of_checkout

from atkd.runtime.files import read_jsonl, write_jsonl

pytestmark = pytest.mark.learn

ERRORS = 3.0  # standard errors that a difference must exceed


def learnt(folder: Path, snakemake: Snakemake, *options: str) -> dict[str, float]:
    """Control -> its difference over the standard error, after a run."""
    learn = ("--cores", "2", "--configfile", "config/learn.yaml", *options)
    done = snakemake(folder, *learn, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    with open(folder / "results/learn/tables/controls.csv", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["task"] == "average"]
    return {row["kind"]: float(row["value"]) / float(row["error"]) for row in rows}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole run lies once the first test has made it."""
    return copy_of_checkout(tmp_path_factory.mktemp("learn"))


def test_a_teacher_beats_sft_which_beats_no_training(run: Path, snakemake: Snakemake) -> None:
    found = learnt(run, snakemake)
    assert set(found) == {"68m SFT > 68m untrained", "1.1b teacher > 68m SFT"}
    assert min(found.values()) > ERRORS, found


def test_shuffled_outputs_do_not_pass_for_learning(
    run: Path, snakemake: Snakemake, tmp_path: Path
) -> None:
    """The same bases, fine-tuned on outputs that belong to other requests."""
    folder = copy_of_checkout(tmp_path / "shuffled")
    for name in ("results", ".snakemake"):
        shutil.copytree(run / name, folder / name, dirs_exist_ok=True)
    path = folder / "results/learn/data/train.jsonl"
    made, rows = path.stat(), list(read_jsonl(path))
    outputs = random.Random(1).sample([row["output"] for row in rows], len(rows))
    write_jsonl(path, [row | {"output": out} for row, out in zip(rows, outputs, strict=True)])
    os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))  # or the bases would be made again
    found = learnt(folder, snakemake, "--forcerun", "teacher", "student")
    assert len(found) == 2 and min(found.values()) < ERRORS, found
