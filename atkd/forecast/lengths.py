"""How many rows a configuration reads and how long they are, in tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

from atkd.tasks import open_ended

# Alpaca-GPT4 under OPT's tokenizer; pretraining texts are cut or packed to about this length.
ROWS, PROMPT, ANSWER, TEXT = 52002, 28.0, 153.0, 512.0
# Task -> items, and tokens of a prompt with its shots (instruct-eval's, in pieces of such models).
ASKED = {
    "dolly": (500, 120.0), "selfinst": (242, 130.0), "vicuna": (80, 70.0), "koala": (180, 90.0),
    "wizardlm": (218, 150.0), "mmlu": (14042, 700.0), "drop": (9536, 1100.0), "bbh": (6511, 600.0),
}  # fmt: skip
DRAWN = {"train": 400, "pretrain": 400, "items": 40, "understanding_items": 40, "subtask_items": 8}
SAID = ("instruction", "input", "passage", "question", "choices")  # what a prompt repeats of a row
PIECE = re.compile(r"\w+|[^\w\s]")


class Asked(NamedTuple):
    """A task: its items, tokens of a prompt, the most new tokens."""

    items: int
    prompt: float
    answer: int


class Lengths(NamedTuple):
    """`prompt`, `answer`: of a training row; `text`: of pretraining. Batches hold like lengths."""

    rows: int
    prompt: float
    answer: float
    text: float
    tasks: Mapping[str, Asked]


def lengths_of(config: Mapping[str, Any]) -> Lengths:
    """Of the embedded world from a small draw of it; of other sources as assumed above."""
    tasks = [*config["tasks"], *config["extra_tasks"]]
    if config["data"]["source"] == "world":
        return _drawn(config, tasks)
    asked = {task: _asked(config, task, *ASKED.get(task, (500, 150.0))) for task in tasks}
    limits = config["data"]["settings"].get("limits", {})
    return Lengths(limits.get("train", ROWS), PROMPT, ANSWER, TEXT, asked)


def _asked(config: Mapping[str, Any], task: str, items: int, prompt: float) -> Asked:
    limit = config["evaluation"]["limit"]
    room = config["evaluation"]["max_new_tokens"]
    most = room.get(task, room.get("generation", 32))
    return Asked(min(items, limit.get(task, items) if limit else items), prompt, most)


def _drawn(config: Mapping[str, Any], tasks: list[str]) -> Lengths:
    from atkd.data.template import template
    from atkd.world import builder

    settings = config["data"]["settings"]
    made = builder.generate(settings | DRAWN, seed=1)
    asked = {}
    for task in tasks:
        rows, shots = made.tasks[task], config["evaluation"]["shots"].get(task, 0)
        key = "items" if open_ended(task) else "understanding_items"
        size = _mean(
            " ".join(str(row[name]) for name in SAID if name in row)
            for row in rows
            if row.get("split", "test") == "test"
        )
        asked[task] = _asked(config, task, settings[key], (1 + shots) * size)
    return Lengths(
        settings["train"],
        _mean(template(row["instruction"], row["input"]) for row in made.train),
        _mean(row["output"] for row in made.train) + 1,
        _mean(row["text"] for row in made.pretrain) + 1,
        asked,
    )


def _mean(texts: Iterable[str]) -> float:
    return fmean(len(PIECE.findall(text)) for text in texts)
