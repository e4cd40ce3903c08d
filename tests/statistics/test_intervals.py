"""Known answers for the intervals, and for Student's t and its mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from atkd.statistics import intervals
from atkd.statistics.intervals import mixture_cdf, mixture_quantile


def test_one_seed_is_the_textbook_interval_over_documents() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    found = intervals.estimate([intervals.components(values)])
    error = math.sqrt(2.5 / 5)
    assert found.value == 3.0
    assert found.error == pytest.approx(error)
    assert found.freedom == pytest.approx(4)
    assert found.high - found.value == pytest.approx(2.776445 * error, rel=1e-5)
    assert (found.over, found.seeds, found.documents) == (intervals.DOCUMENTS_ONLY, 1, 5)


# Three seeds by five documents. Sums of squares by hand: seeds 36.933 (2 degrees of freedom),
# documents 94 (4), residual 8.4 (8). Seeds carry 36.933 / 2 of 36.933 / 2 + 94 / 4 - 8.4 / 8; the
# mixture's quantiles are scipy 1.17's `brentq` over its `t.cdf`.
ANOVA = np.array([[12.0, 15, 11, 18, 14], [10, 16, 9, 15, 13], [15, 17, 13, 21, 16]])


def test_two_way_analysis_of_variance_by_hand() -> None:
    found = intervals.estimate([intervals.components(ANOVA)])
    by_seed, by_document, rest = 36.9333333 / 2, 94 / 4, 8.4 / 8
    total = by_seed + by_document - rest
    assert found.value == pytest.approx(43 / 3)
    assert found.error**2 == pytest.approx(total / 15)
    assert (found.share, found.freedom) == pytest.approx((by_seed / total, 4))
    assert found.high - found.value == pytest.approx(5.5936392, rel=1e-6)
    assert intervals.p_value(found) == pytest.approx(0.0064080165, rel=1e-6)
    assert intervals.detectable(found) == pytest.approx(7.2287844, rel=1e-6)
    assert (found.over, found.seeds, found.documents) == (intervals.SEEDS_AND_DOCUMENTS, 3, 5)


def test_without_document_effects_the_seeds_alone_decide() -> None:
    """A negative document component is zero, and what is left is the t interval over seeds."""
    values = np.array([[1.0, -1, 2, -2], [4, 6, 3, 7], [-2, -4, 0, -6]])
    values[1] += values[0][::-1] * 0.1
    found = intervals.estimate([intervals.components(values)])
    assert intervals.components(values).document < intervals.components(values).residual
    assert found.share == 1.0
    assert found.error == pytest.approx(np.std(values.mean(1), ddof=1) / math.sqrt(3))
    assert found.high - found.value == pytest.approx(4.302653 * found.error, rel=1e-6)


def test_a_batch_equals_one_by_one() -> None:
    rng = np.random.default_rng(5)
    batch = [
        intervals.components(rng.normal(size=(6, 3, 8)), groups)
        for groups in (None, list("aabbbccc"))
    ]
    assert batch[1].seed_means.shape == (6, 3)
    for index, found in enumerate(zip(*intervals.moments(batch), strict=True)):
        one = intervals.estimate([task._replace(
            seed_means=task.seed_means[index], document=task.document[index],
            residual=task.residual[index]) for task in batch])  # fmt: skip
        assert found == pytest.approx((one.value, one.error, one.share, one.freedom))


def test_seeds_are_shared_between_tasks() -> None:
    """Pure seed effects do not average out over tasks, pure document effects do."""
    rng = np.random.default_rng(4)
    seed_S1 = np.array([[-1.0], [0.0], [1.0]])
    same = [intervals.components(np.repeat(seed_S1, 20, axis=1)) for _ in range(4)]
    assert intervals.estimate(same).error == pytest.approx(intervals.estimate(same[:1]).error)
    alone = [intervals.components(rng.normal(size=(1, 400))) for _ in range(4)]
    ratio = intervals.estimate(alone).error / intervals.estimate(alone[:1]).error
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_groups_weigh_the_same_and_are_fixed() -> None:
    """Variance of (mean a + mean b) / 2 is (var a / 3 + var b / 2) / 4, whatever lies between."""
    values, groups = np.array([[1.0, 2, 3, 110, 114]]), ["a", "a", "a", "b", "b"]
    found = intervals.estimate([intervals.components(values, groups)])
    assert found.value == pytest.approx((2 + 112) / 2)
    assert found.error**2 == pytest.approx((1 / 3 + 8 / 2) / 4)
    moved = intervals.estimate([intervals.components(values - [[0, 0, 0, 90, 90]], groups)])
    assert moved.error == pytest.approx(found.error)
    alone = intervals.estimate([intervals.components(values[:, :4], groups[:4])])
    assert alone.value == pytest.approx((2 + 110) / 2)
    assert alone.error > 10 * found.error


def test_ratio_is_of_sums_and_differences_are_paired() -> None:
    bits, size = np.array([[10.0, 30.0, 50.0]]), np.array([[5.0, 10.0, 40.0]])
    one = intervals.contrast([bits], [], [size])
    assert one is not None
    assert intervals.estimate([one]).value == pytest.approx(90 / 55)
    both = intervals.contrast([bits], [bits], [size, size])
    assert both is not None
    assert intervals.estimate([both])[:4] == (0.0, 0.0, 0.0, 0.0)
    assert math.isnan(intervals.p_value(intervals.estimate([both])))


def test_pooled_pairs_share_their_documents() -> None:
    """Two pairs that err alike are worth one pair; two that err apart are worth two."""
    rng = np.random.default_rng(6)
    first, second, none = rng.normal(size=(1, 400)), rng.normal(size=(1, 400)), np.zeros((1, 400))

    def error(*sides: np.ndarray) -> float:
        return intervals.estimate([intervals.contrast(sides, [none] * len(sides))]).error

    assert error(first, first) == pytest.approx(error(first))
    assert error(first, second) == pytest.approx(error(first) / math.sqrt(2), rel=0.1)
    assert error(first, -first) == pytest.approx(0)


def test_documents_that_one_side_lacks_are_left_out() -> None:
    left, right = np.array([[1.0, 2.0, np.nan]]), np.array([[0.0, np.nan, 5.0]])
    found = intervals.contrast([left], [right])
    assert found is not None
    assert (found.documents, found.seed_means[0]) == (1, 1.0)
    assert math.isnan(intervals.estimate([found]).low)
    assert math.isnan(intervals.detectable(intervals.estimate([found])))
    assert intervals.contrast([left], [np.full((1, 3), np.nan)]) is None


def test_p_values_need_seeds() -> None:
    assert math.isnan(intervals.p_value(intervals.estimate([intervals.components(ANOVA[:1])])))
    assert math.isnan(intervals.p_value(intervals.estimate([intervals.components(ANOVA[:2])])))
    sure = intervals.estimate([intervals.components(np.ones((3, 4)))])
    assert (intervals.p_value(sure), intervals.detectable(sure)) == (0.0, 0.0)


def test_holm_by_hand() -> None:
    assert intervals.holm([0.01, 0.04, 0.03, 0.005, 0.2]) == pytest.approx(
        [0.04, 0.09, 0.09, 0.025, 0.2]
    )
    assert intervals.holm([0.9, 0.8]) == [1.0, 1.0]
    some = intervals.holm([0.01, math.nan])
    assert some[0] == pytest.approx(0.02)
    assert math.isnan(some[1])
    assert intervals.holm([]) == []


def test_improvement_compares_every_run_with_every_run() -> None:
    """By hand: task one 3 of 4 wins, task two a tie and a win of 2 by 1."""
    found = intervals.improvement([[2.0, 4.0], [1.0, 5.0]], [[1.0, 3.0], [1.0]])
    assert found == pytest.approx((3 / 4 + (0.5 + 1) / 2) / 2)


def test_scores_that_differ_by_rounding_tie() -> None:
    tenth = sum([0.1] * 3)
    assert tenth != 0.3 and intervals.improvement([[tenth]], [[0.3]]) == 0.5


def test_interquartile_mean_is_scipys_trimmed_mean() -> None:
    assert intervals.interquartile_mean([[3.0, 1, 9, 4], [7, 100, -5, 2]]) == 4.0
    assert intervals.interquartile_mean([5.0, 1, 2, 8, 100]) == 5.0


def test_refuses_what_is_not_a_matrix_of_numbers() -> None:
    for bad in (np.ones(3), np.ones((0, 3)), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="seeds, documents"):
            intervals.components(bad)


# Quantiles of Student's t from printed tables (three decimals), and Cauchy's in closed form.
T_TABLE = [(0.975, 2, 4.303), (0.975, 10, 2.228), (0.95, 5, 2.015), (0.995, 30, 2.750)]


@pytest.mark.parametrize(("probability", "freedom", "value"), T_TABLE)
def test_quantiles_of_the_table(probability: float, freedom: float, value: float) -> None:
    assert mixture_quantile(probability, [(1.0, freedom)]) == pytest.approx(value, abs=5e-4)
    assert mixture_quantile(1 - probability, [(1.0, freedom)]) == pytest.approx(-value, abs=5e-4)


def test_closed_forms() -> None:
    cauchy = mixture_quantile(0.975, [(1.0, 1.0)])
    assert cauchy == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    for freedom in (1e9, math.inf):
        assert mixture_quantile(0.975, [(1.0, freedom)]) == pytest.approx(1.959963985, abs=1e-8)
    for freedom in (0.8, 2.5, 17.3, 4e3):
        parts = [(1.0, freedom)]
        assert mixture_cdf(mixture_quantile(0.9, parts), parts) == pytest.approx(0.9, abs=1e-9)
    assert math.isnan(mixture_quantile(0.9, [(1.0, math.nan)]))


def test_far_tails_keep_their_digits() -> None:
    """scipy 1.17: `t.sf(12, 30)` and `t.sf(2.5, 2)`, doubled."""
    assert 2 * mixture_cdf(-12, [(1.0, 30)]) == pytest.approx(5.580185415e-13, rel=1e-8)
    assert 2 * mixture_cdf(-2.5, [(1.0, 2)]) == pytest.approx(0.12961172022, rel=1e-9)


def test_a_mixture_lies_between_its_parts() -> None:
    """scipy 1.17: root of 0.3 t(2) + 0.7 normal at 0.995."""
    parts = [(0.3, 2.0), (0.7, math.inf)]
    found = mixture_quantile(0.995, parts)
    assert found == pytest.approx(5.339351122, rel=1e-8)
    assert mixture_cdf(-found, parts) == pytest.approx(0.005, rel=1e-8)
