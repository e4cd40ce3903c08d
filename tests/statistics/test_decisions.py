"""Verdicts on claims: rules on known p-values, runs with and without effects, what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from made_runs import PAIRS, write_run

from atkd import config as configuration
from atkd.analyses import ANALYSES, is_study
from atkd.methods import BASELINES, Name
from atkd.plan import Plan
from atkd.runtime.files import InputError
from atkd.statistics import comparisons, decisions, estimates, intervals
from atkd.statistics.claims import (
    CLAIMS,
    CONTRADICTED,
    EQUIVALENT,
    MANY,
    NOT_MEASURED,
    SUPPORTED,
    UNDECIDED,
)
from atkd.statistics.contrasts import WRAPPED, by_pair
from atkd.statistics.decisions import Outcome, Verdict
from atkd.statistics.estimates import Cell, RunRecord, Scores
from atkd.statistics.intervals import Estimate
from atkd.tasks import AVERAGES

METHODS = (*BASELINES, *WRAPPED.values(), "dkd")
TASKS = AVERAGES["average"]
HEADLINE = [key for key, claim in CLAIMS.items() if claim.tests == "headline"]
GAINS = [key for key, claim in CLAIMS.items() if claim.tests == "baselines"]
Level = Callable[[Cell], float]


def record_of(seeds: int, source: str = "world", judge: bool = False) -> RunRecord:
    """The record of a whole grid."""
    pairs = [
        {"family": family, "student": student, "teacher": teacher}
        for family, (student, teachers) in PAIRS.items()
        for teacher in teachers
    ]
    cells = ["/".join([*pair.values(), method]) for pair in pairs for method in METHODS]
    return RunRecord(
        config="made",
        source=source,
        seeds=list(range(1, seeds + 1)),
        tasks=[*TASKS],
        extra_tasks=["unseen"],
        families=[*PAIRS],
        pairs=pairs,
        methods=[*METHODS],
        judge=judge,
        analyses=[],
        runs=[f"{cell}/{seed}" for cell in cells for seed in range(1, seeds + 1)],
    )


def made(
    level: Level,
    seeds: int = 3,
    documents: int = 6,
    luck: float = 0.3,
    key: int = 1,
    record: RunRecord | None = None,
    **said: bool,
) -> Scores:
    """A run whose cells have these expected scores."""
    rng = np.random.default_rng(key)
    record = record or record_of(seeds, **said)
    seeds = len(record.seeds)
    rows = {
        cell: {s: i * seeds + s - 1 for s in record.seeds} for i, cell in enumerate(record.cells)
    }
    means_R1 = np.repeat([level(cell) for cell in record.cells], seeds)[:, None]
    means_R1 = means_R1 + rng.normal(0, luck, means_R1.shape)
    scores = Scores(record, rows)
    for task in (*TASKS, "unseen"):
        shape = (len(means_R1), documents)
        hard_D = rng.normal(0, 9, documents)
        scores.values[task, "score"] = means_R1 + hard_D + rng.normal(0, luck, shape)
        scores.groups[task, "score"] = np.array([""] * documents)
    return scores


def by_key(rows: list[Verdict]) -> dict[str, Verdict]:
    """Verdicts by claim."""
    return {row.claim: row for row in rows}


def large(cell: Cell) -> bool:
    """Whether a cell's teacher is its family's largest."""
    return cell.teacher == PAIRS[cell.family][1][-1]


def adaptive(cell: Cell) -> bool:
    """Whether a cell's method has ATKD."""
    return bool(comparisons.base_of(cell.method))


def as_the_paper_says(cell: Cell) -> float:
    """Scores under which every claim of the grid is true."""
    harm = 4.0 if large(cell) and not adaptive(cell) else 0.0
    return 40.0 - harm + (3.0 if adaptive(cell) else 0.0)


# Rules


def seen(value: float, error: float = 0.5, seeds: int = 5) -> Estimate:
    """An estimate whose variance is the seeds' alone: t with seeds - 1 degrees of freedom."""
    half = error * intervals.mixture_quantile(0.975, [(1.0, seeds - 1.0)])
    return Estimate(
        value, value - half, value + half, error, 1.0, math.inf, seeds, 100, "seeds and documents"
    )


def outcome_of(rule: str, *values: float, **fields: object) -> Outcome:
    """The outcome of a claim of a rule on these estimates."""
    claim = dataclasses.replace(CLAIMS["gain_average"], rule=rule, **fields)
    return decisions.outcome(claim, {str(i): seen(value) for i, value in enumerate(values)})


@pytest.mark.parametrize("value", [-1.7, -0.2, 0.0, 0.4, 2.0])
@pytest.mark.parametrize("higher", [True, False])
def test_one_is_the_two_sided_test(value: float, higher: bool) -> None:
    found = outcome_of("one", value, higher=higher)
    assert found.p == pytest.approx(intervals.p_value(seen(value)))
    assert value == 0 or found.as_claimed == ((value > 0) == higher)


def test_every_is_as_strong_as_its_weakest() -> None:
    """Intersection-union: twice the largest one-sided p, whatever the number of comparisons."""
    found = outcome_of("every", 5.0, 1.8, 4.0)
    assert found.p == pytest.approx(intervals.p_value(seen(1.8)))
    assert (found.as_claimed, found.decisive) == (True, "1")


def test_every_is_contradicted_by_one_after_holm_over_its_comparisons() -> None:
    found = outcome_of("every", 5.0, -4.0, 6.0)
    assert found.p == pytest.approx(3 * intervals.p_value(seen(-4.0)))
    assert (found.as_claimed, found.decisive) == (False, "1")


def test_every_with_one_at_zero_says_nothing() -> None:
    assert outcome_of("every", 9.0, 0.0, 9.0).p == 1.0


def test_some_is_not_every_of_the_opposite() -> None:
    found = outcome_of("some", -2.0, 4.0, 0.0)
    assert found.p == pytest.approx(3 * intervals.p_value(seen(4.0)))
    assert (found.as_claimed, found.decisive) == (True, "1")
    found = outcome_of("some", -2.0, -4.0, -3.0)
    assert found.p == pytest.approx(intervals.p_value(seen(-2.0)))
    assert (found.as_claimed, found.decisive) == (False, "0")


def test_an_offset_moves_what_a_difference_is_compared_with() -> None:
    assert outcome_of("one", 3.0, offset=2.0).p == pytest.approx(outcome_of("one", 1.0).p)
    assert not outcome_of("one", 1.0, offset=2.0).as_claimed


def test_equivalence_is_two_one_sided_tests_over_every_comparison() -> None:
    tails = (decisions.above(seen(0.2, 0.1), -0.5), decisions.above(seen(-0.2, 0.1), -0.5))
    claim = dataclasses.replace(CLAIMS["gain_average"], rule="every", threshold=MANY)
    pair = {"a": seen(0.2, 0.1), "b": seen(0.0, 0.1)}
    assert decisions.outcome(claim, pair).equivalent == pytest.approx(max(tails))
    assert decisions.outcome(claim, {"a": seen(0.6, 0.1)}).equivalent > 0.5


@pytest.mark.parametrize(
    ("p", "as_claimed", "equivalent", "word"),
    [(0.04, True, 0.9, SUPPORTED), (0.04, False, 0.9, CONTRADICTED), (0.06, True, 0.9, UNDECIDED),
     (0.04, True, 0.01, EQUIVALENT), (0.9, True, 0.01, EQUIVALENT),
     (math.nan, True, math.nan, UNDECIDED)],
)  # fmt: skip
def test_verdicts(p: float, as_claimed: bool, equivalent: float, word: str) -> None:
    result = Outcome(p, as_claimed, equivalent, "")
    assert decisions.decide(CLAIMS["gain_average"], result, p, equivalent) == word
    if word == EQUIVALENT:
        some = decisions.decide(CLAIMS["largest_gain"], result, p, equivalent)
        assert some == (SUPPORTED if p < 0.05 else UNDECIDED), "no equivalence of a largest gain"


def test_a_negative_multiple_turns_the_interval_around() -> None:
    found = decisions.scaled(seen(1.0), -2.0)
    assert (found.value, found.low, found.high) == (-2.0, -2 * seen(1.0).high, -2 * seen(1.0).low)
    assert found.error == 2 * seen(1.0).error


# Runs


@pytest.fixture(scope="module")
def true_claims() -> dict[str, Verdict]:
    """Verdicts where all that the grid can show is as the paper says."""
    return by_key(decisions.verdicts(made(as_the_paper_says)))


def test_large_effects_support_what_the_grid_measures(true_claims: dict[str, Verdict]) -> None:
    grid = {key for key, claim in CLAIMS.items() if claim.needs in ("grid", "unseen")}
    grid.remove("over_decoupled_kd")  # whose scores are those of a baseline here
    assert {key: true_claims[key].verdict for key in grid} == dict.fromkeys(grid, SUPPORTED)
    assert true_claims["larger_teachers_repaired"].value == pytest.approx(4.0, abs=0.5)
    assert true_claims["larger_teachers_hurt"].value == pytest.approx(-4.0, abs=0.5)
    assert "ATKD helps on average: supported; +" in true_claims["gain_average"].sentence


def test_opposite_effects_contradict_it() -> None:
    found = by_key(decisions.verdicts(made(lambda cell: 80.0 - as_the_paper_says(cell))))
    assert {found[key].verdict for key in [*HEADLINE, *GAINS]} == {CONTRADICTED}


def test_no_effect_is_equivalence_where_the_run_is_precise() -> None:
    found = by_key(decisions.verdicts(made(lambda cell: 40.0, seeds=5, documents=40, luck=0.1)))
    assert {found[key].verdict for key in [*HEADLINE, *GAINS]} == {EQUIVALENT}
    assert "less than 0.5 whatever its sign" in found["gain_average"].sentence


def test_every_needs_all() -> None:
    """GKD alone gains nothing: the mean and four baselines are supported, "every" is not."""

    def level(cell: Cell) -> float:
        return 40.0 + (6.0 if adaptive(cell) and cell.method != "gkd_atkd" else 0.0)

    found = by_key(decisions.verdicts(made(level)))
    assert found["gain_average"].verdict == found["gain_every_family"].verdict == SUPPORTED
    assert found["gain_supervised_kd"].verdict == SUPPORTED
    assert found["gain_every_baseline"].verdict == UNDECIDED
    assert found["gain_every_baseline"].comparison == "GKD"
    assert "of 5 comparisons GKD supports it least" in found["gain_every_baseline"].sentence


def test_every_is_contradicted_by_a_family_that_loses() -> None:
    def level(cell: Cell) -> float:
        return 40.0 + adaptive(cell) * (-6.0 if cell.family == "llama" else 6.0)

    found = by_key(decisions.verdicts(made(level)))
    assert found["gain_every_family"].verdict == CONTRADICTED
    assert found["gain_every_family"].comparison == "LLaMA"
    assert found["gain_every_family"].value == pytest.approx(-6.0, abs=0.5)


def test_up_to_is_asked_of_the_papers_scale_alone(true_claims: dict[str, Verdict]) -> None:
    row = true_claims["largest_gain"]
    assert row.verdict == NOT_MEASURED and "rated by a language model" in row.sentence

    def gains(most: float) -> Level:
        return lambda cell: 40.0 + (most if adaptive(cell) and large(cell) else 0.0)

    for most, word in ((9.0, SUPPORTED), (0.5, CONTRADICTED)):
        options = {"source": "hub", "judge": True, "documents": 20}
        found = by_key(decisions.verdicts(made(gains(most), seeds=5, luck=0.1, **options)))
        assert found["largest_gain"].verdict == found["largest_gain_others"].verdict == word
        assert found["largest_gain"].comparisons == 35
        assert found["largest_gain_others"].comparisons == 20


def test_the_gains_are_those_of_the_table_of_gains() -> None:
    scores = made(as_the_paper_says, luck=4.0)
    table = [row for row in comparisons.differences(scores) if comparisons.is_primary(row)]
    found = by_key(decisions.verdicts(scores))
    assert len(table) == len(GAINS)
    for row in table:
        mine = found[f"gain_{comparisons.base_of(row['method'])}"]
        for name in ("value", "low", "high", "detectable", "p", "p_holm", "seeds", "documents"):
            assert getattr(mine, name) == pytest.approx(row[name]), name


def test_score_files_are_read_as_they_are(tmp_path: Path) -> None:
    """A corner of the grid: what it lacks is named, and no claim is left out."""
    folder = write_run(tmp_path, families=("opt",), seeds=3, documents=3)
    found = decisions.verdicts(estimates.load(folder / "scores.csv", folder / "documents.csv.gz"))
    assert [row.claim for row in found] == [*CLAIMS]
    assert {row.verdict for row in found} == {NOT_MEASURED}
    assert by_key(found)["gain_average"].sentence.endswith("missing: family pythia, family llama.")
    assert (
        "missing: method reverse_kd, method imitkd"
        in by_key(found)["larger_teachers_hurt_opt"].sentence
    )


def test_repair_is_a_difference_of_differences() -> None:
    scores = made(as_the_paper_says, luck=0.8)

    def mean(family: str, teacher: str, method: str) -> float:
        rows = [*scores.rows[Cell(family, PAIRS[family][0], teacher, method)].values()]
        return float(np.mean([scores.values[task, "score"][rows].mean() for task in TASKS]))

    repaired = [
        (mean(family, teachers[-1], WRAPPED[base]) - mean(family, teachers[0], WRAPPED[base]))
        - (mean(family, teachers[-1], base) - mean(family, teachers[0], base))
        for family, (_, teachers) in PAIRS.items()
        for base in BASELINES
    ]
    row = by_key(decisions.verdicts(scores))["larger_teachers_repaired"]
    assert row.value == pytest.approx(np.mean(repaired))


# What is missing


def test_what_no_analysis_has_measured_is_named(true_claims: dict[str, Verdict]) -> None:
    for key, words in {
        "uncertainty_falls": "the analysis of teachers' uncertainty",
        "tkd_hurts_easy": "TKD or DKD alone",
        "half_hard_best": "the sweep of the share of hard tokens k",
        "small_weight_best": "lambda",
        "flatter_landscape": "the analysis of the loss around a student's weights",
        "over_every_remedy": "teacher assistant",
        "more_diverse": "diversity",
    }.items():
        row = true_claims[key]
        assert row.verdict == NOT_MEASURED, key
        assert words in row.sentence.partition("missing: ")[2]
        assert math.isnan(row.value) and math.isnan(row.p_holm) and not row.comparisons


def without(scores: Scores, **facts: object) -> Scores:
    """The run with other facts in its record."""
    return dataclasses.replace(scores, record=dataclasses.replace(scores.record, **facts))


def test_what_a_grid_lacks_is_named() -> None:
    scores = made(as_the_paper_says)
    record = scores.record

    def said(key: str, **facts: object) -> str:
        row = by_key(decisions.verdicts(without(scores, **facts)))[key]
        assert row.verdict == NOT_MEASURED
        return row.sentence.partition("missing: ")[2]

    two = [pair for pair in record.pairs if pair["family"] != "pythia"]
    assert said("gain_average", pairs=two) == "family pythia."
    one = [pair for pair in record.pairs if pair["teacher"] != "7b"]
    assert said("larger_teachers_hurt", pairs=one) == "a second teacher for LLaMA 68m."
    few = [name for name in record.methods if name != "gkd_atkd"]
    assert said("gain_every_size", methods=few) == "method gkd_atkd."
    assert "no model was trained on" in said("generalises", extra_tasks=[])
    keys = [key for key in record.runs if not key.startswith("opt/125m/2.7b/gkd_atkd/")]
    assert said("gain_gkd", runs=keys) == "run opt/125m/2.7b/gkd_atkd."
    assert by_key(decisions.verdicts(without(scores, runs=keys)))["gain_imitkd"].p < 0.05


def test_a_seed_that_has_no_scores_is_named() -> None:
    scores = made(as_the_paper_says)
    del scores.rows[Cell("opt", "125m", "1.3b", "gkd")][2]
    found = by_key(decisions.verdicts(scores))
    assert found["gain_gkd"].sentence.endswith("not measured; missing: run opt/125m/1.3b/gkd/2.")
    assert found["gain_imitkd"].verdict == SUPPORTED
    for seeds in scores.rows.values():
        seeds.pop(1, None)
    row = by_key(decisions.verdicts(scores))["gain_average"]
    assert row.sentence.count("/supervised_kd_atkd/1, ") == 3
    assert row.sentence.endswith(", 68 more.")


def test_a_task_that_is_not_there_is_named() -> None:
    scores = made(as_the_paper_says)
    del scores.values["bbh", "score"]
    found = by_key(decisions.verdicts(scores))
    assert found["gain_average"].sentence.endswith("missing: task bbh.")
    assert found["generalises"].verdict == SUPPORTED


def test_sides_that_share_nothing_are_an_error() -> None:
    scores = made(as_the_paper_says)
    cell = Cell("opt", "125m", "1.3b", "dkd")
    scores.values["bbh", "score"][[*scores.rows[cell].values()]] = np.nan
    with pytest.raises(InputError, match="'ATKD beats Decoupled KD': both sides share no seed, or"):
        decisions.verdicts(scores)


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing(seeds: int) -> None:
    found = by_key(decisions.verdicts(made(as_the_paper_says, seeds=seeds)))
    assert {found[key].verdict for key in [*HEADLINE, *GAINS]} == {UNDECIDED}
    row = found["gain_every_family"]
    assert f"a verdict needs 3 seeds, found {seeds}" in row.sentence
    assert row.value > 0 and math.isnan(row.p_holm)


def test_an_analysis_brings_estimates_and_the_rule_stands() -> None:
    analysed = {"uncertainty_falls": {"": seen(-9.0)}}
    scores = made(as_the_paper_says)
    row = by_key(decisions.verdicts(scores, analysed))["uncertainty_falls"]
    assert row.verdict == SUPPORTED and row.comparisons == 1
    rivals = [key for key, claim in CLAIMS.items() if claim.tests == row.tests]
    assert row.p_holm == pytest.approx(len(rivals) * row.p), "over what is not measured too"
    with pytest.raises(InputError, match=r"'uncertainty_falls': found comparisons \['opt'\]"):
        decisions.verdicts(scores, {"uncertainty_falls": {"opt": seen(9.0)}})
    for name in ("gain_average", "no_such"):
        with pytest.raises(InputError, match=f"claim '{name}'; expected one of uncertainty_falls"):
            decisions.verdicts(scores, {name: {"": seen(1.0)}})


# Studies


STUDIES = [name for name in ANALYSES if is_study(name)]
STUDY_CLAIMS = [key for key, claim in CLAIMS.items() if claim.compare and claim.needs in STUDIES]


def studied(level: Level, seeds: int = 3, luck: float = 0.3) -> Scores:
    """The world's run with all studies."""
    config = yaml.safe_load((ROOT / "config/world.yaml").read_text(encoding="utf-8"))
    config |= {"seeds": [*range(1, seeds + 1)], "analyses": STUDIES}
    return made(level, luck=luck, record=RunRecord(**Plan(configuration.checked(config)).record()))


def as_claimed(cell: Cell) -> float:
    """Scores under which every claim that a study decides is true."""
    name = Name.of(cell.method)
    own, value = name.settings, 30.0
    if name.row == "supervised_kd_atkd":
        value = 45.0 - 20 * abs(float(own.get("hard_fraction", 0.5)) - 0.5)
        value -= 20 * abs(float(own.get("easy_weight", 0.2)) - 0.2) + 5 * ("split" in own)
    if name.row == "dkd":
        with_tkd, with_dkd = "target_weight=1" in cell.method, "diversity_weight" not in own
        freed = 9 * large(cell) * with_tkd * ("tokens" not in own)
        value = 20.0 + (9 + freed) * with_dkd
        value += with_tkd * (-4 if own.get("tokens") == "easy" else 4)
    if name.row == "supervised_kd":
        value += 3 if own.get("tokens") == "hard" else 0
    return value


@pytest.fixture(scope="module")
def decided() -> dict[str, Verdict]:
    return by_key(decisions.verdicts(studied(as_claimed)))


@pytest.mark.parametrize("key", STUDY_CLAIMS)
def test_a_study_decides_its_claims(key: str, decided: dict[str, Verdict]) -> None:
    assert decided[key].verdict == SUPPORTED, decided[key].sentence


def test_a_study_compares_the_means_of_its_pairs(decided: dict[str, Verdict]) -> None:
    scores = studied(as_claimed)

    def mean(teacher: str, method: str) -> float:
        rows = [*scores.rows[Cell("opt", "125m", teacher, method)].values()]
        return float(np.mean([scores.values[task, "score"][rows].mean() for task in TASKS]))

    freed = {t: mean(t, "dkd+target_weight=1") - mean(t, "supervised_kd") for t in ("1.3b", "6.7b")}
    assert decided["dkd_suppressed"].value == pytest.approx(np.mean([*freed.values()]))
    assert decided["dkd_suppressed_more"].value == pytest.approx(freed["6.7b"] - freed["1.3b"])
    row = decided["half_hard_best"]
    assert row.comparisons == 4 and row.comparison in ("k = 30 %", "k = 70 %")


def test_without_its_study_a_claim_is_not_measured() -> None:
    scores = studied(as_claimed)
    found = by_key(decisions.verdicts(without(scores, analyses=[])))
    assert {found[key].verdict for key in STUDY_CLAIMS} == {NOT_MEASURED}


def test_measuring_one_more_claim_raises_no_corrected_p_value() -> None:
    rng = np.random.default_rng(1)
    for p_values in rng.uniform(0, 0.2, (200, 5)):
        more = intervals.holm([*p_values])
        fewer = intervals.holm([*p_values[:4], math.nan])
        assert all(a <= b for a, b in zip(more[:4], fewer[:4], strict=True))


# Simulation: how often verdicts are wrong


class Simulation:
    """Runs whose cells' averages vary with the seed alone, and independently.

    Comparisons are weighted sums of cells, so that one matrix draws all of them.
    """

    def __init__(self, level: Level, seeds: int = 3) -> None:
        record = record_of(seeds)
        place = {cell: i for i, cell in enumerate(record.cells)}
        self.seeds = seeds
        self.levels_C = np.array([level(cell) for cell in record.cells])
        self.names = [
            (key, label) for key in [*HEADLINE, *GAINS] for label in CLAIMS[key].compare(record)
        ]
        self.weights_KC = np.zeros((len(self.names), len(place)))
        for row, (key, label) in zip(self.weights_KC, self.names, strict=True):
            contrast = CLAIMS[key].compare(record)[label].contrast
            for side, sign in ((contrast.ours, 1), (contrast.theirs, -1)):
                np.add.at(row, [place[cell] for cell in side], sign / len(side))

    def draw(self, count: int, key: int, luck: float) -> list[dict[str, str]]:
        """Verdicts of `count` runs; `luck`: standard deviation of a model between seeds."""
        rng = np.random.default_rng(key)
        shape = (count, self.seeds, len(self.levels_C))
        found_NSK = (self.levels_C + rng.normal(0, luck, shape)) @ self.weights_KC.T
        value_NK, error_NK = found_NSK.mean(1), found_NSK.std(1, ddof=1) / math.sqrt(self.seeds)
        return [
            self._judged(values, errors) for values, errors in zip(value_NK, error_NK, strict=True)
        ]

    def _judged(self, value_K: np.ndarray, error_K: np.ndarray) -> dict[str, str]:
        found: dict[str, dict[str, Estimate]] = {key: {} for key in CLAIMS}
        rest = (1.0, math.inf, self.seeds, 100, "seeds and documents")
        for (key, label), value, error in zip(self.names, value_K, error_K, strict=True):
            found[key][label] = Estimate(value, math.nan, math.nan, error, *rest)
        absent = {key: ["an analysis"] for key in CLAIMS}
        return {row.claim: row.verdict for row in decisions.judged(found, absent)}


def share(rows: list[Mapping[str, str]], keys: list[str], words: tuple[str, ...]) -> float:
    """How often some claim of a family of tests got one of these verdicts."""
    return float(np.mean([any(row[key] in words for key in keys) for row in rows]))


WRONG = (SUPPORTED, CONTRADICTED)
COUNT = 800  # Monte-Carlo error 0.8 points at 5 %


def at_most(level: float, count: int = COUNT) -> float:
    """What a share that is `level` in truth stays under, but for 1 in 160 times."""
    return level + 2.5 * math.sqrt(level * (1 - level) / count)


@pytest.mark.parametrize(
    ("seeds", "count"),
    [(3, 160), *(pytest.param(n, COUNT, marks=pytest.mark.slow) for n in (3, 5))],
)
def test_no_effect_at_all_is_rarely_called_one(seeds: int, count: int) -> None:
    rows = Simulation(lambda cell: 40.0, seeds).draw(count, key=1, luck=3.0)
    assert share(rows, HEADLINE, WRONG) < at_most(0.05, count)
    assert share(rows, GAINS, WRONG) < at_most(0.05, count)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_one_that_gains_nothing_is_rarely_overlooked(seeds: int) -> None:
    """The hardest case of "every": all others gain much, and one baseline, or pair, nothing."""

    def baseline(cell: Cell) -> float:
        return 40.0 + (30.0 if adaptive(cell) and cell.method != "gkd_atkd" else 0.0)

    def pair(cell: Cell) -> float:
        return 40.0 + (30.0 if adaptive(cell) and cell.teacher != "2.7b" else 0.0)

    for level, key in ((baseline, "gain_every_baseline"), (pair, "gain_every_size")):
        rows = Simulation(level, seeds).draw(COUNT, key=2, luck=3.0)
        assert share(rows, [key], (SUPPORTED,)) < at_most(0.025)
        assert share(rows, [key], WRONG) < at_most(0.05)
        assert share(rows, ["gain_average"], (SUPPORTED,)) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_difference_that_matters_is_rarely_called_none(seeds: int) -> None:
    """Every gain is the threshold, and so is what larger teachers do to plain methods."""

    def level(cell: Cell) -> float:
        return 40.0 + 0.5 * adaptive(cell) - 0.5 * large(cell)

    rows = Simulation(level, seeds).draw(COUNT, key=3, luck=0.3)
    for keys in (HEADLINE, GAINS):
        assert share(rows, keys, (EQUIVALENT,)) < at_most(0.05)
        assert share(rows, keys, (CONTRADICTED,)) < at_most(0.025)


def test_labels_of_pairs_are_distinct() -> None:
    assert len(by_pair(record_of(1))) == 7
