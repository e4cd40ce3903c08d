"""Grammars of answers: probabilities are exact, and the same by every way of asking for them."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from atkd.world import builder, grammar, universe

AMBIGUOUS = {"grammar": "{a*3|a {b|c}|{a|} c} {d|}"}
WORLD = builder.generate(
    {"pretrain": 1, "train": 200, "items": 20, "understanding_items": 7}, seed=3
)
OPEN = [row for task in builder.GENERATION for row in WORLD.tasks[task]]


def test_probabilities_sum_to_one() -> None:
    texts = {grammar.sample(AMBIGUOUS, random.Random(seed)) for seed in range(500)}
    total = sum(math.exp(grammar.log_probability(AMBIGUOUS, text)) for text in texts)
    assert total == pytest.approx(1.0)


def test_ambiguous_choices_add_up_and_match_frequencies() -> None:
    rng, count = random.Random(0), 20000
    drawn = Counter(grammar.sample(AMBIGUOUS, rng) for _ in range(count))
    for text, seen in drawn.items():
        chance = math.exp(grammar.log_probability(AMBIGUOUS, text))
        assert seen / count == pytest.approx(chance, abs=0.012)


@pytest.mark.parametrize("row", OPEN[::9], ids=lambda row: row["id"])
def test_next_words_multiply_to_the_probability(row: dict[str, Any]) -> None:
    total, words = 0.0, grammar.split(row["output"])
    for place in range(len(words) + 1):
        following = grammar.next_words(row, grammar.join(words[:place]))
        assert sum(following.values()) == pytest.approx(1.0)
        total += math.log(following[[*words, grammar.END][place]])
    assert total == pytest.approx(grammar.log_probability(row, row["output"]))


def test_most_words_are_uncertain() -> None:
    doubts = []
    for row in WORLD.train:
        words = grammar.split(row["output"])
        for place, word in enumerate([*words, grammar.END]):
            doubts.append(1 - grammar.next_words(row, grammar.join(words[:place]))[word])
    assert sum(doubt > 0.05 for doubt in doubts) > len(doubts) / 2


def test_outside_the_grammar() -> None:
    assert grammar.log_probability(OPEN[0], "no such words") == -math.inf
    assert grammar.next_words(OPEN[0], "no such words") == {}


def test_any_value_of_its_kind_fills_a_slot() -> None:
    made = grammar.grammar("Mia is a <job=baker> .")
    assert made.accepts("Mia is a singer .", universe.kind)
    assert not made.accepts("Mia is a dog.", universe.kind)
    assert not made.accepts("Mia is a", universe.kind)
