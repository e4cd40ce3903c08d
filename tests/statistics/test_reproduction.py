"""Whether a run repeats a reference: equal scores, noise of seeds, and what lies beyond it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from atkd.statistics.reproduction import reproduction, told


def scores(seeds: list[int], shift: float = 0.0, noise: float = 1.0, key: int = 0) -> pd.DataFrame:
    """Average scores of 20 cells; the last cell is moved by `shift`."""
    rng, rows = np.random.default_rng(key), []
    for cell in range(20):
        for seed in seeds:
            value = 40 + cell + noise * rng.normal() + (shift if cell == 19 else 0)
            rows.append(
                {"family": "opt", "student": "1m", "teacher": f"{cell}b", "method": "gkd"}
                | {"seed": seed, "metric": "score", "task": "average", "value": value}
            )
    return pd.DataFrame(rows)


def test_the_same_run_is_equal() -> None:
    one = scores([1, 2, 3])
    found = reproduction(one[one.seed == 1], one)
    assert (found.shared, found.same) == (20, 20) and not found.beyond_noise
    assert told(found, "x").startswith(
        "20 of 20 average scores equal those of x; none of 20 models"
    )


def test_noise_is_the_pooled_deviation_of_seeds() -> None:
    one = scores([1, 2, 3, 4, 5])
    wide = one.pivot(index="teacher", columns="seed", values="value")
    found = reproduction(scores([9], key=1), one)
    assert found.noise == pytest.approx(math.sqrt(wide.var(axis=1, ddof=1).mean()))
    assert found.shared == 0


def test_what_differs_beyond_noise_is_named() -> None:
    found = reproduction(scores([1], shift=9.0, key=1), scores([1, 2, 3, 4, 5]))
    assert [each.cell.teacher for each in found.beyond_noise] == ["19b"]
    assert "beyond noise: opt/1m/19b/gkd +" in told(found, "the reference")


def test_noise_alone_is_seldom_beyond_it() -> None:
    """Some cell of twenty in one run of twenty."""
    found = [
        reproduction(scores([1], key=2 * key), scores([1, 2, 3, 4, 5], key=2 * key + 1))
        for key in range(60)
    ]
    assert sum(bool(each.beyond_noise) for each in found) <= 8


def test_one_seed_knows_no_noise() -> None:
    found = reproduction(scores([1], key=1), scores([1]))
    assert math.isnan(found.noise) and not found.beyond_noise
    assert "too few seeds" in told(found, "x")
    other = scores([1]).assign(method="dkd")
    assert told(reproduction(other, scores([1, 2])), "x") == "shares no model with x"
