"""A seeded campaign of faults against a small run: `python tests/faults.py --count 30 --seed 1`.

A run of one pair is disturbed again and again: jobs and the scheduler are killed at random moments,
files are cut, changed or removed, the disk is full, two runs want one folder, a loss is no number.
After each fault the same command must end with the scores of an undisturbed run, or stop with one
clear message after which the remedy that it names does. Nothing that was finished may be lost: what
a killed run had finished is not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from helpers import command, copy_of_checkout, quiet_environment, smoke

FILE = "config/faults.yaml"
RESULTS = "results/faults"
SCORES = ("scores.csv", "documents.csv.gz")
LIMIT = 300  # seconds a run may take
# What a path is a part of -> its kind in the table.
KINDS = {
    "cache": "cache/", "checkpoint": "models/", "student": "students/", "prompts": "prompts/",
    "answers": "samples/", "text": "text/", "scores": "documents.csv.gz",
}  # fmt: skip


def config() -> dict[str, Any]:
    """One pair, a method of each way of learning, two tasks."""
    found = smoke()
    found |= {
        "name": "faults", "pairs": found["pairs"][:1], "tasks": ["dolly", "mmlu"],
        "methods": ["none", "sft", "seqkd", "supervised_kd_atkd", "gkd"], "extra_tasks": [],
    }  # fmt: skip
    for role in ("base", "teacher", "student"):
        found["training"][role] |= {"steps": 30, "checkpoint_every": 3}
    return found


@dataclass
class Run:
    """A checkout in which the run is made."""

    root: Path
    said: str = ""

    @property
    def results(self) -> Path:
        return self.root / RESULTS

    def start(self) -> subprocess.Popen[str]:
        """The command, as the leader of processes of its own."""
        return subprocess.Popen(
            command("--cores", "2", "--configfile", FILE), cwd=self.root, env=quiet_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> int:
        """Runs the command to its end; its exit status."""
        process = self.start()
        try:
            self.said, _ = process.communicate(timeout=LIMIT)
        finally:
            end(process)
        return process.returncode

    def scores(self) -> list[bytes]:
        """The bytes of its scores."""
        return [(self.results / name).read_bytes() for name in SCORES]

    def finished(self) -> dict[str, float]:
        """Finished models -> when they were finished."""
        return {str(path.relative_to(self.root)): path.stat().st_mtime
                for path in self.results.rglob("manifest.json")}  # fmt: skip

    def drop(self, *names: str) -> None:
        """Removes outputs, so that what they are made of is read again."""
        for name in names:
            for path in self.results.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def end(process: subprocess.Popen[str]) -> None:
    """Ends a command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in at_work(process.pid):
        with contextlib.suppress(psutil.Error):
            one.kill()


def at_work(pid: int) -> list[psutil.Process]:
    """Processes that a command started."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def doing(process: psutil.Process) -> str:
    """What a process of the run does: its stage, or nothing."""
    with contextlib.suppress(psutil.Error):
        found = re.search(r"-m atkd (\S+)", " ".join(process.cmdline()))
        return found[1] if found else ""
    return ""


@dataclass
class Outcome:
    """What came of one fault."""

    fault: str
    where: str
    result: str  # recovered, refused, lost
    detail: str = ""


@dataclass
class Campaign:
    """Faults against copies of one finished run."""

    seed: int
    place: Path
    chance: random.Random = field(init=False)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.whole = Run(self.checkout("whole"))
        assert self.whole.finish() == 0, self.whole.said[-3000:]
        self.wanted = self.whole.scores()

    def checkout(self, name: str) -> Path:
        """A copy of the project with the campaign's configuration."""
        root = copy_of_checkout(self.place / name)
        (root / FILE).write_text(yaml.safe_dump(config()), encoding="utf-8")
        return root

    def fresh(self) -> Run:
        """A run that has not begun."""
        shutil.rmtree(self.place / "fresh", ignore_errors=True)
        return Run(self.checkout("fresh"))

    def copied(self) -> Run:
        """The finished run, to be damaged."""
        shutil.rmtree(self.place / "copied", ignore_errors=True)
        shutil.copytree(self.whole.root, self.place / "copied", symlinks=True)
        return Run(self.place / "copied")

    def note(self, fault: str, where: str, result: str, detail: str = "") -> None:
        """Keeps an outcome and tells it."""
        self.outcomes.append(Outcome(fault, where, result, detail))
        print(f"{fault}: {where}: {result} {detail}".rstrip(), flush=True)

    def judged(self, run: Run, fault: str, where: str) -> None:
        """Runs the command to its end and compares."""
        status = run.finish()
        if status == 0:
            same = run.scores() == self.wanted
            self.note(fault, where, "recovered" if same else "lost", "" if same else "other scores")
            return
        errors = re.findall(r"^error: .*|.*use by process.*", run.said, re.MULTILINE)
        clear = len(set(errors)) >= 1 and "Traceback" not in run.said
        self.note(fault, where, "refused" if clear else "lost", (errors or [run.said[-400:]])[0])

    # Faults

    def kill(self) -> None:
        """A job, the scheduler, or both at a random moment of a run; then the same command."""
        run = self.fresh()
        for _ in range(3):  # until it ends, each time further on
            process = run.start()
            time.sleep(self.chance.uniform(2.0, 25.0))
            jobs = [one for one in at_work(process.pid) if doing(one)]
            which = self.chance.choice(["job", "scheduler", "everything"])
            stage = doing(self.chance.choice(jobs)) if jobs else "between jobs"
            before = run.finished()
            if process.poll() is not None:
                break
            if which == "job" and jobs:
                with contextlib.suppress(psutil.Error):
                    self.chance.choice(jobs).kill()
                process.communicate(timeout=LIMIT)
            else:
                process.kill() if which == "scheduler" else end(process)
                time.sleep(1)
            end(process)
            again = self._made_again(run, before)
            self.judged(run, f"kill {which}", stage)
            if again:
                self.note(f"kill {which}", stage, "lost", f"made again: {again[0]}")
            run.drop("scores.csv", "students/*", "runs/*")

    @staticmethod
    def _made_again(run: Run, before: dict[str, float]) -> list[str]:
        """Models that were finished before a kill and are gone after it."""
        now = run.finished()
        return [name for name in before if name not in now]

    def damage(self) -> None:
        """A file of a finished run is cut or changed; what reads it is made again."""
        run = self.copied()
        kind = self.chance.choice(sorted(KINDS))
        found = [path for path in sorted(run.results.rglob("*")) if path.is_file()
                 and KINDS[kind] in str(path) and "logs/" not in str(path)
                 and path.suffix in (".safetensors", ".jsonl", ".gz", ".json")]  # fmt: skip
        path = self.chance.choice(found)
        text, when = bytearray(path.read_bytes()), path.stat()
        how = self.chance.choice(["cut", "bit flipped", "removed"])
        if how == "removed":
            path.unlink()
        else:
            if how == "cut":
                text = text[: self.chance.randrange(len(text))]
            else:
                text[self.chance.randrange(len(text))] ^= 1 << self.chance.randrange(8)
            path.write_bytes(text)
            os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
        run.drop("scores.csv", "tables", "students/opt/125m/1.3b", "runs/opt/125m/1.3b")
        self.judged(run, f"{how}", f"{kind} ({path.name})")

    def full_disk(self) -> None:
        """The disk fills up while a run is at work; with room again it goes on."""
        run = self.fresh()
        run.results.mkdir(parents=True)
        room = self.chance.randrange(1, 9)
        mount(run.results, room)
        try:
            status = run.finish()
            full = "No space left" in run.said or "disk" in run.said
            if status == 0:
                return self.note("full disk", f"{room} MB", "recovered", "it was enough")
            if not full:
                return self.note("full disk", f"{room} MB", "lost", run.said[-400:])
            subprocess.run(["mount", "-o", "remount,size=500m", run.results], check=True)
            return self.judged(run, "full disk", f"{room} MB")
        finally:
            subprocess.run(["umount", "-l", run.results], check=False)

    def two_runs(self) -> None:
        """Two runs in one folder: the second is refused, the first ends."""
        run = self.fresh()
        first = run.start()
        time.sleep(self.chance.uniform(4.0, 12.0))
        second = Run(run.root)
        status = second.finish()
        said = "is in use by process" in second.said
        first.communicate(timeout=LIMIT)
        end(first)
        same = first.returncode == 0 and run.scores() == self.wanted
        good = said and status != 0 and same
        self.note(
            "two runs",
            "one folder",
            "refused" if good else "lost",
            "" if good else second.said[-300:],
        )

    def no_number(self) -> None:
        """A loss becomes NaN; with the cause gone the run goes on."""
        run = self.fresh()
        broken = config()
        broken["training"]["student"] |= {"learning_rate": 1e30}
        (run.root / FILE).write_text(yaml.safe_dump(broken), encoding="utf-8")
        status = run.finish()
        clear = re.search(r"error: .*(nan|inf|finite)", run.said)
        if status == 0 or not clear:
            return self.note("loss is NaN", "students", "lost", run.said[-300:])
        (run.root / FILE).write_text(yaml.safe_dump(config()), encoding="utf-8")
        return self.judged(run, "loss is NaN", "students")

    def carry_out(self, count: int) -> None:
        """`count` kills, and as many damages; each of the others once in ten, once at least."""
        few = max(1, count // 10)
        plan: list[Callable[[], None]] = [self.damage] * count
        plan += [self.two_runs, self.no_number] * few
        plan += [self.full_disk] * (few if can_mount() else 0)
        while sum(one.fault.startswith("kill") for one in self.outcomes) < count:
            self.kill()
        self.chance.shuffle(plan)
        for fault in plan:
            fault()

    def table(self) -> Iterator[str]:
        """Faults by what came of them."""
        results = ("recovered", "refused", "lost")
        counts = Counter((one.fault, one.result) for one in self.outcomes)
        yield f"| fault | injected | {' | '.join(results)} |"
        yield "| :-- | --: | --: | --: | --: |"
        for fault in sorted({one.fault for one in self.outcomes}):
            row = [counts[fault, result] for result in results]
            yield f"| {fault} | {sum(row)} | {' | '.join(map(str, row))} |"


def can_mount() -> bool:
    """Whether a small file system can be mounted here."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def mount(folder: Path, size: int) -> None:
    """A file system of `size` MB in memory at a folder."""
    options = f"size={size}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def main() -> None:
    """Carries out a campaign and prints its table; fails if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="kills, and damages (default: 30)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        campaign = Campaign(args.seed, Path(place))
        campaign.carry_out(args.count)
        print("\n".join(campaign.table()))
        sys.exit(any(one.result == "lost" for one in campaign.outcomes))


if __name__ == "__main__":
    main()
