"""The models that a configuration spans: controls once, studies at their pairs, roles."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from helpers import ROOT

from atkd import config as configuration
from atkd import grid
from atkd.analyses import ANALYSES
from atkd.grid import Pair


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))


def of(name: str, **changes: Any) -> dict[str, Any]:
    return configuration.checked(read(name) | changes)


def test_the_grid_trains_each_control_once() -> None:
    config = of("world", analyses=[])
    keys = [run.key for run in grid.runs(config)]
    assert len(keys) == len(set(keys))
    assert sum("/sft/" in key for key in keys) == 3 * len(config["seeds"])
    assert sum("/teacher/" in key for key in keys) == 7 * len(config["seeds"])
    assert sum("/supervised_kd/" in key for key in keys) == 7 * len(config["seeds"])
    config["seeds"], config["seeds_cover"] = [1, 2], "student"
    keys = [run.key for run in grid.runs(config)]
    assert "opt/-/1.3b/teacher/0" in keys and "opt/125m/-/none/0" in keys
    assert "opt/125m/-/sft/2" in keys and "opt/-/1.3b/teacher/1" not in keys


def test_a_size_overrides_training() -> None:
    config = read("smoke")
    config["families"]["opt"]["models"]["1.3b"]["training"] = {"teacher": {"steps": 3}}
    config = configuration.checked(config)
    assert grid.training(config, "opt", "1.3b", "teacher")["steps"] == 3
    assert grid.training(config, "opt", "125m", "teacher")["steps"] == 12


def test_a_study_trains_at_its_pairs_what_the_grid_does_not() -> None:
    plain = grid.runs(of("world", analyses=[]))
    config = of("world", analyses=["token_study", "remedies"])
    more = [run for run in grid.runs(config) if run not in plain]
    assert grid.runs(config)[: len(plain)] == plain
    assert {(run.family, run.teacher) for run in more if "tokens=hard" in run.method} == {
        ("opt", "1.3b"),
        ("opt", "6.7b"),
    }
    larger = {("opt", "2.7b"), ("opt", "6.7b"), ("pythia", "2.8b"), ("llama", "7b")}
    assert {(run.family, run.teacher) for run in more if "teacher=early" in run.method} == larger
    assert not [run for run in more if run.method in config["methods"]]


@pytest.mark.parametrize("name", ANALYSES)
def test_a_study_names_methods_that_there_are(name: str) -> None:
    named = [*ANALYSES[name].methods, *ANALYSES[name].looks_at]
    methods = [each for each in named if "assistant" not in each] or ["sft"]
    assert of("world", methods=methods, analyses=[name])["methods"] == methods


def test_an_assistant_is_the_next_smaller_teacher() -> None:
    config = of("world")
    assert grid.assistant(config, Pair("opt", "125m", "6.7b")) == "2.7b"
    assert grid.assistant(config, Pair("opt", "125m", "1.3b")) is None


def test_an_early_teacher_is_a_teacher_that_stops() -> None:
    config = of("smoke")
    late, early = (
        grid.training(config, "opt", "1.3b", role) for role in ("teacher", "early_teacher")
    )
    assert early == late | {"stop_at": 0.25}
    config["families"]["opt"]["models"]["1.3b"]["training"] = {"teacher": {"steps": 40}}
    assert grid.training(config, "opt", "1.3b", "early_teacher")["steps"] == 40
