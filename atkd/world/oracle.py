"""The world's true next-token distributions: what a perfect model of its answers would predict.

A grammar is an automaton over words. The world's tokenizers never join words into one token, so
each arc becomes the ids of its word (with the blank before it) and the automaton one over ids: the
mass of every state after a prefix is exact, however many wordings there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atkd.world.grammar import END, Grammar

Encode = Callable[[str], Sequence[int]]
States = dict[tuple[int, tuple[int, ...]], float]  # (state, ids of its word still to come) -> mass
ATTACHED = ".,:;?!"  # marks that no blank precedes, as in grammar.join


def next_tokens(grammar: Grammar, ids: Sequence[int], encode: Encode, eos: int) -> list[dict]:
    """True distribution {id: probability} at every position of a response's `ids`.

    `encode` gives a text's ids without BOS or EOS. Empty if the tokenizer joins or splits words
    otherwise, or the response is not one of the grammar's: some id is then impossible there.
    """
    found = []
    states: States = {(grammar.start, ()): 1.0}
    for place, wanted in enumerate(ids):
        states = _begin_words(grammar, states, encode, eos, first=place == 0)
        total = sum(states.values())
        chances: dict[int, float] = {}
        for (_, rest), mass in states.items():
            chances[rest[0]] = chances.get(rest[0], 0.0) + mass / total
        found.append(chances)
        if wanted not in chances:
            return []
        states = {(at, rest[1:]): mass for (at, rest), mass in states.items() if rest[0] == wanted}
    return found


def _begin_words(grammar: Grammar, states: States, encode: Encode, eos: int, first: bool) -> States:
    """States between words replaced by those inside each word that may follow."""
    found: States = {}
    for (at, rest), mass in states.items():
        if rest:
            found[at, rest] = found.get((at, rest), 0.0) + mass
            continue
        for share, word, _, target in grammar.arcs[at]:
            lead = "" if first or word[0] in ATTACHED else " "
            ids = (eos,) if word == END else tuple(encode(lead + word))
            found[target, ids] = found.get((target, ids), 0.0) + mass * share
    return found
