"""What each job of a plan has to do, in seconds on a machine and bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atkd.forecast.lengths import Lengths
from atkd.forecast.machines import Machine
from atkd.forecast.shapes import Shape, shape_of
from atkd.grid import Run
from atkd.jobs import Job
from atkd.layout import Layout
from atkd.tasks import open_ended

BACKWARD = 2  # forward passes' worth of work
ITEM = 1e-3  # seconds of lm-eval and the tokenizer for each item that is asked


@dataclass(frozen=True)
class Cost:
    """Of one job."""

    seconds: float
    disk: float = 0.0


class Work:
    """The costs of a configuration's jobs on a machine."""

    def __init__(self, plan: Layout, lengths: Lengths, machine: Machine) -> None:
        self.plan, self.lengths, self.machine = plan, lengths, machine
        self.compute = plan.config["compute"]

    def shape(self, family: str, size: str) -> Shape:
        """A size's shape."""
        return shape_of(self.plan.config, family, size)

    # Training

    def base(self, job: Job, family: str, size: str) -> Cost:
        """Pretraining, or taking over what is pretrained."""
        shape, source = self.shape(family, size), self.plan.config["families"][family]["models"]
        disk = shape.parameters * (2.0 if self._saved(job) == "bfloat16" else 4.0)
        if "build" not in source[size]:
            return Cost(self.machine.start + 3 * disk / self.machine.bandwidth, disk)
        text = self.lengths.text
        read = 12.0 * self.machine.start  # tokenising texts that are read once
        return Cost(read + self._training(job, shape, text, text), disk)

    def teacher(self, job: Job, family: str, size: str) -> Cost:
        """Fine-tuning of a teacher."""
        shape = self.shape(family, size)
        seconds = self._training(job, shape, self._sample, self.lengths.answer)
        return Cost(self.machine.start + seconds, 4.0 * shape.parameters)

    def student(self, job: Job, run: Run) -> Cost:
        """Training of a student, with what its teacher and its own answers cost."""
        shape, recipe = self.shape(run.family, run.student), job.settings["recipe"]
        seconds = self._training(job, shape, self._sample, self.lengths.answer)
        steps, batch = self._steps(job)
        own = recipe["settings"].get("student_fraction", 0.0)
        if "teacher" in job.reads:
            teacher = self.shape(run.family, run.teacher if run.teacher != "-" else run.student)
            live = own if "cache" in job.reads else 1.0
            each = teacher.forward(batch * self._sample, self._sample, batch * self.lengths.answer)
            head = 2.0 * teacher.head * batch * self.lengths.answer
            work = live * each + (1 - live) * head
            seconds += steps * (work / self.machine.operations + self._overhead(teacher, live / 3))
        room = recipe["settings"].get("max_new_tokens", 0)
        longest = min(room, 2 * self.lengths.answer)  # of a batch, about twice the mean
        seconds += own * steps * longest * self._one_token(shape)
        return Cost(self.machine.start + seconds, 4.0 * shape.parameters)

    def _training(self, job: Job, shape: Shape, sample: float, predicted: float) -> float:
        steps, batch = self._steps(job)
        passes = 1 + BACKWARD + bool(job.settings["training"].get("gradient_checkpointing"))
        work = passes * shape.forward(batch * sample, sample, batch * predicted)
        micro = job.settings["training"].get("micro_batch_size") or batch
        parts = max(1.0, batch / micro)
        return steps * (work / self.machine.operations + parts * self._overhead(shape))

    def _steps(self, job: Job) -> tuple[float, int]:
        training = job.settings["training"]
        batch = training["batch_size"]
        steps = training.get("steps") or training["epochs"] * self.lengths.rows / batch
        return max(1.0, steps * training.get("stop_at", 1.0)), batch

    def _overhead(self, shape: Shape, share: float = 1.0) -> float:
        return share * shape.layers * self.machine.layer

    def _one_token(self, shape: Shape) -> float:
        weights = 4.0 * (shape.hidden + shape.head) / self.machine.bandwidth
        return max(weights, shape.layers * self.machine.token) + 2 * self.machine.token

    @property
    def _sample(self) -> float:
        return self.lengths.prompt + self.lengths.answer

    @staticmethod
    def _saved(job: Job) -> str:
        return str(job.settings["training"].get("saved_dtype", "float32"))

    # Teachers' outputs

    def cache(self, family: str, size: str) -> Cost:
        """A teacher's states and log-normalisers on the training rows, once."""
        shape, rows = self.shape(family, size), self.lengths.rows
        work = rows * shape.forward(self._sample, self._sample, self.lengths.answer)
        disk = rows * self.lengths.answer * (2.0 * shape.width + 16)
        return Cost(self.machine.start + work / self.machine.operations, disk)

    def text(self, family: str, size: str) -> Cost:
        """A teacher's answers to the training prompts."""
        settings = self.plan.config["teacher_text"]
        tokens = min(settings["max_new_tokens"], 2 * self.lengths.answer)
        calls = self.lengths.rows / settings["batch_size"]
        seconds = calls * tokens * self._one_token(self.shape(family, size))
        return Cost(self.machine.start + seconds, 8.0 * self.lengths.rows * self.lengths.answer)

    # Evaluation

    def evaluate(self, run: Run) -> Cost:
        """A model's answers to all tasks."""
        shape = self.shape(run.family, run.student if run.student != "-" else run.teacher)
        batch, seconds = self.plan.config["evaluation"]["batch_size"], self.machine.start
        for task, asked in self.lengths.tasks.items():
            passes = 2 if open_ended(task) else 3  # answers, references, and options
            work = passes * shape.forward(asked.items * asked.prompt, asked.prompt, asked.items)
            calls = max(1.0, asked.items / batch)
            seconds += work / self.machine.operations + asked.items * ITEM
            seconds += calls * asked.answer * self._one_token(shape)
        return Cost(seconds, 400.0 * sum(asked.items for asked in self.lengths.tasks.values()))


def needs_of(shape: Shape, settings: Mapping[str, Any], share: int = 1) -> float:
    """Bytes on a device to train a model: weights, gradients, two moments, one layer's states."""
    each = 10.0 if settings["optimiser"] == "adamw_8bit" else 16.0
    if rank := settings.get("lora_rank"):  # weights, and all of it for two matrices beside each
        each = 4.0 + each * 8.0 * rank / shape.width
    micro = settings.get("micro_batch_size") or settings["batch_size"]
    tokens = micro * settings["max_length"]
    kept = 1 if settings.get("gradient_checkpointing") else 17  # tensors of the width a layer keeps
    states = 2.0 * tokens * shape.width * (kept * shape.layers + 17)
    return each * shape.parameters / share + states + 6.0 * tokens * shape.ids
