"""The workflow on a real SLURM of one node: what it asks for, what it survives, what comes out.

`.ci/slurm` starts such a SLURM; `make cluster` runs these tests on it. One run of config/smoke.yaml
serves them all: jobs of it are cancelled, run out of time and lose their node.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import command, copy_of_checkout, needed, over_smoke, quiet_environment

PROFILE = ("--workflow-profile", "profiles/slurm", "--latency-wait", "5", "--jobs", "8")
# There is no accounting here, and nobody waits for 40 seconds.
QUICK = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1")
COMPUTE = {"memory_mb": 3000, "minutes": 7}
LARGE = {"memory_mb": 5000, "minutes": 9, "gpus": 1}  # of one model, teacher of one pair


def slurm(*arguments: str) -> str:
    """What one of SLURM's commands prints; empty where it is missing or fails."""
    if not shutil.which(arguments[0]):
        return ""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=20).stdout


pytestmark = [
    pytest.mark.cluster,
    needed("is UP" in slurm("scontrol", "ping"), "no SLURM here: .ci/slurm starts one"),
]


@dataclass(frozen=True)
class Submitted:
    """A job as SLURM knows it."""

    number: str
    rule: str
    about: str  # rule and wildcards
    state: str
    facts: str

    def fact(self, name: str) -> str:
        """A field of `scontrol show job`."""
        found = re.search(rf"\b{name}=(\S+)", self.facts)
        assert found, f"{name}: not in {self.facts}"
        return found[1]


def submitted() -> list[Submitted]:
    """All jobs that SLURM still remembers, oldest first."""
    found = []
    for text in slurm("scontrol", "--oneliner", "show", "job").splitlines():
        number, state = (re.search(rf"\b{key}=(\S+)", text) for key in ("JobId", "JobState"))
        about = re.search(r"Comment=rule_(\S+)", text)
        if number and state and about:
            rule = about[1].partition("_wildcards")[0]
            found.append(Submitted(number[1], rule, about[1], state[1], text))
    return found


def running(rule: str, before: set[str], harmed: set[str], seconds: float = 180) -> Submitted:
    """Waits for a job of a rule to run, a new one that nothing was done to in any attempt."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for job in submitted():
            fresh = job.number not in before and job.about not in harmed
            at_work = job.state == "RUNNING" and job.fact("RunTime") >= "00:00:02"
            if fresh and at_work and job.rule == rule:
                return job
        time.sleep(0.3)
    raise AssertionError(f"no job of rule {rule} ran within {seconds:g} s")


def lose_node(number: str) -> None:
    """The node of a job fails and comes back; everything on it is put back."""
    node = slurm("squeue", "--noheader", "--jobs", number, "--format=%N").strip()
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    time.sleep(1)
    slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    for waiting in slurm("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
        slurm("scontrol", "update", f"JobId={waiting}", "StartTime=now")  # not in two minutes


def hang(number: str) -> None:
    """A job stops working, with a minute left."""
    slurm("scontrol", "update", f"JobId={number}", "TimeLimit=00:01:00")
    for line in slurm("scontrol", "listpids", number).splitlines()[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGSTOP)


def cancel(number: str) -> None:
    """Somebody cancels a job."""
    slurm("scancel", number)


# What is done to a job while it runs, one after another.
FAULTS = {"node lost": lose_node, "cancelled": cancel, "out of time": hang}


@dataclass(frozen=True)
class Outcome:
    """A finished run on the cluster."""

    folder: Path
    said: str
    faults: dict[str, str]  # what was done -> the job
    jobs: list[Submitted]
    seconds: float


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The smoke configuration through SLURM; one base after another meets a fault."""
    folder = copy_of_checkout(tmp_path_factory.mktemp("cluster"))
    config = over_smoke(compute=COMPUTE)
    config["families"]["llama"]["models"]["1.1b"]["compute"] = LARGE
    (folder / "config/cluster.yaml").write_text(yaml.safe_dump(config))
    before = {job.number for job in submitted()}
    start = time.monotonic()
    line = command(*PROFILE, *QUICK, "--configfile", "config/cluster.yaml")
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(
            line, cwd=folder, env=quiet_environment(), stdout=said, stderr=subprocess.STDOUT
        )
    try:
        faults: dict[str, str] = {}
        harmed: set[str] = set()
        for name, harm in FAULTS.items():
            job = running("base", before, harmed)
            harmed.add(job.about)
            faults[name] = job.number
            harm(job.number)
        run.wait(timeout=900)
        jobs = [job for job in submitted() if job.number not in before]
        text = (folder / "said").read_text()
        assert run.returncode == 0, text[-5000:]
        yield Outcome(folder, text, faults, jobs, time.monotonic() - start)
    finally:
        run.terminate()
        run.wait(timeout=60)


def test_it_ends_with_every_job_done(outcome: Outcome) -> None:
    assert "(100%) done" in outcome.said
    assert (outcome.folder / "results/smoke/index.html").is_file()


def test_what_was_cancelled_or_ran_out_of_time_is_tried_again(outcome: Outcome) -> None:
    states = {job.number: job.state for job in outcome.jobs}
    assert states[outcome.faults["cancelled"]] == "CANCELLED"
    assert states[outcome.faults["out of time"]] == "TIMEOUT"
    twice = ("00:14:00", "00:18:00")  # what a second attempt asks for
    assert sum(job.fact("TimeLimit") in twice for job in outcome.jobs if job.rule == "base") == 2


def test_a_job_whose_node_was_lost_runs_again_by_itself(outcome: Outcome) -> None:
    (job,) = [job for job in outcome.jobs if job.number == outcome.faults["node lost"]]
    assert job.state == "COMPLETED" and int(job.fact("Restarts")) == 1


def test_jobs_ask_for_what_the_configuration_says(outcome: Outcome) -> None:
    by_rule: dict[str, list[Submitted]] = {}
    for job in outcome.jobs:
        if job.number not in outcome.faults.values():
            by_rule.setdefault(job.rule, []).append(job)
    assert {"base", "teacher", "cache", "student", "evaluate"} <= set(by_rule)
    first = [job for job in by_rule["student"] if job.fact("TimeLimit") == "00:07:00"]
    assert first and all("cpu=1,mem=3000M" in job.fact("TRES") for job in first)
    large = [job for job in by_rule["teacher"] if job.fact("TimeLimit") == "00:09:00"]
    assert large and all("mem=5000M" in job.fact("TRES") for job in large)
    assert all(job.fact("TresPerJob") == "gres:gpu:1" for job in large)
    assert not any("gres:gpu" in job.facts for job in first)


def test_light_rules_stay_where_the_run_was_started(outcome: Outcome) -> None:
    local = {"score", "exact_judge", "scores", "tables", "figures", "page"}
    assert not local & {job.rule for job in outcome.jobs}


def test_logs_of_failed_jobs_stay_and_those_of_the_others_do_not(outcome: Outcome) -> None:
    kept = {path.stem for path in (outcome.folder / ".snakemake/slurm_logs").rglob("*.log")}
    assert outcome.faults["out of time"] in kept
    done = {job.number for job in outcome.jobs if job.rule == "evaluate"}
    assert done and not done & kept


def test_scores_are_those_of_a_run_on_one_machine(outcome: Outcome, tmp_path: Path) -> None:
    folder = copy_of_checkout(tmp_path / "local")
    shutil.copyfile(outcome.folder / "config/cluster.yaml", folder / "config/cluster.yaml")
    start = time.monotonic()
    line = command("--cores", "2", "--configfile", "config/cluster.yaml")
    done = subprocess.run(
        line, cwd=folder, env=quiet_environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in ("scores.csv", "documents.csv.gz"):
        mine, theirs = (each / "results/smoke" / name for each in (folder, outcome.folder))
        assert mine.read_bytes() == theirs.read_bytes()
    took = time.monotonic() - start
    print(f"SLURM {outcome.seconds:.0f} s for {len(outcome.jobs)} jobs; one machine {took:.0f} s")
