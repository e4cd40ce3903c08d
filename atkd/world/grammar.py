"""Weighted grammars of answers: a text format compiled to exact distributions over texts.

A grammar is written as text: words, `{this*3|that|}` for a weighted choice (an empty alternative
says nothing), `<job=baker>` for a word that carries a value. It becomes an automaton over words,
so probabilities are exact even where two choices lead to one text.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

END = "<end>"
Arc = tuple[float, str, str, int]
Kinds = Callable[[str], Container[str]]


def parse(text: str) -> list:
    """A grammar's text as nested lists: words, (relation, value) slots, weighted alternatives."""
    stack: list[list] = [[[1, []]]]
    for token in re.findall(r"[{}|]|\*\d+|<\w+=[^>]*>|\w+|[^\w\s]", text):
        if token == "{":
            stack.append([[1, []]])
        elif token == "|":
            stack[-1].append([1, []])
        elif token == "}":
            done = stack.pop()
            stack[-1][-1][1].append(done)
        elif token[0] == "*" and len(token) > 1:
            stack[-1][-1][0] = int(token[1:])
        elif token[0] == "<" and len(token) > 1:
            stack[-1][-1][1].append(tuple(token[1:-1].split("=")))
        else:
            stack[-1][-1][1].append(("", token))
    return stack[0][0][1]


class Grammar:
    """A distribution over texts, as an acyclic automaton over words and punctuation marks."""

    def __init__(self, text: str) -> None:
        self.arcs: list[list[Arc]] = [[(1.0, END, "", 0)]]
        self.start = self._build(parse(text), 0)

    def _build(self, sequence: list, state: int) -> int:
        for node in reversed(sequence):
            if isinstance(node, tuple):
                heads = [(1.0, node[1], node[0], state)]
            else:
                heads = list(self._choice(node, state))
            self.arcs.append(heads)
            state = len(self.arcs) - 1
        return state

    def _choice(self, options: list, state: int) -> Iterator[Arc]:
        total = sum(weight for weight, _ in options)
        for weight, sequence in options:
            for share, word, relation, target in self.arcs[self._build(sequence, state)]:
                yield weight / total * share, word, relation, target

    def sample(self, rng: random.Random) -> str:
        """One text, drawn from the distribution."""
        state, words = self.start, []
        while True:
            arcs = self.arcs[state]
            _, word, _, state = rng.choices(arcs, [arc[0] for arc in arcs])[0]
            if word == END:
                return join(words)
            words.append(word)

    def reach(self, words: Sequence[str], kinds: Kinds | None = None) -> dict[int, float]:
        """States after `words` with their joint probability.

        `kinds` (relation -> lower-case words) lets any value of a slot's relation stand there.
        """
        states = {self.start: 1.0}
        for word in words:
            after: dict[int, float] = {}
            for state, mass in states.items():
                for share, label, relation, target in self.arcs[state]:
                    free = kinds is not None and relation
                    same = word.lower() in kinds(relation) if free else word == label
                    if same and label != END:
                        after[target] = after.get(target, 0.0) + mass * share
            states = after
        return states

    def next_words(self, words: Sequence[str]) -> dict[str, float]:
        """True distribution of the next word after `words`; empty if they are not a beginning."""
        states = self.reach(words)
        total = sum(states.values())
        found: dict[str, float] = {}
        for state, mass in states.items():
            for share, word, _, _ in self.arcs[state]:
                found[word] = found.get(word, 0.0) + mass * share / total
        return found

    def log_probability(self, text: str) -> float:
        """Natural log of the probability of exactly this text; -inf outside the grammar."""
        words = split(text)
        ends = self.reach(words)
        mass = sum(p * arc[0] for s, p in ends.items() for arc in self.arcs[s] if arc[1] == END)
        return math.log(mass) if mass > 0 and join(words) == text else -math.inf

    def accepts(self, text: str, kinds: Kinds) -> bool:
        """Whether some choice of values of the same kinds gives this text, spaces apart."""
        ends = self.reach(split(text), kinds)
        return any(arc[1] == END for state in ends for arc in self.arcs[state])


@lru_cache(maxsize=4096)
def grammar(text: str) -> Grammar:
    """The compiled grammar of a text."""
    return Grammar(text)


def split(text: str) -> list[str]:
    """Words and punctuation marks of a text."""
    return re.findall(r"\w+|[^\w\s]", text)


def join(words: Sequence[str]) -> str:
    """Text of words and punctuation marks, the inverse of `split` for grammatical text."""
    return re.sub(r" ([.,:;?!])", r"\1", " ".join(words))


def sample(item: Mapping[str, Any], rng: random.Random) -> str:
    """An answer drawn from the item's true distribution."""
    return grammar(item["grammar"]).sample(rng)


def log_probability(item: Mapping[str, Any], answer: str) -> float:
    """Natural log of the true probability of exactly this answer; -inf for an invalid one."""
    return grammar(item["grammar"]).log_probability(answer)


def next_words(item: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """True next-word distribution after the whole words of `prefix`; `<end>` marks the end."""
    return grammar(item["grammar"]).next_words(split(prefix))
