"""Known answers for Student's t and its mixtures."""

from __future__ import annotations

import math

import pytest

from atkd.statistics import tdist

# Quantiles of Student's t from printed tables (three decimals), and Cauchy's in closed form.
T_TABLE = [(0.975, 2, 4.303), (0.975, 10, 2.228), (0.95, 5, 2.015), (0.995, 30, 2.750)]


@pytest.mark.parametrize(("probability", "freedom", "value"), T_TABLE)
def test_quantiles_of_the_table(probability: float, freedom: float, value: float) -> None:
    assert tdist.quantile(probability, [(1.0, freedom)]) == pytest.approx(value, abs=5e-4)
    assert tdist.quantile(1 - probability, [(1.0, freedom)]) == pytest.approx(-value, abs=5e-4)


def test_closed_forms() -> None:
    cauchy = tdist.quantile(0.975, [(1.0, 1.0)])
    assert cauchy == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    for freedom in (1e9, math.inf):
        assert tdist.quantile(0.975, [(1.0, freedom)]) == pytest.approx(1.959963985, abs=1e-8)
    for freedom in (0.8, 2.5, 17.3, 4e3):
        parts = [(1.0, freedom)]
        assert tdist.cdf(tdist.quantile(0.9, parts), parts) == pytest.approx(0.9, abs=1e-9)
    assert math.isnan(tdist.quantile(0.9, [(1.0, math.nan)]))


def test_far_tails_keep_their_digits() -> None:
    """scipy 1.17: `t.sf(12, 30)` and `t.sf(2.5, 2)`, doubled."""
    assert 2 * tdist.cdf(-12, [(1.0, 30)]) == pytest.approx(5.580185415e-13, rel=1e-8)
    assert 2 * tdist.cdf(-2.5, [(1.0, 2)]) == pytest.approx(0.12961172022, rel=1e-9)


def test_a_mixture_lies_between_its_parts() -> None:
    """scipy 1.17: root of 0.3 t(2) + 0.7 normal at 0.995."""
    parts = [(0.3, 2.0), (0.7, math.inf)]
    found = tdist.quantile(0.995, parts)
    assert found == pytest.approx(5.339351122, rel=1e-8)
    assert tdist.cdf(-found, parts) == pytest.approx(0.005, rel=1e-8)
