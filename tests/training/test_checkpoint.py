"""A training's state as JSON and safetensors: what goes in comes out, and nothing can run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atkd.training import checkpoint

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TREES)
def test_a_tree_comes_back_as_it_was(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(checkpoint.pack(tree, tensors))
    assert checkpoint.unpack(json.loads(text), tensors) == tree and not tensors


def test_tensors_keep_their_bits_and_kinds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tree = {
        0: {"step": torch.tensor(3.0), "momentum": torch.randn(3, 4).T},
        "half": torch.randn(5).bfloat16(),
        "bytes": torch.get_rng_state(),
        "empty": [torch.zeros(0), ()],
    }
    checkpoint.write_tree(tmp_path, "state", tree)
    found = checkpoint.read_tree(tmp_path, "state")
    assert torch.equal(found[0]["momentum"], tree[0]["momentum"]) and found[0]["step"] == 3
    assert found["half"].dtype == torch.bfloat16 and torch.equal(found["half"], tree["half"])
    assert torch.equal(found["bytes"], tree["bytes"]) and found["empty"][1] == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def test_what_would_need_code_is_refused() -> None:
    with pytest.raises(TypeError, match="/a/0: SimpleNamespace cannot be kept"):
        checkpoint.pack({"a": [SimpleNamespace()]}, {})


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    checkpoint.write_random(tmp_path, 0)
    first = torch.rand(3)
    for process in (0, 1):
        checkpoint.read_random(tmp_path, process)
        assert torch.equal(torch.rand(3), first)


def test_optimisers_and_schedules_are_restored(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.Module, dict[str, Any]]:
        torch.manual_seed(1)
        model = torch.nn.Linear(3, 2)
        optimiser = torch.optim.AdamW(model.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step))
        return model, {"optimiser": optimiser, "schedule": schedule}

    def trained(model: torch.nn.Module, parts: dict[str, Any], steps: int) -> torch.Tensor:
        for _ in range(steps):
            model(torch.ones(1, 3)).square().sum().backward()
            for each in (parts["optimiser"], parts["schedule"]):
                each.step()
            parts["optimiser"].zero_grad()
        return model.weight

    model, parts = made()
    trained(model, parts, 3)
    states = {name: part.state_dict() for name, part in parts.items()}
    checkpoint.write_state(tmp_path, model.state_dict(), states)
    other, others = made()
    weights, states = checkpoint.read_state(tmp_path)
    other.load_state_dict(weights)
    for name, part in others.items():
        part.load_state_dict(states[name])
    assert torch.equal(trained(model, parts, 4), trained(other, others, 4))
    assert others["schedule"].get_last_lr() == parts["schedule"].get_last_lr()


def test_a_weight_under_two_names_is_written_once(tmp_path: Path) -> None:
    weight = torch.ones(2, 3)
    checkpoint.write_state(tmp_path, {"one": weight, "two": weight, "three": weight.clone()}, {})
    assert set(checkpoint.read_state(tmp_path)[0]) == {"one", "three"}
