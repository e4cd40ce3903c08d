"""How answers and passages word facts: grammars of clauses, sentences, series and lists."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice, permutations

from atkd.world.grammar import grammar
from atkd.world.universe import Fact, called, pronoun, starting

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
    return CLAUSES[fact.relation].replace("$", value(fact))


def value(fact: Fact) -> str:
    """Grammar of a fact's value alone."""
    return f"<{fact.relation}={fact.value}>"


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


def both(facts: Sequence[Fact]) -> str:
    """Grammar that tells facts of different subjects in one sentence."""
    first, *others = (f"{called(fact.subject)} {clause(fact)}" for fact in facts)
    return " ".join([starting(first), *(f"{{and*2|, but|while}} {other}" for other in others)])


COMPARISON = "comparison"  # whom a fact is of that says who is older


def named(relation: str, name: str) -> str:
    """Grammar that says who is older, or the oldest, once the reasons are told."""
    article = "{the|*2}" if relation == "older" else "the"
    said = f"<{relation}={name}>"
    after = f"the {relation} is {said}"
    return f"{{{said} is {{clearly|*2}} {article} {relation}*2|{after}}}"


def through(first: Fact, second: Fact) -> str:
    """Grammar that tells a friend's fact and names the friend."""
    name, friend = first.subject, value(first)
    lead = f"{{{friend} , {{a|the}} friend of {name} ,|The friend of {name} is {friend} , who}}"
    return f"{lead} {clause(second)} ."


def series(words: Sequence[str], relation: str) -> str:
    """Grammar of a comma series of values in a fixed order."""
    slots = [f"<{relation}={word}>" for word in words]
    if len(slots) == 1:
        return slots[0]
    return f"{' , '.join(slots[:-1])} {{and*3|,|, then}} {slots[-1]}"


def any_order(words: Sequence[str], relation: str) -> str:
    """Grammar of a series in any order, the given one most often."""
    first, *others = (series(order, relation) for order in islice(permutations(words), 4))
    return f"{{{'|'.join([f'{first}*4', *others])}}}"


def listing(words: Sequence[str]) -> str:
    """Grammar that names things in any order, the given one most often."""
    lead = "{The {text|list} {has|names}|{I|We} {see|find}|There {is|are}}"
    return f"{lead} {any_order(words, 'item')} ."


def counting(number: str) -> str:
    """Grammar that says how many."""
    lead = "{There are|{I|We} {count|find}|The {text|list} {has|names}}"
    return f"{lead} {{just|exactly|*3}} <count={number}> {{things*3|words|items}} {{here|*2}} ."


def ordered(words: Sequence[str], relation: str) -> str:
    """Grammar that names words in the one order that is right."""
    lead = "{The {right|new|*2} order is|In order|Sorted, they are|{They|These} are now}"
    return f"{lead} {series(words, relation)} ."


def in_order(words: Sequence[str]) -> list[Fact]:
    """Facts that ask for words in this order."""
    return [Fact("text", str(place), word) for place, word in enumerate(words, 1)]


def listed(words: Sequence[str], relation: str = "item") -> list[Fact]:
    """Facts that ask for words in any order."""
    return [Fact("text", relation, word) for word in words]
