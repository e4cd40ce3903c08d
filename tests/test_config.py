"""Configurations: defaults, the grid, and one message for every wrong value."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT

from atkd import config as grid
from atkd.runtime.files import InputError

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    path = ROOT / f"config/{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    found = grid.checked(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert found["name"] == path.stem and found["evaluation"]["shots"]["mmlu"] == 5
    assert grid.checked(found) == found


FAMILY = {"tokenizer": {"train": 400}, "models": {"1b": {"hub": "some/model"}}}
BAD = [
    ("sedes", [1], "(top level): unknown key 'sedes' (did you mean 'seeds'?)"),
    ("training.student.lr", 1e-3, "training.student: unknown key 'lr'; expected one of steps"),
    ("methods", ["supervised_kdd"], "methods: unknown method 'supervised_kdd' (did you mean"),
    ("method_settings", {"gdk": {}}, "method_settings: unknown method 'gdk'"),
    ("method_settings", {"sft": {"easy": 1}}, "method_settings.sft: unknown key 'easy'"),
    ("pairs.0.family", "otp", "pairs.0.family: unknown 'otp' (did you mean 'opt'?)"),
    ("pairs.0.teacher", "1.3", "pairs.0.teacher: unknown '1.3' (did you mean '1.3b'?)"),
    ("pairs.0.teacher", "125m", "pairs.0: teacher and student are both '125m'"),
    ("families.oppt", FAMILY, "families: found \"oppt\"; expected one of ['opt', 'pythia'"),
    ("training.student.learning_rate", -1e-3, "learning_rate: found -0.001; expected a number"),
    ("training.student.learning_rate", "fast", 'learning_rate: found "fast"; expected number'),
    ("evaluation.limit.dolly", 0, "evaluation.limit.dolly: found 0; expected a number of at least"),
    ("evaluation.limit", {"doly": 3}, "(did you mean 'dolly'?)"),
    ("evaluation.context", 300, "evaluation.context: found 300; expected at most 256"),
    ("evaluation.max_new_tokens.mmlu", 256, "evaluation.context: found 256; expected more than"),
    ("tasks", ["dolly", "dolly"], "tasks: found"),
    ("tasks", ["gsm8k"], 'tasks.0: found "gsm8k"; expected one of'),
    ("families.opt.models.125m", {"hub": "a", "folder": "b"}, "expected exactly one of build"),
    ("training.base", None, "training.base"),
    ("name", "../up", 'name: found "../up"; expected a match of'),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=[f"{k}={v}" for k, v, _ in BAD])
def test_wrong_values_name_key_value_and_what_was_expected(
    key: str, value: Any, message: str
) -> None:
    config = read("smoke")
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    if key.endswith(("125m", "1.3b")):
        path, last = ["families", "opt", "models"], "125m"
    node: Any = config
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(InputError) as caught:
        grid.checked(config)
    assert str(caught.value).startswith("config key ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_students_are_refused_unless_asked_for() -> None:
    config = read("smoke")
    del config["training"]["base"]
    with pytest.raises(InputError, match=r"training\.base: missing, but opt 125m is built"):
        grid.checked(config)
    config["training"]["student"]["allow_random_student"] = True
    assert grid.checked(config)["training"]["student"]["allow_random_student"]


def test_the_grid_trains_each_control_once() -> None:
    config = grid.checked(read("world"))
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
    config = grid.checked(config)
    assert grid.training(config, "opt", "1.3b", "teacher")["steps"] == 3
    assert grid.training(config, "opt", "125m", "teacher")["steps"] == 12


def test_checking_leaves_its_input_alone() -> None:
    config = read("smoke")
    before = copy.deepcopy(config)
    grid.checked(config)
    assert config == before


def test_a_data_root_is_asked_for_only_where_paths_are_relative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ATKD_DATA", raising=False)
    config = grid.checked(read("smoke"))
    assert grid.data_root(config) == ""
    config["families"]["opt"]["tokenizer"] = {"files": "tokenizers/opt"}
    with pytest.raises(InputError, match=r"data_root: missing, but families\.opt\.tokenizer"):
        grid.data_root(config)
    monkeypatch.setenv("ATKD_DATA", "/data")
    assert grid.data_root(config) == "/data"
    assert grid.data_root(config | {"data_root": "here"}) == "here"
    config["data"]["source"] = "local"
    monkeypatch.delenv("ATKD_DATA")
    with pytest.raises(InputError, match=r"data_root: missing, but data\.source reads 'data'"):
        grid.data_root(config)


def test_every_key_of_the_schema_is_described() -> None:
    def bare(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, child in node.get("properties", {}).items():
            if "description" not in child and "$ref" not in child:
                found.append(f"{path}.{name}")
            found += bare(child, f"{path}.{name}")
        for name in ("items", "additionalProperties"):
            found += bare(node.get(name), f"{path}.{name}")
        return found

    schema = grid.schema()
    assert bare(schema, "") == []
    assert not any(bare(node, name) for name, node in schema["$defs"].items())
