"""A small seeded universe: words for values, who is who, and draws of true and false facts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Fact(NamedTuple):
    """What is, or is said to be, the `relation` of `subject`."""

    subject: str
    relation: str
    value: str


def words(text: str) -> list[str]:
    """The words of a literal list."""
    return text.split()


SHE = words("Mia Ana Eva Lisa Rosa Emma Nora Clara Sara Julia Ella Ida Lucy Maria Anna Kate")
HE = words("Tom Ben Max Paul Leo Karl Hugo Jack Adam Finn Oscar Peter Noah Luke Ivan Mark")
GUESTS = dict.fromkeys(words("Jane Ruth Vera Gina"), "she")
GUESTS |= dict.fromkeys(words("Bill Fred Dan Rolf"), "he")
LETTERS = "ABCD"
PRONOUN = dict.fromkeys(SHE, "she") | dict.fromkeys(HE, "he") | GUESTS
NUMBER_WORDS = words("zero one two three four five six seven eight nine ten eleven twelve")
OPPOSITES = {
    "hot": "cold", "tall": "short", "sweet": "sour", "rich": "poor", "light": "heavy",
    "wet": "dry", "clean": "dirty", "deep": "shallow", "high": "low", "strong": "weak",
    "fast": "slow", "near": "distant", "soft": "hard", "loud": "silent", "first": "last",
    "happy": "sad",
}  # fmt: skip
OPPOSITES |= {right: left for left, right in OPPOSITES.items()}
VALUES: dict[str, list[str]] = {
    "job": words("baker teacher doctor farmer singer writer driver cook painter guard"),
    "town": words("Rome Paris Oslo Bern Lima Cairo Delhi Tokyo"),
    "pet": words("dog cat horse bird fish rabbit mouse goat"),
    "food": words("bread rice soup cake fruit cheese honey salad"),
    "hobby": words("chess music tennis dancing reading swimming hiking sailing"),
    "friend": [*SHE, *HE, *GUESTS],
    "country": words("Northland Southland Eastland Westland"),
    "river": words("Dora Elbe Nile Tara Volga Wisla Loire Tiber"),
    "product": words("silk wine salt wool glass paper steel corn"),
    "color": words("red blue green white black yellow"),
    "material": words("wood stone iron gold clay cotton"),
    "verdict": ["yes", "no"],
    "older": [*SHE, *HE, *GUESTS],
    "oldest": list(GUESTS),
    "item": words("lamp cup bell chair table box clock ring book coat key pen bag hat"),
    "opposite": list(OPPOSITES),
    "guest": list(GUESTS),
    "letter": list(LETTERS),
}
# Relations a puzzle finds the value of.
PUZZLED = ("pet", "food", "color", "job")
NUMERIC = ("age", "price", "count", "number", "sum")
PEOPLE_RELATIONS = ("job", "town", "age", "pet", "food", "hobby", "friend")
TOWN_RELATIONS = ("country", "river", "product")
ITEM_RELATIONS = ("color", "material", "price")


@lru_cache(maxsize=64)
def kind(relation: str) -> frozenset[str]:
    """Lower-case words that may stand as a value of `relation`."""
    if relation in NUMERIC:
        return frozenset([*map(str, range(1000)), *NUMBER_WORDS])
    return frozenset(value.lower() for value in VALUES[relation])


@dataclass(frozen=True)
class Universe:
    """Everything true: subject -> relation -> value; `people`, `towns` and `things` in order."""

    facts: dict[str, dict[str, str]]
    people: tuple[str, ...]
    towns: tuple[str, ...]
    things: tuple[str, ...]

    def fact(self, subject: str, relation: str) -> Fact:
        """The fact that answers `relation` of `subject`."""
        return Fact(subject, relation, self.facts[subject][relation])


def build(rng: random.Random, people: int, towns: int, things: int) -> Universe:
    """Draws who is who; ages are 20 to 59, prices 5 to 60 coins in fives."""
    names = rng.sample(SHE + HE, people)
    places, items = VALUES["town"][:towns], VALUES["item"][:things]
    facts = {name: person(rng, name, names, places) for name in names}
    for relation in TOWN_RELATIONS[1:]:
        for place, value in zip(places, rng.sample(VALUES[relation], towns), strict=True):
            facts.setdefault(place, {})[relation] = value
    for place in places:
        facts[place]["country"] = rng.choice(VALUES["country"])
    for item in items:
        facts[item] = {name: rng.choice(VALUES[name]) for name in ITEM_RELATIONS[:2]}
        facts[item]["price"] = draw(rng, "price")
    return Universe(facts, tuple(names), tuple(places), tuple(items))


def person(
    rng: random.Random, name: str, names: Sequence[str], towns: Sequence[str]
) -> dict[str, str]:
    """Random attributes of a person; the friend is another of `names`."""
    return {
        **{key: rng.choice(VALUES[key]) for key in ("job", "pet", "food", "hobby")},
        "town": rng.choice(towns),
        "age": draw(rng, "age"),
        "friend": rng.choice([other for other in names if other != name]),
    }


def relations(universe: Universe, subject: str) -> tuple[str, ...]:
    """Relations a subject has."""
    if subject in PRONOUN:
        return PEOPLE_RELATIONS
    return TOWN_RELATIONS if subject in universe.towns else ITEM_RELATIONS


def numbers(relation: str) -> list[str]:
    """Every number that a relation may have, a sum of two prices included."""
    if relation in ("price", "sum"):
        return [str(5 * count) for count in range(1, 13 if relation == "price" else 25)]
    return [str(number) for number in (range(20, 60) if relation == "age" else range(10, 60))]


def draw(rng: random.Random, relation: str) -> str:
    """A random value of a relation."""
    return rng.choice(numbers(relation) if relation in ("age", "price") else VALUES[relation])


def other(rng: random.Random, fact: Fact, count: int) -> list[str]:
    """Distinct false values of a fact's relation."""
    found: list[str] = []
    while len(found) < count:
        value = draw(rng, fact.relation)
        if value not in (fact.subject, fact.value, *found):
            found.append(value)
    return found


def pronoun(subject: str) -> str:
    """she, he, or it for towns and things."""
    return PRONOUN.get(subject, "it")


def called(subject: str) -> str:
    """How a text names a subject in the middle of a sentence."""
    return f"the {subject}" if subject in VALUES["item"] else subject


def starting(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
