"""What the paper claims, a row each, and the rule that decides it.

A claim's statistic, threshold, rule and family of tests are fixed before the runs that decide it.
`decisions` turns a run's scores, or the estimates of an analysis, into verdicts; `claims_page`
writes the rows for people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from atkd.analyses import ATKD, BOTH, DKD, KD, SHARES, TKD, WEIGHTS, on
from atkd.methods import BASELINES, title_of
from atkd.models.families import family_title
from atkd.statistics.contrasts import (
    PAPER,
    Compare,
    by_baseline,
    by_cell,
    by_family,
    by_pair,
    gain,
    growth_of,
    less,
    less_each,
    less_more,
    over_dkd,
    pairs,
    repair,
)
from atkd.statistics.estimates import RunRecord
from atkd.tasks import AVERAGES

Rule = Literal["one", "every", "some"]
AVERAGE = "average score over the eight tasks"
SEEDS = "seed, crossed with the tasks' documents"


class Threshold(NamedTuple):
    """The smallest difference that matters, its unit, and why it is that one."""

    value: float
    unit: str
    why: str


class Need(NamedTuple):
    """What a claim is computed from; `met`: whether a run's scores hold it."""

    about: str
    met: Callable[[RunRecord], bool]


@dataclass(frozen=True)
class Claim:
    """One row.

    `says`: the claim in plain words. `where`: its place in the paper. `statistic`: the difference
    that is computed. `higher`: whether the claim is that it is positive (else negative), above or
    below `offset`. `rule`: over how many comparisons it must hold, a row of `RULES`. `tests`: the
    family of tests over which p-values are corrected, a row of `CORRECTIONS`. `needs`: a row of
    `NEEDS`. `measure`, `resampled`: what is scored, and what would differ in another run.
    `metric`, `tasks`: the same for a claim made of scores; `compare`: its comparisons, None where
    an analysis supplies estimates. `labels`: of its comparisons, where they do not follow from the
    run's pairs. `families`: of models, all of them
    needed; `teachers`: how many of each at least.
    """

    title: str
    says: str
    where: str
    statistic: str
    tests: str
    threshold: Threshold
    needs: str = "grid"
    rule: Rule = "one"
    higher: bool = True
    offset: float = 0.0
    measure: str = AVERAGE
    resampled: str = SEEDS
    metric: str = "score"
    tasks: Sequence[str] = AVERAGES["average"]
    compare: Compare | None = None
    labels: Sequence[str] = ("",)
    families: Sequence[str] = PAPER
    teachers: int = 1

    @property
    def equivalence(self) -> bool:
        """Whether "no difference that matters" is a verdict on it."""
        return self.rule != "some"


MANY = Threshold(
    0.5,
    "points",
    "A mean over five comparisons or more. A sixth of the largest gain that the paper reports "
    "(3.04), and about twice what chance leaves: in the development world the difference between "
    "Supervised KD at two learning rates, mean over seven pairs, has a standard deviation of 0.4 "
    "to 0.6 points over seeds, which is 0.2 to 0.3 for the mean of five.",
)
FEW = Threshold(
    1.0,
    "points",
    "A mean over fewer than five comparisons: the same difference at one pair has a standard "
    "deviation of 1.4 points, which is 0.6 for the mean of five seeds.",
)
PROBABILITY = Threshold(
    1.0,
    "percentage points of probability",
    "Rounding a teacher to bfloat16 moves log-probabilities by up to 0.01, which is up to one "
    "percent of a probability.",
)
CORRELATION = Threshold(
    0.1, "rank correlation", "The least that is conventionally called a small one (Cohen 1988)."
)
LOG_RATIO = Threshold(
    0.1, "natural logarithm of a ratio", "A tenth more or less; a plot shows no less than that."
)
DISTINCT = Threshold(1.0, "percent of word pairs", "One new word pair in a hundred.")

RULES: dict[str, str] = {
    "one": ("A single comparison. Its p-value is two-sided, its direction that of the estimate."),
    "every": (
        '"Every", and "best" (better than every competitor, so that none has to be picked from '
        "the data first). Intersection-union: supported only if each comparison alone passes the "
        "one-sided test, which needs no correction; the p-value is twice the largest one-sided "
        "one. Contradicted if any comparison goes the other way: twice the smallest one-sided "
        "p-value after Holm over the comparisons. The smaller of the two counts. The estimate "
        "shown is that of the comparison that supports the claim least."
    ),
    "some": (
        '"Up to". The mirror image of every: supported if any comparison passes after Holm over '
        "the comparisons, contradicted if each of them alone falls short. The estimate shown is "
        "that of the comparison that supports the claim most."
    ),
}

SUPPORTED, CONTRADICTED, EQUIVALENT = "supported", "contradicted", "equivalent"
UNDECIDED, NOT_MEASURED = "undecided", "not measured"
# In the order in which they are looked for.
VERDICTS: dict[str, str] = {
    NOT_MEASURED: "Something that the claim needs is not there; the verdict names it.",
    UNDECIDED: (
        "Fewer seeds than a p-value needs, or none of the verdicts below: neither a difference nor "
        "the absence of one that matters is shown. What would have been found is said beside it."
    ),
    EQUIVALENT: (
        "The difference is smaller than the threshold, whatever its sign: two one-sided tests, "
        "over every comparison, their p-value corrected in the claim's family of tests. It comes "
        "before the next two: a real difference that is too small to matter supports nothing."
    ),
    SUPPORTED: (
        "The corrected p-value is below the level and the difference goes the way that the claim "
        "says. Where the interval reaches below the threshold the verdict says so."
    ),
    CONTRADICTED: "The same, and the difference goes the other way.",
}

CORRECTIONS: dict[str, str] = {
    "headline": (
        "The primary claims: what the paper's abstract says of larger teachers and of ATKD's gain."
    ),
    "baselines": "ATKD's gain on each baseline: the tests of the table of gains, same p-values.",
    "teachers": "Larger teachers, family by family, and what ATKD does about them.",
    "mechanism": "Why larger teachers hurt, and why ATKD would help.",
    "settings": "The share of hard tokens k and the weight of easy ones lambda.",
    "remedies": "Other answers to the gap between teacher and student.",
    "consequences": "What else students of ATKD are said to be.",
    "numbers": "Sizes of gains that are quoted.",
}


def _study(name: str, about: str) -> Need:
    return Need(about, lambda record: name in record.analyses)


NEEDS: dict[str, Need] = {
    "grid": Need("scores of the main grid", lambda record: True),
    "unseen": Need(
        "scores of the main grid on the task Unseen, skills that no model was trained on",
        lambda record: "unseen" in record.extra_tasks,
    ),
    "paper_scale": Need(
        "scores of the paper's models on the real tasks, answers rated by a language model",
        lambda record: record.source == "hub" and record.judge,
    ),
    "uncertainty": Need("the analysis of teachers' uncertainty on tokens", lambda record: False),
    "token_study": _study(
        "token_study",
        "the analysis of students trained with TKD or DKD alone, or on easy or hard tokens alone",
    ),
    "diversity": Need("the analysis of the answers' diversity", lambda record: False),
    "hard_fraction_sweep": _study("hard_fraction_sweep", "the sweep of the share of hard tokens k"),
    "easy_weight_sweep": _study("easy_weight_sweep", "the sweep of the easy tokens' weight lambda"),
    "remedies": _study(
        "remedies", "students of an early-stopped teacher and of a teacher assistant"
    ),
    "landscape": Need("the analysis of the loss around a student's weights", lambda record: False),
}


# Comparison -> the method that ATKD is held against.
OTHER_SHARES = {f"k = {100 * share:g} %": f"{ATKD}+hard_fraction={share}" for share in SHARES}
OTHER_WEIGHTS = {f"lambda = {weight}": f"{ATKD}+easy_weight={weight}" for weight in WEIGHTS}
REMEDIES = {
    "early-stopped teacher": f"{KD}+teacher=early",
    "teacher assistant": f"{KD}+teacher=assistant",
    "Decoupled KD": "dkd",
}
STUDIED = "mean over the pairs studied"
PLAIN = "the five baselines without ATKD"
TABLES = "main table and the table of Pythia and LLaMA"


def _gain_on(base: str) -> Claim:
    """ATKD's gain on one baseline, as the table of gains has it."""
    title = title_of(base)
    return Claim(
        f"ATKD improves {title}",
        f"Adding ATKD to {title} raises the student's average score.",
        TABLES,
        f"{title} + ATKD less {title}, mean over pairs",
        "baselines",
        threshold=MANY,
        compare=lambda record: {"": gain(pairs(record), [base])},
    )


def _hurt_in(family: str) -> Claim:
    """The effect of a family's largest teacher."""
    title = family_title(family)
    return Claim(
        f"Larger teachers hurt: {title}",
        f"Among {title} models, the student of the largest teacher scores below that of the "
        "smallest.",
        "Figure 1" if family == "opt" else "Figure 1 shows OPT alone",
        f"students of the largest {title} teacher less those of the smallest, mean over {PLAIN}",
        "teachers",
        threshold=MANY,
        higher=False,
        compare=growth_of(family),
        families=(family,),
        teachers=2,
    )


CLAIMS: dict[str, Claim] = {
    "larger_teachers_hurt": Claim(
        "Larger teachers hurt",
        "Under plain distillation a much larger teacher makes a worse student than a small one.",
        "abstract, Figure 1",
        f"students of a family's largest teacher less those of its smallest, mean over {PLAIN} and "
        "over families",
        "headline",
        threshold=MANY,
        higher=False,
        compare=growth_of(*PAPER),
        teachers=2,
    ),
    "gain_average": Claim(
        "ATKD helps on average",
        "Adding ATKD to a distillation method raises the student's average score.",
        f"abstract, {TABLES}",
        "method + ATKD less the method, mean over the five baselines and over pairs",
        "headline",
        threshold=MANY,
        compare=lambda record: {"": gain(pairs(record))},
    ),
    "gain_every_baseline": Claim(
        "ATKD helps every baseline",
        "The gain is there on each of the five methods.",
        TABLES,
        "for each baseline: method + ATKD less the method, mean over pairs",
        "headline",
        rule="every",
        threshold=MANY,
        compare=by_baseline,
    ),
    "gain_every_family": Claim(
        "ATKD helps every model type",
        "The gain is there for OPT, for Pythia and for LLaMA.",
        f"abstract, {TABLES}",
        "for each family: method + ATKD less the method, mean over the baselines and its pairs",
        "headline",
        rule="every",
        threshold=MANY,
        compare=by_family,
    ),
    "gain_every_size": Claim(
        "ATKD helps at every size",
        "The gain is there for each pair of a student and a teacher size.",
        f"abstract, {TABLES}",
        "for each pair: method + ATKD less the method, mean over the baselines",
        "headline",
        rule="every",
        threshold=MANY,
        compare=by_pair,
        teachers=2,
    ),
    **{f"gain_{base}": _gain_on(base) for base in BASELINES},
    **{f"larger_teachers_hurt_{family}": _hurt_in(family) for family in PAPER},
    "larger_teachers_repaired": Claim(
        "ATKD undoes the harm of larger teachers",
        "With ATKD students lose less, or gain more, from a larger teacher than without.",
        "Figure 1",
        "(largest less smallest teacher with ATKD) less (the same without), mean over the five "
        "baselines and over families",
        "teachers",
        threshold=MANY,
        compare=lambda record: {"": repair(pairs(record))},
        teachers=2,
    ),
    "uncertainty_falls": Claim(
        "Larger teachers are more certain",
        "The larger the teacher, the less probability it leaves off the reference token.",
        "Section 2.2, density plots",
        "mean uncertainty (UNC, in percent) of a family's largest teacher less its smallest's, "
        "over the answers' tokens of held-out references, mean over families",
        "mechanism",
        needs="uncertainty",
        threshold=PROBABILITY,
        higher=False,
        measure="uncertainty 1 - p of the reference token",
        resampled="seed",
    ),
    "uncertainty_marks_difficulty": Claim(
        "Uncertainty marks hard tokens",
        "A token on which the teacher is uncertain is one that is hard to learn.",
        "Section 2.2",
        "Spearman correlation over tokens between the teacher's uncertainty and the loss of a "
        f"student fine-tuned without a teacher, {STUDIED}",
        "mechanism",
        needs="uncertainty",
        threshold=CORRELATION,
        measure="rank correlation",
        resampled="seed",
    ),
    "hard_tokens_matter": Claim(
        "Hard tokens teach more",
        "A student distilled on uncertain tokens alone beats one distilled on the certain ones.",
        "Section 2.2, training on subsets of tokens",
        f"Supervised KD on the more uncertain half of the tokens less on the other half, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less(*(f"{on(KD, part)}+hard_fraction=0.5" for part in ("hard", "easy"))),
    ),
    "dkd_over_tkd": Claim(
        "DKD contributes more than TKD",
        "The part of the loss off the reference token matters more than the part on it.",
        "Section 2.2",
        f"DKD alone less TKD alone, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less(DKD, TKD),
    ),
    "dkd_suppressed": Claim(
        "Uncertainty suppresses DKD",
        "Where the teacher is certain the KL divergence all but drops DKD; freed from that factor "
        "it makes a better student.",
        "Section 2.2",
        f"TKD + DKD less TKD + UNC x DKD (Supervised KD), {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less(BOTH, KD),
    ),
    "dkd_suppressed_more": Claim(
        "Larger teachers suppress DKD more",
        "Freeing DKD from its factor is worth more with a larger teacher.",
        "Section 2.2",
        "(TKD + DKD less Supervised KD) with the largest teacher less the same with the smallest, "
        "mean over the families studied",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less_more(BOTH, KD),
    ),
    "tkd_hurts_easy": Claim(
        "TKD hurts on easy tokens",
        "On tokens of which the teacher is certain, learning its probability of them does harm.",
        "Section 2.2",
        f"trained on the easy half of the tokens alone: TKD + DKD less DKD, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        higher=False,
        compare=less(on(BOTH, "easy"), on(DKD, "easy")),
    ),
    "tkd_narrows": Claim(
        "TKD on easy tokens costs diversity",
        "What TKD does to easy tokens makes answers more alike.",
        "Section 2.2",
        "distinct-2 of the answers to the generation tasks, trained on the easy half of the tokens "
        f"alone: TKD + DKD less DKD, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=DISTINCT,
        higher=False,
        measure="distinct-2 over the generation tasks",
        resampled="seed",
    ),
    "tkd_helps_hard": Claim(
        "TKD helps on hard tokens",
        "On tokens of which the teacher is uncertain, learning its probability of them helps.",
        "Section 2.2",
        f"trained on the hard half of the tokens alone: TKD + DKD less DKD, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less(on(BOTH, "hard"), on(DKD, "hard")),
    ),
    "split_matters": Claim(
        "It matters which tokens are easy",
        "Teaching should adapt to the token: ATKD's gain comes from telling easy from hard.",
        "the method's premise",
        f"Supervised KD + ATKD less the same with as many tokens called easy at random, {STUDIED}",
        "mechanism",
        needs="token_study",
        threshold=FEW,
        compare=less(ATKD, f"{ATKD}+split=random"),
    ),
    "half_hard_best": Claim(
        "k = 50 % is best",
        "No other share of hard tokens does better than a half.",
        "Figure 5a",
        f"Supervised KD + ATKD at k = 50 % less at each other k, {STUDIED}",
        "settings",
        needs="hard_fraction_sweep",
        rule="every",
        threshold=FEW,
        compare=less_each(ATKD, OTHER_SHARES),
        labels=tuple(OTHER_SHARES),
    ),
    "seventy_hard_worse": Claim(
        "k = 70 % is worse",
        "A share of hard tokens of 70 % does clearly worse than a half.",
        "Figure 5a",
        f"Supervised KD + ATKD at k = 50 % less at 70 %, {STUDIED}",
        "settings",
        needs="hard_fraction_sweep",
        threshold=FEW,
        compare=less(ATKD, f"{ATKD}+hard_fraction=0.7"),
    ),
    "small_weight_best": Claim(
        "lambda = 0.2 is best",
        "No other weight of the easy tokens does better than 0.2.",
        "Figure 5b",
        f"Supervised KD + ATKD at lambda = 0.2 less at each other lambda, {STUDIED}",
        "settings",
        needs="easy_weight_sweep",
        rule="every",
        threshold=FEW,
        compare=less_each(ATKD, OTHER_WEIGHTS),
        labels=tuple(OTHER_WEIGHTS),
    ),
    "large_weight_worse": Claim(
        "lambda = 0.9 is worse",
        "Most of the weight on easy tokens makes a clearly worse student.",
        "Figure 5b",
        f"Supervised KD + ATKD at lambda = 0.2 less at 0.9, {STUDIED}",
        "settings",
        needs="easy_weight_sweep",
        threshold=FEW,
        compare=less(ATKD, f"{ATKD}+easy_weight=0.9"),
    ),
    "over_decoupled_kd": Claim(
        "ATKD beats Decoupled KD",
        "Splitting tokens by uncertainty does better than the same two terms at fixed weights.",
        "Figure 5c",
        "Supervised KD + ATKD less Decoupled KD, mean over pairs",
        "remedies",
        threshold=MANY,
        compare=over_dkd,
    ),
    "over_every_remedy": Claim(
        "ATKD beats every other remedy",
        "An early-stopped teacher, a teacher assistant and Decoupled KD all do less about the gap.",
        "Figure 5c",
        f"Supervised KD + ATKD less each remedy, {STUDIED}",
        "remedies",
        needs="remedies",
        rule="every",
        threshold=MANY,
        compare=less_each(ATKD, REMEDIES),
        labels=tuple(REMEDIES),
    ),
    "flatter_landscape": Claim(
        "ATKD ends in flatter minima",
        "The loss rises less around the weights of a student of ATKD.",
        "Figure 6",
        "logarithm of the rise of the loss on held-out references under random steps of a fifth of "
        f"each filter's length, Supervised KD + ATKD less Supervised KD, {STUDIED}",
        "consequences",
        needs="landscape",
        threshold=LOG_RATIO,
        higher=False,
        measure="logarithm of the rise of the loss",
        resampled="seed",
    ),
    "generalises": Claim(
        "ATKD generalises better",
        "Students of ATKD do better on kinds of tasks that nobody was trained on.",
        "Figure 6",
        "method + ATKD less the method on the task Unseen, mean over the five baselines and pairs",
        "consequences",
        needs="unseen",
        threshold=MANY,
        measure="score on the task Unseen",
        tasks=("unseen",),
        compare=lambda record: {"": gain(pairs(record))},
    ),
    "more_diverse": Claim(
        "ATKD teaches more diversely",
        "Answers of students of ATKD are less alike.",
        "Section 2.2",
        "distinct-2 of the answers to the generation tasks: method + ATKD less the method, mean "
        "over the five baselines and over pairs; documents share word pairs, so seeds alone vary",
        "consequences",
        needs="diversity",
        threshold=DISTINCT,
        measure="distinct-2 over the generation tasks",
        resampled="seed",
    ),
    "largest_gain": Claim(
        "Up to +3.04",
        "The largest gain of a baseline at a pair is 3.04 points of the average score.",
        "abstract",
        "for each baseline and pair: method + ATKD less the method, above 3.04 less the threshold",
        "numbers",
        needs="paper_scale",
        rule="some",
        threshold=FEW,
        offset=3.04 - FEW.value,
        compare=by_cell(*PAPER),
    ),
    "largest_gain_others": Claim(
        "Up to +3.27 on Pythia and LLaMA",
        "The largest gain among Pythia and LLaMA pairs is 3.27 points (a summary alone says so, "
        "against the abstract's 3.04).",
        "table of Pythia and LLaMA",
        "for each baseline and pair: method + ATKD less the method, above 3.27 less the threshold",
        "numbers",
        needs="paper_scale",
        rule="some",
        threshold=FEW,
        offset=3.27 - FEW.value,
        compare=by_cell("pythia", "llama"),
        families=("pythia", "llama"),
    ),
}
