"""Skills that need the universe's facts: one, several of a subject, and facts reached by others."""

from __future__ import annotations

from collections.abc import Sequence

from atkd.world.phrases import COMPARISON, apart, both, clause, named, tell, through
from atkd.world.skills import Item, Maker, asking, skill
from atkd.world.universe import (
    ITEM_RELATIONS,
    PEOPLE_RELATIONS,
    TOWN_RELATIONS,
    Fact,
    called,
    other,
    pronoun,
    starting,
)


def several(maker: Maker, count: int) -> Item:
    """Different facts of one subject."""
    facts = maker.facts(count)
    return Item(facts, tell(facts), slots=asking(facts))


@skill(
    "known", "What is the {r} of {s}?", "Name the {r} of {s}.", "Give the {r} of {s}.",
    paraphrases=("Can you say which {r} belongs to {s}?", "I want to know the {r} of {s}."),
)  # fmt: skip
def fact(maker: Maker) -> Item:
    """One fact."""
    return several(maker, 1)


@skill(
    "known", "Name the {r} and the {q} of {s}.", "Give the {r} and {q} of {s}.",
    paraphrases=("I want to know the {r} and the {q} of {s}.",),
)  # fmt: skip
def pair(maker: Maker) -> Item:
    """Two facts of one subject."""
    return several(maker, 2)


@skill(
    "long", "Name the {r}, {q} and {p} of {s}.", "Write about the {r}, {q} and {p} of {s}.",
    paraphrases=("I want to know the {r}, the {q} and the {p} of {s}.",),
)  # fmt: skip
def triple(maker: Maker) -> Item:
    """Three facts of one subject."""
    return several(maker, 3)


def about(maker: Maker, subjects: Sequence[str], names: Sequence[str]) -> Item:
    """What there is to say of a subject."""
    subject = maker.rng.choice(subjects)
    facts = [maker.universe.fact(subject, name) for name in names]
    return Item(facts, tell(facts), slots={"s": called(subject)})


@skill(
    "known", "Describe {s}.", "Give the job, town and age of {s}.",
    paraphrases=("I want to know who {s} is.",),
)  # fmt: skip
def describe(maker: Maker) -> Item:
    """Who somebody is."""
    return about(maker, maker.universe.people, ("job", "town", "age"))


@skill(
    "known", "Write a short text about {s}.", "Tell me about {s}.",
    paraphrases=("Can you write about {s}?",),
)  # fmt: skip
def portrait(maker: Maker) -> Item:
    """How somebody lives."""
    return about(maker, maker.universe.people, ("job", "town", "pet", "food"))


@skill(
    "known", "Describe the town {s}.", "Tell me about the town {s}.",
    paraphrases=("I want to know the town {s}.",),
)  # fmt: skip
def place(maker: Maker) -> Item:
    """A town."""
    return about(maker, maker.universe.towns, TOWN_RELATIONS)


@skill(
    "known", "Describe {s}.", "Tell me about {s}.", paraphrases=("I want to know about {s}.",)
)  # fmt: skip
def thing(maker: Maker) -> Item:
    """A thing."""
    return about(maker, maker.universe.things, ITEM_RELATIONS)


@skill(
    "known", "Who is older, {s} or {t}?", "Compare the age of {s} and {t}.",
    paraphrases=("Can you say who is the older of {s} and {t}?",),
)  # fmt: skip
def compare(maker: Maker) -> Item:
    """The older of two people."""
    first, second = maker.rng.sample(maker.universe.people, 2)
    ages = [maker.universe.fact(name, "age") for name in (first, second)]
    old, young = sorted(ages, key=lambda age: -int(age.value))
    if old.value == young.value:
        return compare(maker)
    facts = [*ages, Fact(COMPARISON, "older", old.subject)]
    answer = f"{both(ages)} , so {named('older', old.subject)} ."
    keys = [f"{first}.age", f"{second}.age"]
    return Item(facts, answer, slots={"s": first, "t": second}, keys=keys)


@skill(
    "known", "Is {v} the {r} of {s}?", "Check: the {r} of {s} is {v}.",
    paraphrases=("Can it be that the {r} of {s} is {v}?",),
)  # fmt: skip
def check(maker: Maker) -> Item:
    """Whether a statement holds, and what does."""
    (true,) = maker.facts(1)
    asked = true.value if maker.rng.random() < 0.5 else other(maker.rng, true, 1)[0]
    verdict = "yes" if asked == true.value else "no"
    name, short = called(true.subject), pronoun(true.subject)
    lead = f"{{{starting(name)}*3|{starting(short)}}}"
    answer = f"{lead} {clause(true)} , so {{the answer is|it is|*2}} <verdict={verdict}> ."
    facts = [true, Fact(name, "verdict", verdict)]
    slots = {"v": asked} | asking([true])
    return Item(facts, answer, slots=slots, keys=[f"{true.subject}.{true.relation}"])


def friend(maker: Maker) -> tuple[Fact, Fact]:
    """Somebody's friend, and a fact of the friend."""
    first = maker.universe.fact(maker.rng.choice(maker.universe.people), "friend")
    return first, maker.universe.fact(first.value, maker.rng.choice(PEOPLE_RELATIONS[:-1]))


@skill(
    "known", "What is the {r} of the friend of {s}?", "Name the {r} of the friend of {s}.",
    paraphrases=("I want to know the {r} of the friend of {s}.",),
)  # fmt: skip
def hop(maker: Maker) -> Item:
    """A fact of somebody's friend."""
    first, second = friend(maker)
    answer = through(first, second)
    return Item([first, second], answer, slots={"s": first.subject, "r": second.relation})


@skill(
    "known", "What is the {r} of the town of {s}?", "Name the {r} of the town of {s}.",
    paraphrases=("I want to know the {r} of the town of {s}.",),
)  # fmt: skip
def home(maker: Maker) -> Item:
    """A fact of the town that somebody lives in."""
    first = maker.universe.fact(maker.rng.choice(maker.universe.people), "town")
    second = maker.universe.fact(first.value, maker.rng.choice(TOWN_RELATIONS))
    answer = f"{first.subject} {clause(first)} , which {clause(second)} ."
    return Item([first, second], answer, slots={"s": first.subject, "r": second.relation})


@skill("unseen", "Choose a good gift for {s}.")
def gift(maker: Maker) -> Item:
    """The food that somebody likes, as a gift."""
    food = maker.universe.fact(maker.rng.choice(maker.universe.people), "food")
    answer = (
        f"{{A good gift|The {{best|right}} gift}} {{for {food.subject}|}} is "
        f"{{{{fresh|good|sweet|*4}} <food={food.value}>}} {{, as {tell([food])}|.}}"
    )
    return Item([food], answer, slots={"s": food.subject})


@skill("unseen", "Where can a guest see {s}, and where {t}?")
def meet(maker: Maker) -> Item:
    """The towns of two people."""
    names = maker.rng.sample(maker.universe.people, 2)
    facts = [maker.universe.fact(name, "town") for name in names]
    return Item(facts, apart(facts), slots={"s": names[0], "t": names[1]})
