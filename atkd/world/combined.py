"""Skills of two steps, and bare answers as exams want them: a word, or an option's letter."""

from __future__ import annotations

from atkd.world.exams import exam_key
from atkd.world.given import guests, things, told
from atkd.world.known import friend
from atkd.world.phrases import (
    COMPARISON,
    apart,
    both,
    counting,
    listed,
    listing,
    named,
    passage,
    tell,
    value,
)
from atkd.world.skills import Item, Maker, asking, skill
from atkd.world.universe import LETTERS, NUMBER_WORDS, PEOPLE_RELATIONS, Fact, called, other


@skill("then", "Name the {r} of {s}, then the {q} of {t}.")
def then(maker: Maker) -> Item:
    """Facts of two people."""
    one, two = maker.rng.sample(maker.universe.people, 2)
    names = maker.rng.sample(PEOPLE_RELATIONS[:-1], 2)
    facts = [maker.universe.fact(one, names[0]), maker.universe.fact(two, names[1])]
    slots = {"s": one, "r": names[0], "t": two, "q": names[1]}
    return Item(facts, apart(facts), slots=slots)


@skill("then", "Name the friend of {s}, then the {q} of the friend.")
def then_friend(maker: Maker) -> Item:
    """A friend, and a fact of the friend."""
    first, second = friend(maker)
    answer = f"{tell([first])} {tell([second], second.subject)}"
    slots = {"s": first.subject, "q": second.relation}
    return Item([first, second], answer, slots=slots)


@skill("then", "List the things, then count them.")
def then_count(maker: Maker) -> Item:
    """All things that a text names, and how many."""
    words, text = things(maker, 3, 5)
    number = Fact("text", "count", NUMBER_WORDS[len(words)])
    answer = f"{listing(words)} {counting(number.value)}"
    return Item([*listed(words), number], answer, text)


@skill("then", "Find the older guest, then name the {r} of this guest.")
def then_older(maker: Maker) -> Item:
    """The older of two guests, and a fact of this one."""
    names, numbers = guests(maker, 2), maker.rng.sample(range(20, 60), 2)
    relation = maker.rng.choice(("job", "town", "pet", "food"))
    ages = [Fact(name, "age", str(age)) for name, age in zip(names, numbers, strict=True)]
    told_values = [maker.drawn(name, relation) for name in names]
    older = numbers.index(max(numbers))
    facts = [*ages, *told_values]
    maker.rng.shuffle(facts)
    answer = f"{both(ages)} , so {named('older', names[older])} . {tell([told_values[older]])}"
    wanted = [*ages, Fact(COMPARISON, "older", names[older]), told_values[older]]
    return Item(wanted, answer, passage(facts, maker.rng), slots={"r": relation})


@skill(
    "short", "What is the {r} of {s}? Answer in one word.", "Give the {r} of {s} in one word.",
)  # fmt: skip
def short(maker: Maker) -> Item:
    """One of several facts that a text tells, as one word."""
    facts = told(maker, 2, 4)
    asked = [maker.rng.choice(facts)]
    answer = value(asked[0])
    return Item(asked, answer, passage(facts, maker.rng), slots=asking(asked))


@skill("letter", "What is the {r} of {s}? Answer with a letter.")
def letter(maker: Maker) -> Item:
    """The letter of the option that is a fact's value."""
    (fact,) = maker.facts(1)
    options = [fact.value, *other(maker.rng, fact, 3)]
    maker.rng.shuffle(options)
    right = Fact("text", "letter", LETTERS[options.index(fact.value)])
    text = " ".join(f"{name}. {option}" for name, option in zip(LETTERS, options, strict=True))
    question = f"What is the {fact.relation} of {called(fact.subject)}?"
    keys = [
        f"{fact.subject}.{fact.relation}",
        exam_key({"question": question, "choices": options}),
    ]
    return Item([right], value(right), text, slots=asking([fact]), keys=keys)
