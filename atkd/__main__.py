"""The command line of every stage: `python -m atkd STAGE ...`, or `atkd STAGE ...`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from atkd.runtime import cli, devices, fork_server

if TYPE_CHECKING:
    from atkd.jobs import Job


class Stage(NamedTuple):
    """A stage's module, what it does, whether it imports torch (so that a fork server may run it).

    `function`: its command line.
    """

    module: str
    about: str
    heavy: bool = False
    function: str = "main"


STAGES = {
    "world": Stage("atkd.world.builder", "show items of the embedded world"),
    "data": Stage("atkd.data.prepare", "write training data and tasks from a source"),
    "tokenizer": Stage("atkd.models.tokenizers", "open or train a family's tokenizer", True),
    "prompts": Stage("atkd.data.prompts", "write the exact text a model is asked", True),
    "check": Stage(
        "atkd.models.tokenizers", "check that teacher and student read the same ids", True, "check"
    ),
    "train": Stage("atkd.training.train", "train a base, a teacher or a student", True),
    "bases": Stage("atkd.training.shipped", "collect a run's bases to ship them"),
    "export": Stage("atkd.training.export", "copy a finished model for other programs", True),
    "teacher-answers": Stage("atkd.training.teacher_answers", "sample a teacher's answers", True),
    "teacher-cache": Stage("atkd.training.teacher_cache", "keep a teacher's outputs", True),
    "evaluate": Stage("atkd.evaluation.evaluate", "let a model answer every task", True),
    "score": Stage("atkd.evaluation.scores", "score answers; collect the scores of all runs"),
    "fidelity": Stage("atkd.evaluation.fidelity", "compare models with teacher and truth", True),
    "crosscheck": Stage("atkd.evaluation.mmlu_crosscheck", "ask lm-eval's own MMLU", True),
    "uncertainty": Stage("atkd.analysis.uncertainty", "what models are certain of", True),
    "landscape": Stage("atkd.analysis.landscape", "the loss around students' weights", True),
    "diversity": Stage("atkd.analysis.diversity", "how alike each model's answers are"),
    "explorer": Stage("atkd.analysis.explorer", "what models say at every token", True),
    "curves": Stage("atkd.analysis.curves", "how every training went"),
    "plan": Stage("atkd.forecast.forecast", "say what a configuration will cost"),
    "judge": Stage("atkd.judge.judge", "rate open-ended answers"),
    "tables": Stage("atkd.reporting.score_tables", "draw the tables"),
    "figures": Stage("atkd.reporting.figures", "draw the figures"),
    "report": Stage("atkd.reporting.report", "a run as a page, frozen, redrawn, summed up"),
}


USAGE = """usage: atkd STAGE [options]
       atkd STAGE --config FILE --run KEY

The second form runs one job of a configuration as its workflow would (atkd/jobs.py lists the keys).

stages (each has a --help of its own):
"""


def usage() -> str:
    """What `--help` says."""
    lines = [f"  {name:<16} {stage.about}\n" for name, stage in STAGES.items()]
    return USAGE + "".join(lines)


def job_of(stage: str, arguments: list[str]) -> tuple[Job | None, list[str]]:
    """The job that `--config FILE --run KEY` names, and what else is said; none without a file."""
    short = argparse.ArgumentParser(prog=f"atkd {stage}", add_help=False, allow_abbrev=False)
    short.add_argument("--config")
    short.add_argument("--run")
    given, rest = short.parse_known_args(arguments)
    if given.config is None:
        return None, arguments
    from atkd import config, plan

    return plan.Plan(config.load(given.config)).by_hand(stage, given.run or ""), rest


def in_processes(count: int, stage: str, arguments: list[str]) -> NoReturn:
    """Becomes the starter of `count` processes of this command line."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "--"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *launch, "atkd", stage, *arguments])


def main() -> None:
    """Runs the stage that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        print(usage(), end="")
        raise SystemExit(0 if name else 2)
    if name not in STAGES:
        print(f"error: found stage {name!r}; expected one of {', '.join(STAGES)}", file=sys.stderr)
        raise SystemExit(2)
    stage = STAGES[name]
    if stage.heavy and (status := fork_server.hand_over()) is not None:
        raise SystemExit(status)
    cli.run(lambda: run(name, stage))


def run(name: str, stage: Stage) -> None:
    """Imports a stage and runs its command line; a job takes the GPUs that it asks for."""
    arguments = sys.argv[2:]
    job, rest = job_of(name, arguments)
    if job is not None and "LOCAL_RANK" not in os.environ:
        devices.claim(job.needs.gpus)
        if name == "train" and job.needs.gpus > 1:
            in_processes(job.needs.gpus, name, arguments)
    sys.argv = [f"atkd {name}", *(rest if job is None else [*job.arguments, *rest])]
    with cli.start_up():
        module = import_module(stage.module)
    getattr(module, stage.function)()


if __name__ == "__main__":
    main()
