"""One finished run: what makes it run again, and what becomes of killed jobs and killed runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from helpers import Snakemake, command, copy_of_checkout, quiet_environment, smoke

from atkd.runtime.files import folder_lock, read_json

pytestmark = pytest.mark.slow

CORNER = ("--configfile", "config/corner.yaml")
RUN = ("--cores", "2", *CORNER)
STUDENT = "students/opt/125m/1.3b/supervised_kd_atkd/seed1"


def corner() -> dict[str, Any]:
    """Smoke's first pair alone, students training long enough to be met at work."""
    config = smoke()
    config |= {"name": "corner", "pairs": config["pairs"][:1]}
    config["training"]["student"] |= {"steps": 150, "checkpoint_every": 5}
    return config


def write_config(root: Path, config: dict[str, Any]) -> None:
    (root / "config/corner.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, snakemake: Snakemake) -> Path:
    """An undisturbed run."""
    root = copy_of_checkout(tmp_path_factory.mktemp("finished") / "checkout")
    write_config(root, corner())
    done = snakemake(root, *RUN, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    return root


def jobs(listing: str) -> set[str]:
    """Outputs' log paths of every job a dry-run would start, `all` apart."""
    assert "rror" not in listing, listing[-2000:]
    return set(re.findall(r"^ +log: results/corner/logs/(\S+)\.log$", listing, re.MULTILINE))


def listed(snakemake: Snakemake, root: Path) -> set[str]:
    return jobs(snakemake(root, "-n", *CORNER).stdout)


PRESENT = {"scores", "tables", "figures", "page"}


def after(method: str, teacher: str = "1.3b") -> set[str]:
    """Jobs that follow from a student of `method`."""
    run = f"runs/opt/125m/{teacher}/{method}/1"
    return {f"{run}/evaluate", f"{run}/score", f"{run}/exact_judge", *PRESENT}


def test_a_second_run_does_nothing(finished: Path, snakemake: Snakemake) -> None:
    done = snakemake(finished, *RUN)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout


def test_touching_files_reruns_nothing(finished: Path, snakemake: Snakemake) -> None:
    time.sleep(1.1)
    paths = [*(finished / "atkd").rglob("*.py"), *(finished / "workflow/rules").glob("*.smk")]
    paths += (finished / "results/corner/data").rglob("*.jsonl")
    for path in [*paths, finished / "Snakefile", finished / "environment.yml"]:
        path.touch()
    assert listed(snakemake, finished) == set()


def test_editing_one_methods_settings_reruns_that_method(
    finished: Path, snakemake: Snakemake
) -> None:
    try:
        write_config(
            finished, corner() | {"method_settings": {"supervised_kd_atkd": {"easy_weight": 0.5}}}
        )
        found = listed(snakemake, finished)
    finally:
        write_config(finished, corner())
    assert found == {STUDENT, *after("supervised_kd_atkd")}


def test_a_new_method_trains_alone(finished: Path, snakemake: Snakemake) -> None:
    config = corner()
    config["methods"].append("reverse_kd")
    try:
        write_config(finished, config)
        found = listed(snakemake, finished)
    finally:
        write_config(finished, corner())
    assert found == {"students/opt/125m/1.3b/reverse_kd/seed1", *after("reverse_kd")}


def test_editing_code_reruns_what_uses_it(finished: Path, snakemake: Snakemake) -> None:
    path = finished / "atkd/reporting/figures.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n# edited\n", encoding="utf-8")
    assert listed(snakemake, finished) == {"tables", "figures", "page"}
    path.write_text(text, encoding="utf-8")
    assert listed(snakemake, finished) == set()


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("tables/controls.csv", {"tables", "figures", "page"}),
        ("scores.csv", PRESENT),
        ("index.html", {"page"}),
        ("runs/opt/125m/-/sft/1/documents.csv.gz", set()),
    ],
)
def test_deleting_what_follows_does_not_retrain(
    finished: Path, snakemake: Snakemake, name: str, again: set[str]
) -> None:
    path = finished / "results/corner" / name
    kept = path.with_name("kept")
    path.rename(kept)
    try:
        assert listed(snakemake, finished) == again
    finally:
        kept.rename(path)
    assert listed(snakemake, finished) == set()


def without_student(finished: Path, folder: Path) -> Path:
    """A copy of the finished run in which one student, and all that follows, is yet to come."""
    root = shutil.copytree(finished, folder, copy_function=shutil.copy2)
    results = root / "results/corner"
    shutil.rmtree(results / STUDENT)
    shutil.rmtree(results / "runs/opt/125m/1.3b/supervised_kd_atkd")
    for name in ("tables", "figures"):
        shutil.rmtree(results / name)
    for name in ("scores.csv", "documents.csv.gz", "costs.csv", "index.html"):
        (results / name).unlink()
    return root


def trainers(root: Path) -> list[psutil.Process]:
    """Python processes that train the student of a checkout."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = process.info["cmdline"] or []
        if process.info["cwd"] == str(root) and {"-m", "atkd", "train"} <= set(line):
            found.append(process)
    return found


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def checkpoint(root: Path) -> bool:
    return any((root / "results/corner" / STUDENT / "work").glob("step-*"))


@pytest.fixture(params=["alone", "forked"])
def started(
    request: pytest.FixtureRequest, finished: Path, tmp_path: Path
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A run whose one student has written a checkpoint; nothing of it outlives the test.

    Its jobs are processes of their own, or forks of the fork server.
    """
    root = without_student(finished, tmp_path / "checkout")
    environment = quiet_environment() | ({"ATKD_WARM": ""} if request.param == "alone" else {})
    with open(tmp_path / "output.txt", "wb") as output:
        main = subprocess.Popen(
            command(*RUN), cwd=root, env=environment, stdout=output, stderr=output
        )
    try:
        until(lambda: checkpoint(root) and trainers(root))
        yield root, main
    finally:
        for process in trainers(root):
            process.kill()
        main.kill()
        main.wait()


def same_result(root: Path, finished: Path) -> None:
    """The scores and the weights are those of the undisturbed run."""
    for name in ("scores.csv", "documents.csv.gz", f"{STUDENT}/model.safetensors"):
        ours, theirs = (folder / "results/corner" / name for folder in (root, finished))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_killed_training_resumes_to_the_same_scores(
    started: tuple[Path, subprocess.Popen[bytes]], finished: Path, snakemake: Snakemake
) -> None:
    root, main = started
    for process in trainers(root):
        os.kill(process.pid, signal.SIGKILL)
    assert main.wait(timeout=60) != 0
    done = snakemake(root, *RUN, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert read_json(root / "results/corner" / STUDENT / "provenance.json")["first_step"] > 0
    same_result(root, finished)


@pytest.mark.parametrize("started", ["alone"], indirect=True)
def test_a_killed_run_whose_jobs_live_on_is_continued_at_once(
    started: tuple[Path, subprocess.Popen[bytes]], finished: Path, snakemake: Snakemake
) -> None:
    root, main = started
    (orphan,) = trainers(root)
    orphan.suspend()  # until the second run's job is there, whatever the machine's speed
    refused = snakemake(root, *RUN)
    assert refused.returncode != 0
    assert f"results/corner is in use by process {main.pid} on" in refused.stdout
    os.kill(main.pid, signal.SIGKILL)
    main.wait()
    with folder_lock(root / "results/corner", wait=False):
        assert orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE
    second = subprocess.Popen(
        command(*RUN),
        cwd=root,
        env=quiet_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = root / "results/corner/logs" / f"{STUDENT}.log"
    try:
        until(lambda: log.exists() and f"in use by process {orphan.pid} on" in log.read_text())
        orphan.resume()
        assert second.wait(timeout=300) == 0
    finally:
        second.kill()
    facts = read_json(root / "results/corner" / STUDENT / "provenance.json")
    assert "finished before with the same settings, kept" in log.read_text()
    assert facts["first_step"] == 0
    same_result(root, finished)
