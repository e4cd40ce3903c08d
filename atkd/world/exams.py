"""Rows of the three understanding tasks (choice, reading, reasoning) and their few-shot texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from atkd.world.universe import (
    GUESTS,
    NUMBER_WORDS,
    OPPOSITES,
    PUZZLED,
    VALUES,
    Universe,
    called,
    draw,
    other,
)
from atkd.world.wording import passage

Row = dict[str, Any]
SUBJECTS = {
    "work": {"job"}, "homes": {"town"}, "habits": {"food", "pet"}, "places": {"country", "product"},
    "things": {"color", "material"}, "words": set(), "numbers": set(),
}  # fmt: skip
SUBTASKS = ("boolean", "larger", "last_thing", "counting", "kinds")


def question(
    universe: Universe, rng: random.Random, subject: str, wanted: Callable[[str], bool]
) -> Row:
    """A question of an exam subject on a fact whose key is wanted."""
    if subject == "numbers":
        return larger(rng)
    if subject == "words":
        word = rng.choice(VALUES["opposite"])
        fact = (word, "opposite", OPPOSITES[word])
        text = f"What is the opposite of {word}?"
    else:
        names = [
            (key, relation)
            for key in universe.facts
            for relation in sorted(SUBJECTS[subject] & set(universe.facts[key]))
            if wanted(f"{key}.{relation}")
        ]
        fact = universe.fact(*rng.choice(names))
        text = f"What is the {fact[1]} of {called(fact[0])}?"
    choices = [fact[2], *other(rng, fact, 3)]
    rng.shuffle(choices)
    row = {"subject": subject, "question": text, "choices": choices}
    return row | {"answer": choices.index(fact[2])}


def larger(rng: random.Random) -> Row:
    """A question on the largest of four numbers."""
    numbers = [str(number) for number in rng.sample(range(10, 60), 4)]
    answer = numbers.index(max(numbers))
    row = {"subject": "numbers", "question": "Which number is the largest?"}
    return row | {"choices": numbers, "answer": answer}


def reading(rng: random.Random) -> Row:
    """A short passage on invented guests and a question with a number or one word as answer."""
    first, second = rng.sample(list(GUESTS), 2)
    shared = rng.choice(("age", "town", "job", "pet"))
    facts = [(first, shared, draw(rng, shared)), (second, shared, draw(rng, shared))]
    text = passage(facts, rng)
    asked = rng.choice(facts)
    question = f"What is the {shared} of {asked[0]}?"
    return {"passage": text, "question": question, "answers": [asked[2]]}


def puzzle(rng: random.Random, task: str) -> Row:
    """One row of a reasoning subtask with a one-word target."""
    things = rng.sample(VALUES["item"], rng.randint(2, 5))
    if task == "boolean":
        words = [rng.choice(("true", "false", "not true", "not false")) for _ in range(3)]
        links = [rng.choice(("and", "or")) for _ in range(2)]
        text = f"{words[0]} {links[0]} {words[1]} {links[1]} {words[2]}"
        target = str(truth(text.split())).lower()
        text += " is"
    elif task == "larger":
        one, two = rng.sample(range(10, 60), 2)
        text, target = f"the larger of {one} and {two} is", str(max(one, two))
    elif task == "last_thing":
        text, target = f"the last of {', '.join(things)} is", things[-1]
    elif task == "counting":
        text, target = f"the count of {', '.join(things)} is", NUMBER_WORDS[len(things)]
    else:
        name = rng.choice(PUZZLED)
        target = rng.choice(VALUES[name])
        words = [target, *things[:2]]
        rng.shuffle(words)
        text = f"the {name} in {', '.join(words)} is"
    return {"task": task, "input": text, "target": target}


def truth(words: Sequence[str]) -> bool:
    """Value of true, false, not, and, or; `and` binds tighter than `or`."""
    if "or" in words:
        place = list(words).index("or")
        return truth(words[:place]) or truth(words[place + 1 :])
    if "and" in words:
        place = list(words).index("and")
        return truth(words[:place]) and truth(words[place + 1 :])
    return (words[-1] == "true") != (words[0] == "not")


def exam_key(row: Row) -> str:
    """What an exam row asks, whatever the order of its options."""
    if "choices" in row:
        return f"mmlu:{row['question']}:{','.join(sorted(row['choices']))}"
    return f"exam:{row.get('passage', '')}:{row.get('question', row.get('input'))}"


def mmlu_text(rows: Sequence[Row]) -> str:
    """Exam rows of one subject as the few-shot text used to score them."""
    head = (
        f"The following are multiple choice questions (with answers) about  {rows[0]['subject']}."
    )
    parts = [head]
    for row in rows:
        lines = [
            f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)
        ]
        parts.append("\n".join([row["question"], *lines, f"Answer: {'ABCD'[row['answer']]}"]))
    return "\n\n".join(parts)


def plain_text(rows: Sequence[Row]) -> str:
    """Reading or reasoning rows as the few-shot text used to score them."""
    return "\n\n".join(
        f"{row['passage']} {row['question']}\nAnswer: {row['answers'][0]}"
        if "passage" in row
        else f"{row['input']}\nAnswer: {row['target']}"
        for row in rows
    )
