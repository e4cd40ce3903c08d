"""A small seeded universe, the wordings of its facts, and weighted grammars of answers.

A grammar is written as text: words, `{this*3|that|}` for a weighted choice (an empty alternative
says nothing), `<job=baker>` for a word that carries a value. It becomes an automaton over words,
so probabilities are exact even where two choices lead to one text.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

END = "<end>"
Fact = tuple[str, str, str]
Arc = tuple[float, str, str, int]

SHE = [
    "Mia",
    "Ana",
    "Eva",
    "Lisa",
    "Rosa",
    "Emma",
    "Nora",
    "Clara",
    "Sara",
    "Julia",
    "Ella",
    "Ida",
    "Lucy",
    "Maria",
    "Anna",
    "Kate",
]
HE = [
    "Tom",
    "Ben",
    "Max",
    "Paul",
    "Leo",
    "Karl",
    "Hugo",
    "Jack",
    "Adam",
    "Finn",
    "Oscar",
    "Peter",
    "Noah",
    "Luke",
    "Ivan",
    "Mark",
]
GUESTS = {"Jane": "she", "Ruth": "she", "Vera": "she", "Bill": "he", "Fred": "he", "Dan": "he"}
PRONOUN = dict.fromkeys(SHE, "she") | dict.fromkeys(HE, "he") | GUESTS
NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
VALUES: dict[str, list[str]] = {
    "job": [
        "baker",
        "teacher",
        "doctor",
        "farmer",
        "singer",
        "writer",
        "driver",
        "cook",
        "painter",
        "guard",
    ],
    "town": ["Rome", "Paris", "Oslo", "Bern", "Lima", "Cairo", "Delhi", "Tokyo"],
    "pet": ["dog", "cat", "horse", "bird", "fish", "rabbit", "mouse", "goat"],
    "food": ["bread", "rice", "soup", "cake", "fruit", "cheese", "honey", "salad"],
    "hobby": ["chess", "music", "tennis", "dancing", "reading", "swimming", "hiking", "sailing"],
    "friend": SHE + HE + list(GUESTS),
    "country": ["Northland", "Southland", "Eastland", "Westland"],
    "river": ["Dora", "Elbe", "Nile", "Tara", "Volga", "Wisla", "Loire", "Tiber"],
    "product": ["silk", "wine", "salt", "wool", "glass", "paper", "steel", "corn"],
    "color": ["red", "blue", "green", "white", "black", "yellow"],
    "material": ["wood", "stone", "iron", "gold", "clay", "cotton"],
    "verdict": ["yes", "no"],
    "older": SHE + HE + list(GUESTS),
    "item": ["lamp", "cup", "bell", "chair", "table", "box", "clock", "ring", "book", "coat"],
    "opposite": [],
}
OPPOSITES = {
    "hot": "cold", "tall": "short", "early": "late", "rich": "poor", "light": "heavy",
    "wet": "dry", "clean": "dirty", "open": "closed", "full": "empty", "strong": "weak",
    "fast": "slow", "near": "distant", "soft": "hard", "loud": "silent", "first": "last",
    "happy": "sad",
}  # fmt: skip
OPPOSITES |= {right: left for left, right in OPPOSITES.items()}
VALUES["opposite"] = list(OPPOSITES)
NUMERIC = ("age", "price", "count", "number")
PEOPLE_RELATIONS = ("job", "town", "age", "pet", "food", "hobby", "friend")
TOWN_RELATIONS = ("country", "river", "product")
ITEM_RELATIONS = ("color", "material", "price")

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


def parse(text: str) -> list:
    """A grammar's text as nested lists: words, (relation, value) slots, weighted alternatives."""
    stack: list[list] = [[[1, []]]]
    for token in re.findall(r"[{}|]|\*\d+|<\w+=[^>]*>|\w+|[^\w\s]", text):
        if token == "{":
            stack.append([[1, []]])
        elif token == "|":
            stack[-1].append([1, []])
        elif token == "}":
            done = stack.pop()
            stack[-1][-1][1].append(done)
        elif token[0] == "*" and len(token) > 1:
            stack[-1][-1][0] = int(token[1:])
        elif token[0] == "<" and len(token) > 1:
            stack[-1][-1][1].append(tuple(token[1:-1].split("=")))
        else:
            stack[-1][-1][1].append(("", token))
    return stack[0][0][1]


class Grammar:
    """A distribution over texts, as an acyclic automaton over words and punctuation marks."""

    def __init__(self, text: str) -> None:
        self.arcs: list[list[Arc]] = [[(1.0, END, "", 0)]]
        self.start = self._build(parse(text), 0)

    def _build(self, sequence: list, state: int) -> int:
        for node in reversed(sequence):
            if isinstance(node, tuple):
                heads = [(1.0, node[1], node[0], state)]
            else:
                heads = list(self._choice(node, state))
            self.arcs.append(heads)
            state = len(self.arcs) - 1
        return state

    def _choice(self, options: list, state: int) -> Iterator[Arc]:
        total = sum(weight for weight, _ in options)
        for weight, sequence in options:
            for share, word, relation, target in self.arcs[self._build(sequence, state)]:
                yield weight / total * share, word, relation, target

    def sample(self, rng: random.Random) -> str:
        """One text, drawn from the distribution."""
        state, words = self.start, []
        while True:
            arcs = self.arcs[state]
            _, word, _, state = rng.choices(arcs, [arc[0] for arc in arcs])[0]
            if word == END:
                return join(words)
            words.append(word)

    def reach(self, words: Sequence[str], free: bool = False) -> dict[int, float]:
        """States after `words` with their joint probability; `free` lets values differ in kind."""
        states = {self.start: 1.0}
        for word in words:
            after: dict[int, float] = {}
            for state, mass in states.items():
                for share, label, relation, target in self.arcs[state]:
                    same = word.lower() in kind(relation) if free and relation else word == label
                    if same and label != END:
                        after[target] = after.get(target, 0.0) + mass * share
            states = after
        return states

    def next_words(self, words: Sequence[str]) -> dict[str, float]:
        """True distribution of the next word after `words`; empty if they are not a beginning."""
        states = self.reach(words)
        total = sum(states.values())
        found: dict[str, float] = {}
        for state, mass in states.items():
            for share, word, _, _ in self.arcs[state]:
                found[word] = found.get(word, 0.0) + mass * share / total
        return found

    def log_probability(self, text: str) -> float:
        """Natural log of the probability of exactly this text; -inf outside the grammar."""
        words = split(text)
        ends = self.reach(words)
        mass = sum(p * arc[0] for s, p in ends.items() for arc in self.arcs[s] if arc[1] == END)
        return math.log(mass) if mass > 0 and join(words) == text else -math.inf

    def accepts(self, text: str) -> bool:
        """Whether some choice of values of the same kinds gives this text, spaces apart."""
        ends = self.reach(split(text), free=True)
        return any(arc[1] == END for state in ends for arc in self.arcs[state])


@lru_cache(maxsize=4096)
def grammar(text: str) -> Grammar:
    """The compiled grammar of a text."""
    return Grammar(text)


@lru_cache(maxsize=64)
def kind(relation: str) -> frozenset[str]:
    """Lower-case words that may stand as a value of `relation`."""
    if relation in NUMERIC:
        return frozenset([*map(str, range(1000)), *NUMBER_WORDS])
    return frozenset(value.lower() for value in VALUES[relation])


def split(text: str) -> list[str]:
    """Words and punctuation marks of a text."""
    return re.findall(r"\w+|[^\w\s]", text)


def join(words: Sequence[str]) -> str:
    """Text of words and punctuation marks, the inverse of `split` for grammatical text."""
    return re.sub(r" ([.,:;?!])", r"\1", " ".join(words))


@dataclass(frozen=True)
class Universe:
    """Everything true: subject -> relation -> value; `people`, `towns` and `things` in order."""

    facts: dict[str, dict[str, str]]
    people: tuple[str, ...]
    towns: tuple[str, ...]
    things: tuple[str, ...]

    def fact(self, subject: str, relation: str) -> Fact:
        """The fact that answers `relation` of `subject`."""
        return subject, relation, self.facts[subject][relation]


def build(rng: random.Random, people: int, towns: int, things: int) -> Universe:
    """Draws who is who; ages are 20 to 59, prices 5 to 60 coins in fives."""
    names = rng.sample(SHE + HE, people)
    places, items = VALUES["town"][:towns], VALUES["item"][:things]
    facts = {name: person(rng, name, names, places) for name in names}
    for relation in TOWN_RELATIONS[1:]:
        for place, value in zip(places, rng.sample(VALUES[relation], towns), strict=True):
            facts.setdefault(place, {})[relation] = value
    for place in places:
        facts[place]["country"] = rng.choice(VALUES["country"])
    for item in items:
        facts[item] = {name: rng.choice(VALUES[name]) for name in ITEM_RELATIONS[:2]}
        facts[item]["price"] = str(5 * rng.randint(1, 12))
    return Universe(facts, tuple(names), tuple(places), tuple(items))


def person(
    rng: random.Random, name: str, names: Sequence[str], towns: Sequence[str]
) -> dict[str, str]:
    """Random attributes of a person; the friend is another of `names`."""
    found = {key: rng.choice(VALUES[key]) for key in ("job", "pet", "food", "hobby")}
    found |= {"town": rng.choice(towns), "age": str(rng.randint(20, 59))}
    return found | {"friend": rng.choice([other for other in names if other != name])}


def pronoun(subject: str) -> str:
    """she, he, or it for towns and things."""
    return PRONOUN.get(subject, "it")


def called(subject: str) -> str:
    """How a text names a subject in the middle of a sentence."""
    return f"the {subject}" if subject in VALUES["item"] else subject


def starting(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def clause(fact: Fact) -> str:
    """Grammar of the verb phrase that states a fact."""
    _, relation, value = fact
    return CLAUSES[relation].replace("$", f"<{relation}={value}>")


def tell(facts: Sequence[Fact], lead: str = "") -> str:
    """Grammar of sentences stating one subject's facts; the first order is the likeliest."""
    subject = facts[0][0]
    name, short = called(subject), pronoun(subject)
    lead = lead or f"{{{starting(name)}*3|{starting(short)}}}"
    link = f"{{and*2|. {{{starting(short)}*3|{starting(name)}}}|, and {short}}}"
    orders = [list(facts), *([list(facts)[::-1]] if len(facts) > 1 else [])]
    texts = [f" {link} ".join(clause(fact) for fact in order) for order in orders]
    return f"{lead} {{{texts[0]}*4|{'|'.join(texts[1:])}}} ." if len(texts) > 1 else (
        f"{lead} {texts[0]} ."
    )  # fmt: skip
