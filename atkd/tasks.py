"""The evaluation tasks: a row each, which everything else that knows a task reads.

The paper's tasks are averaged with equal weight (`AVERAGES`); others are shown beside them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One row.

    `title`: how tables name it. `metric`: its own score, a row of `evaluation.metrics`. `average`:
    the mean it is part of, beside that of all (empty: none). `items`: what turns data rows into
    questions, a builder of `data.prompts`. `fields`: what a data row must have. `shots` and
    `new_tokens`: defaults of the protocol. `over_groups`: its score is the plain mean over groups
    of documents, as instruct-eval has it for BBH, and not over documents.
    """

    title: str
    metric: str
    average: str
    items: str = "template"
    fields: tuple[str, ...] = ("instruction", "input", "output")
    shots: int = 0
    new_tokens: int = 256
    over_groups: bool = False


def _open(title: str, average: str = "generation") -> Task:
    """Open-ended requests under the one template, scored by ROUGE-L where no judge runs."""
    return Task(title, "rouge_l", average)


_MMLU = ("split", "subject", "question", "choices", "answer")
_DROP = ("passage", "question", "answers")
_BBH = ("task", "input", "target")
_EXACT = {"metric": "prefix_match", "average": "understanding"}

TASKS: dict[str, Task] = {
    "dolly": _open("DollyEval"),
    "selfinst": _open("SelfInst"),
    "vicuna": _open("VicunaEval"),
    "koala": _open("Koala"),
    "wizardlm": _open("WizardLM"),
    "mmlu": Task("MMLU", **_EXACT, items="mmlu", fields=_MMLU, shots=5, new_tokens=2),
    "drop": Task("DROP", **_EXACT, items="drop", fields=_DROP, shots=3, new_tokens=8),
    "bbh": Task(
        "BBH", **_EXACT, items="bbh", fields=_BBH, shots=3, new_tokens=32, over_groups=True
    ),
    "unseen": _open("Unseen", average=""),
}


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
    return TASKS[name].items == "template"
