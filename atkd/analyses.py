"""The analyses beside the main grid, a row each: what they ask, and the models trained for them.

A study trains students of its own: methods under settings of their own, at some of the grid's
pairs. A probe looks at models that are there. A run has those that its configuration names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from atkd.methods import BASELINES

Teachers = Literal["all", "ends", "largest", "larger"]


@dataclass(frozen=True)
class Analysis:
    """One row.

    `asks`: the question, in plain words. `methods`: what a study trains, those of the main grid
    that it compares with among them; none of a probe. `teachers`: which of a student's teachers
    they are trained with: all, the smallest and the largest, the largest, or all but the smallest.
    `families`: with how many of the grid's families, in their order; 0 is all. `probe`: whether it
    looks at models.
    """

    title: str
    asks: str
    methods: Sequence[str] = ()
    teachers: Teachers = "largest"
    families: int = 0
    probe: bool = False


def varied(method: str, **values: Sequence[object]) -> tuple[str, ...]:
    """A method, and the same under each value of a setting."""
    return (
        method,
        *(f"{method}+{name}={value}" for name, all_ in values.items() for value in all_),
    )


def on(method: str, tokens: str) -> str:
    """A method on easy or hard tokens alone."""
    return f"{method}+tokens={tokens}"


SHARES = (0.1, 0.3, 0.7, 0.9)  # beside the paper's k = 0.5
WEIGHTS = (0, 0.4, 0.6, 0.9)  # beside the paper's lambda = 0.2
RATES = (0.0005, 0.002)
TEMPERATURES = (2, 4)
# The two terms of the loss, alone and together; the forward KL is TKD + UNC x DKD.
TKD = "dkd+target_weight=1+diversity_weight=0"
DKD = "dkd+target_weight=0"
BOTH = "dkd+target_weight=1"
SUPPRESSED = "dkd+target_weight=0+suppressed=true"
SUBSETS = tuple(
    f"supervised_kd+tokens={tokens}+hard_fraction={share}"
    for tokens, shares in (("hard", (0.25, 0.5, 0.75)), ("easy", (0.75, 0.5, 0.25)))
    for share in shares
)
HALVES = tuple(on(terms, tokens) for tokens in ("easy", "hard") for terms in (DKD, BOTH))
SPLITS = varied("supervised_kd_atkd", split=("random", "inverse"))
PAIRED = ("supervised_kd", "supervised_kd_atkd")

ANALYSES: dict[str, Analysis] = {
    "token_study": Analysis(
        "Tokens and terms",
        "Which tokens teach, and which part of the loss: the forward KL on easy or hard tokens "
        "alone; TKD, DKD and both; DKD with and without its factor; random and inverse splits.",
        ("sft", "supervised_kd", TKD, DKD, BOTH, SUPPRESSED, *SUBSETS, *HALVES, *SPLITS),
        teachers="ends",
        families=1,
    ),
    "hard_fraction_sweep": Analysis(
        "The share of hard tokens k",
        "How ATKD depends on k; the paper's is 0.5.",
        ("supervised_kd", *varied("supervised_kd_atkd", hard_fraction=SHARES)),
    ),
    "easy_weight_sweep": Analysis(
        "The weight of easy tokens lambda",
        "How ATKD depends on lambda; the paper's is 0.2.",
        ("supervised_kd", *varied("supervised_kd_atkd", easy_weight=WEIGHTS)),
    ),
    "remedies": Analysis(
        "Remedies for the gap",
        "What else helps a student of a much larger teacher: a teacher that stopped early, an "
        "assistant between the two, Decoupled KD.",
        (*PAIRED, "dkd", "supervised_kd+teacher=early", "supervised_kd+teacher=assistant"),
        teachers="larger",
    ),
    "learning_rates": Analysis(
        "Learning rates",
        "Whether the order of methods holds at other learning rates, each method having as many.",
        tuple(
            name
            for method in ("sft", *BASELINES, *(f"{base}_atkd" for base in BASELINES), "dkd")
            for name in varied(method, learning_rate=RATES)
        ),
        families=1,
    ),
    "temperatures": Analysis(
        "Temperatures",
        "What a temperature of the loss does, times its square.",
        tuple(
            name
            for method in ("supervised_kd", "reverse_kd", "dkd", "supervised_kd_atkd")
            for name in (
                method,
                *(f"{method}+temperature={t}+t_squared=true" for t in TEMPERATURES),
            )
        ),
        families=1,
    ),
    "scopes": Analysis(
        "Scope of the split",
        "Whether it matters over which tokens the uncertainty is ranked.",
        ("supervised_kd", *varied("supervised_kd_atkd", scope=("sample", "corpus"))),
        families=1,
    ),
    "starts": Analysis(
        "Students that were fine-tuned first",
        "Whether methods rank alike from a fine-tuned student, as GKD starts, and from the base.",
        tuple(name for method in PAIRED for name in varied(method, start=("sft",))),
        families=1,
    ),
}


def is_study(name: str) -> bool:
    """Whether models are trained for an analysis."""
    return bool(ANALYSES[name].methods)


def teachers_in(which: Teachers, by_size: Sequence[str]) -> list[str]:
    """Those of a student's teachers, smallest first, that a study is about."""
    ends = [*dict.fromkeys((by_size[0], by_size[-1]))]
    found = {
        "all": list(by_size),
        "ends": ends,
        "largest": ends[-1:],
        "larger": list(by_size[1:]),
    }
    return found[which]
