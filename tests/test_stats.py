"""Known answers for the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from atkd import stats

# Quantiles of Student's t from printed tables (three decimals), and Cauchy's in closed form.
T_TABLE = [(0.975, 2, 4.303), (0.975, 10, 2.228), (0.95, 5, 2.015), (0.995, 30, 2.750)]


@pytest.mark.parametrize(("probability", "freedom", "value"), T_TABLE)
def test_t_quantile_table(probability: float, freedom: float, value: float) -> None:
    assert stats.t_quantile(probability, freedom) == pytest.approx(value, abs=5e-4)
    assert stats.t_quantile(1 - probability, freedom) == pytest.approx(-value, abs=5e-4)


def test_t_quantile_closed_forms() -> None:
    assert stats.t_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    assert stats.t_quantile(0.975, 1e9) == pytest.approx(1.959963985, abs=1e-8)
    for freedom in (0.8, 2.5, 17.3, 4e3):
        assert stats.t_cdf(stats.t_quantile(0.9, freedom), freedom) == pytest.approx(0.9, abs=1e-9)


def test_one_seed_is_the_textbook_interval_over_documents() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    found = stats.estimate([stats.components(values)])
    error = math.sqrt(2.5 / 5)
    assert found.value == 3.0
    assert found.error == pytest.approx(error)
    assert found.freedom == pytest.approx(4)
    assert found.high - found.value == pytest.approx(2.776445 * error, rel=1e-5)
    assert (found.over, found.seeds, found.documents) == (stats.DOCUMENTS_ONLY, 1, 5)


def test_two_way_matches_mean_squares() -> None:
    rng = np.random.default_rng(3)
    seeds, documents = 4, 9
    values = rng.normal(size=(seeds, documents)) + 2 * rng.normal(size=(seeds, 1))
    values += rng.normal(size=documents)
    grand, rows, columns = values.mean(), values.mean(1), values.mean(0)
    by_seed = documents * ((rows - grand) ** 2).sum() / (seeds - 1)
    by_document = seeds * ((columns - grand) ** 2).sum() / (documents - 1)
    rest = ((values - rows[:, None] - columns + grand) ** 2).sum()
    rest /= (seeds - 1) * (documents - 1)
    total = by_seed + by_document - rest
    below = by_seed**2 / (seeds - 1) + by_document**2 / (documents - 1)
    below += rest**2 / ((seeds - 1) * (documents - 1))
    assert by_seed > rest
    assert by_document > rest
    found = stats.estimate([stats.components(values)])
    assert found.error**2 == pytest.approx(total / values.size)
    assert found.freedom == pytest.approx(total**2 / below)
    assert found.over == stats.SEEDS_AND_DOCUMENTS


def test_seeds_are_shared_between_tasks() -> None:
    """Pure seed effects do not average out over tasks, pure document effects do."""
    rng = np.random.default_rng(4)
    seed_S1 = np.array([[-1.0], [0.0], [1.0]])
    same = [stats.components(np.repeat(seed_S1, 20, axis=1)) for _ in range(4)]
    assert stats.estimate(same).error == pytest.approx(stats.estimate(same[:1]).error)
    alone = [stats.components(rng.normal(size=(1, 400))) for _ in range(4)]
    ratio = stats.estimate(alone).error / stats.estimate(alone[:1]).error
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_group_weights_give_the_plain_mean_of_groups() -> None:
    groups = ["a", "a", "a", "b"]
    weights = stats.group_weights(groups)
    assert weights.sum() == pytest.approx(1)
    values = np.array([[1.0, 2.0, 3.0, 10.0]])
    found = stats.estimate([stats.components(values, weights)])
    assert found.value == pytest.approx((2.0 + 10.0) / 2)


def test_ratio_is_of_sums_and_differences_are_paired() -> None:
    bits, size = np.array([[10.0, 30.0, 50.0]]), np.array([[5.0, 10.0, 40.0]])
    one = stats.paired([bits], [size])
    assert one is not None
    assert stats.estimate([one]).value == pytest.approx(90 / 55)
    both = stats.paired([bits, bits], [size, size])
    assert both is not None
    assert stats.estimate([both])[:4] == (0.0, 0.0, 0.0, 0.0)


def test_documents_that_one_side_lacks_are_left_out() -> None:
    left, right = np.array([[1.0, 2.0, np.nan]]), np.array([[0.0, np.nan, 5.0]])
    found = stats.paired([left, right])
    assert found is not None
    assert (found.documents, found.seed_means[0]) == (1, 1.0)
    assert math.isnan(stats.estimate([found]).low)
    assert stats.paired([left, np.full((1, 3), np.nan)]) is None


def test_refuses_what_is_not_a_matrix_of_numbers() -> None:
    for bad in (np.ones(3), np.ones((0, 3)), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="seeds, documents"):
            stats.components(bad)
