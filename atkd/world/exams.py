"""Rows of the three understanding tasks (choice, reading, reasoning) and their few-shot texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from atkd.world.phrases import passage
from atkd.world.universe import (
    GUESTS,
    NUMBER_WORDS,
    OPPOSITES,
    PUZZLED,
    VALUES,
    Fact,
    Universe,
    called,
    draw,
    other,
)

Row = dict[str, Any]
SUBJECTS = {
    "work": {"job"}, "homes": {"town"}, "habits": {"food", "pet"}, "places": {"country", "product"},
    "things": {"color", "material"}, "words": set(), "numbers": set(),
}  # fmt: skip


def question(
    universe: Universe, rng: random.Random, subject: str, wanted: Callable[[str], bool]
) -> Row:
    """A question of an exam subject on a fact whose key is wanted."""
    if subject == "numbers":
        return larger(rng)
    if subject == "words":
        word = rng.choice(VALUES["opposite"])
        fact = Fact(word, "opposite", OPPOSITES[word])
        text = f"What is the opposite of {word}?"
    else:
        names = [
            (key, relation)
            for key in universe.facts
            for relation in sorted(SUBJECTS[subject] & set(universe.facts[key]))
            if wanted(f"{key}.{relation}")
        ]
        fact = universe.fact(*rng.choice(names))
        text = ask(fact)
    choices = [fact.value, *other(rng, fact, 3)]
    rng.shuffle(choices)
    answer = choices.index(fact.value)
    return {"subject": subject, "question": text, "choices": choices, "answer": answer}


def ask(fact: Fact) -> str:
    """An exam's question for a fact."""
    return f"What is the {fact.relation} of {called(fact.subject)}?"


def larger(rng: random.Random) -> Row:
    """A question on the largest of four numbers."""
    numbers = [str(number) for number in rng.sample(range(10, 60), 4)]
    answer = numbers.index(max(numbers))
    text = "Which number is the largest?"
    return {"subject": "numbers", "question": text, "choices": numbers, "answer": answer}


def reading(rng: random.Random) -> Row:
    """A short passage on invented guests and a question with a number or one word as answer.

    A value that is told, who is the oldest, or how many have a value.
    """
    names = rng.sample(list(GUESTS), rng.randint(2, 3))
    make = rng.choice((told_value, told_value, oldest, owners))
    facts, question, answer = make(rng, names)
    return {"passage": passage(facts, rng), "question": question, "answers": [answer]}


Reading = tuple[list[Fact], str, str]  # what a passage tells, a question and its answer


def told_value(rng: random.Random, names: Sequence[str]) -> Reading:
    """One of several facts, of any relations."""
    every = [(name, relation) for name in names for relation in ("age", "town", "job", "pet")]
    pairs = rng.sample(every, rng.randint(2, 4))
    facts = [Fact(name, relation, draw(rng, relation)) for name, relation in pairs]
    asked = rng.choice(facts)
    return facts, ask(asked), asked.value


def oldest(rng: random.Random, names: Sequence[str]) -> Reading:
    """Who of all is the oldest."""
    ages = rng.sample(range(20, 60), len(names))
    facts = [Fact(name, "age", str(age)) for name, age in zip(names, ages, strict=True)]
    return facts, "Who is the oldest?", names[ages.index(max(ages))]


def owners(rng: random.Random, names: Sequence[str]) -> Reading:
    """How many have a pet of this kind."""
    facts = [Fact(name, "pet", draw(rng, "pet")) for name in names]
    values = [fact.value for fact in facts]
    asked = rng.choice(values)
    return facts, f"How many guests have a {asked}?", NUMBER_WORDS[values.count(asked)]


ORDINALS = {"first": 0, "second": 1, "last": -1}
Puzzle = tuple[str, str]  # how a text begins, and the one word that ends it


def puzzle(rng: random.Random, task: str) -> Row:
    """One row of a reasoning subtask with a one-word target."""
    things = rng.sample(VALUES["item"], rng.randint(3, 6))
    text, target = SUBTASKS[task](rng, things)
    return {"task": task, "input": f"{text} is", "target": target}


def boolean(rng: random.Random, things: Sequence[str]) -> Puzzle:
    """The value of a short logical expression."""
    words = [rng.choice(("true", "false", "not true", "not false")) for _ in range(3)]
    links = [rng.choice(("and", "or")) for _ in range(2)]
    text = f"{words[0]} {links[0]} {words[1]} {links[1]} {words[2]}"
    return text, str(truth(text.split())).lower()


def largest(rng: random.Random, things: Sequence[str]) -> Puzzle:
    """The largest of some numbers."""
    numbers = rng.sample(range(10, 60), rng.randint(2, 4))
    return f"the largest of {', '.join(map(str, numbers))}", str(max(numbers))


def nth_thing(rng: random.Random, things: Sequence[str]) -> Puzzle:
    """The first, second or last of a series."""
    place = rng.choice(list(ORDINALS))
    return f"the {place} of {', '.join(things)}", things[ORDINALS[place]]


def counting(rng: random.Random, things: Sequence[str]) -> Puzzle:
    """How many there are."""
    return f"the count of {', '.join(things)}", NUMBER_WORDS[len(things)]


def kinds(rng: random.Random, things: Sequence[str]) -> Puzzle:
    """The one word that is of a kind."""
    name = rng.choice(PUZZLED)
    target = rng.choice(VALUES[name])
    words = [target, *things[:3]]
    rng.shuffle(words)
    return f"the {name} in {', '.join(words)}", target


SUBTASKS: dict[str, Callable[[random.Random, Sequence[str]], Puzzle]] = {
    "boolean": boolean,
    "largest": largest,
    "nth_thing": nth_thing,
    "counting": counting,
    "kinds": kinds,
}


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
