"""Claims that probes decide: one value for each seed, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import ROOT

from atkd import config
from atkd.methods import BASELINES, Name
from atkd.plan import Plan
from atkd.statistics import probed
from atkd.statistics.estimates import RunRecord
from atkd.statistics.intervals import over_seeds

SEEDS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    found = yaml.safe_load((ROOT / "config/world.yaml").read_text(encoding="utf-8"))
    found |= {"seeds": [*SEEDS], "analyses": ["token_study", "uncertainty", "diversity"]}
    return RunRecord(**Plan(config.checked(found)).record())


def certain(record: RunRecord) -> pd.DataFrame:
    """Uncertainty that falls by 1, 2, 3 and 4 points with the seeds from smallest to largest."""
    rows: list[dict[str, Any]] = []
    for pair in record.pairs:
        ordered = {"1.3b": 0, "2.7b": 7, "6.7b": 1, "1.4b": 0, "2.8b": 1, "1.1b": 0, "7b": 1}
        for seed in SEEDS:
            row = {"family": pair["family"], "seed": seed, "model": pair["teacher"]}
            row |= {"role": "teacher", "texts": "references", "tokens": 900, "student": ""}
            value = 0.5 - 0.01 * seed * ordered[pair["teacher"]]
            rows.append(row | {"statistic": "mean", "value": value})
            found = {"student": pair["student"], "statistic": "rank_correlation"}
            rows.append(row | found | {"value": 0.1 * seed})
            rows.append(row | {"texts": "training rows", "statistic": "mean", "value": 9.0})
    return pd.DataFrame(rows)


def test_uncertainty_falls_by_the_mean_over_families(record: RunRecord) -> None:
    found = probed.uncertainty_falls(record, certain(record))
    assert found is not None and found.value == pytest.approx(-2.5)
    assert found.seeds == 4 and found.documents == 900 and found.over == "seeds"
    error = np.std([1, 2, 3, 4], ddof=1) / 2
    assert found.error == pytest.approx(error)
    assert found.high - found.value == pytest.approx(3.182446 * error, rel=1e-5)


def test_a_correlation_is_the_mean_over_pairs(record: RunRecord) -> None:
    found = probed.uncertainty_marks_difficulty(record, certain(record))
    assert found is not None and found.value == pytest.approx(0.25)


def distinct(record: RunRecord) -> pd.DataFrame:
    """distinct-2 of 30, two points more with ATKD, one less where TKD is taught on easy tokens."""
    rows = []
    for run in record.runs:
        method = run.split("/")[3]
        value = 30.0 + 2 * (method in {f"{base}_atkd" for base in BASELINES})
        settings = Name.of(method).settings
        value -= settings == {"target_weight": "1", "tokens": "easy"}
        rows.append({"run": run, "statistic": "distinct_2", "value": value, "answers": 500})
    return pd.DataFrame(rows)


def test_diversity_is_compared_like_scores(record: RunRecord) -> None:
    found = probed.analysed(record, {"diversity": distinct(record)})
    assert set(found) == {"more_diverse", "tkd_narrows"}
    assert found["more_diverse"][""].value == pytest.approx(2.0)
    assert found["tkd_narrows"][""].value == pytest.approx(-1.0)
    assert found["more_diverse"][""].documents == 500


def test_a_landscape_is_as_sharp_as_its_loss_rises(record: RunRecord) -> None:
    rows = []
    for seed in SEEDS:
        for method, rise in (("supervised_kd", 0.4), ("supervised_kd_atkd", 0.2)):
            run = {"run": f"opt/125m/6.7b/{method}/{seed}", "tokens": 300}
            rows.append(run | {"kind": "centre", "loss": 2.0})
            for x, part in ((-0.2, 0.5), (0.2, 1.5), (0.3, 9.0)):
                rows.append(run | {"kind": "step", "x": x, "loss": 2.0 + part * rise})
    found = probed.analysed(record, {"landscape": pd.DataFrame(rows)})["flatter_landscape"][""]
    assert found.value == pytest.approx(-np.log(2)) and found.seeds == 4


def test_what_a_probe_lacks_is_not_guessed(record: RunRecord) -> None:
    part = distinct(record)
    assert "more_diverse" not in probed.analysed(record, {"diversity": part[10:]})
    one = certain(record)
    assert probed.uncertainty_falls(record, one[one.model != "7b"]) is None
    assert probed.analysed(record, {}) == {}


def test_one_seed_has_no_interval() -> None:
    found = over_seeds([3.0])
    assert found.value == 3.0 and np.isnan(found.low) and found.seeds == 1
