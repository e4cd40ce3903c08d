"""Weighted grammars of answers: a text format compiled to exact distributions over texts.

A grammar is written as text: words, `{this*3|that|}` for a weighted choice (an empty alternative
says nothing), `<job=baker>` for a word that carries a value. It becomes an automaton over words,
so probabilities are exact even where two choices lead to one text. Where a tokenizer never joins
words into one token, it is as well an automaton over ids (`next_tokens`): what a perfect model of
the answers would predict.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

END = "<end>"
ATTACHED = ".,:;?!"  # marks that no blank precedes
TOKEN = re.compile(r"[{}|]|\*\d+|<\w+=[^>]*>|\w+|[^\w\s]")
Kinds = Callable[[str], Container[str]]
Encode = Callable[[str], Sequence[int]]
States = dict[tuple[int, tuple[int, ...]], float]  # (state, ids of its word still to come) -> mass


class Slot(NamedTuple):
    """A word of a grammar, and the relation it is a value of (empty: of none)."""

    word: str
    relation: str = ""


@dataclass
class Option:
    """One alternative of a choice: what it says, and its weight beside the others'."""

    nodes: list[Node] = field(default_factory=list)
    weight: int = 1


Node = Slot | list[Option]


class Arc(NamedTuple):
    """A step of the automaton: its probability, the word it says, and the state it leads to."""

    share: float
    word: str
    relation: str
    target: int


def parse(text: str) -> list[Node]:
    """A grammar's text as words and weighted choices, which nest."""
    open_choices = [[Option()]]
    for token in TOKEN.findall(text):
        current = open_choices[-1][-1]
        if token == "{":
            open_choices.append([Option()])
        elif token == "|":
            open_choices[-1].append(Option())
        elif token == "}":
            done = open_choices.pop()
            open_choices[-1][-1].nodes.append(done)
        elif token[0] == "*" and len(token) > 1:
            current.weight = int(token[1:])
        elif token[0] == "<" and len(token) > 1:
            relation, _, value = token[1:-1].partition("=")
            current.nodes.append(Slot(value, relation))
        else:
            current.nodes.append(Slot(token))
    return open_choices[0][0].nodes


class Grammar:
    """A distribution over texts, as an acyclic automaton over words and punctuation marks."""

    def __init__(self, text: str) -> None:
        self.arcs: list[list[Arc]] = [[Arc(1.0, END, "", 0)]]
        self.start = self._build(parse(text), 0)
        self.sums = [list(accumulate(arc.share for arc in arcs)) for arcs in self.arcs]

    def _build(self, nodes: Sequence[Node], state: int) -> int:
        """Adds states that say `nodes` and then go on from `state`; returns the first of them."""
        for node in reversed(nodes):
            if isinstance(node, Slot):
                arcs = [Arc(1.0, node.word, node.relation, state)]
            else:
                arcs = list(self._choice(node, state))
            self.arcs.append(arcs)
            state = len(self.arcs) - 1
        return state

    def _choice(self, options: Sequence[Option], state: int) -> Iterator[Arc]:
        total = sum(option.weight for option in options)
        for option in options:
            for arc in self.arcs[self._build(option.nodes, state)]:
                share = option.weight / total * arc.share
                yield Arc(share, arc.word, arc.relation, arc.target)

    def sample(self, rng: random.Random) -> str:
        """One text, drawn from the distribution."""
        state = self.start
        words: list[str] = []
        while True:
            arcs, sums = self.arcs[state], self.sums[state]
            only = len(arcs) == 1
            arc = arcs[0] if only else arcs[bisect(sums, rng.random() * sums[-1], 0, len(sums) - 1)]
            if arc.word == END:
                return join(words)
            words.append(arc.word)
            state = arc.target

    def reach(self, words: Sequence[str], kinds: Kinds | None = None) -> dict[int, float]:
        """States after `words` with their joint probability.

        `kinds` (relation -> lower-case words) lets any value of a slot's relation stand there.
        """
        states = {self.start: 1.0}
        for word in words:
            after: dict[int, float] = {}
            for state, mass in states.items():
                for arc in self.arcs[state]:
                    if arc.word != END and _says(arc, word, kinds):
                        after[arc.target] = after.get(arc.target, 0.0) + mass * arc.share
            states = after
        return states

    def next_words(self, words: Sequence[str]) -> dict[str, float]:
        """True distribution of the next word after `words`; empty if they are not a beginning."""
        states = self.reach(words)
        total = sum(states.values())
        found: dict[str, float] = {}
        for state, mass in states.items():
            for arc in self.arcs[state]:
                found[arc.word] = found.get(arc.word, 0.0) + mass * arc.share / total
        return found

    def log_probability(self, text: str) -> float:
        """Natural log of the probability of exactly this text; -inf outside the grammar."""
        words = split(text)
        ends = self.reach(words)
        mass = sum(p * arc.share for s, p in ends.items() for arc in self.arcs[s] if _ends(arc))
        return math.log(mass) if mass > 0 and join(words) == text else -math.inf

    def accepts(self, text: str, kinds: Kinds) -> bool:
        """Whether some choice of values of the same kinds gives this text, spaces apart."""
        return any(
            _ends(arc) for state in self.reach(split(text), kinds) for arc in self.arcs[state]
        )


def _ends(arc: Arc) -> bool:
    return arc.word == END


def _says(arc: Arc, word: str, kinds: Kinds | None) -> bool:
    if kinds is not None and arc.relation:
        return word.lower() in kinds(arc.relation)
    return word == arc.word


@lru_cache(maxsize=4096)
def grammar(text: str) -> Grammar:
    """The compiled grammar of a text."""
    return Grammar(text)


def split(text: str) -> list[str]:
    """Words and punctuation marks of a text."""
    return re.findall(r"\w+|[^\w\s]", text)


def join(words: Sequence[str]) -> str:
    """Text of words and punctuation marks, the inverse of `split` for grammatical text."""
    return re.sub(f" ([{ATTACHED}])", r"\1", " ".join(words))


def sample(item: Mapping[str, Any], rng: random.Random) -> str:
    """An answer drawn from the item's true distribution."""
    return grammar(item["grammar"]).sample(rng)


def log_probability(item: Mapping[str, Any], answer: str) -> float:
    """Natural log of the true probability of exactly this answer; -inf for an invalid one."""
    return grammar(item["grammar"]).log_probability(answer)


def next_words(item: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """True next-word distribution after the whole words of `prefix`; `<end>` marks the end."""
    return grammar(item["grammar"]).next_words(split(prefix))


def next_tokens(
    grammar: Grammar, ids: Sequence[int], encode: Encode, eos: int
) -> list[dict[int, float]]:
    """True distribution {id: probability} at every position of a response's `ids`.

    `encode` gives a text's ids without BOS or EOS. Empty if the tokenizer joins or splits words
    otherwise, or the response is not one of the grammar's: some id is then impossible there. The
    mass of every state after a prefix is exact, however many wordings there are.
    """
    found = []
    states: States = {(grammar.start, ()): 1.0}
    for place, wanted in enumerate(ids):
        states = _begin_words(grammar, states, encode, eos, first=place == 0)
        total = sum(states.values())
        chances: dict[int, float] = {}
        for (_, rest), mass in states.items():
            chances[rest[0]] = chances.get(rest[0], 0.0) + mass / total
        found.append(chances)
        if wanted not in chances:
            return []
        states = {(at, rest[1:]): mass for (at, rest), mass in states.items() if rest[0] == wanted}
    return found


def _begin_words(grammar: Grammar, states: States, encode: Encode, eos: int, first: bool) -> States:
    """States between words replaced by those inside each word that may follow."""
    found: States = {}
    for (at, rest), mass in states.items():
        if rest:
            found[at, rest] = found.get((at, rest), 0.0) + mass
            continue
        for arc in grammar.arcs[at]:
            lead = "" if first or arc.word[0] in ATTACHED else " "
            ids = (eos,) if _ends(arc) else tuple(encode(lead + arc.word))
            found[arc.target, ids] = found.get((arc.target, ids), 0.0) + mass * arc.share
    return found
