"""The statistics hold their level in simulation: a small version of benchmarks/coverage.md."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from helpers import ROOT

COUNT = 3000  # Monte-Carlo error 0.4 points at 95 %


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("simulation", ROOT / "benchmarks/simulation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tasks() -> list[np.ndarray]:
    """Three tasks' gains, the last one of -100, 0 and 100 only."""
    rng = np.random.default_rng(2)
    found = [rng.normal(0, 9, 30), rng.gamma(1.0, 9, 40), rng.choice([-100.0, 0, 0, 0, 100], 50)]
    return [task - task.mean() for task in found]


def test_draws_have_the_variance_they_claim(benchmark: ModuleType, tasks: list[np.ndarray]) -> None:
    setting = benchmark.Setting(seeds=3, residual=0.6, seed_ratio=2.0)
    drawn = benchmark.draw(tasks, setting, COUNT, np.random.default_rng(1))
    means_S = np.mean([values.mean(-1) for values in drawn], axis=0)
    unit = benchmark.variance(tasks)
    assert means_S.mean(-1).var() == pytest.approx(setting.known * unit, rel=0.1)
    assert means_S.var(-1, ddof=1).mean() == pytest.approx(2.6 * unit, rel=0.1)
    assert setting.share == pytest.approx(2.6 / 3 / setting.known)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("residual", "ratio"), [(0.25, 0.5), (0.25, 32.0), (0.95, 2.0)])
def test_intervals_cover_what_they_say(
    benchmark: ModuleType, tasks: list[np.ndarray], seeds: int, residual: float, ratio: float
) -> None:
    rng = np.random.default_rng(3)
    setting = benchmark.Setting(seeds, residual, ratio)
    found = benchmark.coverage(tasks, setting, COUNT, rng, {"harness": benchmark.harness})
    assert 0.93 < found["harness"][0] < 0.97
    assert found["harness"][1] < 2.0


def test_what_others_miss(benchmark: ModuleType, tasks: list[np.ndarray]) -> None:
    """Each simpler interval fails somewhere that the harness's does not."""
    rng = np.random.default_rng(4)
    seedy = benchmark.coverage(tasks, benchmark.Setting(3, 0.25, 32.0), 1000, rng)
    assert seedy["nested bootstrap"][0] < 0.85
    assert seedy["documents only"][0] < 0.6
    assert seedy["Satterthwaite"][0] < seedy["harness"][0]
    wordy = benchmark.coverage(tasks, benchmark.Setting(3, 0.25, 0.0), 1000, rng)
    assert wordy["seeds only"][0] < 0.8


def test_five_tests_err_no_more_than_one(benchmark: ModuleType, tasks: list[np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    setting = benchmark.Setting(3, 0.95, 2.0)
    single, corrected, found = benchmark.family(tasks, setting, 1000, rng, shared=0.5, real=0)
    assert single > 0.12
    assert corrected < 0.075
    assert np.isnan(found)


def test_quantiles_read_off_are_those_computed(benchmark: ModuleType) -> None:
    share, freedom = np.array([0.0, 0.333, 0.954, 1.0]), np.array([700.0, 33.0, 1e9, 9.0])
    found = benchmark.quantile(share, 3, freedom)
    for value, part, degrees in zip(found, share, freedom, strict=True):
        parts = benchmark.intervals.reference(part, 3, degrees)
        assert value == pytest.approx(benchmark.intervals.mixture_quantile(0.975, parts), rel=2e-3)
