"""Nothing that is evaluated occurs in what models are trained on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atkd.world import builder

SETTINGS = {"pretrain": 3000, "train": 1500}
WORLD = builder.generate(SETTINGS, seed=3)
HELD = builder.Builder(builder.checked(SETTINGS), 3).held
OPTIONS = re.compile(r"(.+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\n")
SHOWN = "\n".join(row["text"] for row in WORLD.pretrain)
LINES = set(SHOWN.split("\n"))


def asked(row: dict[str, Any]) -> str:
    """Instruction and input, joined as templates and pretraining dialogues join them."""
    return f"{row['instruction']} {row['input']}".strip()


TRAINED = {asked(row) for row in WORLD.train}


@pytest.mark.parametrize("task", builder.open_tasks())
def test_no_open_ended_item_is_trained_on(task: str) -> None:
    keys = {key for row in WORLD.train for key in row["keys"]}
    for row in WORLD.tasks[task]:
        assert asked(row) not in TRAINED and asked(row) not in LINES
        assert row["input"] or asked(row) not in SHOWN
        assert not set(row["keys"]) <= keys


def test_the_search_would_find_a_leak() -> None:
    """Pretraining dialogues do repeat requests of training rows, word for word."""
    assert TRAINED & LINES
    assert any(question.startswith("What is the") for question, *_ in OPTIONS.findall(SHOWN))


def test_paraphrased_requests_are_never_trained() -> None:
    instructions = {row["instruction"] for row in WORLD.train}
    assert not {row["instruction"] for row in WORLD.tasks["koala"]} & instructions


def test_held_out_facts_are_never_asked_in_training() -> None:
    assert len(HELD) >= 13
    for row in WORLD.train:
        assert not HELD & set(row["keys"])
        if not row["input"]:  # what a text says of a thing is of the text alone
            assert not HELD & {f"{subject}.{relation}" for subject, relation, _ in row["facts"]}


def test_no_choice_question_is_trained_on_in_any_order() -> None:
    shown = {(asked, frozenset(options)) for asked, *options in OPTIONS.findall(SHOWN)}
    for row in WORLD.tasks["mmlu"]:
        assert (row["question"], frozenset(row["choices"])) not in shown
        assert not any(
            text.startswith(row["question"]) and all(f". {c}" in text for c in row["choices"])
            for text in TRAINED
        )


def test_tested_facts_are_never_asked_in_pretraining() -> None:
    """Not even with other options, nor as an open question."""
    for row in WORLD.tasks["mmlu"]:
        if row["split"] == "test" and row["subject"] not in ("words", "numbers"):
            assert row["question"] not in LINES and row["question"] not in TRAINED


def test_no_passage_or_puzzle_is_trained_on() -> None:
    items = [f"{row['passage']} {row['question']}" for row in WORLD.tasks["drop"]]
    items += [row["input"] for row in WORLD.tasks["bbh"]]
    trained = {row["input"] for row in WORLD.train}
    for item in items:
        assert item not in LINES and item not in TRAINED and item not in trained
