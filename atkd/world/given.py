"""Skills that need the text of the request alone: copying, counting, sorting, comparing, adding."""

from __future__ import annotations

from atkd.world.phrases import (
    COMPARISON,
    any_order,
    both,
    counting,
    in_order,
    listed,
    listing,
    named,
    ordered,
    passage,
    series,
    tell,
    through,
    value,
)
from atkd.world.skills import Item, Maker, asking, skill
from atkd.world.universe import (
    GUESTS,
    NUMBER_WORDS,
    OPPOSITES,
    PEOPLE_RELATIONS,
    VALUES,
    Fact,
    called,
)

TOLD = PEOPLE_RELATIONS[:-1]  # what texts say of guests


def guests(maker: Maker, count: int) -> list[str]:
    """People that are in no universe."""
    return maker.rng.sample(list(GUESTS), count)


def things(maker: Maker, low: int, high: int) -> tuple[list[str], str]:
    """Some things, and the text that names them."""
    words = maker.rng.sample(VALUES["item"], maker.rng.randint(low, high))
    return words, ", ".join(words)


def told(maker: Maker, low: int, high: int) -> list[Fact]:
    """Facts of two or three guests, in any order, no relation of a guest twice."""
    names = guests(maker, maker.rng.randint(2, 3))
    every = [(name, relation) for name in names for relation in TOLD]
    pairs = maker.rng.sample(every, maker.rng.randint(low, high))
    return [maker.drawn(*pair) for pair in pairs]


@skill(
    "context", "What is the {r} of {s}?", "Find the {r} of {s} in the text.",
    paraphrases=("Can you find the {r} of {s} here?",),
)  # fmt: skip
def extract(maker: Maker) -> Item:
    """One of several facts that a text tells."""
    facts = told(maker, 2, 4)
    asked = [maker.rng.choice(facts)]
    return Item(asked, tell(asked), passage(facts, maker.rng), slots=asking(asked))


@skill(
    "context", "Rewrite the text.", "Say it in other words.",
    paraphrases=("Can you write this anew?",),
)  # fmt: skip
def rewrite(maker: Maker) -> Item:
    """All that a text tells of somebody."""
    (name,) = guests(maker, 1)
    names = maker.rng.sample(TOLD, maker.rng.randint(2, 3))
    facts = [maker.drawn(name, relation) for relation in names]
    return Item(facts, tell(facts), passage(facts, maker.rng))


@skill(
    "context", "List the things.", "Name all things in the text.",
    paraphrases=("Which things are here?",),
)  # fmt: skip
def list_(maker: Maker) -> Item:
    """All things that a text names."""
    words, text = things(maker, 3, 5)
    return Item(listed(words), listing(words), text)


@skill(
    "context", "Count the things.", "How many things are in the text?",
    paraphrases=("I want to know how many things these are.",),
)  # fmt: skip
def count(maker: Maker) -> Item:
    """How many things a text names."""
    words, text = things(maker, 2, 8)
    number = Fact("text", "count", NUMBER_WORDS[len(words)])
    return Item([number], counting(number.value), text)


@skill(
    "context", "Sort the numbers.", "Order the numbers from small to large.",
    paraphrases=("Can you put these numbers in order?",),
)  # fmt: skip
def sort(maker: Maker) -> Item:
    """Numbers from small to large."""
    numbers = maker.rng.sample(range(10, 60), maker.rng.randint(3, 4))
    words = [str(number) for number in sorted(numbers)]
    text = ", ".join(map(str, numbers))
    return Item(in_order(words), ordered(words, "number"), text)


@skill(
    "context", "Choose the {r}.", "Which word is a {r}?", paraphrases=("Can you find a {r} here?",)
)  # fmt: skip
def choose(maker: Maker) -> Item:
    """The one word that is of a kind."""
    rng = maker.rng
    relation = rng.choice(("job", "pet", "food", "color", "material", "hobby"))
    others = [name for name in ("pet", "food", "color", "item", "town") if name != relation]
    word = rng.choice(VALUES[relation])
    words = [word, *(rng.choice(VALUES[name]) for name in rng.sample(others, rng.randint(2, 3)))]
    rng.shuffle(words)
    answer = (
        f"{{The {{right|best|*2}} word is <{relation}={word}>|<{relation}={word}> "
        f"is {{{{surely|clearly|*2}} a|the {{only|right}}}} {relation}}} ."
    )
    fact = Fact("text", relation, word)
    return Item([fact], answer, ", ".join(words), slots={"r": relation})


@skill(
    "context", "Write the number as a word.", "Convert the number to a word.",
    paraphrases=("Can you say this number in words?",),
)  # fmt: skip
def convert(maker: Maker) -> Item:
    """A number in words."""
    number = maker.rng.randint(1, 12)
    fact = Fact("text", "number", NUMBER_WORDS[number])
    lead = "{The {number|word} is|It is {written|read|*2}|In words{,|:|*2} {it is|*2}"
    lead += "|As a word{,|:|*2}}"
    noun = maker.rng.choice(VALUES["item"])
    return Item([fact], f"{lead} <number={fact.value}> .", f"{number} {noun}")


@skill(
    "context", "Give the opposite of the word.", "What is the opposite of the word?",
    paraphrases=("Can you say the opposite of this word?",),
)  # fmt: skip
def opposite(maker: Maker) -> Item:
    """The opposite of a word."""
    word, noun = maker.rng.choice(VALUES["opposite"]), maker.rng.choice(VALUES["item"])
    fact = Fact(word, "opposite", OPPOSITES[word])
    lead = "{The opposite is|It {is|becomes}|{Now|Then} it is} a"
    answer = f"{lead} <opposite={fact.value}> {{thing|one|{noun}*2}} ."
    return Item([fact], answer, f"a {word} {noun}")


@skill(
    "context", "Which guests have the {r} {v}?", "Name all guests with the {r} {v}.",
    paraphrases=("Can you find the guests with the {r} {v} here?",),
)  # fmt: skip
def who(maker: Maker) -> Item:
    """The guests that share a value, one or two of three."""
    names, relation = guests(maker, 3), maker.rng.choice(("job", "pet", "food", "town"))
    values = maker.rng.sample(VALUES[relation], 3)
    if maker.rng.random() < 0.5:
        values[1] = values[0]
    facts = [Fact(*row) for row in zip(names, [relation] * 3, values, strict=True)]
    found = [fact.subject for fact in facts if fact.value == values[0]]
    maker.rng.shuffle(facts)
    lead = "{They are|These are|The {text|list} names|{I|We} {see|find}}"
    answer = f"{lead} {any_order(found, 'guest')} ."
    text = passage(facts, maker.rng)
    return Item(listed(found, "guest"), answer, text, slots={"r": relation, "v": values[0]})


@skill(
    "context", "Who is the oldest?", "Name the oldest guest.",
    paraphrases=("Can you say which guest is the oldest?",),
)  # fmt: skip
def oldest(maker: Maker) -> Item:
    """The oldest of three guests, whose ages a text tells."""
    names, ages = guests(maker, 3), maker.rng.sample(range(20, 60), 3)
    facts = [Fact(name, "age", str(age)) for name, age in zip(names, ages, strict=True)]
    name = names[ages.index(max(ages))]
    answer = f"{both(facts)} , so {named('oldest', name)} ."
    return Item([*facts, Fact(COMPARISON, "oldest", name)], answer, passage(facts, maker.rng))


@skill(
    "context", "What do {s} and {t} cost together?", "Add the price of {s} and {t}.",
    paraphrases=("I want to know how many coins {s} and {t} are worth.",),
)  # fmt: skip
def total(maker: Maker) -> Item:
    """The sum of two prices that a text tells."""
    names, _ = things(maker, 2, 2)
    facts = [maker.drawn(name, "price") for name in names]
    asked = maker.rng.sample(facts, 2)
    sum_ = Fact("together", "sum", str(sum(int(fact.value) for fact in facts)))
    answer = f"{both(asked)} , so together they {{cost*2|are worth}} {value(sum_)} coins ."
    slots = {"s": called(asked[0].subject), "t": called(asked[1].subject)}
    return Item([*asked, sum_], answer, passage(facts, maker.rng), slots=slots)


@skill(
    "context", "What is the {r} of the friend of {s}?", "Find the {r} of the friend of {s}.",
    paraphrases=("Can you find the {r} of the friend of {s} here?",),
)  # fmt: skip
def link(maker: Maker) -> Item:
    """A fact of a guest's friend, both told in a text."""
    one, two, three = guests(maker, 3)
    relation = maker.rng.choice(TOLD)
    friends = [Fact(one, "friend", two), Fact(two, "friend", three)]
    facts = [maker.drawn(name, relation) for name in (two, three)]
    asked = [friends[0], facts[0]]
    answer = through(*asked)
    every = [*friends, *facts]
    maker.rng.shuffle(every)
    return Item(asked, answer, passage(every, maker.rng), slots={"s": one, "r": relation})


@skill("unseen", "Write the words from last to first.")
def reverse(maker: Maker) -> Item:
    """Things in the order that is not the text's."""
    words, text = things(maker, 3, 3)
    words = words[::-1]
    lead = "{The {right|new|*2} order is|From last to first{:|,|*2}|{They|These} are now}"
    return Item(in_order(words), f"{lead} {series(words, 'item')} .", text)
