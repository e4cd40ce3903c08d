"""True next-token distributions: against brute force, and as factors of exact probabilities."""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Any

import pytest

from atkd.models import tokenizers
from atkd.world import builder, grammar, oracle

TEXT = "{Mia*3|She} {lives {now|*2}|is} in <town=Rome> {, I think|} ."
CORPUS = [grammar.grammar(TEXT).sample(random.Random(n)) for n in range(50)]


def encoder(tokenizer: Any) -> oracle.Encode:
    return lru_cache(maxsize=None)(
        lambda text: tuple(tokenizers.encode_response(tokenizer, text, eos=False))
    )


@pytest.mark.parametrize("family", tokenizers.ROLES)
def test_distributions_equal_brute_force(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, CORPUS, 280)
    known = grammar.grammar(TEXT)
    texts = {known.sample(random.Random(n)) for n in range(500)}
    chances = {text: math.exp(known.log_probability(text)) for text in texts}
    assert sum(chances.values()) == pytest.approx(1.0)  # every wording was drawn
    ids = {text: tokenizers.encode_response(tokenizer, text) for text in texts}
    for text in texts:
        found = oracle.next_tokens(known, ids[text], encoder(tokenizer), tokenizer.eos_token_id)
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
    for task in builder.GENERATION:
        for row in made.tasks[task]:
            known = grammar.grammar(row["grammar"])
            for text in (row["output"], known.sample(draw), known.sample(draw)):
                ids = tokenizers.encode_response(tokenizer, text)
                found = oracle.next_tokens(known, ids, encode, tokenizer.eos_token_id)
                total = sum(math.log(mass[token]) for mass, token in zip(found, ids, strict=True))
                assert total == pytest.approx(known.log_probability(text), abs=1e-9)


def test_other_answers_have_none() -> None:
    tokenizer = tokenizers.train_tokenizer("opt", CORPUS, 280)
    ids = tokenizers.encode_response(tokenizer, "Mia is in Oslo.")
    eos = tokenizer.eos_token_id
    assert oracle.next_tokens(grammar.grammar(TEXT), ids, encoder(tokenizer), eos) == []
