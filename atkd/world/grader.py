"""An exact judge of answers: which required facts are right, wrong or omitted, however worded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atkd.world.grammar import grammar, split
from atkd.world.universe import NUMBER_WORDS, Fact, kind

Said = tuple[str, str, str]


@dataclass(frozen=True)
class Grade:
    """Required facts by what an answer does with them; `well_formed`: a wording of the grammar."""

    right: tuple[Fact, ...]
    wrong: tuple[Fact, ...]
    omitted: tuple[Fact, ...]
    well_formed: bool


def grade(item: Mapping[str, Any], answer: str) -> Grade:
    """Judges any text against the facts an open-ended item asks for, whatever its wording."""
    facts = [tuple(fact) for fact in item["facts"]]
    said = mentions(facts, split(answer.lower()))
    found: dict[str, list[Fact]] = {"right": [], "wrong": [], "omitted": []}
    for fact in facts:
        found[verdict(fact, facts, said)].append(fact)
    parts = {name: tuple(rows) for name, rows in found.items()}
    return Grade(**parts, well_formed=grammar(item["grammar"]).accepts(answer, kind))


def mentions(facts: Sequence[Fact], words: Sequence[str]) -> list[Said]:
    """(word, subject it is said of, next word) for every word not negated, in order."""
    subjects = {split(fact[0].lower())[-1]: fact[0] for fact in facts}
    current, found = facts[0][0] if facts else "", []
    for place, word in enumerate(words):
        back = 2 if words[place - 1] in ("a", "the", "in") else 1
        if "not" in words[max(0, place - back) : place]:
            continue
        found.append((word, current, words[place + 1] if place + 1 < len(words) else ""))
        current = subjects.get(word, current)
    return found


def verdict(fact: Fact, facts: Sequence[Fact], said: Sequence[Said]) -> str:
    """right, wrong or omitted, for one required fact."""
    subject, relation, value = fact
    if relation == "older":
        return judge_older(fact, said)
    if relation.isdigit():
        return judge_place(fact, facts, said)
    shared = len({row[0] for row in facts if row[1] == relation}) > 1
    words = kind(relation)
    values = [w for w, who, after in said if w in words and (who == subject or not shared)]
    if relation == "friend":
        values = [word for word in values if word != subject.lower()]
    if relation == "item":
        return judge_item(fact, facts, values)
    if not values:
        return "omitted"
    return "right" if {plain(word) for word in values} == {plain(value)} else "wrong"


def judge_older(fact: Fact, said: Sequence[Said]) -> str:
    """The first name is the older one, unless `younger` is said of it."""
    words = [word for word, _, _ in said]
    names = [place for place, word in enumerate(words) if word in kind("older")]
    if not names or not {"older", "younger"} & set(words):
        return "omitted"
    swapped = "younger" in words and "older" not in words[: words.index("younger")]
    first = words[names[0]] == fact[2].lower()
    return "right" if first != swapped else "wrong"


def judge_item(fact: Fact, facts: Sequence[Fact], values: Sequence[str]) -> str:
    """Whether a required thing is said; each thing too many makes a missing one wrong."""
    if fact[2] in values:
        return "right"
    needed = {row[2] for row in facts if row[1] == "item"}
    spare = len(set(values) - needed)
    return "wrong" if sorted(needed - set(values)).index(fact[2]) < spare else "omitted"


def judge_place(fact: Fact, facts: Sequence[Fact], said: Sequence[Said]) -> str:
    """Whether the n-th value said of a series is the n-th required."""
    words = kind("number" if fact[2].isdigit() else "item")
    values = [word for word, _, _ in said if word in words]
    place = int(fact[1]) - 1
    if place >= len(values):
        return "omitted"
    return "right" if plain(values[place]) == plain(fact[2]) else "wrong"


def plain(word: str) -> str:
    """A value in lower case, number words as digits."""
    word = word.lower()
    return str(NUMBER_WORDS.index(word)) if word in NUMBER_WORDS else word
