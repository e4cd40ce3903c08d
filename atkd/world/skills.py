"""Skills: what open-ended requests ask for, a registered function each.

A skill draws a request, the facts it asks for and a grammar of its answers. Skills of a group are
what a task or the training data may be made of: `known` asks for facts of the universe, `context`
for what a text says, `then` for two things, `short` for a bare answer; `unseen` is never trained.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from atkd.world.grammar import sample
from atkd.world.universe import Fact, Universe, called, draw, relations

Row = dict[str, Any]
COLUMNS = ("instruction", "input", "output", "skill", "facts", "keys", "grammar")


class Item(NamedTuple):
    """What a skill draws: facts asked for, a grammar of answers, the request's input and slots.

    `keys`: what the item asks, for the search for leaks, where that is not its facts or its input.
    """

    facts: Sequence[Fact]
    answer: str
    text: str = ""
    slots: Mapping[str, str] = {}
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Skill:
    """A row: `make` draws an item; `requests` are training's and most tasks', others paraphrase."""

    make: Callable[[Maker], Item]
    group: str
    requests: tuple[str, ...]
    paraphrases: tuple[str, ...]


SKILLS: dict[str, Skill] = {}


def skill(
    group: str, *requests: str, paraphrases: Sequence[str] = ()
) -> Callable[[Callable[[Maker], Item]], Callable[[Maker], Item]]:
    """Registers a function as the skill of its name."""

    def register(make: Callable[[Maker], Item]) -> Callable[[Maker], Item]:
        SKILLS[make.__name__.rstrip("_")] = Skill(make, group, requests, tuple(paraphrases))
        return make

    return register


def members(name: str) -> list[str]:
    """The skills of a group, or the one skill of this name."""
    return [name] if name in SKILLS else [key for key, row in SKILLS.items() if row.group == name]


class Maker:
    """Makes items of any skill from a universe, asked in trained words or paraphrased."""

    def __init__(self, universe: Universe, rng: random.Random, paraphrased: bool = False) -> None:
        self.universe, self.rng, self.paraphrased = universe, rng, paraphrased

    def make(self, skill: str) -> Row:
        """One item without id."""
        return self.answered(self.draft(skill))

    def answered(self, row: Row) -> Row:
        """The item with a reference drawn from its answers."""
        row["output"] = sample(row, self.rng)
        return {name: row[name] for name in COLUMNS}

    def draft(self, skill: str) -> Row:
        """An item without id and reference."""
        row = SKILLS[skill]
        item = row.make(self)
        requests = row.paraphrases if self.paraphrased and row.paraphrases else row.requests
        asked = [f"{fact.subject}.{fact.relation}" for fact in item.facts]
        if item.text:
            asked = [":".join((skill, *sorted(item.slots.values()), item.text))]
        return {
            "instruction": self.rng.choice(requests).format(**item.slots),
            "input": item.text,
            "skill": skill,
            "keys": list(item.keys) or asked,
            "facts": [list(fact) for fact in item.facts],
            "grammar": item.answer,
        }

    def subject(self) -> tuple[str, tuple[str, ...]]:
        """Anyone or anything of the universe, and its relations."""
        universe = self.universe
        subject = self.rng.choice((*universe.people, *universe.towns, *universe.things))
        return subject, relations(universe, subject)

    def facts(self, count: int) -> list[Fact]:
        """Different facts of one subject."""
        subject, names = self.subject()
        return [self.universe.fact(subject, name) for name in self.rng.sample(names, count)]

    def drawn(self, subject: str, relation: str) -> Fact:
        """An invented fact."""
        return Fact(subject, relation, draw(self.rng, relation))


def asking(facts: Sequence[Fact], names: str = "rqp") -> dict[str, str]:
    """The slots of a request for facts of one subject: {s}, {r} and, where there are more, {q}."""
    slots = {name: fact.relation for name, fact in zip(names, facts, strict=False)}
    return {"s": called(facts[0].subject)} | slots
