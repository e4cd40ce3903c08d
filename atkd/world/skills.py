"""Open-ended items of every skill: a request, the facts it asks for, a grammar of its answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from atkd.world.grammar import sample
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
from atkd.world.wording import (
    ASKS,
    apart,
    clause,
    counting,
    hop,
    in_order,
    listing,
    passage,
    series,
    tell,
)

Row = dict[str, Any]


class Maker:
    """Makes items of any skill from a universe; `asks` 0: trained requests, 1: paraphrases."""

    def __init__(self, universe: Universe, rng: random.Random, asks: int = 0) -> None:
        self.universe, self.rng, self.asks = universe, rng, asks

    def make(self, skill: str) -> Row:
        """One item without id."""
        row = getattr(self, f"_{skill}")()
        row["output"] = sample(row, self.rng)
        order = ("instruction", "input", "output", "skill", "facts", "keys", "grammar")
        return {name: row[name] for name in order}

    def _row(
        self, skill: str, facts: Sequence[Fact], answer: str, text: str = "", **slots: str
    ) -> Row:
        ask = self.rng.choice(ASKS[skill][self.asks] or ASKS[skill][0]).format(**slots)
        if text:
            keys = [":".join((skill, *sorted(slots.values()), text))]
        else:
            keys = [f"{subject}.{relation}" for subject, relation, _ in facts]
        row = {"instruction": ask, "input": text, "skill": skill, "keys": keys}
        return row | {"facts": [list(fact) for fact in facts], "grammar": answer}

    def _subject(self) -> tuple[str, tuple[str, ...]]:
        everyone = (*self.universe.people, *self.universe.towns, *self.universe.things)
        subject = self.rng.choice(everyone)
        return subject, relations(self.universe, subject)

    def _fact(self) -> Row:
        subject, names = self._subject()
        fact = self.universe.fact(subject, self.rng.choice(names))
        return self._row("fact", [fact], tell([fact]), s=called(subject), r=fact[1])

    def _pair(self) -> Row:
        subject, names = self._subject()
        facts = [self.universe.fact(subject, name) for name in self.rng.sample(names, 2)]
        slots = {"s": called(subject), "r": facts[0][1], "q": facts[1][1]}
        return self._row("pair", facts, tell(facts), **slots)

    def _triple(self) -> Row:
        subject, names = self._subject()
        facts = [self.universe.fact(subject, name) for name in self.rng.sample(names, 3)]
        slots = dict(zip("rqp", (fact[1] for fact in facts), strict=True))
        return self._row("triple", facts, tell(facts), s=called(subject), **slots)

    def _about(self, skill: str, subjects: Sequence[str], names: Sequence[str]) -> Row:
        subject = self.rng.choice(subjects)
        facts = [self.universe.fact(subject, name) for name in names]
        return self._row(skill, facts, tell(facts), s=called(subject))

    def _describe(self) -> Row:
        return self._about("describe", self.universe.people, ("job", "town", "age"))

    def _portrait(self) -> Row:
        return self._about("portrait", self.universe.people, ("job", "town", "pet", "food"))

    def _place(self) -> Row:
        return self._about("place", self.universe.towns, TOWN_RELATIONS)

    def _thing(self) -> Row:
        return self._about("thing", self.universe.things, ITEM_RELATIONS)

    def _compare(self) -> Row:
        first, second = self.rng.sample(self.universe.people, 2)
        ages = [self.universe.fact(name, "age") for name in (first, second)]
        if ages[0][2] == ages[1][2]:
            return self._compare()
        old, young = sorted(ages, key=lambda fact: -int(fact[2]))
        facts = [(f"{first} or {second}", "older", old[0]), old, young]
        answer = (
            f"<older={old[0]}> is {{clearly|the|*2}} older{{:|, as|, because}} "
            f"{{{old[0]}|{pronoun(old[0])}}} {clause(old)} {{and|, but|while}} "
            f"{young[0]} {clause(young)} ."
        )
        row = self._row("compare", facts, answer, s=first, t=second)
        return row | {"keys": [f"{first}.age", f"{second}.age"]}

    def _check(self) -> Row:
        subject, names = self._subject()
        fact = self.universe.fact(subject, self.rng.choice(names))
        asked = fact[2] if self.rng.random() < 0.5 else other(self.rng, fact, 1)[0]
        verdict = "yes" if asked == fact[2] else "no"
        said = starting(verdict)
        name, short = called(subject), pronoun(subject)
        answer = f"<verdict={said}> {{,|: |;}} {tell([fact], f'{{{name}|{short}*3}}')}"
        facts = [(called(subject), "verdict", verdict), fact]
        row = self._row("check", facts, answer, s=name, r=fact[1], v=asked)
        return row | {"keys": [f"{subject}.{fact[1]}"]}

    def _friend(self) -> tuple[Fact, Fact]:
        subject = self.rng.choice(self.universe.people)
        fact = self.universe.fact(subject, "friend")
        name = self.rng.choice(PEOPLE_RELATIONS[:-1])
        return fact, self.universe.fact(fact[2], name)

    def _hop(self) -> Row:
        first, second = self._friend()
        return self._row("hop", [first, second], hop(first, second), s=first[0], r=second[1])

    def _guest(self, names: Sequence[str], count: int = 1) -> list[Fact]:
        chosen = self.rng.sample(list(GUESTS), count)
        return [(chosen[i % count], name, draw(self.rng, name)) for i, name in enumerate(names)]

    def _extract(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        asked = self.rng.choice(facts)
        text, slots = passage(facts, self.rng), {"s": asked[0], "r": asked[1]}
        return self._row("extract", [asked], tell([asked]), text, **slots)

    def _rewrite(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        return self._row("rewrite", facts, tell(facts), passage(facts, self.rng))

    def _things(self, low: int, high: int) -> tuple[list[str], str]:
        words = self.rng.sample(VALUES["item"], self.rng.randint(low, high))
        return words, ", ".join(words)

    def _list(self) -> Row:
        words, text = self._things(3, 4)
        return self._row("list", [("text", "item", word) for word in words], listing(words), text)

    def _count(self) -> Row:
        words, text = self._things(2, 5)
        fact = ("text", "count", NUMBER_WORDS[len(words)])
        return self._row("count", [fact], counting(fact[2]), text)

    def _sort(self) -> Row:
        numbers = self.rng.sample(range(10, 60), 3)
        ordered = [str(number) for number in sorted(numbers)]
        lead = "{The {right|new|*2} order is|In order|Sorted, they are|{They|These} are now}"
        answer = f"{lead} {series(ordered, 'number')} ."
        return self._row("sort", in_order(ordered), answer, ", ".join(map(str, numbers)))

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
        fact = ("text", relation, value)
        return self._row("choose", [fact], answer, ", ".join(words), r=relation)

    def _convert(self) -> Row:
        number = self.rng.randint(1, 12)
        fact = ("text", "number", NUMBER_WORDS[number])
        lead = "{The {number|word} is|It is {written|read|*2}|In words{,|:|*2} {it is|*2}"
        lead += "|As a word{,|:|*2}}"
        words = self.rng.choice(VALUES["item"])
        return self._row("convert", [fact], f"{lead} <number={fact[2]}> .", f"{number} {words}")

    def _opposite(self) -> Row:
        word = self.rng.choice(VALUES["opposite"])
        things = self.rng.choice(VALUES["item"])
        value = OPPOSITES[word]
        noun = "{thing|one|" + things + "*2}"
        lead = "{The opposite is|It {is|becomes}|{Now|Then} it is} a"
        answer = f"{lead} <opposite={value}> {noun} ."
        return self._row("opposite", [(word, "opposite", value)], answer, f"a {word} {things}")

    def _then(self) -> Row:
        form = self.rng.choice(("facts", "friend", "count"))
        if form == "count":
            words, text = self._things(3, 4)
            facts = [("text", "item", word) for word in words]
            facts.append(("text", "count", NUMBER_WORDS[len(words)]))
            answer = f"{listing(words)} {counting(facts[-1][2])}"
            return self._row("then_count", facts, answer, text) | {"skill": "then"}
        if form == "friend":
            first, second = self._friend()
            answer = f"{tell([first])} {tell([second], second[0])}"
            slots = {"s": first[0], "q": second[1]}
            return self._row("then_friend", [first, second], answer, **slots) | {"skill": "then"}
        one, two = self.rng.sample(self.universe.people, 2)
        names = self.rng.sample(PEOPLE_RELATIONS[:-1], 2)
        facts = [self.universe.fact(one, names[0]), self.universe.fact(two, names[1])]
        slots = {"s": one, "r": names[0], "t": two, "q": names[1]}
        return self._row("then", facts, apart(facts), **slots)

    def _gift(self) -> Row:
        fact = self.universe.fact(self.rng.choice(self.universe.people), "food")
        answer = (
            f"{{A good gift|The {{best|right}} gift}} {{for {fact[0]}|}} is "
            f"{{{{fresh|good|sweet|*4}} <food={fact[2]}>}} {{, as {tell([fact])}|.}}"
        )
        return self._row("gift", [fact], answer, s=fact[0])

    def _meet(self) -> Row:
        names = self.rng.sample(self.universe.people, 2)
        facts = [self.universe.fact(name, "town") for name in names]
        return self._row("meet", facts, apart(facts), s=names[0], t=names[1])

    def _reverse(self) -> Row:
        words, text = self._things(3, 3)
        words = words[::-1]
        lead = "{The {right|new|*2} order is|From last to first{:|,|*2}|{They|These} are now}"
        return self._row("reverse", in_order(words), f"{lead} {series(words, 'item')} .", text)
