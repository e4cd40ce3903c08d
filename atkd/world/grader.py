"""An exact judge of answers: which required facts are right, wrong or omitted, however worded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from atkd.world.grammar import grammar, split
from atkd.world.universe import NUMBER_WORDS, Fact, kind

LISTED = ("item", "guest")  # relations of which an answer may have to name several values
COMPARED = ("older", "oldest")
PLACED = ("number", "item", "guest")  # relations that are asked for in an order


class Said(NamedTuple):
    """A word of an answer that is not negated, and whom it is said of."""

    word: str
    subject: str


@dataclass(frozen=True)
class Grade:
    """Required facts by what an answer does with them; `well_formed`: a wording of the grammar."""

    right: tuple[Fact, ...]
    wrong: tuple[Fact, ...]
    omitted: tuple[Fact, ...]
    well_formed: bool


def grade(item: Mapping[str, Any], answer: str) -> Grade:
    """Judges any text against the facts an open-ended item asks for, whatever its wording."""
    facts = [Fact(*fact) for fact in item["facts"]]
    said = mentions(facts, split(answer.lower()))
    found: dict[str, list[Fact]] = {"right": [], "wrong": [], "omitted": []}
    for fact in facts:
        found[verdict(fact, facts, said)].append(fact)
    parts = {name: tuple(rows) for name, rows in found.items()}
    return Grade(**parts, well_formed=grammar(item["grammar"]).accepts(answer, kind))


def mentions(facts: Sequence[Fact], words: Sequence[str]) -> list[Said]:
    """Every word not negated, in order; it is said of the subject named last."""
    subjects = {split(fact.subject.lower())[-1]: fact.subject for fact in facts}
    current, found = facts[0].subject if facts else "", []
    for place, word in enumerate(words):
        back = 2 if words[place - 1] in ("a", "the", "in") else 1
        if "not" in words[max(0, place - back) : place]:
            continue
        found.append(Said(word, current))
        current = subjects.get(word, current)
    return found


def verdict(fact: Fact, facts: Sequence[Fact], said: Sequence[Said]) -> str:
    """right, wrong or omitted, for one required fact."""
    if fact.relation in COMPARED:
        return judge_compared(fact, said)
    if fact.relation.isdigit():
        return judge_place(fact, said)
    words = kind(fact.relation)
    shared = len({each.subject for each in facts if kind(each.relation) == words}) > 1
    values = [
        each.word
        for each in said
        if each.word in words and (each.subject == fact.subject or not shared)
    ]
    if fact.relation == "friend":
        values = [word for word in values if word != fact.subject.lower()]
    if fact.relation in LISTED:
        return judge_listed(fact, facts, values)
    if not values:
        return "omitted"
    return "right" if {plain(word) for word in values} == {plain(fact.value)} else "wrong"


def judge_compared(fact: Fact, said: Sequence[Said]) -> str:
    """Whether the one that is called older, or the oldest, is the right one; not `younger`."""
    words = [each.word for each in said]
    marks = [place for place, word in enumerate(words) if word in (fact.relation, "younger")]
    if not marks:
        return "omitted"
    before = [word for word in words[: marks[-1]] if word in kind(fact.relation)]
    after = [word for word in words[marks[-1] :] if word in kind(fact.relation)]
    told_after = "is" in words[marks[-1] + 1 : marks[-1] + 3] or not before
    names = after[:1] if told_after else before[-1:]
    if not names:
        return "omitted"
    meant = words[marks[-1]] == fact.relation
    return "right" if (names[0] == fact.value.lower()) == meant else "wrong"


def judge_listed(fact: Fact, facts: Sequence[Fact], values: Sequence[str]) -> str:
    """Whether one of several is said; each that is too many makes a missing one wrong.

    With none missing, one too many makes the last one wrong.
    """
    needed = {each.value.lower() for each in facts if each.relation == fact.relation}
    missing, spare = sorted(needed - set(values)), len(set(values) - needed)
    wanted = fact.value.lower()
    if wanted in values:
        return "right" if missing or not spare or wanted != max(needed) else "wrong"
    return "wrong" if missing.index(wanted) < spare else "omitted"


def judge_place(fact: Fact, said: Sequence[Said]) -> str:
    """Whether the n-th value said of a series is the n-th required; n is the relation."""
    words = next(kind(name) for name in PLACED if fact.value.lower() in kind(name))
    values = [each.word for each in said if each.word in words]
    place = int(fact.relation) - 1
    if place >= len(values):
        return "omitted"
    return "right" if plain(values[place]) == plain(fact.value) else "wrong"


def plain(word: str) -> str:
    """A value in lower case, number words as digits."""
    word = word.lower()
    return str(NUMBER_WORDS.index(word)) if word in NUMBER_WORDS else word
