"""The embedded world: pretraining text, instruction data and held-out evaluation sets.

`generate` is deterministic for a seed across processes. Every open-ended row carries `skill`,
`facts` (subject, relation, value), `keys` (what it asks, for the leak test) and `grammar` (all
valid answers with their probabilities), so `sample`, `log_probability`, `next_words` and `grade`
need the row alone. References of evaluation rows are samples, not the likeliest wording: bits per
byte then estimate the true cross-entropy, and copying one wording is not rewarded.
`python -m atkd world --show 5` prints items with the probabilities and grades of some answers.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from atkd.runtime.files import InputError
from atkd.world.exams import (
    SUBJECTS,
    SUBTASKS,
    exam_key,
    mmlu_text,
    plain_text,
    puzzle,
    question,
    reading,
)
from atkd.world.grader import Grade, grade
from atkd.world.grammar import log_probability, next_words, sample
from atkd.world.skills import Maker
from atkd.world.universe import Universe, build
from atkd.world.wording import passage

Row = dict[str, Any]
TRIES = 20000
GENERATION = ("dolly", "selfinst", "vicuna", "koala", "wizardlm", "unseen")
KNOWN = ["fact", "pair", "describe", "portrait", "compare", "check", "place", "thing", "hop"]
CONTEXT = ["extract", "rewrite", "list", "count", "sort", "choose", "convert", "opposite"]
TRAINED = dict.fromkeys([*KNOWN, *CONTEXT, "then"], 1) | {"fact": 4, "pair": 2, "then": 2}
DIALOGUE = dict.fromkeys([*KNOWN, *CONTEXT], 1)
UNSEEN = ("gift", "meet", "reverse")
MIX = {
    "dolly": [*KNOWN, "extract", "opposite"],
    "selfinst": CONTEXT,
    "vicuna": ["triple", "triple", "describe", "portrait", "place", "thing"],
    "koala": [*KNOWN, *CONTEXT],
    "wizardlm": ["then"],
    "unseen": list(UNSEEN),
}
# Setting: default, least and most; an integer where the default is one.
SETTINGS: dict[str, tuple[float, float, float]] = {
    "people": (10, 4, 32), "towns": (4, 2, 8), "things": (4, 2, 10), "held_out": (0.25, 0, 0.5),
    "pretrain": (12000, 1, 10**7), "train": (3000, 1, 10**7), "items": (80, 1, 10**4),
    "understanding_items": (112, 1, 10**4), "subtask_items": (20, 1, 10**4),
    "exam_share": (0.2, 0, 1), "dialogue_share": (0.4, 0, 1), "human_share": (0.1, 0, 1),
}  # fmt: skip
__all__ = [
    "SETTINGS", "Grade", "World", "generate", "grade", "log_probability", "next_words", "sample"
]  # fmt: skip


@dataclass(frozen=True)
class World:
    """Canonical rows: `pretrain`, `train`, and `tasks` by name; `universe` is what is true."""

    pretrain: list[Row]
    train: list[Row]
    tasks: dict[str, list[Row]]
    universe: Universe


def generate(settings: Row | None = None, seed: int = 1) -> World:
    """The whole world for a seed; `settings` overrides defaults, InputError names a bad one."""
    return Builder(checked(settings or {}), seed).world()


def checked(settings: Row) -> Row:
    """The settings with defaults filled in."""
    for name, value in settings.items():
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise InputError(f"data.settings.{name}: found unknown key; expected one of {known}")
        default, least, most = SETTINGS[name]
        whole = isinstance(default, int)
        if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= most:
            what = f"{'an integer' if whole else 'a number'} from {least} to {most}"
            raise InputError(f"data.settings.{name}: found {value!r}; expected {what}")
    return {name: row[0] for name, row in SETTINGS.items()} | settings


class Builder:
    """Draws the evaluation sets first; what they ask is then kept out of everything else."""

    def __init__(self, settings: Row, seed: int) -> None:
        self.settings, self.seed = settings, seed
        sizes = [settings[name] for name in ("people", "towns", "things")]
        self.universe = build(self._rng("universe"), *sizes)
        self.held = self._hold_out(self._rng("held out"))
        self.taken: set[str] = set()

    def _rng(self, part: str) -> random.Random:
        return random.Random(f"{self.seed}/{part}")

    def _hold_out(self, rng: random.Random) -> set[str]:
        groups: dict[str, list[str]] = {}
        for subject, known in self.universe.facts.items():
            for relation in known:
                groups.setdefault(relation, []).append(f"{subject}.{relation}")
        share = self.settings["held_out"]
        drawn = (rng.sample(keys, max(1, round(len(keys) * share))) for keys in groups.values())
        return {key for keys in drawn for key in keys}

    def world(self) -> World:
        """All parts, in an order that keeps evaluation items out of the rest."""
        tasks = {name: self._open_task(name) for name in GENERATION}
        tasks |= {"mmlu": self._mmlu(), "drop": self._drop(), "bbh": self._bbh()}
        train = self._train()
        return World(self._pretrain(), train, tasks, self.universe)

    def _open_task(self, task: str) -> list[Row]:
        maker = Maker(self.universe, self._rng(task), asks=int(task == "koala"))
        rows: list[Row] = []
        asked: set[str] = set()
        for _ in range(TRIES):
            if len(rows) == self.settings["items"]:
                return rows
            row = maker.make(maker.rng.choice(MIX[task]))
            name = f"{row['instruction']} {row['input']}"
            if name in asked or not self._unseen(row):
                continue
            asked.add(name)
            self.taken.update(key for key in row["keys"] if ":" in key)
            rows.append({"id": f"{task}-{len(rows)}"} | row)
        raise scarce("items", len(rows), self.settings["items"], task)

    def _unseen(self, row: Row) -> bool:
        return any(":" in key or key in self.held for key in row["keys"])

    def _free(self, row: Row) -> bool:
        return not any(key in self.held or key in self.taken for key in row["keys"])

    def _items(self, rng: random.Random, skills: Row, asks: int = 0) -> Iterator[Row]:
        maker = Maker(self.universe, rng, asks)
        while True:
            row = maker.make(rng.choices(list(skills), list(skills.values()))[0])
            if self._free(row):
                yield row

    def _train(self) -> list[Row]:
        rows = self._items(self._rng("train"), TRAINED)
        return [{"id": f"train-{i}"} | next(rows) for i in range(self.settings["train"])]

    def _mmlu(self) -> list[Row]:
        tests = -(-self.settings["understanding_items"] // len(SUBJECTS))
        rows: list[Row] = []
        for name, count, held in (("dev", 5, False), ("test", tests, True)):
            for subject in SUBJECTS:
                rng = self._rng(f"mmlu/{name}/{subject}")
                made = partial(self._question, rng, subject, held)
                rows += [
                    {"split": name} | row
                    for row in self._distinct(made, count, "understanding_items")
                ]
        return [{"id": f"mmlu-{i}"} | row for i, row in enumerate(rows)]

    def _question(self, rng: random.Random, subject: str, held: bool) -> Row:
        return question(self.universe, rng, subject, lambda key: (key in self.held) == held)

    def _distinct(self, make: Callable[[], Row], count: int, setting: str) -> list[Row]:
        rows: list[Row] = []
        for _ in range(TRIES):
            if len(rows) == count:
                return rows
            row = make()
            key = exam_key(row)
            if key not in self.taken:
                self.taken.add(key)
                rows.append(row)
        raise scarce(setting, len(rows), count, "exam")

    def _drop(self) -> list[Row]:
        rng = self._rng("drop")
        count = self.settings["understanding_items"] + 3
        rows = self._distinct(partial(reading, rng), count, "understanding_items")
        return [{"id": f"drop-{i}"} | row for i, row in enumerate(rows)]

    def _bbh(self) -> list[Row]:
        rows: list[Row] = []
        for task in SUBTASKS:
            rng = self._rng(f"bbh/{task}")
            count = self.settings["subtask_items"] + 3
            rows += self._distinct(partial(puzzle, rng, task), count, "subtask_items")
        return [{"id": f"bbh-{i}"} | row for i, row in enumerate(rows)]

    def _pretrain(self) -> list[Row]:
        rng = self._rng("pretrain")
        dialogues = [self._items(rng, DIALOGUE, asks) for asks in (0, 1)]
        texts = []
        for _ in range(self.settings["pretrain"]):
            pick = rng.random() - self.settings["exam_share"]
            if pick < 0:
                texts.append(self._exam(rng))
            elif pick < self.settings["dialogue_share"]:
                texts.append(self._dialogue(rng, dialogues))
            else:
                texts.append(self._prose(rng))
        return [{"id": f"pretrain-{i}", "text": text} for i, text in enumerate(texts)]

    def _dialogue(self, rng: random.Random, items: Sequence[Iterator[Row]]) -> str:
        style = int(rng.random() >= self.settings["human_share"])
        row = next(items[rng.randrange(2)])
        ask = f"{row['instruction']} {row['input']}".strip()
        return (
            f"{ask}\n{row['output']}" if style else f"Human:\n{ask}\n\nAssistant:\n{row['output']}"
        )

    def _prose(self, rng: random.Random) -> str:
        facts = self.universe.facts
        subject = rng.choice(list(facts))
        known = list(facts[subject])
        order = rng.sample(known, len(known))
        return passage([self.universe.fact(subject, name) for name in order], rng)

    def _exam(self, rng: random.Random) -> str:
        form = rng.randrange(3)
        if form == 0:
            subject = rng.choice(list(SUBJECTS))
            return mmlu_text(self._fresh(partial(self._question, rng, subject, False), 3))
        if form == 1:
            return plain_text(self._fresh(partial(reading, rng), 3))
        task = rng.choice(SUBTASKS)
        return plain_text(self._fresh(partial(puzzle, rng, task), 4))

    def _fresh(self, make: Callable[[], Row], count: int) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < count:
            row = make()
            if exam_key(row) not in self.taken:
                rows.append(row)
        return rows


def scarce(setting: str, found: int, wanted: int, what: str) -> InputError:
    """The error for a world too small for what is asked of it."""
    return InputError(
        f"data.settings.{setting}: found only {found} different {what} rows of {wanted}; "
        "expected fewer, or more people, towns and things"
    )


def main() -> None:
    """Shows items; of open-ended ones the reference, another wording and another item's answer."""
    parser = argparse.ArgumentParser(description="Shows items of the embedded world.")
    parser.add_argument("--seed", type=int, default=1, help="of the world (1)")
    parser.add_argument("--show", type=int, default=3, help="items of every task (3)")
    given = parser.parse_args()
    for task, rows in generate({"pretrain": 1, "train": 1}, given.seed).tasks.items():
        print(f"== {task}")
        if task not in GENERATION:
            print((mmlu_text if task == "mmlu" else plain_text)(rows[: given.show]))
            continue
        for row, after in list(pairwise(rows))[: given.show]:
            print(f"{row['instruction']} {row['input']}")
            wording = sample(row, random.Random(given.seed))
            for answer in (row["output"], wording, after["output"]):
                chance, found = math.exp(log_probability(row, answer)), grade(row, answer)
                counts = f"{len(found.right)} right, {len(found.wrong)} wrong"
                print(f"  p={chance:.2g}, {counts}, {len(found.omitted)} omitted: {answer}")
