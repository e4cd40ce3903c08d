"""The judge: right whatever the wording, wrong told from omitted, never failing."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atkd.world import builder, grammar, skills, universe
from atkd.world.grader import grade

WORLD = builder.generate(
    {"pretrain": 1, "train": 800, "items": 20, "understanding_items": 7, "wrong_share": 0},
    seed=3,
)
OPEN = [row for task in builder.open_tasks() for row in WORLD.tasks[task]]
MAKERS = [
    skills.Maker(WORLD.universe, random.Random(5), paraphrased) for paraphrased in (False, True)
]
EVERY = [maker.make(skill) for skill in skills.SKILLS for maker in MAKERS for _ in range(20)]


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_the_reference_of_every_skill_is_right(skill: str) -> None:
    rows = [row for row in [*WORLD.train, *OPEN, *EVERY] if row["skill"] == skill]
    for row in rows:
        found = grade(row, row["output"])
        assert found.well_formed and not found.wrong and not found.omitted, row
    assert len(rows) >= 40


@pytest.mark.parametrize("row", [*OPEN, *WORLD.train[:100]], ids=lambda row: row["id"])
def test_every_wording_of_the_truth_is_right(row: dict[str, Any]) -> None:
    for seed in range(3):
        found = grade(row, grammar.sample(row, random.Random(seed)))
        assert found.well_formed and not found.wrong and not found.omitted


def test_wrong_is_told_from_omitted() -> None:
    facts = [["Mia", "job", "baker"], ["Mia", "town", "Rome"]]
    item = {"facts": facts, "grammar": "Mia is a <job=baker> in <town=Rome> ."}
    found = grade(item, "Mia is a singer.")
    assert found.wrong == (("Mia", "job", "baker"),)
    assert found.omitted == (("Mia", "town", "Rome"),) and not found.well_formed
    assert grade(item, "Mia is a singer in Rome.").well_formed
    assert len(grade(item, "In Rome one knows Mia, not a singer but a baker").right) == 2


def test_one_name_too_many_is_wrong() -> None:
    facts = [["text", "guest", "Jane"], ["text", "guest", "Bill"]]
    item = {"facts": facts, "grammar": "<guest=Jane> , <guest=Bill> ."}
    assert not grade(item, "Bill and Jane").wrong
    assert grade(item, "Bill, Jane and Fred").wrong == (("text", "guest", "Jane"),)
    assert grade(item, "Bill and Fred").wrong == (("text", "guest", "Jane"),)
    assert grade(item, "Bill").omitted == (("text", "guest", "Jane"),)
    alone = {"facts": facts[:1], "grammar": "<guest=Jane> ."}
    assert grade(alone, "Jane, Bill").wrong and not grade(alone, "Jane").wrong


def test_naming_every_value_is_not_rewarded() -> None:
    item = {"facts": [["Mia", "job", "baker"]], "grammar": "a <job=baker> ."}
    assert grade(item, "baker, singer, guard").wrong


def test_two_subjects_are_kept_apart() -> None:
    item = {"facts": [["Mia", "age", "30"], ["Tom", "age", "40"]], "grammar": "no"}
    assert not grade(item, "Mia is 40 and Tom is 30").right
    assert len(grade(item, "Tom is 40, Mia is 30").right) == 2


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Tom is 47, but Anna is 53, so Anna is the older.", True),
        ("Anna is older, as she is 53.", True),
        ("The older is Anna.", True),
        ("So Tom is younger.", True),
        ("So Anna is younger.", False),
        ("Anna is 53 and Tom is 47, so Tom is older.", False),
        ("Anna is 53.", None),
        ("Older!", None),
    ],
)
def test_who_is_older_is_read_in_any_wording(answer: str, right: bool | None) -> None:
    fact = ["comparison", "older", "Anna"]
    found = grade({"facts": [fact], "grammar": "<older=Anna> is older ."}, answer)
    assert (bool(found.right), bool(found.omitted)) == (right is True, right is None)


def test_a_sum_is_told_from_what_it_adds() -> None:
    facts = [["lamp", "price", "15"], ["bag", "price", "30"], ["together", "sum", "45"]]
    item = {"facts": facts, "grammar": "no"}
    assert len(grade(item, "The lamp costs 15, the bag 30, so together they cost 45").right) == 3
    assert grade(item, "The lamp costs 15, the bag 30, so together 40").wrong == (tuple(facts[2]),)
    assert len(grade(item, "They cost 45 coins").omitted) == 2


SAID = [
    *universe.VALUES["item"], *universe.PRONOUN, "B", "true",
    "not", "12", ",", "younger", "older", "oldest", "together", "Rome", "yes", grammar.END, "{",
    "<job=baker>",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*OPEN, *EVERY]),
    st.text(max_size=60) | st.lists(st.sampled_from(SAID)).map(" ".join),
)
def test_no_answer_makes_it_fail_and_every_fact_is_judged(row: dict[str, Any], answer: str) -> None:
    found = grade(row, answer)
    judged = Counter([*found.right, *found.wrong, *found.omitted])
    assert judged == Counter(tuple(fact) for fact in row["facts"])
