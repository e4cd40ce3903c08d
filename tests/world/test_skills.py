"""Skills: their groups, and requests that say what is asked."""

from __future__ import annotations

import random

import pytest

from atkd.world import builder, skills, universe

WORLD = universe.build(random.Random(2), people=12, towns=5, things=6)
TEXTLESS = {*skills.members("known"), "triple", "gift", "meet", "then", "then_friend"}


def test_groups_hold_their_skills() -> None:
    assert {"fact", "hop", "compare"} <= set(skills.members("known"))
    assert {"extract", "link", "list"} <= set(skills.members("context"))
    assert skills.members("hop") == ["hop"] and skills.members("nothing") == []


@pytest.mark.parametrize("name", skills.SKILLS)
@pytest.mark.parametrize("paraphrased", [False, True])
def test_a_request_names_what_it_asks(name: str, paraphrased: bool) -> None:
    row = skills.SKILLS[name]
    maker = skills.Maker(WORLD, random.Random(4), paraphrased)
    for _ in range(20):
        made = maker.make(name)
        assert made["skill"] == name and "{" not in made["instruction"]
        assert bool(made["input"]) != (name in TEXTLESS)
        asked = f"{made['instruction']} {made['input']}"
        first = made["facts"][0][0].split()[-1]
        assert first in asked or first == "text"
    ways = row.paraphrases if paraphrased and row.paraphrases else row.requests
    assert len(ways) >= 1 and len(set(ways)) == len(ways)


def test_what_is_trained_beyond_pretraining_is_no_exam_of_it() -> None:
    """Two steps, three facts, words and letters are what instruction data teaches."""
    new = set(builder.TRAINED) - set(builder.DIALOGUE)
    assert new == {"triple", *skills.members("then")}
    assert not set(builder.SHORT) & set(builder.DIALOGUE)
    assert not set(skills.members("unseen")) & (set(builder.TRAINED) | set(builder.SHORT))
