"""The evaluation tasks: a row each, which everything else that knows a task reads.

The paper's tasks are averaged with equal weight (`AVERAGES`); others are shown beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atkd.runtime.files import InputError

INSTRUCTION = ("instruction", "input", "output")


@dataclass(frozen=True)
class File:
    """A file of a task's rows, relative to the data folder; `split`: which split they are."""

    path: str
    split: str = ""


@dataclass(frozen=True)
class Task:
    """One row.

    `title`: how tables name it. `metric`: its own score, a row of `evaluation.metrics`. `average`:
    the mean it is part of, beside that of all (empty: none). `items`: what turns data rows into
    questions, a builder of `data.prompts`. `fields`: what a data row must have. `asks`: those of
    them that make an item what a training row's instruction and input make that. `files`: where
    its rows lie in the data folder (empty: the paper's files have none). `skills`: what its
    analogue in the generated world is made of, skills or groups of them (`world.skills`);
    `paraphrased`: asked there in words that training never uses. `shots` and `new_tokens`:
    defaults of the protocol. `over_groups`: its score is the plain mean over groups of documents,
    as instruct-eval has it for BBH, and not over documents.
    """

    title: str
    metric: str
    average: str
    items: str = "template"
    fields: tuple[str, ...] = INSTRUCTION
    asks: tuple[str, ...] = ("instruction", "input")
    files: tuple[File, ...] = ()
    skills: tuple[str, ...] = ()
    paraphrased: bool = False
    shots: int = 0
    new_tokens: int = 256
    over_groups: bool = False


def _open(title: str, folder: str, *skills: str, paraphrased: bool = False) -> Task:
    """The paper's open-ended requests under the one template: ROUGE-L where no judge runs."""
    files = (File(f"{folder}/valid.jsonl"),)
    return Task(title, "rouge_l", "generation", files=files, skills=skills, paraphrased=paraphrased)


TASKS: dict[str, Task] = {
    "dolly": _open("DollyEval", "dolly", "known", "extract", "opposite"),
    "selfinst": _open("SelfInst", "self-inst", "context"),
    "vicuna": _open(
        "VicunaEval", "vicuna", "triple", "triple", "describe", "portrait", "place", "thing"
    ),
    "koala": _open("Koala", "koala", "known", "context", paraphrased=True),
    "wizardlm": _open("WizardLM", "wizardlm", "then"),
    "mmlu": Task(
        "MMLU",
        "prefix_match",
        "understanding",
        items="mmlu",
        fields=("split", "subject", "question", "choices", "answer"),
        asks=("question", "choices"),  # a fact may be taught; the item is what one chooses among
        files=(File("mmlu/dev.jsonl.gz", "dev"), File("mmlu/test.jsonl.gz", "test")),
        shots=5,
        new_tokens=2,
    ),
    "drop": Task(
        "DROP",
        "prefix_match",
        "understanding",
        items="drop",
        fields=("passage", "question", "answers"),
        asks=("question", "passage"),
        files=(File("drop/dev.jsonl.gz"),),
        shots=3,
        new_tokens=8,
    ),
    "bbh": Task(
        "BBH",
        "prefix_match",
        "understanding",
        items="bbh",
        fields=("task", "input", "target"),
        asks=("input",),
        files=(File("bbh/test.jsonl.gz"),),
        shots=3,
        new_tokens=32,
        over_groups=True,
    ),
    "unseen": Task("Unseen", "rouge_l", "", skills=("gift", "meet", "reverse")),
}


def row_of(name: str, place: str | Path = "tasks") -> Task:
    """The task's row; InputError says where an unknown one was found."""
    if name not in TASKS:
        raise InputError(f"{place}: unknown task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def averaged(name: str = "") -> tuple[str, ...]:
    """The tasks of one average; of all where no name is given."""
    return tuple(task for task, row in TASKS.items() if row.average and name in ("", row.average))


AVERAGES = {
    "generation": averaged("generation"),
    "understanding": averaged("understanding"),
    "average": averaged(),
}
AVERAGE_TITLES = {name: name.capitalize() for name in AVERAGES}


def open_ended(name: str) -> bool:
    """Whether the task's answers are free text that a judge can rate."""
    return row_of(name).items == "template"
