"""Grammars of answers: probabilities are exact, and the same by every way of asking for them."""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest

from atkd.models import tokenizers
from atkd.models.families import FAMILIES
from atkd.world import builder, grammar, universe

AMBIGUOUS = {"grammar": "{a*3|a {b|c}|{a|} c} {d|}"}
WORLD = builder.generate(
    {"pretrain": 1, "train": 200, "items": 20, "understanding_items": 7, "wrong_share": 0},
    seed=3,
)
OPEN = [row for task in builder.open_tasks() for row in WORLD.tasks[task]]


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


def test_many_words_are_uncertain() -> None:
    doubts = []
    for row in WORLD.train:
        words = grammar.split(row["output"])
        for place, word in enumerate([*words, grammar.END]):
            doubts.append(1 - grammar.next_words(row, grammar.join(words[:place]))[word])
    assert sum(doubt > 0.05 for doubt in doubts) > 0.4 * len(doubts)


def test_outside_the_grammar() -> None:
    assert grammar.log_probability(OPEN[0], "no such words") == -math.inf
    assert grammar.next_words(OPEN[0], "no such words") == {}


def test_any_value_of_its_kind_fills_a_slot() -> None:
    made = grammar.grammar("Mia is a <job=baker> .")
    assert made.accepts("Mia is a singer .", universe.kind)
    assert not made.accepts("Mia is a dog.", universe.kind)
    assert not made.accepts("Mia is a", universe.kind)


TEXT = "{Mia*3|She} {lives {now|*2}|is} in <town=Rome> {, I think|} ."
CORPUS = [grammar.grammar(TEXT).sample(random.Random(n)) for n in range(50)]


def encoder(tokenizer: Any) -> grammar.Encode:
    return lru_cache(maxsize=None)(
        lambda text: tuple(tokenizers.encode_response(tokenizer, text, eos=False))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_next_tokens_equal_brute_force(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, CORPUS, 280)
    known = grammar.grammar(TEXT)
    texts = {known.sample(random.Random(n)) for n in range(500)}
    chances = {text: math.exp(known.log_probability(text)) for text in texts}
    assert sum(chances.values()) == pytest.approx(1.0)  # every wording was drawn
    ids = {text: tokenizers.encode_response(tokenizer, text) for text in texts}
    for text in texts:
        found = grammar.next_tokens(known, ids[text], encoder(tokenizer), tokenizer.eos_token_id)
        for place, mass in enumerate(found):
            wanted: dict[int, float] = {}
            for other, chance in chances.items():
                if ids[other][:place] == ids[text][:place]:
                    token = ids[other][place]
                    wanted[token] = wanted.get(token, 0.0) + chance
            total = sum(wanted.values())
            assert mass == pytest.approx({token: p / total for token, p in wanted.items()})


def test_the_worlds_answers_factor_exactly() -> None:
    made = builder.generate({"pretrain": 1, "train": 200, "items": 12})
    texts = [row["output"] for row in made.train]
    tokenizer = tokenizers.train_tokenizer("llama", texts, 400)
    encode, draw = encoder(tokenizer), random.Random(4)
    for task in builder.open_tasks():
        for row in made.tasks[task]:
            known = grammar.grammar(row["grammar"])
            for text in (row["output"], known.sample(draw), known.sample(draw)):
                ids = tokenizers.encode_response(tokenizer, text)
                found = grammar.next_tokens(known, ids, encode, tokenizer.eos_token_id)
                total = sum(math.log(mass[token]) for mass, token in zip(found, ids, strict=True))
                assert total == pytest.approx(known.log_probability(text), abs=1e-9)


def test_other_answers_have_none() -> None:
    tokenizer = tokenizers.train_tokenizer("opt", CORPUS, 280)
    ids = tokenizers.encode_response(tokenizer, "Mia is in Oslo.")
    eos = tokenizer.eos_token_id
    assert grammar.next_tokens(grammar.grammar(TEXT), ids, encoder(tokenizer), eos) == []
