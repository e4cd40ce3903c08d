"""What judges are asked and what they say: questions, verdicts, their rows and summaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from atkd.evaluation import scores
from atkd.runtime.files import InputError, read_jsonl
from atkd.tasks import open_ended, row_of

Row = dict[str, Any]
LOWEST, HIGHEST = 1.0, 10.0  # ratings of an answer of no use, and of one with nothing to improve


def percent(rating: float) -> float:
    """The exact judge's score of an answer: its rating from 1 to 10 as 0 to 100 %, linearly.

    Not a language model's: the paper's score is 100 * sum of the answers' ratings / sum of the
    references', which the rows of documents keep as they are.
    """
    return 100 * (rating - LOWEST) / (HIGHEST - LOWEST)


@dataclass(frozen=True)
class Question:
    """One answer to judge; `item` is the data row that it answers."""

    run: str
    task: str
    group: str
    item: Row
    answer: str

    @property
    def request(self) -> str:
        """What was asked, without a template."""
        return f"{self.item['instruction']} {self.item['input']}".strip()


@dataclass(frozen=True)
class Verdict:
    """Ratings from 1 to 10 of the answer and of the reference, None where a reply is unreadable.

    `orders` holds each presentation order of a language model (its own ratings and reply), and is
    empty for the exact judge; `details` is what else the judge found.
    """

    question: Question
    model: float | None
    reference: float | None
    orders: list[Row] = field(default_factory=list)
    details: Row = field(default_factory=dict)

    @property
    def lead(self) -> float | None:
        """The answer's rating minus the reference's."""
        if self.model is None or self.reference is None:
            return None
        return self.model - self.reference

    @property
    def order_effect(self) -> float | None:
        """Points that standing first is worth: half the change of the lead when the order turns."""
        if self.lead is None or len(self.orders) < 2:
            return None
        first, second = (row["model"] - row["reference"] for row in self.orders)
        return (first - second) / 2

    @property
    def unparsable(self) -> int:
        """Replies that could not be read."""
        return sum(row["model"] is None for row in self.orders)

    def row(self) -> Row:
        """What judge.jsonl keeps."""
        asked = self.question
        row = {
            "run": asked.run,
            "task": asked.task,
            "id": asked.item["id"],
            "group": asked.group,
            "model": self.model,
            "reference": self.reference,
        }
        return row | self.details | ({"orders": self.orders} if self.orders else {})

    def documents(self) -> Iterator[Row]:
        """Rows of documents.csv.gz: the exact judge's rating in `percent`, or a language model's
        ratings as numerator and denominator, beside its order effect and its silence."""
        if not self.orders:
            if self.model is not None:
                yield self._document(scores.JUDGE, value=percent(self.model))
            return
        if self.model is not None and self.reference is not None:
            ratings = {"numerator": self.model, "denominator": self.reference}
            yield self._document(scores.JUDGE, **ratings)
        if self.order_effect is not None:
            yield self._document("judge_order", value=self.order_effect)
        share = 100 * self.unparsable / len(self.orders)
        yield self._document("judge_unparsable", value=share)

    def _document(self, metric: str, **values: float) -> Row:
        asked = self.question
        names = {"task": asked.task, "document": asked.item["id"]}
        texts = {name: f"{value:.6f}" for name, value in values.items()}
        return names | {"group": asked.group, "metric": metric} | texts


@cache
def items(path: Path) -> dict[str, Row]:
    """A task's data rows by id."""
    return {row["id"]: row for row in read_jsonl(path, ("id", "instruction", "input", "output"))}


def questions(run: str, samples: Path, data: Path) -> Iterator[Question]:
    """Every open-ended answer in a samples folder; `data` is the folder that atkd.data wrote."""
    for path in sorted(samples.glob("*.jsonl")):
        row_of(path.stem, path)
        if not open_ended(path.stem):
            continue
        source = data / "tasks" / path.name
        for row in read_jsonl(path, scores.SAMPLE_FIELDS):
            if row["id"] not in items(source):
                raise InputError(f"{path}: found id {row['id']!r}, expected one of {source}")
            yield Question(run, path.stem, row["group"], items(source)[row["id"]], row["answer"])


def summarise(verdicts: list[Verdict]) -> Row:
    """What a language model's ratings say together.

    `score` is the paper's: 100 * sum of the answers' ratings / sum of the references'.
    """
    ours = [v.model for v in verdicts if v.model is not None]
    theirs = [v.reference for v in verdicts if v.reference is not None]
    leads = [v.lead for v in verdicts if v.lead is not None]
    effects = [v.order_effect for v in verdicts if v.order_effect is not None]
    return {
        "documents": len(leads),
        "score": 100 * sum(ours) / sum(theirs) if leads else None,
        "mean_difference": sum(leads) / len(leads) if leads else None,
        "wins": sum(lead > 0 for lead in leads),
        "ties": sum(lead == 0 for lead in leads),
        "losses": sum(lead < 0 for lead in leads),
        "order_effect": sum(effects) / len(effects) if effects else None,
        "replies": sum(len(found.orders) for found in verdicts),
        "unparsable": sum(found.unparsable for found in verdicts),
    }


def report(verdicts: list[Verdict]) -> Row:
    """Summaries of all, of each run, and of each run's tasks."""
    runs: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for found in verdicts:
        runs[found.question.run][found.question.task].append(found)
    by_run = {}
    for run, tasks in runs.items():
        whole = summarise([found for rows in tasks.values() for found in rows])
        by_run[run] = whole | {"tasks": {task: summarise(rows) for task, rows in tasks.items()}}
    return summarise(verdicts) | {"runs": by_run}
