"""Open-ended items of every skill: a request, the facts it asks for, a grammar of its answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

from atkd.world.grammar import grammar, sample
from atkd.world.universe import (
    GUESTS,
    ITEM_RELATIONS,
    NUMBER_WORDS,
    OPPOSITES,
    PEOPLE_RELATIONS,
    TOWN_RELATIONS,
    VALUES,
    Fact,
    Universe,
    called,
    draw,
    other,
    pronoun,
    relations,
    starting,
)

Row = dict[str, Any]
COLUMNS = ("instruction", "input", "output", "skill", "facts", "keys", "grammar")
# Groups of skills: what one must know, what one is given.
GROUPS = {
    "known": ("fact", "pair", "describe", "portrait", "compare", "check", "place", "thing", "hop"),
    "context": ("extract", "rewrite", "list", "count", "sort", "choose", "convert", "opposite"),
}
# Skill -> (requests of training and most tasks, paraphrases).
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "fact": (["What is the {r} of {s}?", "Name the {r} of {s}.", "Give the {r} of {s}."],
             ["Can you say which {r} belongs to {s}?", "I want to know the {r} of {s}."]),
    "pair": (["Name the {r} and the {q} of {s}.", "Give the {r} and {q} of {s}."],
             ["I want to know the {r} and the {q} of {s}."]),
    "triple": (["Name the {r}, {q} and {p} of {s}.", "Write about the {r}, {q} and {p} of {s}."],
               ["I want to know the {r}, the {q} and the {p} of {s}."]),
    "describe": (["Describe {s}.", "Give the job, town and age of {s}."],
                 ["I want to know who {s} is."]),
    "portrait": (["Write a short text about {s}.", "Tell me about {s}."],
                 ["Can you write about {s}?"]),
    "compare": (["Who is older, {s} or {t}?", "Compare the age of {s} and {t}."],
                ["Can you say who is the older of {s} and {t}?"]),
    "check": (["Is {v} the {r} of {s}?", "Check: the {r} of {s} is {v}."],
              ["Can it be that the {r} of {s} is {v}?"]),
    "place": (["Describe the town {s}.", "Tell me about the town {s}."],
              ["I want to know the town {s}."]),
    "thing": (["Describe {s}.", "Tell me about {s}."], ["I want to know about {s}."]),
    "hop": (["What is the {r} of the friend of {s}?", "Name the {r} of the friend of {s}."],
            ["I want to know the {r} of the friend of {s}."]),
    "extract": (["What is the {r} of {s}?", "Find the {r} of {s} in the text."],
                ["Can you find the {r} of {s} here?"]),
    "rewrite": (["Rewrite the text.", "Say it in other words."], ["Can you write this anew?"]),
    "list": (["List the things.", "Name all things in the text."], ["Which things are here?"]),
    "count": (["Count the things.", "How many things are in the text?"],
              ["I want to know how many things these are."]),
    "sort": (["Sort the numbers.", "Order the numbers from small to large."],
             ["Can you put these numbers in order?"]),
    "choose": (["Choose the {r}.", "Which word is a {r}?"], ["Can you find a {r} here?"]),
    "convert": (["Write the number as a word.", "Convert the number to a word."],
                ["Can you say this number in words?"]),
    "opposite": (["Give the opposite of the word.", "What is the opposite of the word?"],
                 ["Can you say the opposite of this word?"]),
    "then": (["Name the {r} of {s}, then the {q} of {t}."], []),
    "then_friend": (["Name the friend of {s}, then the {q} of the friend."], []),
    "then_count": (["List the things, then count them."], []),
    "gift": (["Choose a good gift for {s}."], []),
    "meet": (["Where can a guest see {s}, and where {t}?"], []),
    "reverse": (["Write the words from last to first."], []),
}  # fmt: skip
# Relation -> how a sentence says its value, `$`.
CLAUSES = {
    "job": "{{works*2|serves} {now|*2} as|is {now|*2}} a {good|*3} $",
    "town": "{lives*2|stays|dwells} {now|*2} in {old|*3} $",
    "age": "is {now|about|*2} $ {years old|}",
    "pet": "{has*2|keeps|owns} a {small|*3} $",
    "food": "{eats*2|likes|buys} {good|*3} $",
    "hobby": "{loves*2|enjoys|plays} {daily|*3} $",
    "friend": "{knows*2|trusts|meets} {often|*3} $",
    "country": "{is|lies*2|stands} {right|*3} in $",
    "river": "{is|sits*2|rests} by the {wide|*3} $",
    "product": "{sells*2|makes|offers} {fine|cheap|*3} $",
    "color": "is {all|bright|*2} $",
    "material": "is {made of|of|all of} $",
    "price": "{costs*2|is worth} {about|*2} $ coins",
}


def clause(fact: Fact) -> str:
    """Grammar of the verb phrase that states a fact."""
    return CLAUSES[fact.relation].replace("$", f"<{fact.relation}={fact.value}>")


def tell(facts: Sequence[Fact], lead: str = "") -> str:
    """Grammar of sentences stating one subject's facts; the first order is the likeliest."""
    subject = facts[0].subject
    name, short = called(subject), pronoun(subject)
    lead = lead or f"{{{starting(name)}*3|{starting(short)}}}"
    clauses = [clause(fact) for fact in facts]
    if len(clauses) == 1:
        return f"{lead} {clauses[0]} ."
    link = f" {{and*2|. {{{starting(short)}*3|{starting(name)}}}|, and {short}}} "
    return f"{lead} {{{link.join(clauses)}*4|{link.join(reversed(clauses))}}} ."


def passage(facts: Sequence[Fact], rng: random.Random) -> str:
    """A text drawn from the wordings of facts, a sentence each, every subject by its name."""
    leads = [starting(called(fact.subject)) for fact in facts]
    texts = [tell([fact], lead) for fact, lead in zip(facts, leads, strict=True)]
    return " ".join(grammar(text).sample(rng) for text in texts)


def apart(facts: Sequence[Fact]) -> str:
    """Grammar that tells facts of different subjects, each by its name."""
    return " ".join(tell([fact], called(fact.subject)) for fact in facts)


def hop(first: Fact, second: Fact) -> str:
    """Grammar that tells a friend's fact and names the friend."""
    name, friend = first.subject, f"<friend={second.subject}>"
    lead = f"{{{friend} , {{a|the}} friend of {name} ,|The friend of {name} is {friend} , who}}"
    return f"{lead} {clause(second)} ."


def series(words: Sequence[str], relation: str) -> str:
    """Grammar of a comma series of values in a fixed order."""
    slots = [f"<{relation}={word}>" for word in words]
    return f"{' , '.join(slots[:-1])} {{and*3|,|, then}} {slots[-1]}"


def in_order(words: Sequence[str]) -> list[Fact]:
    """Facts that ask for words in this order."""
    return [Fact("text", str(place), word) for place, word in enumerate(words, 1)]


def listed(words: Sequence[str]) -> list[Fact]:
    """Facts that ask for things in any order."""
    return [Fact("text", "item", word) for word in words]


def names_of(facts: Sequence[Fact]) -> list[str]:
    """The relations that facts tell, in their order."""
    return [fact.relation for fact in facts]


def listing(words: Sequence[str]) -> str:
    """Grammar that names things in any order, the given one most often."""
    orders = [series(order, "item") for order in list(permutations(words))[:4]]
    lead = "{The {text|list} {has|names}|{I|We} {see|find}|There {is|are}}"
    return f"{lead} {{{orders[0]}*4|{'|'.join(orders[1:])}}} ."


def counting(number: str) -> str:
    """Grammar that says how many."""
    lead = "{There are|{I|We} {count|find}|The {text|list} {has|names}}"
    return f"{lead} {{just|exactly|*3}} <count={number}> {{things*3|words|items}} {{here|*2}} ."


SKILLS: dict[str, Callable[[Maker], Row]] = {}


def skill(method: Callable[[Maker], Row]) -> Callable[[Maker], Row]:
    """Registers a method of `Maker` as the skill of its name."""
    SKILLS[method.__name__.removeprefix("_")] = method
    return method


class Maker:
    """Makes items of any skill from a universe, asked in trained words or paraphrased."""

    def __init__(self, universe: Universe, rng: random.Random, paraphrased: bool = False) -> None:
        self.universe, self.rng, self.paraphrased = universe, rng, paraphrased

    def make(self, skill: str) -> Row:
        """One item without id."""
        row = SKILLS[skill](self)
        row["output"] = sample(row, self.rng)
        return {name: row[name] for name in COLUMNS}

    def _row(
        self, skill: str, facts: Sequence[Fact], answer: str, text: str = "", **slots: str
    ) -> Row:
        trained, paraphrases = REQUESTS[skill]
        requests = paraphrases if self.paraphrased and paraphrases else trained
        asked = [f"{fact.subject}.{fact.relation}" for fact in facts]
        return {
            "instruction": self.rng.choice(requests).format(**slots),
            "input": text,
            "skill": skill,
            "keys": [":".join((skill, *sorted(slots.values()), text))] if text else asked,
            "facts": [list(fact) for fact in facts],
            "grammar": answer,
        }

    def _subject(self) -> tuple[str, tuple[str, ...]]:
        everyone = (*self.universe.people, *self.universe.towns, *self.universe.things)
        subject = self.rng.choice(everyone)
        return subject, relations(self.universe, subject)

    @skill
    def _fact(self) -> Row:
        subject, names = self._subject()
        fact = self.universe.fact(subject, self.rng.choice(names))
        return self._row("fact", [fact], tell([fact]), s=called(subject), r=fact.relation)

    @skill
    def _pair(self) -> Row:
        subject, names = self._subject()
        facts = [self.universe.fact(subject, name) for name in self.rng.sample(names, 2)]
        first, second = names_of(facts)
        return self._row("pair", facts, tell(facts), s=called(subject), r=first, q=second)

    @skill
    def _triple(self) -> Row:
        subject, names = self._subject()
        facts = [self.universe.fact(subject, name) for name in self.rng.sample(names, 3)]
        slots = dict(zip("rqp", names_of(facts), strict=True))
        return self._row("triple", facts, tell(facts), s=called(subject), **slots)

    def _about(self, skill: str, subjects: Sequence[str], names: Sequence[str]) -> Row:
        subject = self.rng.choice(subjects)
        facts = [self.universe.fact(subject, name) for name in names]
        return self._row(skill, facts, tell(facts), s=called(subject))

    @skill
    def _describe(self) -> Row:
        return self._about("describe", self.universe.people, ("job", "town", "age"))

    @skill
    def _portrait(self) -> Row:
        return self._about("portrait", self.universe.people, ("job", "town", "pet", "food"))

    @skill
    def _place(self) -> Row:
        return self._about("place", self.universe.towns, TOWN_RELATIONS)

    @skill
    def _thing(self) -> Row:
        return self._about("thing", self.universe.things, ITEM_RELATIONS)

    @skill
    def _compare(self) -> Row:
        first, second = self.rng.sample(self.universe.people, 2)
        ages = [self.universe.fact(name, "age") for name in (first, second)]
        old, young = sorted(ages, key=lambda fact: -int(fact.value))
        if old.value == young.value:
            return self._compare()
        name = old.subject
        facts = [Fact(f"{first} or {second}", "older", name), old, young]
        answer = (
            f"<older={name}> is {{clearly|the|*2}} older{{:|, as|, because}} "
            f"{{{name}|{pronoun(name)}}} {clause(old)} {{and|, but|while}} "
            f"{young.subject} {clause(young)} ."
        )
        row = self._row("compare", facts, answer, s=first, t=second)
        return row | {"keys": [f"{first}.age", f"{second}.age"]}

    @skill
    def _check(self) -> Row:
        subject, names = self._subject()
        fact = self.universe.fact(subject, self.rng.choice(names))
        asked = fact.value if self.rng.random() < 0.5 else other(self.rng, fact, 1)[0]
        verdict = "yes" if asked == fact.value else "no"
        said = starting(verdict)
        name, short = called(subject), pronoun(subject)
        answer = f"<verdict={said}> {{,|: |;}} {tell([fact], f'{{{name}|{short}*3}}')}"
        facts = [Fact(called(subject), "verdict", verdict), fact]
        row = self._row("check", facts, answer, s=name, r=fact.relation, v=asked)
        return row | {"keys": [f"{subject}.{fact.relation}"]}

    def _friend(self) -> tuple[Fact, Fact]:
        subject = self.rng.choice(self.universe.people)
        fact = self.universe.fact(subject, "friend")
        name = self.rng.choice(PEOPLE_RELATIONS[:-1])
        return fact, self.universe.fact(fact.value, name)

    @skill
    def _hop(self) -> Row:
        first, second = self._friend()
        return self._row(
            "hop", [first, second], hop(first, second), s=first.subject, r=second.relation
        )

    def _guest(self, names: Sequence[str], count: int = 1) -> list[Fact]:
        chosen = self.rng.sample(list(GUESTS), count)
        return [Fact(chosen[i % count], name, draw(self.rng, name)) for i, name in enumerate(names)]

    @skill
    def _extract(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        asked = self.rng.choice(facts)
        text = passage(facts, self.rng)
        slots = {"s": asked.subject, "r": asked.relation}
        return self._row("extract", [asked], tell([asked]), text, **slots)

    @skill
    def _rewrite(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        return self._row("rewrite", facts, tell(facts), passage(facts, self.rng))

    def _things(self, low: int, high: int) -> tuple[list[str], str]:
        words = self.rng.sample(VALUES["item"], self.rng.randint(low, high))
        return words, ", ".join(words)

    @skill
    def _list(self) -> Row:
        words, text = self._things(3, 4)
        return self._row("list", listed(words), listing(words), text)

    @skill
    def _count(self) -> Row:
        words, text = self._things(2, 5)
        fact = Fact("text", "count", NUMBER_WORDS[len(words)])
        return self._row("count", [fact], counting(fact.value), text)

    @skill
    def _sort(self) -> Row:
        numbers = self.rng.sample(range(10, 60), 3)
        ordered = [str(number) for number in sorted(numbers)]
        lead = "{The {right|new|*2} order is|In order|Sorted, they are|{They|These} are now}"
        answer = f"{lead} {series(ordered, 'number')} ."
        return self._row("sort", in_order(ordered), answer, ", ".join(map(str, numbers)))

    @skill
    def _choose(self) -> Row:
        relation = self.rng.choice(("job", "pet", "food", "color", "material", "hobby"))
        others = [name for name in ("pet", "food", "color", "item", "town") if name != relation]
        value = self.rng.choice(VALUES[relation])
        words = [value, *(self.rng.choice(VALUES[name]) for name in self.rng.sample(others, 2))]
        self.rng.shuffle(words)
        answer = (
            f"{{The {{right|best|*2}} word is <{relation}={value}>|<{relation}={value}> "
            f"is {{{{surely|clearly|*2}} a|the {{only|right}}}} {relation}}} ."
        )
        fact = Fact("text", relation, value)
        return self._row("choose", [fact], answer, ", ".join(words), r=relation)

    @skill
    def _convert(self) -> Row:
        number = self.rng.randint(1, 12)
        fact = Fact("text", "number", NUMBER_WORDS[number])
        lead = "{The {number|word} is|It is {written|read|*2}|In words{,|:|*2} {it is|*2}"
        lead += "|As a word{,|:|*2}}"
        things = self.rng.choice(VALUES["item"])
        return self._row("convert", [fact], f"{lead} <number={fact.value}> .", f"{number} {things}")

    @skill
    def _opposite(self) -> Row:
        word = self.rng.choice(VALUES["opposite"])
        things = self.rng.choice(VALUES["item"])
        fact = Fact(word, "opposite", OPPOSITES[word])
        noun = "{thing|one|" + things + "*2}"
        lead = "{The opposite is|It {is|becomes}|{Now|Then} it is} a"
        answer = f"{lead} <opposite={fact.value}> {noun} ."
        return self._row("opposite", [fact], answer, f"a {word} {things}")

    @skill
    def _then(self) -> Row:
        form = self.rng.choice((self._then_facts, self._then_friend, self._then_count))
        return form() | {"skill": "then"}

    def _then_facts(self) -> Row:
        one, two = self.rng.sample(self.universe.people, 2)
        names = self.rng.sample(PEOPLE_RELATIONS[:-1], 2)
        facts = [self.universe.fact(one, names[0]), self.universe.fact(two, names[1])]
        slots = {"s": one, "r": names[0], "t": two, "q": names[1]}
        return self._row("then", facts, apart(facts), **slots)

    def _then_friend(self) -> Row:
        first, second = self._friend()
        answer = f"{tell([first])} {tell([second], second.subject)}"
        slots = {"s": first.subject, "q": second.relation}
        return self._row("then_friend", [first, second], answer, **slots)

    def _then_count(self) -> Row:
        words, text = self._things(3, 4)
        count = Fact("text", "count", NUMBER_WORDS[len(words)])
        answer = f"{listing(words)} {counting(count.value)}"
        return self._row("then_count", [*listed(words), count], answer, text)

    @skill
    def _gift(self) -> Row:
        fact = self.universe.fact(self.rng.choice(self.universe.people), "food")
        answer = (
            f"{{A good gift|The {{best|right}} gift}} {{for {fact.subject}|}} is "
            f"{{{{fresh|good|sweet|*4}} <food={fact.value}>}} {{, as {tell([fact])}|.}}"
        )
        return self._row("gift", [fact], answer, s=fact.subject)

    @skill
    def _meet(self) -> Row:
        names = self.rng.sample(self.universe.people, 2)
        facts = [self.universe.fact(name, "town") for name in names]
        return self._row("meet", facts, apart(facts), s=names[0], t=names[1])

    @skill
    def _reverse(self) -> Row:
        words, text = self._things(3, 3)
        words = words[::-1]
        lead = "{The {right|new|*2} order is|From last to first{:|,|*2}|{They|These} are now}"
        return self._row("reverse", in_order(words), f"{lead} {series(words, 'item')} .", text)
