"""How requests are asked, and the grammars that tell facts, series and counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

from atkd.world.grammar import grammar
from atkd.world.universe import Fact, called, pronoun, starting

# Skill -> (requests of training and most tasks, paraphrases).
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
    "then": (["Name the {r} of {s}, then the {q} of {t}."], []),
    "then_friend": (["Name the friend of {s}, then the {q} of the friend."], []),
    "then_count": (["List the things, then count them."], []),
    "gift": (["Choose a good gift for {s}."], []),
    "meet": (["Where can a guest see {s}, and where {t}?"], []),
    "reverse": (["Write the words from last to first."], []),
}  # fmt: skip
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


def passage(facts: Sequence[Fact], rng: random.Random) -> str:
    """A text drawn from the wordings of facts, a sentence each, every subject by its name."""
    leads = [starting(called(fact[0])) for fact in facts]
    texts = [tell([fact], lead) for fact, lead in zip(facts, leads, strict=True)]
    return " ".join(grammar(text).sample(rng) for text in texts)


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
