"""Exam rows: valid questions with the answer they claim, and the texts they appear in."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from atkd.world import exams, universe

RNG = random.Random(1)
WORLD = universe.build(random.Random(2), people=10, towns=4, things=4)


@pytest.mark.parametrize("subject", exams.SUBJECTS)
def test_a_question_has_one_right_option(subject: str) -> None:
    for _ in range(50):
        row = exams.question(WORLD, RNG, subject, lambda key: True)
        assert len(set(row["choices"])) == 4
        right = row["choices"][row["answer"]]
        asked = row["question"].removesuffix("?").split()
        for name, known in WORLD.facts.items():
            if asked[-1] == name and asked[3] in known:
                assert right == known[asked[3]]
        if subject == "numbers":
            assert int(right) == max(map(int, row["choices"]))


def test_only_wanted_facts_are_asked() -> None:
    wanted = f"{WORLD.people[0]}.job"
    row = exams.question(WORLD, RNG, "work", lambda key: key == wanted)
    assert row["question"] == f"What is the job of {WORLD.people[0]}?"


def test_a_passage_answers_its_question() -> None:
    asked = Counter()
    for _ in range(200):
        row = exams.reading(RNG)
        (answer,), words = row["answers"], row["passage"].replace(".", "").split()
        start = row["question"].split()[0]
        if start == "How":
            value = row["question"].removesuffix("?").split()[-1]
            assert universe.NUMBER_WORDS[words.count(value)] == answer
        elif start == "Who":
            told = {name: int(said[0]) for name, said in ages_of(row["passage"]).items()}
            assert max(told, key=told.__getitem__) == answer
        else:
            assert answer in words
        asked[start] += 1
    assert set(asked) == {"How", "Who", "What"}


def ages_of(passage: str) -> dict[str, list[str]]:
    """Numbers of each sentence of a passage, by the name that begins it."""
    sentences = [sentence.split() for sentence in passage.split(".") if sentence.strip()]
    return {words[0]: [word for word in words if word.isdigit()] for words in sentences}


TARGETS = {"true", "false"}.union(*map(universe.kind, ("number", "item", *universe.PUZZLED)))


@pytest.mark.parametrize("task", exams.SUBTASKS)
def test_a_puzzle_has_a_target_of_one_word(task: str) -> None:
    for _ in range(50):
        row = exams.puzzle(RNG, task)
        assert row["task"] == task and row["target"].lower() in TARGETS
        if task == "boolean":
            text = row["input"].removesuffix(" is").replace("true", "True")
            assert row["target"] == str(eval(text.replace("false", "False"))).lower()


def test_texts_and_keys() -> None:
    row = {"subject": "work", "question": "Q?", "choices": list("wxyz"), "answer": 2}
    assert exams.mmlu_text([row]).endswith("work.\n\nQ?\nA. w\nB. x\nC. y\nD. z\nAnswer: C")
    assert exams.exam_key(row) == exams.exam_key(row | {"choices": list("zyxw")})
    one, two = exams.reading(RNG), exams.puzzle(RNG, "largest")
    assert (
        exams.plain_text([one])
        == f"{one['passage']} {one['question']}\nAnswer: {one['answers'][0]}"
    )
    assert exams.plain_text([two, two]).count(f"{two['input']}\nAnswer: {two['target']}") == 2
