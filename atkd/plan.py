"""What each job of a configuration reads, writes, is set to and asks for: decided here, once.

Rules of the workflow take inputs, needs and settings from a `Plan`; a command line

    python -m atkd STAGE --config FILE --run KEY

is spelled out by the same plan, so that any job can be run by hand. Paths are relative to where the
workflow runs. Nothing here reads or writes a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from atkd import config as configuration
from atkd import grid, methods
from atkd.analyses import LANDSCAPES
from atkd.grid import Run
from atkd.jobs import JOBS, Job, Needs, Paths, folder, named
from atkd.layout import Layout
from atkd.runtime.files import InputError

PROJECT = Path(__file__).parent.parent
HEALED = "supervised_kd"  # how what is left of a model is taught by the whole of it


class Plan(Layout):
    """The jobs of one checked configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._jobs: dict[tuple[str, ...], Job] = {}

    def record(self) -> dict[str, Any]:
        """The run's grid and data source, kept beside its scores."""
        trained = (run.method for run in self.runs if run.method != "teacher")
        return {
            "config": self.config["name"],
            "source": self.source,
            "seeds": self.config["seeds"],
            "tasks": self.config["tasks"],
            "extra_tasks": self.config["extra_tasks"],
            "families": self.families,
            "pairs": self.config["pairs"],
            "methods": list(dict.fromkeys(trained)),
            "judge": self.judge_settings is not None,
            "analyses": self.config["analyses"],
            "runs": [run.key for run in self.runs],
        }

    # Names of jobs

    def job(self, kind: str, names: Mapping[str, str]) -> Job:
        """The job of a kind, by its wildcards."""
        key = (kind, *(names[name] for name in sorted(names)))
        if key not in self._jobs:
            self._jobs[key] = getattr(self, kind)(**names)
        return self._jobs[key]

    def by_hand(self, stage: str, key: str) -> Job:
        """The job that a stage's key names; InputError if none is named so."""
        kind, names = named(stage, key)
        self._check_names(key, names)
        return self.job(kind, names)

    def _check_names(self, key: str, names: Mapping[str, str]) -> None:
        """InputError if a key names a family or size that the configuration has not, or no seed."""
        families = self.config["families"]
        family = names.get("family", next(iter(families)))
        self._one_of(key, "family", family, families)
        absent = self._absent(names["method"]) if "method" in names else ""
        for role in {"size", "student", "teacher"} & names.keys():
            known = ["-"] if role == absent else families[family]["models"]
            self._one_of(key, role, names[role], known)
        if not names.get("seed", "0").isdigit():
            raise InputError(f"--run: found seed {names['seed']!r} in {key!r}; expected a number")

    @staticmethod
    def _absent(method: str) -> str:
        """The role that runs of a method have none of."""
        if method == "teacher":
            return "student"
        return "" if methods.row_of(method).needs_teacher else "teacher"

    @staticmethod
    def _one_of(key: str, what: str, name: str, known: Collection[str]) -> None:
        if name not in known:
            expected = ", ".join(known)
            raise InputError(f"--run: found {what} {name!r} in {key!r}; expected {expected}")

    def command(self, kind: str, names: Mapping[str, str]) -> str:
        """The short command line of a job."""
        stage, key = JOBS[kind]
        config = f"{self.results}/config.json"
        return f"python -m atkd {stage} --config {config} --run {key.format(**names)}"

    # Data

    def data(self) -> Job:
        """Training data and tasks."""
        settings = dict(self.config["data"]["settings"])
        if self.source == "local":
            settings = self.rooted({"root": configuration.DATA_FOLDER} | settings, "root")
        options = {"source": self.source, "seed": self.config["data"]["seed"]}
        return Job({}, options | {"output": f"{self.results}/data"}, settings)

    def tokenizer(self, family: str) -> Job:
        """A family's tokenizer."""
        source = self.config["families"][family]["tokenizer"]
        text = [f"{self.results}/data/{name}.jsonl" for name in ("pretrain", "train")]
        options = {"family": family, "text": text}
        options["output"] = f"{self.results}/tokenizers/{family}"
        return Job({"text": text}, options, self.rooted(source, "files"))

    def prompts(self, family: str, kind: str = "prompts") -> Job:
        """The prompt files of a family."""
        released = kind == "released_prompts" or "test_template" in self.released
        evaluation = self.config["evaluation"]
        kept = ("context", "shots", "max_new_tokens", "limit", "seed")
        settings = {
            "tasks": self.tasks,
            "template": "released" if released else "stated",
            **{name: evaluation[name] for name in kept},
        }
        data, tokenizer = f"{self.results}/data", f"{self.results}/tokenizers/{family}"
        reads = {
            "manifest": f"{data}/manifest.json",
            "tasks": self.task_files(self.tasks),
            "tokenizer": f"{tokenizer}/tokenizer.json",
        }
        options = {
            "data": data,
            "tokenizer": tokenizer,
            "family": family,
            "output": f"{self.results}/{kind}/{family}",
        }
        return Job(reads, options, settings)

    def released_prompts(self, family: str) -> Job:
        """What a variant that is tested with the released code's template is asked."""
        return self.prompts(family, "released_prompts")

    def check(self, family: str, size: str) -> Job:
        """The check that a model made elsewhere reads the ids of its family's tokenizer."""
        tokenizer = f"{self.results}/tokenizers/{family}"
        source = self.config["families"][family]["models"][size]
        options = {
            "family": family,
            "size": size,
            "tokenizer": tokenizer,
            "output": f"{self.results}/checks/{family}/{size}.json",
        }
        names = ("folder", "hub", "revision", "gguf", "sha256")
        kept = {name: source[name] for name in names if name in source}
        return Job({"tokenizer": f"{tokenizer}/tokenizer.json"}, options, {"source": kept})

    # Training

    def _training(self, family: str, size: str, role: str, method: str = "") -> dict[str, Any]:
        compute = self.config["compute"]
        own = self.config["families"][family]["models"][size].get("compute", {})
        kept = {k: compute[k] for k in ("device", "precision", "teacher_dtype")}
        if role != "student" and own.get("sharded", compute["sharded"]):
            kept["sharded"] = True
        return {
            "family": family,
            "training": grid.training(self.config, family, size, role, method),
            "compute": kept,
        }

    def base(self, family: str, size: str, seed: str) -> Job:
        """A pretrained model: taken over, built and pretrained, or what is left of another."""
        reads: dict[str, Paths] = {
            "data": f"{self.results}/data/pretrain.jsonl",
            "tokenizer": f"{self.results}/tokenizers/{family}/tokenizer.json",
        }
        source = self.config["families"][family]["models"][size]
        settings = self._training(family, size, "base")
        left_out = ("training", "compute", "heal")
        settings["source"] = {k: v for k, v in source.items() if k not in left_out}
        loaded: tuple[str, ...] = (size,)
        if "from" in source:
            reads["base"] = self.model(family, source["from"], seed, "base")
            if "heal" in source:
                reads["teacher"] = reads["base"]
                settings["recipe"] = asdict(methods.resolve(HEALED, family, {}))
                loaded = (size, source["from"])
        elif "build" not in source:
            reads["check"] = f"{self.results}/checks/{family}/{size}.json"
        job = self._train("base", f"models/{family}/{size}", seed, reads, settings, loaded)
        shipped = self.config["shipped_bases"]
        if shipped is None:
            return job
        place = os.path.relpath(PROJECT / shipped / family / size / f"seed{seed}")
        return replace(job, options={**job.options, "shipped": place})

    def teacher(self, family: str, size: str, seed: str, role: str = "teacher") -> Job:
        """A base after supervised fine-tuning."""
        reads = {
            "base": self.model(family, size, seed, "base"),
            "data": f"{self.results}/data/train.jsonl",
            "tokenizer": f"{self.results}/tokenizers/{family}/tokenizer.json",
        }
        settings = self._training(family, size, role)
        return self._train(role, f"models/{family}/{size}", seed, reads, settings, (size,))

    def early_teacher(self, family: str, size: str, seed: str) -> Job:
        """The same at an early step."""
        return self.teacher(family, size, seed, "early_teacher")

    def student(self, family: str, student: str, teacher: str, method: str, seed: str) -> Job:
        """A student trained by a method."""
        run = Run(family, student, teacher, method, int(seed))
        recipe, which = self.recipe(method, family), methods.models_of(self.config, method)
        cached = recipe.cacheable and recipe.sequences in self.config["teacher_cache"]
        cached = cached and which["teacher"] == "final"
        place = f"{family}/{teacher}/seed{self.seed_of_models(seed)}"
        reads: dict[str, Paths] = {"base": self.start_of(run, which["start"])}
        if recipe.distils:
            reads["teacher"] = self.taught_by(run, which["teacher"])
        if cached:
            reads["cache"] = f"{self.results}/cache/{place}/{recipe.sequences}/manifest.json"
        if recipe.sequences == "teacher":
            reads["text"] = f"{self.results}/text/{place}/teacher.jsonl"
        reads["data"] = f"{self.results}/data/train.jsonl"
        reads["tokenizer"] = f"{self.results}/tokenizers/{family}/tokenizer.json"
        settings = self._training(family, student, "student", method) | {"recipe": asdict(recipe)}
        live = recipe.distils and (recipe.student_fraction > 0 or not cached)
        loaded = (student, teacher) if live else (student,)
        return self._train("student", run.key, seed, reads, settings, loaded)

    def _train(
        self,
        role: str,
        run: str,
        seed: str,
        reads: Mapping[str, Paths],
        settings: Mapping[str, Any],
        loaded: tuple[str, ...],
    ) -> Job:
        """One training; `loaded` are the sizes of the models its process holds."""
        kept = ("tokenizer", "base", "teacher", "cache")
        folders = {name: folder(str(reads[name])) for name in kept if name in reads}
        files = {name: reads[name] for name in ("text", "data") if name in reads}
        family = settings["family"]
        output = f"{self.results}/{run}/seed{seed}/{role}"
        if role == "student":
            output = f"{self.results}/students/{run.rpartition('/')[0]}/seed{seed}"
        stage = role.removeprefix("early_")
        options = {"role": stage, "run": run, "seed": seed, **folders, **files, "output": output}
        return Job(reads, options, settings, self.needs(family, *loaded, trained=loaded[0]))

    def recipe(self, method: str, family: str) -> methods.Recipe:
        """A method as this configuration runs it."""
        own = methods.overrides(self.config, method)
        return methods.resolve(method, family, own, self.released)

    # Teachers' outputs

    def _answer_length(self, family: str, teacher: str) -> int:
        """A teacher's answers fit the longest sample of any of its students."""
        pairs = [p for p in self.config["pairs"] if p["family"] == family]
        students = [pair["student"] for pair in pairs if pair["teacher"] == teacher]
        if not students:
            raise InputError(f"{family} {teacher}: no pair has it as its teacher")
        found = (grid.training(self.config, family, s, "student") for s in students)
        return max(training["max_length"] for training in found)

    def text(self, family: str, size: str, seed: str) -> Job:
        """A teacher's answers to the training prompts."""
        place = f"text/{family}/{size}/seed{seed}"
        reads = {
            "teacher": self.model(family, size, seed, "teacher"),
            "data": f"{self.results}/data/train.jsonl",
        }
        settings = {
            "family": family,
            "max_length": self._answer_length(family, size),
            "device": self.config["compute"]["device"],
            "dtype": self.config["compute"]["teacher_dtype"],
            "seed": int(seed),
            **self.config["teacher_text"],
            **self._engine(),
        }
        options = {
            "teacher": folder(reads["teacher"]),
            "data": reads["data"],
            "run": place,
            "output": f"{self.results}/{place}/teacher.jsonl",
        }
        return Job(reads, options, settings, self._one_process(family, size))

    def cache(self, family: str, size: str, seed: str, sequences: str) -> Job:
        """A teacher's outputs on fixed sequences."""
        place = f"cache/{family}/{size}/seed{seed}/{sequences}"
        reads = {
            "teacher": self.model(family, size, seed, "teacher"),
            "data": f"{self.results}/data/train.jsonl",
        }
        if sequences == "teacher":
            reads["text"] = f"{self.results}/text/{family}/{size}/seed{seed}/teacher.jsonl"
        settings = {
            "family": family,
            "max_length": self._answer_length(family, size),
            "device": self.config["compute"]["device"],
            "teacher_dtype": self.config["compute"]["teacher_dtype"],
        }
        options = {
            "teacher": folder(reads["teacher"]),
            "data": reads["data"],
            "text": reads.get("text"),
            "run": place,
            "output": f"{self.results}/{place}",
        }
        return Job(reads, options, settings, self._one_process(family, size))

    def _one_process(self, family: str, *sizes: str) -> Needs:
        """Needs of a job that runs models in one process."""
        found = grid.needs(self.config, family, sizes)
        gpus = min(1, found.pop("gpus")) * found.pop("spread")
        return Needs(gpus, **found)

    # Evaluation

    def _evaluation(self, *names: str) -> dict[str, Any]:
        """Settings of evaluation, and the device."""
        kept = {name: self.config["evaluation"][name] for name in names}
        return kept | {"device": self.config["compute"]["device"]}

    def _engine(self) -> dict[str, str]:
        """What generates answers, where it is not this package."""
        engine = self.config["compute"]["answers"]
        return {} if engine == "torch" else {"engine": engine}

    def _alone(self, run: Run) -> Needs:
        size = run.student if run.student != "-" else run.teacher
        return self._one_process(run.family, size)

    def evaluate(self, **names: str) -> Job:
        """A model's answers to all tasks."""
        run = Run.of(names)
        switched = "test_template" in methods.switches_of(run.method)
        kind = "released_prompts" if switched else "prompts"
        place = f"{self.results}/{kind}/{run.family}"
        reads = {
            "model": self.evaluated_model(run),
            "prompts": [f"{place}/{task}.jsonl" for task in self.tasks],
        }
        options = {
            "model": folder(str(reads["model"])),
            "prompts": place,
            "run": run.key,
            "output": self.of_run(run.key, "samples"),
        }
        kept = self._evaluation("context", "batch_size", "dtype")
        settings = {"tasks": self.tasks, **kept, **self._engine()}
        return Job(reads, options, settings, self._alone(run))

    def score(self, **names: str) -> Job:
        """A run's scores per document; its teachers' samples say which tokens are easy."""
        run = Run.of(names)
        shared = self.seed_of_models(run.seed)
        teachers = self.teachers_of(run.family, run.student, run.teacher)
        keys = [f"{run.family}/-/{name}/teacher/{shared}" for name in teachers]
        summaries = [self.of_run(key, "samples/lm_eval.json") for key in keys]
        shown = ["own"] if run.teacher != "-" else teachers
        reads = {
            "samples": self.samples(run.key, self.tasks),
            "summary": self.of_run(run.key, "samples/lm_eval.json"),
            "teachers": summaries,
        }
        folders = [f"{name}={folder(path)}" for name, path in zip(shown, summaries, strict=True)]
        options = {
            "samples": self.of_run(run.key, "samples"),
            "teachers": folders,
            "output": self.of_run(run.key, "documents.csv.gz"),
        }
        return Job(reads, options, command="score")

    def exact_judge(self, **names: str) -> Job:
        """The exact judge's ratings of a run's open-ended answers."""
        run = Run.of(names)
        reads = {
            "samples": self.samples(run.key, self.open_tasks),
            "tasks": self.task_files(self.open_tasks),
        }
        options = {
            "run": run.key,
            "samples": self.of_run(run.key, "samples"),
            "data": f"{self.results}/data",
            "documents": self.of_run(run.key, "judge_documents.csv.gz"),
            "output": self.of_run(run.key, "judge.jsonl"),
        }
        return Job(reads, options, command="exact")

    def judge(self) -> Job:
        """A language model's ratings of all runs: one limit, one budget, one file of replies."""
        if not self.judge_settings:
            raise InputError(
                "config key evaluation.judge: missing; expected an endpoint and a model"
            )
        keys = [run.key for run in self.runs]
        reads = {
            "samples": [path for key in keys for path in self.samples(key, self.open_tasks)],
            "tasks": self.task_files(self.open_tasks),
            "prompt": self.judge_settings.get("prompt") or [],
        }
        options = {"results": self.results, "runs": keys, "output": f"{self.results}/judge"}
        return Job(reads, options, self.judge_settings, command="llm")

    def scores(self) -> Job:
        """The scores of all runs, and the run's record."""
        reads: dict[str, Paths] = {"documents": self.every_run("documents.csv.gz")}
        if self.exact:
            reads["exact"] = self.every_run("judge_documents.csv.gz")
        if self.judge_settings:
            reads["judge"] = f"{self.results}/judge/documents.csv.gz"
        options = {"results": self.results, **reads, "record": json.dumps(self.record())}
        return Job(reads, options, command="collect")

    # Analyses

    def kin_of(self, family: str, student: str, seed: str) -> list[Run]:
        """Every run of a student and seed, those of its teachers included."""
        teachers, shared = self.teachers_of(family, student), self.seed_of_models(seed)

        def same(run: Run) -> bool:
            if run.method == "teacher":
                return run.seed == shared and run.teacher in teachers
            seeds = shared if run.method == "none" else int(seed)
            return run.student == student and run.seed == seeds

        return [run for run in self.runs if run.family == family and same(run)]

    def fidelity_of(self, family: str, student: str, seed: str) -> Job:
        """A student's models against their teachers and the truth."""
        kin = self.kin_of(family, student, seed)
        return self._look(kin, f"fidelity/{family}/{student}/seed{seed}.csv", False, "run")

    def uncertainty_of(self, family: str, seed: str) -> Job:
        """What a family's teachers, bases and some students of a seed are certain of."""
        base = grid.base_seed(self.config, int(seed))
        known = {"teacher": self.seed_of_models(seed), "none": base}
        known |= dict.fromkeys(("sft", *LANDSCAPES), int(seed))
        kin = [
            run for run in self.runs if run.family == family and known.get(run.method) == run.seed
        ]
        return self._look(kin, f"uncertainty/{family}/seed{seed}.csv", True, "run")

    def landscape_of(self, family: str, student: str, seed: str) -> Job:
        """The loss around students of the largest teacher, with and without ATKD."""
        teachers = grid.by_size(self.config, family, student)
        if not teachers:
            raise InputError(f"{family} {student}: no pair has it as its student")
        kin = [Run(family, student, teachers[-1], method, int(seed)) for method in LANDSCAPES]
        return self._look(kin, f"landscape/{family}/{student}/seed{seed}.csv", False, "run")

    def explorer(self) -> Job:
        """What the first student's largest teacher, and students with and without ATKD, say."""
        (family, student), seed = self.students[0], self.config["seeds"][0]
        teacher = grid.by_size(self.config, family, student)[-1]
        kin = [Run(family, "-", teacher, "teacher", self.seed_of_models(seed))]
        kin += [Run(family, student, teacher, method, seed) for method in LANDSCAPES]
        return self._look(kin, "explorer.json", True)

    def _look(self, kin: list[Run], output: str, training: bool, command: str = "") -> Job:
        """A job that looks at models of one family on references, and on training rows if so."""
        family, tasks = kin[0].family, self.generation_tasks
        place = f"{self.results}/prompts/{family}"
        models = [self.evaluated_model(run) for run in kin]
        reads: dict[str, Paths] = {
            "models": models,
            "tasks": self.task_files(tasks),
            "prompts": [f"{place}/{task}.jsonl" for task in tasks],
        }
        options = {
            "runs": [run.key for run in kin],
            "models": [folder(model) for model in models],
            "tasks": f"{self.results}/data/tasks",
            "prompts": place,
            "output": f"{self.results}/analyses/{output}",
        }
        settings = {"tasks": tasks, **self._evaluation("batch_size", "dtype")}
        if training:
            reads["data"] = options["data"] = f"{self.results}/data/train.jsonl"
            students = [student for name, student in self.students if name == family]
            lengths = (
                grid.training(self.config, family, student, "student")["max_length"]
                for student in students
            )
            settings["max_length"] = max(lengths)
        sizes = {run.teacher if run.student == "-" else run.student for run in kin}
        return Job(reads, options, settings, self._one_process(family, *sorted(sizes)), command)

    def diversity(self) -> Job:
        """How alike each model's open-ended answers are."""
        tasks = self.generation_tasks
        keys = [run.key for run in self.runs]
        reads = {"samples": [path for key in keys for path in self.samples(key, tasks)]}
        options = {"results": self.results, "runs": keys, "tasks": tasks}
        return Job(reads, options | {"output": f"{self.results}/analyses/diversity.csv"})

    def curves(self) -> Job:
        """How every training went."""
        seeds = list(dict.fromkeys(self.seed_of_models(seed) for seed in self.config["seeds"]))
        bases = [
            self.model(*model, seed, "base") for model in grid.models(self.config) for seed in seeds
        ]
        trained = [self.evaluated_model(run) for run in self.runs]
        models = list(dict.fromkeys([*bases, *trained]))
        output = f"{self.results}/analyses/curves.csv"
        options = {"models": [folder(model) for model in models], "output": output}
        return Job({"models": models}, options)

    def crosscheck_of(self, **names: str) -> Job:
        """lm-eval's own MMLU for a run."""
        run = Run.of(names)
        reads = {
            "model": self.evaluated_model(run),
            "data": f"{self.results}/data/tasks/mmlu.jsonl",
            "documents": self.of_run(run.key, "documents.csv.gz"),
        }
        options = {
            "model": folder(reads["model"]),
            "run": run.key,
            "data": reads["data"],
            "documents": reads["documents"],
            "output": self.of_run(run.key, "crosscheck.json"),
        }
        settings = self._evaluation("context", "batch_size", "shots", "dtype")
        return Job(reads, options, settings, self._alone(run), "run")
