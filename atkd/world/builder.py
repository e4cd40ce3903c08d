"""The embedded world: pretraining text, instruction data and held-out evaluation sets.

`generate` is deterministic for a seed across processes. Every open-ended row carries `skill`,
`facts` (subject, relation, value), `keys` (what it asks, for the leak test) and `grammar` (all
valid answers with their probabilities), so the functions of `grammar` and `grader` need the
row alone. References of evaluation rows are samples, not the likeliest wording: bits per byte then
estimate the true cross-entropy, and copying one wording is not rewarded.
`python -m atkd world --show 5` prints items with the probabilities and grades of some answers.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import atkd.world.combined  # these modules register their skills
import atkd.world.given
import atkd.world.known  # noqa: F401
from atkd.config import checked_part
from atkd.runtime.files import InputError
from atkd.runtime.schema import nearest
from atkd.tasks import TASKS
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
from atkd.world.grader import grade
from atkd.world.grammar import log_probability, sample
from atkd.world.phrases import passage
from atkd.world.skills import SKILLS, Maker, members
from atkd.world.universe import NUMBER_WORDS, NUMERIC, VALUES, Universe, build, numbers

Row = dict[str, Any]
TRIES = 20000
# What requests are drawn from, each as often as its weight says.
DIALOGUE = dict.fromkeys([*members("known"), *members("context")], 1.0)
TRAINED = DIALOGUE | {"fact": 3, "pair": 2, "triple": 3} | dict.fromkeys(members("then"), 1.5)
SHORT = {"short": 8.8, "letter": 1.0}
SLOT = re.compile(r"<(\w+)=([^>]+)>")


@dataclass(frozen=True)
class World:
    """Canonical rows: `pretrain`, `train`, and `tasks` by name; `universe` is what is true."""

    pretrain: list[Row]
    train: list[Row]
    tasks: dict[str, list[Row]]
    universe: Universe


def generate(settings: Mapping[str, Any] | None = None, seed: int = 1) -> World:
    """The whole world for a seed; `settings` overrides defaults; InputError names a bad one."""
    return Builder(checked(settings or {}), seed).world()


def checked(settings: Mapping[str, Any]) -> Row:
    """The settings with defaults filled in; InputError names a bad one.

    Ranges and defaults are those of `$defs.world` in the configuration's schema.
    """
    return checked_part("world", settings)


def open_tasks() -> list[str]:
    """The tasks of open-ended requests."""
    return [name for name, row in TASKS.items() if row.skills]


def skills_of(task: str) -> list[str]:
    """The skills a task is drawn from, groups taken apart."""
    return [skill for name in TASKS[task].skills for skill in members(name)]


class Builder:
    """Draws the evaluation sets first; what they ask is then kept out of everything else."""

    def __init__(self, settings: Row, seed: int) -> None:
        self.settings, self.seed = settings, seed
        for name in settings["skills"]:
            if name not in SKILLS:
                raise InputError(
                    f"data.settings.skills: unknown skill {name!r}{nearest(name, SKILLS)}"
                )
        self.universe = build(
            self._rng("universe"), settings["people"], settings["towns"], settings["things"]
        )
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

    def _only(self, skills: Iterable[str], what: str) -> list[str]:
        """Those skills that the world is made of; InputError if there are none for `what`."""
        skills, named = list(skills), self.settings["skills"]
        found = [skill for skill in skills if not named or skill in named]
        if not found:
            raise InputError(
                f"data.settings.skills: {', '.join(named)} leave no skill for {what}; expected one "
                f"of {', '.join(dict.fromkeys(skills))}"
            )
        return found

    def world(self) -> World:
        """All parts, in an order that keeps evaluation items out of the rest."""
        exams = {"mmlu": self._choices, "drop": self._readings, "bbh": self._puzzles}
        tasks = {name: self._open_task(name) for name in open_tasks()}
        for name, row in TASKS.items():
            if row.items in exams:
                made = exams[row.items](name)
                tasks[name] = [{"id": f"{name}-{i}"} | row for i, row in enumerate(made)]
        train = self._train()
        return World(self._pretrain(), train, tasks, self.universe)

    def _open_task(self, task: str) -> list[Row]:
        maker = Maker(self.universe, self._rng(task), TASKS[task].paraphrased)
        skills = self._only(skills_of(task), f"the task {task}")
        rows: list[Row] = []
        asked: set[str] = set()
        for _ in range(TRIES):
            if len(rows) == self.settings["items"]:
                return rows
            row = maker.make(maker.rng.choice(skills))
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

    def _items(
        self, rng: random.Random, weights: Mapping[str, float], paraphrased: bool = False
    ) -> Iterator[Row]:
        maker = Maker(self.universe, rng, paraphrased)
        names, sums = list(weights), list(accumulate(weights.values()))
        while True:
            (skill,) = rng.choices(names, cum_weights=sums)
            row = maker.draft(skill)
            if self._free(row):
                yield maker.answered(row)

    def _train(self) -> list[Row]:
        rng, lapses = self._rng("train"), self._rng("lapses")
        trained = {skill: TRAINED[skill] for skill in self._only(TRAINED, "training rows")}
        rows = {True: self._items(rng, SHORT), False: self._items(rng, trained)}
        found = []
        for number in range(self.settings["train"]):
            row = next(rows[rng.random() < self.settings["short_share"]])
            if lapses.random() < self.settings["wrong_share"]:
                row["output"] = self._wrong(row, lapses)
            found.append({"id": f"train-{number}"} | row)
        return found

    def _wrong(self, row: Row, rng: random.Random) -> str:
        """As often another item's answer of the same skill as one with a single value wrong."""
        output = row["output"]
        while not grade(row, output).wrong:
            if rng.random() < 0.5:
                output = next(self._items(rng, {row["skill"]: 1.0}))["output"]
            else:
                output = sample({"grammar": misled(row["grammar"], rng)}, rng)
        return output

    def _choices(self, task: str) -> list[Row]:
        tests = -(-self.settings["understanding_items"] // len(SUBJECTS))
        rows: list[Row] = []
        for split, count, held in (("dev", TASKS[task].shots, False), ("test", tests, True)):
            for subject in SUBJECTS:
                rng = self._rng(f"{task}/{split}/{subject}")
                make = partial(self._question, rng, subject, held)
                found = self._distinct(make, count, "understanding_items")
                rows += [{"split": split} | row for row in found]
        return rows

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

    def _readings(self, task: str) -> list[Row]:
        count = self.settings["understanding_items"] + TASKS[task].shots
        return self._distinct(partial(reading, self._rng(task)), count, "understanding_items")

    def _puzzles(self, task: str) -> list[Row]:
        rows: list[Row] = []
        count = self.settings["subtask_items"] + TASKS[task].shots
        for subtask in SUBTASKS:
            make = partial(puzzle, self._rng(f"{task}/{subtask}"), subtask)
            rows += self._distinct(make, count, "subtask_items")
        return rows

    def _pretrain(self) -> list[Row]:
        rng = self._rng("pretrain")
        weights = dict.fromkeys(self._only(DIALOGUE, "dialogues"), 1.0)
        dialogues = [self._items(rng, weights, paraphrased) for paraphrased in (False, True)]
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
        named = rng.random() < self.settings["human_share"]
        row = next(items[rng.randrange(2)])
        ask = f"{row['instruction']} {row['input']}".strip()
        if named:
            return f"Human:\n{ask}\n\nAssistant:\n{row['output']}"
        return f"{ask}\n{row['output']}"

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
        task = rng.choice(list(SUBTASKS))
        return plain_text(self._fresh(partial(puzzle, rng, task), 4))

    def _fresh(self, make: Callable[[], Row], count: int) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < count:
            row = make()
            if exam_key(row) not in self.taken:
                rows.append(row)
        return rows


def misled(answer: str, rng: random.Random) -> str:
    """A grammar of answers with one value replaced by another of its kind, wherever it stands."""
    relation, value = rng.choice(SLOT.findall(answer))
    if value.isdigit():
        others = numbers(relation)
    else:
        others = NUMBER_WORDS[1:] if relation in NUMERIC else VALUES[relation]
    false = rng.choice([other for other in others if other.lower() != value.lower()])
    return answer.replace(f"<{relation}={value}>", f"<{relation}={false}>")


def scarce(setting: str, found: int, wanted: int, what: str) -> InputError:
    """The error for a world too small for what is asked of it."""
    return InputError(
        f"data.settings.{setting}: found only {found} different {what} rows of {wanted}; "
        "expected fewer, or more people, towns and things"
    )


def show_open(rows: Sequence[Row], count: int, seed: int) -> None:
    """Prints requests, each with the reference, another wording and another item's answer."""
    for row, after in list(pairwise(rows))[:count]:
        print(f"{row['instruction']} {row['input']}")
        wording = sample(row, random.Random(seed))
        for answer in (row["output"], wording, after["output"]):
            chance, found = math.exp(log_probability(row, answer)), grade(row, answer)
            counts = f"{len(found.right)} right, {len(found.wrong)} wrong"
            print(f"  p={chance:.2g}, {counts}, {len(found.omitted)} omitted: {answer}")


def main() -> None:
    """Shows items; of open-ended ones the reference, another wording and another item's answer."""
    parser = argparse.ArgumentParser(description="Shows items of the embedded world.")
    parser.add_argument("--seed", type=int, default=1, help="of the world (1)")
    parser.add_argument("--show", type=int, default=3, help="items of every task (3)")
    given = parser.parse_args()
    for task, rows in generate({"pretrain": 1, "train": 1}, given.seed).tasks.items():
        print(f"== {task}")
        if task in open_tasks():
            show_open(rows, given.show, given.seed)
        else:
            text = mmlu_text if TASKS[task].items == "mmlu" else plain_text
            print(text(rows[: given.show]))
