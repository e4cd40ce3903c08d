"""What is written beside every output."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

import pytest
import torch

from atkd.runtime import provenance
from atkd.runtime.files import read_json


def test_a_hash_names_settings_whatever_the_order_of_keys() -> None:
    one, two = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert provenance.settings_hash(one) == provenance.settings_hash(two)
    assert provenance.settings_hash(one) != provenance.settings_hash(one | {"a": 2})
    assert len(provenance.settings_hash(one)) == 12


def test_a_stage_writes_what_was_run_and_what_it_cost(tmp_path: Path) -> None:
    stage = provenance.Stage("student", "opt/125m/-/sft/1", {"steps": 3}, seed=1)
    stage.ready()
    time.sleep(0.02)
    stage.write(tmp_path / "provenance.json", tokens=100, steps=3)
    found = read_json(tmp_path / "provenance.json")
    assert (found["stage"], found["run"], found["seed"]) == ("student", "opt/125m/-/sft/1", 1)
    assert found["settings"] == {"steps": 3} and found["steps"] == 3
    cost = found["cost"]
    assert cost["wall_s"] >= cost["startup_s"] > 0 and cost["peak_memory_mb"] > 1
    assert cost["tokens_per_s"] > 0 and found["versions"]["python"] and found["commit"]


def test_a_machine_is_named_with_the_vector_instructions_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    assert provenance.machine() == f"{platform.machine()} {capability}"
    monkeypatch.delitem(sys.modules, "torch")
    assert provenance.machine() == platform.machine()


def test_outside_a_checkout_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "atkd/runtime/provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "unknown"
