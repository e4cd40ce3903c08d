"""The embedded world. `ATKD_REGENERATE=1 pytest tests/test_world.py` rewrites the golden text."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atkd import universe, world

GOLDEN = Path(__file__).parent / "golden" / "world.txt"
SMALL = {"pretrain": 300, "train": 400, "items": 20, "understanding_items": 21}
WORLD = world.generate(SMALL, seed=3)
OPEN = [row for task in world.GENERATION for row in WORLD.tasks[task]]


def test_same_seed_same_world_across_processes() -> None:
    code = (
        "import json, hashlib; from atkd import world;"
        f"w = world.generate({SMALL!r}, 3);"
        "print(hashlib.sha256(json.dumps([w.pretrain, w.train, w.tasks]).encode()).hexdigest())"
    )
    found = set()
    for hashing in ("0", "12345"):
        env = os.environ | {"PYTHONHASHSEED": hashing}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_seed_changes_the_world() -> None:
    assert world.generate(SMALL, seed=4).train != WORLD.train


def test_counts_and_fields() -> None:
    assert len(WORLD.pretrain) == 300 and len(WORLD.train) == 400
    assert {len(WORLD.tasks[task]) for task in world.GENERATION} == {20}
    assert len(WORLD.tasks["drop"]) == 24
    for row in [*WORLD.train, *OPEN]:
        assert {"id", "instruction", "input", "output", "skill", "facts"} <= set(row)
        assert row["output"] and row["instruction"]
    for row in WORLD.tasks["drop"]:
        assert list(row) == ["id", "passage", "question", "answers"]
    ids = [row["id"] for rows in WORLD.tasks.values() for row in rows]
    assert len(ids) == len(set(ids))
    json.dumps(WORLD.tasks)


def test_mmlu_has_five_dev_rows_a_subject_and_valid_answers() -> None:
    rows = WORLD.tasks["mmlu"]
    dev = Counter(row["subject"] for row in rows if row["split"] == "dev")
    assert set(dev.values()) == {5} and set(dev) == set(world.SUBJECTS)
    for row in rows:
        assert len(set(row["choices"])) == 4 and row["answer"] in range(4)


def test_bbh_keeps_source_order_with_three_shots_first() -> None:
    counts = Counter(row["task"] for row in WORLD.tasks["bbh"])
    assert set(counts.values()) == {23} and tuple(counts) == world.SUBTASKS


def test_a_dozen_trained_skills_and_unseen_families() -> None:
    trained = {row["skill"] for row in WORLD.train}
    assert len(trained) >= 12
    assert not trained & {row["skill"] for row in WORLD.tasks["unseen"]}
    assert len({row["skill"] for row in WORLD.tasks["unseen"]}) >= 2


def test_no_evaluation_item_in_training() -> None:
    asked = {(row["instruction"], row["input"]) for row in WORLD.train}
    keys = {key for row in WORLD.train for key in row["keys"]}
    for row in OPEN:
        assert (row["instruction"], row["input"]) not in asked
        assert not set(row["keys"]) <= keys
    assert not {row["instruction"] for row in WORLD.tasks["koala"]} & {i for i, _ in asked}


def test_no_exam_item_in_pretraining() -> None:
    text = "\n".join(row["text"] for row in WORLD.pretrain)
    for row in WORLD.tasks["drop"]:
        assert f"{row['passage']} {row['question']}" not in text
    for row in WORLD.tasks["bbh"]:
        assert f"\n{row['input']}\nAnswer" not in f"\n{text}"


def test_grammar_probabilities_sum_to_one() -> None:
    item = {"grammar": "{a*3|a {b|c}|{a|} c} {d|}"}
    texts = {world.sample(item, random.Random(seed)) for seed in range(500)}
    total = sum(math.exp(world.log_probability(item, text)) for text in texts)
    assert total == pytest.approx(1.0)


def test_ambiguous_choices_add_up_and_match_frequencies() -> None:
    item = {"grammar": "{a*3|a {b|c}|{a|} c} {d|}"}
    rng, count = random.Random(0), 20000
    drawn = Counter(world.sample(item, rng) for _ in range(count))
    for text, seen in drawn.items():
        assert seen / count == pytest.approx(math.exp(world.log_probability(item, text)), abs=0.012)


@pytest.mark.parametrize("row", OPEN[::9], ids=lambda row: row["id"])
def test_next_words_multiply_to_the_probability(row: dict) -> None:
    total, words = 0.0, universe.split(row["output"])
    for place in range(len(words) + 1):
        following = world.next_words(row, universe.join(words[:place]))
        assert sum(following.values()) == pytest.approx(1.0)
        total += math.log(following[[*words, universe.END][place]])
    assert total == pytest.approx(world.log_probability(row, row["output"]))


def test_most_words_are_uncertain() -> None:
    doubts = []
    for row in WORLD.train[:200]:
        words = universe.split(row["output"])
        for place, word in enumerate([*words, universe.END]):
            doubts.append(1 - world.next_words(row, universe.join(words[:place]))[word])
    assert sum(doubt > 0.05 for doubt in doubts) > len(doubts) / 2


def test_outside_the_grammar() -> None:
    assert world.log_probability(OPEN[0], "no such words") == -math.inf
    assert world.next_words(OPEN[0], "no such words") == {}


@pytest.mark.parametrize("row", [*OPEN, *WORLD.train[:100]], ids=lambda row: row["id"])
def test_every_wording_of_the_truth_is_right(row: dict) -> None:
    for seed in range(3):
        grade = world.grade(row, world.sample(row, random.Random(seed)))
        assert grade.well_formed and not grade.wrong and not grade.omitted


def test_grade_tells_wrong_from_omitted() -> None:
    facts = [["Mia", "job", "baker"], ["Mia", "town", "Rome"]]
    item = {"facts": facts, "grammar": "Mia is a <job=baker> in <town=Rome> ."}
    grade = world.grade(item, "Mia is a singer.")
    assert grade.wrong == (("Mia", "job", "baker"),)
    assert grade.omitted == (("Mia", "town", "Rome"),) and not grade.well_formed
    assert world.grade(item, "Mia is a singer in Rome.").well_formed
    assert len(world.grade(item, "In Rome one knows Mia, not a singer but a baker").right) == 2


def test_grade_does_not_reward_naming_every_value() -> None:
    item = {"facts": [["Mia", "job", "baker"]], "grammar": "a <job=baker> ."}
    assert world.grade(item, "baker, singer, guard").wrong


def test_grade_keeps_two_subjects_apart() -> None:
    item = {"facts": [["Mia", "age", "30"], ["Tom", "age", "40"]], "grammar": "no"}
    assert not world.grade(item, "Mia is 40 and Tom is 30").right
    assert len(world.grade(item, "Tom is 40, Mia is 30").right) == 2


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(OPEN), st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*universe.VALUES["item"], *universe.PRONOUN, "not", "12", ",",
                              "younger", "older", "Rome", "yes", universe.END]))
    .map(" ".join),
))  # fmt: skip
def test_grade_never_fails_and_covers_every_fact(row: dict, answer: str) -> None:
    grade = world.grade(row, answer)
    found = Counter([*grade.right, *grade.wrong, *grade.omitted])
    assert found == Counter(tuple(fact) for fact in row["facts"])


def test_unknown_setting_and_impossible_size() -> None:
    with pytest.raises(ValueError, match="unknown setting 'peple'"):
        world.generate({"peple": 3})
    with pytest.raises(ValueError, match="different"):
        world.generate(SMALL | {"items": 5000})


def golden_text() -> str:
    """A few rows of each part, as JSON lines."""
    rows = [*WORLD.pretrain[:4], *WORLD.train[:4]]
    rows += [row for task in WORLD.tasks.values() for row in task[:2]]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_golden_rows() -> None:
    if os.environ.get("ATKD_REGENERATE"):
        GOLDEN.write_text(golden_text(), encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == golden_text()
