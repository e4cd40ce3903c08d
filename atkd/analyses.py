"""The analyses beside the main grid, a row each: what they ask, and the models trained for them.

A study trains students of its own: methods under settings of their own, at some of the grid's
pairs. A probe looks at models or answers that are there and writes `analyses/<name>.csv`. A run has
those that its configuration names; probes can be asked for by name too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from atkd.methods import BASELINES, title_of

Teachers = Literal["ends", "largest", "larger"]
Arms = Mapping[str, Mapping[str, str]]
KD, ATKD = "supervised_kd", "supervised_kd_atkd"


@dataclass(frozen=True)
class Analysis:
    """One row.

    `asks`: the question, in plain words. `arms`: what a study trains, group -> label -> method;
    empty for a probe. `axis`: what labels are numbers of, empty where they are words; `paper`: the
    label that is the paper's choice. `against`: the method that all are held against. `teachers`:
    which of a student's teachers they are trained with: the smallest and the largest, the largest,
    or all but the smallest. `families`: with how many of the grid's families, in their order; 0 is
    all.
    """

    title: str
    asks: str
    arms: Arms = field(default_factory=dict)
    axis: str = ""
    paper: str = ""
    against: str = KD
    teachers: Teachers = "largest"
    families: int = 0
    looks_at: Sequence[str] = ()

    @property
    def methods(self) -> list[str]:
        """All that is trained, each once, what it is held against first; nothing of a probe."""
        found = [method for arm in self.arms.values() for method in arm.values()]
        return list(dict.fromkeys([self.against, *found])) if found else []


def values(method: str, setting: str, others: Iterable[object], own: object) -> dict[str, str]:
    """A method under values of a setting, in order, by value; `own` is what it has as it is."""
    named = {str(each): f"{method}+{setting}={each}" for each in others} | {str(own): method}
    return dict(sorted(named.items(), key=lambda item: float(item[0])))


def on(method: str, tokens: str) -> str:
    """A method on easy or hard tokens alone."""
    return f"{method}+tokens={tokens}"


SHARES = (0.1, 0.3, 0.7, 0.9)  # beside the paper's k = 0.5
WEIGHTS = (0, 0.4, 0.6, 0.9)  # beside the paper's lambda = 0.2
FACTORS = (0.5, 2)  # of the learning rate
LENGTHS = (0.25, 0.5, 2)  # of training
TEMPERATURES = (2, 4)
# The two terms of the loss, alone and together; the forward KL is TKD + UNC x DKD.
TKD = "dkd+target_weight=1+diversity_weight=0"
DKD = "dkd+target_weight=0"
BOTH = "dkd+target_weight=1"
SUPPRESSED = "dkd+target_weight=0+suppressed=true"
HARDEST = {
    f"hardest {share:.0%}": f"{on(KD, 'hard')}+hard_fraction={share}" for share in (0.25, 0.5, 0.75)
}
EASIEST = {
    f"easiest {1 - share:.0%}": f"{on(KD, 'easy')}+hard_fraction={share}"
    for share in (0.25, 0.5, 0.75)
}
RATED: Sequence[str] = ("sft", *BASELINES, *(f"{base}_atkd" for base in BASELINES), "dkd")
SOFTENED = (KD, "reverse_kd", "dkd", ATKD)

LANDSCAPES = (KD, ATKD)  # the methods whose students are looked at side by side

ANALYSES: dict[str, Analysis] = {
    "token_study": Analysis(
        "Tokens and terms",
        "Which tokens teach, and which part of the loss: the forward KL on easy or hard tokens "
        "alone; TKD, DKD and both, with and without DKD's factor; other splits than ATKD's.",
        {
            "KD on the": HARDEST | EASIEST,
            "Terms": {"TKD": TKD, "DKD": DKD, "TKD + DKD": BOTH, "UNC x DKD": SUPPRESSED},
            "Easy half": {"DKD": on(DKD, "easy"), "TKD + DKD": on(BOTH, "easy")},
            "Hard half": {"DKD": on(DKD, "hard"), "TKD + DKD": on(BOTH, "hard")},
            "ATKD's split": {
                "by uncertainty": ATKD,
                "at random": f"{ATKD}+split=random",
                "inverse": f"{ATKD}+split=inverse",
            },
        },
        teachers="ends",
        families=1,
    ),
    "hard_fraction_sweep": Analysis(
        "The share of hard tokens",
        "How ATKD depends on k, the share of tokens that are hard.",
        {"": values(ATKD, "hard_fraction", SHARES, 0.5)},
        axis="k",
        paper="0.5",
    ),
    "easy_weight_sweep": Analysis(
        "The weight of easy tokens",
        "How ATKD depends on lambda, the weight of the easy tokens' mean.",
        {"": values(ATKD, "easy_weight", WEIGHTS, 0.2)},
        axis="lambda",
        paper="0.2",
    ),
    "remedies": Analysis(
        "Remedies for the gap",
        "What helps a student of a much larger teacher: a teacher that stopped early, an assistant "
        "between the two, Decoupled KD, ATKD.",
        {
            "": {
                "early-stopped teacher": f"{KD}+teacher=early",
                "teacher assistant": f"{KD}+teacher=assistant",
                "Decoupled KD": "dkd",
                "ATKD": ATKD,
            }
        },
        teachers="larger",
    ),
    "learning_rates": Analysis(
        "Learning rates",
        "Whether the order of methods holds at other learning rates, each having as many.",
        {title_of(method): values(method, "rate_factor", FACTORS, 1) for method in RATED},
        axis="learning rate (x the configured one)",
        families=1,
    ),
    "lengths": Analysis(
        "Lengths of training",
        "How scores grow with the tokens that a student is trained on.",
        {
            title_of(method): values(method, "steps_factor", LENGTHS, 1)
            for method in ("sft", KD, ATKD)
        },
        axis="steps (x the configured ones)",
        families=1,
    ),
    "temperatures": Analysis(
        "Temperatures",
        "What a temperature of the loss does, times its square.",
        {
            title_of(method): {"1": method}
            | {str(t): f"{method}+temperature={t}+t_squared=true" for t in TEMPERATURES}
            for method in SOFTENED
        },
        axis="temperature",
        paper="1",
        families=1,
    ),
    "scopes": Analysis(
        "Scope of the split",
        "Whether it matters over which tokens uncertainty is ranked.",
        {
            "ATKD ranked over": {
                "the step": ATKD,
                "each sample": f"{ATKD}+scope=sample",
                "all training tokens": f"{ATKD}+scope=corpus",
            }
        },
        families=1,
    ),
    "starts": Analysis(
        "Students that were fine-tuned first",
        "Whether ATKD helps as much where students are fine-tuned before they are distilled.",
        {
            "From SFT": {
                "Supervised KD": f"{KD}+start=sft",
                "Supervised KD + ATKD": f"{ATKD}+start=sft",
            },
            "From the base": {"Supervised KD + ATKD": ATKD},
        },
        families=1,
    ),
    "uncertainty": Analysis(
        "Uncertainty",
        "How certain teachers are of each token, by size, and what students know of those tokens.",
    ),
    "landscape": Analysis(
        "Loss landscape",
        "Whether ATKD ends in flatter minima: the loss around the weights of students of the "
        "largest teacher.",
        looks_at=LANDSCAPES,
    ),
    "explorer": Analysis(
        "Token explorer",
        "What models say at every token of some texts, for a reader to look into.",
        looks_at=LANDSCAPES,
    ),
    "diversity": Analysis("Diversity", "How alike a model's answers are."),
    "curves": Analysis("Training curves", "Whether the loss had flattened when training ended."),
    "fidelity": Analysis(
        "Fidelity", "How close models are to their teachers and, in the world, to the truth."
    ),
    "crosscheck": Analysis("Crosscheck", "Whether lm-eval's own MMLU agrees."),
}


def is_study(name: str) -> bool:
    """Whether models are trained for an analysis."""
    return bool(ANALYSES[name].arms)


def teachers_in(which: Teachers, by_size: Sequence[str]) -> list[str]:
    """Those of a student's teachers, smallest first, that a study is about."""
    ends = [*dict.fromkeys((by_size[0], by_size[-1]))]
    return {"ends": ends, "largest": ends[-1:], "larger": list(by_size[1:])}[which]
