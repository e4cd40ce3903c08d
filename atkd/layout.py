"""Where the files of a run lie, and which models it has.

Paths are relative to where the workflow runs. Nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from atkd import config as configuration
from atkd import grid, methods
from atkd.grid import Pair, Run
from atkd.jobs import Needs
from atkd.runtime.files import InputError
from atkd.tasks import open_ended

ASSISTED = "supervised_kd"  # how a teacher teaches an assistant


class Layout:
    """The grid of one checked configuration, and the files of its parts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.results = f"results/{config['name']}"
        self.data_root = configuration.data_root(config)
        self.source = config["data"]["source"]
        self.tasks = [*config["tasks"], *config["extra_tasks"]]
        self.open_tasks = [task for task in self.tasks if open_ended(task)]
        self.generation_tasks = [task for task in config["tasks"] if open_ended(task)]
        self.families = list(dict.fromkeys(pair["family"] for pair in config["pairs"]))
        self.students = list(dict.fromkeys((p["family"], p["student"]) for p in config["pairs"]))
        self.judge_settings = config["evaluation"].get("judge")

    @cached_property
    def runs(self) -> list[Run]:
        """The grid: every model that is evaluated."""
        return grid.runs(self.config)

    @cached_property
    def released(self) -> list[str]:
        """The released code's switches that are on everywhere."""
        everything = self.config["protocol"] == "released"
        return list(methods.SWITCHES) if everything else self.config["released"]

    @property
    def exact(self) -> bool:
        """Whether the data say what is right, so that an exact judge rates open-ended answers."""
        return self.source == "world"

    def seed_of_models(self, seed: str | int) -> int:
        """The seed of the teacher that a run of `seed` uses."""
        return grid.model_seed(self.config, int(seed))

    def model(self, family: str, size: str, seed: str | int, role: str) -> str:
        """The last file of the base or teacher of a run's seed."""
        if role == "base":
            seed = grid.base_seed(self.config, int(seed))
        return f"{self.results}/models/{family}/{size}/seed{seed}/{role}/manifest.json"

    def of_run(self, run: str, name: str) -> str:
        """A file of a run."""
        return f"{self.results}/runs/{run}/{name}"

    def every_run(self, name: str) -> list[str]:
        """One file of every run."""
        return [self.of_run(run.key, name) for run in self.runs]

    def evaluated_model(self, run: Run) -> str:
        """What a run evaluates: a teacher, an untrained base (`none`) or a student."""
        if run.method == "teacher":
            return self.model(run.family, run.teacher, run.seed, "teacher")
        if run.method == "none":
            return self.model(run.family, run.student, run.seed, "base")
        place = f"{run.family}/{run.student}/{run.teacher}/{methods.trained_as(run.method)}"
        return f"{self.results}/students/{place}/seed{run.seed}/manifest.json"

    def teachers_of(self, family: str, student: str, teacher: str = "-") -> list[str]:
        """A run's teacher; all teachers of its student where it has none."""
        return [teacher] if teacher != "-" else grid.teachers_of(self.config, family, student)

    def start_of(self, run: Run, which: str) -> str:
        """What a student starts from: its base, or that after SFT."""
        if which == "sft":
            return self.evaluated_model(replace(run, teacher="-", method="sft"))
        return self.model(run.family, run.student, self.seed_of_models(run.seed), "base")

    def taught_by(self, run: Run, which: str) -> str:
        """What a student learns from: its teacher, that at an early step, or an assistant."""
        pair, seed = Pair(run.family, run.student, run.teacher), self.seed_of_models(run.seed)
        if which == "assistant":
            size = grid.assistant(self.config, pair)
            if size is None:
                raise InputError(f"{run.key}: no teacher is smaller than {run.teacher}")
            return self.evaluated_model(replace(run, student=size, method=ASSISTED, seed=seed))
        role = "early_teacher" if which == "early" else "teacher"
        return self.model(run.family, run.teacher, seed, role)

    def rooted(self, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The settings with the path under `key`, if any, resolved under the data root."""
        found = dict(settings)
        if key in found:
            found[key] = str(Path(self.data_root, found[key]))
        return found

    def needs(self, family: str, *sizes: str, trained: str = "") -> Needs:
        """The largest needs of the models of these sizes, one of which is trained."""
        found = grid.needs(self.config, family, sizes, trained)
        del found["spread"]
        return Needs(**found)

    def task_files(self, tasks: list[str]) -> list[str]:
        """Data files of these tasks."""
        return [f"{self.results}/data/tasks/{task}.jsonl" for task in tasks]

    def samples(self, run: str, tasks: list[str]) -> list[str]:
        """A run's samples of these tasks."""
        return [self.of_run(run, f"samples/{task}.jsonl") for task in tasks]
