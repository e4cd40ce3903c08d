"""The embedded world: pretraining text, instruction data and held-out evaluation sets.

`generate` is deterministic for a seed across processes. Every open-ended row carries `skill`,
`facts` (subject, relation, value), `keys` (what it asks, for the leak test) and `grammar` (all
valid answers with their probabilities), so `sample`, `log_probability`, `next_words` and `grade`
need the row alone. References of evaluation rows are samples, not the likeliest wording: bits per
byte then estimate the true cross-entropy, and copying one wording is not rewarded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from atkd.universe import (
    GUESTS,
    ITEM_RELATIONS,
    NUMBER_WORDS,
    OPPOSITES,
    PEOPLE_RELATIONS,
    PRONOUN,
    TOWN_RELATIONS,
    VALUES,
    Fact,
    Universe,
    build,
    called,
    clause,
    grammar,
    kind,
    pronoun,
    split,
    starting,
    tell,
)  # fmt: skip

Row = dict[str, Any]
TRIES = 20000
GENERATION = ("dolly", "selfinst", "vicuna", "koala", "wizardlm", "unseen")
KNOWN = ["fact", "pair", "describe", "portrait", "compare", "check", "place", "thing", "hop"]
CONTEXT = ["extract", "rewrite", "list", "count", "sort", "choose", "convert", "opposite"]
TRAINED = dict.fromkeys([*KNOWN, *CONTEXT, "then"], 1) | {"fact": 4, "pair": 2, "then": 2}
DIALOGUE = {name: 1 for name in [*KNOWN, *CONTEXT]}
UNSEEN = ("gift", "meet", "reverse")
MIX = {
    "dolly": [*KNOWN, "extract", "opposite"],
    "selfinst": CONTEXT,
    "vicuna": ["triple", "triple", "describe", "portrait", "place", "thing"],
    "koala": [*KNOWN, *CONTEXT],
    "wizardlm": ["then"],
    "unseen": list(UNSEEN),
}
ASKS: dict[str, tuple[list[str], list[str]]] = {
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
    "letter": (["{q} Give the letter."], ["{q} Which letter is right?"]),
    "short": (["{q} Answer in one word."], ["{q} One word, please."]),
    "solve": (["Answer in one word."], ["One word, please."]),
    "then": (["Name the {r} of {s}, then the {q} of {t}."], []),
    "then_friend": (["Name the friend of {s}, then the {q} of the friend."], []),
    "then_count": (["List the things, then count them."], []),
    "gift": (["Choose a good gift for {s}."], []),
    "meet": (["Where can a guest see {s}, and where {t}?"], []),
    "reverse": (["Write the words from last to first."], []),
}  # fmt: skip
DEFAULTS = {
    "people": 10, "towns": 4, "things": 4, "held_out": 0.25, "pretrain": 12000, "train": 3000,
    "items": 80, "understanding_items": 112, "subtask_items": 20, "exam_share": 0.2,
    "dialogue_share": 0.4, "human_share": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """Canonical rows: `pretrain`, `train`, and `tasks` by name; `universe` is what is true."""

    pretrain: list[Row]
    train: list[Row]
    tasks: dict[str, list[Row]]
    universe: Universe


@dataclass(frozen=True)
class Grade:
    """Required facts by what an answer does with them; `well_formed`: a wording of the grammar."""

    right: tuple[Fact, ...]
    wrong: tuple[Fact, ...]
    omitted: tuple[Fact, ...]
    well_formed: bool


def sample(item: Row, rng: random.Random) -> str:
    """An answer drawn from the item's true distribution."""
    return grammar(item["grammar"]).sample(rng)


def log_probability(item: Row, answer: str) -> float:
    """Natural log of the true probability of exactly this answer; -inf for an invalid one."""
    return grammar(item["grammar"]).log_probability(answer)


def next_words(item: Row, prefix: str) -> dict[str, float]:
    """True next-word distribution after the whole words of `prefix`; `<end>` marks the end."""
    return grammar(item["grammar"]).next_words(split(prefix))


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

    def _text(self, facts: Sequence[Fact]) -> str:
        return " ".join(grammar(tell([fact], fact[0])).sample(self.rng) for fact in facts)

    def _extract(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        asked = self.rng.choice(facts)
        text, slots = self._text(facts), {"s": asked[0], "r": asked[1]}
        return self._row("extract", [asked], tell([asked]), text, **slots)

    def _rewrite(self) -> Row:
        facts = self._guest(self.rng.sample(PEOPLE_RELATIONS[:-1], 2))
        return self._row("rewrite", facts, tell(facts), self._text(facts))

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

    def _letter(self) -> Row:
        row = question(self.universe, self.rng, self.rng.choice(list(SUBJECTS)), lambda key: True)
        lines = [f"{name}. {text}" for name, text in zip("ABCD", row["choices"], strict=True)]
        answer = f"<letter={'ABCD'[row['answer']]}>"
        made = self._row("letter", [("text", "letter", "ABCD"[row["answer"]])], answer, " ".join(lines), q=row["question"])
        return made | {"keys": [exam_key(row), *row["about"]]}

    def _short(self) -> Row:
        row = reading(self.rng)
        answer = f"<{row['relation']}={row['answers'][0]}>"
        made = self._row("short", [("text", row["relation"], row["answers"][0])], answer, row["passage"], q=row["question"])
        return made | {"keys": [exam_key(row)]}

    def _solve(self) -> Row:
        row = puzzle(self.rng, self.rng.choice(SUBTASKS))
        answer = f"<answer={row['target']}>"
        made = self._row("solve", [("text", "answer", row["target"])], answer, row["input"])
        return made | {"keys": [exam_key(row)]}

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


def relations(universe: Universe, subject: str) -> tuple[str, ...]:
    """Relations a subject has."""
    if subject in PRONOUN:
        return PEOPLE_RELATIONS
    return TOWN_RELATIONS if subject in universe.towns else ITEM_RELATIONS


def draw(rng: random.Random, relation: str) -> str:
    """A random value of a relation."""
    if relation == "age":
        return str(rng.randint(20, 59))
    return str(5 * rng.randint(1, 12)) if relation == "price" else rng.choice(VALUES[relation])


def other(rng: random.Random, fact: Fact, count: int) -> list[str]:
    """Distinct false values of a fact's relation."""
    found: list[str] = []
    while len(found) < count:
        value = draw(rng, fact[1])
        if value not in (fact[0], fact[2], *found):
            found.append(value)
    return found


def apart(facts: Sequence[Fact]) -> str:
    """Grammar that tells facts of different subjects, each by its name."""
    return " ".join(tell([fact], called(fact[0])) for fact in facts)


def hop(first: Fact, second: Fact) -> str:
    """Grammar that tells a friend's fact and names the friend."""
    name, friend = first[0], f"<friend={second[0]}>"
    lead = f"{{{friend} , {{a|the}} friend of {name} ,|The friend of {name} is {friend} , who}}"
    return f"{lead} {clause(second)} ."


def series(words: Sequence[str], relation: str) -> str:
    """Grammar of a comma series of values in a fixed order."""
    slots = [f"<{relation}={word}>" for word in words]
    return f"{' , '.join(slots[:-1])} {{and*3|,|, then}} {slots[-1]}"


def in_order(words: Sequence[str]) -> list[Fact]:
    """Facts that ask for words in this order."""
    return [("text", str(place), word) for place, word in enumerate(words, 1)]


def listing(words: Sequence[str]) -> str:
    """Grammar that names things in any order, the given one most often."""
    orders = [series(order, "item") for order in list(permutations(words))[:4]]
    lead = "{The {text|list} {has|names}|{I|We} {see|find}|There {is|are}}"
    return f"{lead} {{{orders[0]}*4|{'|'.join(orders[1:])}}} ."


def counting(number: str) -> str:
    """Grammar that says how many."""
    lead = "{There are|{I|We} {count|find}|The {text|list} {has|names}}"
    return f"{lead} {{just|exactly|*3}} <count={number}> {{things*3|words|items}} {{here|*2}} ."


def generate(settings: Row | None = None, seed: int = 1) -> World:
    """The whole world for a seed; `settings` overrides DEFAULTS (ValueError for unknown names)."""
    unknown = sorted(set(settings or {}) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"world: unknown setting {unknown[0]!r}; expected {', '.join(DEFAULTS)}")
    return Builder(DEFAULTS | (settings or {}), seed).world()


class Builder:
    """Draws the evaluation sets first; what they ask is then kept out of everything else."""

    def __init__(self, settings: Row, seed: int) -> None:
        self.settings, self.seed = settings, seed
        sizes = [settings[name] for name in ("people", "towns", "things")]
        self.universe = build(self._rng("universe"), *sizes)
        self.held = self._hold_out(self._rng("held out"))
        self.taken: set[str] = set()

    def _rng(self, part: str) -> random.Random:
        return random.Random(f"{self.seed}/{part}")

    def _hold_out(self, rng: random.Random) -> set[str]:
        groups: dict[str, list[str]] = {}
        for subject, known in self.universe.facts.items():
            for relation in known:
                groups.setdefault(relation, []).append(f"{subject}.{relation}")
        share = self.settings["held_out"]
        drawn = (rng.sample(keys, max(1, round(len(keys) * share))) for keys in groups.values())
        return {key for keys in drawn for key in keys}

    def world(self) -> World:
        """All parts, in an order that keeps evaluation items out of the rest."""
        tasks = {name: self._open_task(name) for name in GENERATION}
        tasks |= {"mmlu": self._mmlu(), "drop": self._drop(), "bbh": self._bbh()}
        train = self._train()
        return World(self._pretrain(), train, tasks, self.universe)

    def _open_task(self, task: str) -> list[Row]:
        maker = Maker(self.universe, self._rng(task), asks=int(task == "koala"))
        rows: list[Row] = []
        asked: set[str] = set()
        for _ in range(TRIES):
            if len(rows) == self.settings["items"]:
                return rows
            row = maker.make(maker.rng.choice(MIX[task]))
            name = f"{row['instruction']} {row['input']}"
            if name in asked or not self._unseen(row):
                continue
            asked.add(name)
            self.taken.update(key for key in row["keys"] if ":" in key)
            rows.append({"id": f"{task}-{len(rows)}"} | row)
        raise ValueError(
            f"world: only {len(rows)} different {task} items; ask for fewer or widen it"
        )

    def _unseen(self, row: Row) -> bool:
        return any(":" in key or key in self.held for key in row["keys"])

    def _free(self, row: Row) -> bool:
        return not any(key in self.held or key in self.taken for key in row["keys"])

    def _items(self, rng: random.Random, skills: Row, asks: int = 0) -> Iterator[Row]:
        maker = Maker(self.universe, rng, asks)
        while True:
            row = maker.make(rng.choices(list(skills), list(skills.values()))[0])
            if self._free(row):
                yield row

    def _train(self) -> list[Row]:
        rows = self._items(self._rng("train"), TRAINED)
        return [{"id": f"train-{i}"} | next(rows) for i in range(self.settings["train"])]

    def _mmlu(self) -> list[Row]:
        rows: list[Row] = []
        for split_name, count, held in (("dev", 5, False), ("test", 0, True)):
            count = count or -(-self.settings["understanding_items"] // len(SUBJECTS))
            for subject in SUBJECTS:
                rng = self._rng(f"mmlu/{split_name}/{subject}")
                rows += self._distinct(
                    lambda r=rng, s=subject, h=held: self._question(r, s, h), count
                )
                for row in rows[-count:]:
                    row["split"] = split_name
        return [{"id": f"mmlu-{i}", "split": row.pop("split")} | row for i, row in enumerate(rows)]

    def _question(self, rng: random.Random, subject: str, held: bool) -> Row:
        row = question(self.universe, rng, subject, lambda key: (key in self.held) == held)
        del row["about"]
        return row

    def _distinct(self, make: Callable[[], Row], count: int) -> list[Row]:
        rows: list[Row] = []
        for _ in range(TRIES):
            if len(rows) == count:
                return rows
            row = make()
            key = exam_key(row)
            if key not in self.taken:
                self.taken.add(key)
                rows.append(row)
        raise ValueError(f"world: only {len(rows)} of {count} exam rows differ; widen it")

    def _drop(self) -> list[Row]:
        rng = self._rng("drop")
        rows = self._distinct(lambda: reading(rng), self.settings["understanding_items"] + 3)
        for row in rows:
            del row["relation"]
        return [{"id": f"drop-{i}"} | row for i, row in enumerate(rows)]

    def _bbh(self) -> list[Row]:
        rows: list[Row] = []
        for task in SUBTASKS:
            rng = self._rng(f"bbh/{task}")
            count = self.settings["subtask_items"] + 3
            rows += self._distinct(lambda r=rng, t=task: puzzle(r, t), count)
        return [{"id": f"bbh-{i}"} | row for i, row in enumerate(rows)]

    def _pretrain(self) -> list[Row]:
        rng = self._rng("pretrain")
        dialogues = [self._items(rng, DIALOGUE, asks) for asks in (0, 1)]
        texts = []
        for _ in range(self.settings["pretrain"]):
            pick = rng.random() - self.settings["exam_share"]
            if pick < 0:
                texts.append(self._exam(rng))
            elif pick < self.settings["dialogue_share"]:
                texts.append(self._dialogue(rng, dialogues))
            else:
                texts.append(self._prose(rng))
        return [{"id": f"pretrain-{i}", "text": text} for i, text in enumerate(texts)]

    def _dialogue(self, rng: random.Random, items: Sequence[Iterator[Row]]) -> str:
        style = int(rng.random() >= self.settings["human_share"])
        row = next(items[rng.randrange(2)])
        ask = f"{row['instruction']} {row['input']}".strip()
        return (
            f"{ask}\n{row['output']}" if style else f"Human:\n{ask}\n\nAssistant:\n{row['output']}"
        )

    def _prose(self, rng: random.Random) -> str:
        facts = self.universe.facts
        subject = rng.choice(list(facts))
        known = list(facts[subject])
        texts = []
        for name in rng.sample(known, len(known)):
            texts.append(grammar(tell([self.universe.fact(subject, name)], starting(called(subject)))).sample(rng))
        return " ".join(texts)

    def _exam(self, rng: random.Random) -> str:
        form = rng.randrange(3)
        if form == 0:
            subject = rng.choice(list(SUBJECTS))
            return mmlu_text(self._fresh(lambda: self._question(rng, subject, False), 3))
        if form == 1:
            return plain_text(self._fresh(lambda: reading(rng), 3))
        task = rng.choice(SUBTASKS)
        return plain_text(self._fresh(lambda: puzzle(rng, task), 4))

    def _fresh(self, make: Callable[[], Row], count: int) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < count:
            row = make()
            if exam_key(row) not in self.taken:
                rows.append(row)
        return rows


SUBJECTS = {
    "work": {"job"}, "homes": {"town"}, "habits": {"food", "pet"}, "places": {"country", "product"},
    "things": {"color", "material"}, "words": set(), "numbers": set(),
}  # fmt: skip
SUBTASKS = ("boolean", "larger", "last_thing", "counting", "kinds")


def exam_key(row: Row) -> str:
    """What an exam row asks, whatever the order of its options."""
    if "choices" in row:
        return f"mmlu:{row['question']}:{','.join(sorted(row['choices']))}"
    return f"exam:{row.get('passage', '')}:{row.get('question', row.get('input'))}"


def question(universe: Universe, rng: random.Random, subject: str, wanted: Callable[[str], bool]) -> Row:
    """A question of an exam subject on a fact whose key is wanted."""
    if subject == "numbers":
        return larger(rng) | {"about": []}
    if subject == "words":
        word = rng.choice(VALUES["opposite"])
        fact, text, about = (word, "opposite", OPPOSITES[word]), f"What is the opposite of {word}?", []
    else:
        names = [
            (key, relation)
            for key in universe.facts
            for relation in sorted(SUBJECTS[subject] & set(universe.facts[key]))
            if wanted(f"{key}.{relation}")
        ]
        key, relation = rng.choice(names)
        fact, about = universe.fact(key, relation), [f"{key}.{relation}"]
        text = f"What is the {fact[1]} of {called(fact[0])}?"
    choices = [fact[2], *other(rng, fact, 3)]
    rng.shuffle(choices)
    row = {"subject": subject, "question": text, "choices": choices}
    return row | {"answer": choices.index(fact[2]), "about": about}


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
    passage = " ".join(grammar(tell([fact], fact[0])).sample(rng) for fact in facts)
    asked = rng.choice(facts)
    question = f"What is the {shared} of {asked[0]}?"
    return {"passage": passage, "question": question, "answers": [asked[2]], "relation": shared}


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
        name = rng.choice(("pet", "food", "color", "job"))
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


def grade(item: Row, answer: str) -> Grade:
    """Judges any text against the facts an open-ended item asks for, whatever its wording."""
    facts = [tuple(fact) for fact in item["facts"]]
    said = mentions(facts, split(answer.lower()))
    found: dict[str, list[Fact]] = {"right": [], "wrong": [], "omitted": []}
    for fact in facts:
        found[verdict(fact, facts, said)].append(fact)
    parts = {name: tuple(rows) for name, rows in found.items()}
    return Grade(**parts, well_formed=grammar(item["grammar"]).accepts(answer))


def mentions(facts: Sequence[Fact], words: Sequence[str]) -> list[tuple[str, str, str]]:
    """(word, subject it is said of, next word) for every word not negated, in order."""
    subjects = {split(fact[0].lower())[-1]: fact[0] for fact in facts}
    current, found = facts[0][0] if facts else "", []
    for place, word in enumerate(words):
        if (
            "not"
            in words[max(0, place - (2 if words[place - 1] in ("a", "the", "in") else 1)) : place]
        ):
            continue
        found.append((word, current, words[place + 1] if place + 1 < len(words) else ""))
        current = subjects.get(word, current)
    return found


def verdict(fact: Fact, facts: Sequence[Fact], said: Sequence[tuple[str, str, str]]) -> str:
    """right, wrong or omitted, for one required fact."""
    subject, relation, value = fact
    if relation == "older":
        return judge_older(fact, said)
    if relation.isdigit():
        return judge_place(fact, facts, said)
    shared = len({row[0] for row in facts if row[1] == relation}) > 1
    words = kind(relation)
    values = [w for w, who, after in said if w in words and (who == subject or not shared)]
    if relation == "friend":
        values = [word for word in values if word != subject.lower()]
    if relation == "item":
        needed = {row[2] for row in facts if row[1] == "item"}
        spare = len({word for word in values if word not in needed})
        missing = sorted(needed - set(values))
        if value in values:
            return "right"
        return "wrong" if missing.index(value) < spare else "omitted"
    if not values:
        return "omitted"
    return "right" if {plain(word) for word in values} == {plain(value)} else "wrong"


def judge_older(fact: Fact, said: Sequence[tuple[str, str, str]]) -> str:
    """The first name is the older one, unless `younger` is said of it."""
    words = [word for word, _, _ in said]
    names = [place for place, word in enumerate(words) if word in kind("older")]
    if not names or not {"older", "younger"} & set(words):
        return "omitted"
    swapped = "younger" in words and "older" not in words[: words.index("younger")]
    first = words[names[0]] == fact[2].lower()
    return "right" if first != swapped else "wrong"


def judge_place(fact: Fact, facts: Sequence[Fact], said: Sequence[tuple[str, str, str]]) -> str:
    """Whether the n-th value said of a series is the n-th required."""
    words = kind("number" if fact[2].isdigit() else "item")
    values = [word for word, _, _ in said if word in words]
    place = int(fact[1]) - 1
    if place >= len(values):
        return "omitted"
    return "right" if plain(values[place]) == plain(fact[2]) else "wrong"


def plain(word: str) -> str:
    """A value in lower case, number words as digits."""
    word = word.lower()
    return str(NUMBER_WORDS.index(word)) if word in NUMBER_WORDS else word
