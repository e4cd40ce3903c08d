"""The loss around a model's weights, against a forward pass with the weights moved by hand."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from looked_at import command, numbered_rows, trained_on, write_files, write_models

from atkd.analysis import landscape
from atkd.data import prompts
from atkd.models import tokenizers

RUNS = ("opt/1m/2b/supervised_kd/1", "opt/1m/2b/supervised_kd_atkd/1")
SETTINGS = {"tasks": ["dolly"], "batch_size": 3, "directions": 2, "lengths": [0.1, 0.3]}
SETTINGS |= {"points": 3, "reach": 0.4}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("landscape")
    rows = numbered_rows(7)
    tokenizer = trained_on(rows, 275)
    models = write_models(folder, RUNS, tokenizer)
    write_files(folder, rows, tokenizer)
    argv = command("landscape run", folder, RUNS, json.dumps(SETTINGS), "one.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        landscape.main()
    with open(folder / "one.csv", encoding="utf-8") as handle:
        return {
            "models": models,
            "rows": rows,
            "tokenizer": tokenizer,
            "table": [*csv.DictReader(handle)],
        }


def loss(model: Any, found: dict[str, Any]) -> float:
    """Cross-entropy of all responses, from one sample's whole logits at a time."""
    total, count, tokenizer = 0.0, 0, found["tokenizer"]
    for row in found["rows"]:
        asked = tokenizers.encode_prompt(tokenizer, prompts.template(row["instruction"]))
        said = tokenizers.encode_response(tokenizer, row["output"], eos=True)
        with torch.no_grad():
            logits = model(torch.tensor([asked + said])).logits[0, len(asked) - 1 : -1]
        p = logits[:, : tokenizers.vocabulary_size(tokenizer)]
        total += torch.nn.functional.cross_entropy(p, torch.tensor(said), reduction="sum").item()
        count += len(said)
    return total / count


def moved(model: Any, *moves: tuple[float, int]) -> Any:
    weights = dict(model.named_parameters())
    other = copy.deepcopy(model)
    with torch.no_grad():
        for length, number in moves:
            way = landscape.direction(weights, number)
            for name, each in other.named_parameters():
                if name in way:
                    each += length * way[name]
    return other


def test_losses_are_those_of_the_moved_model(found: dict[str, Any]) -> None:
    model = found["models"][RUNS[0]]
    mine = {
        (row["kind"], row["direction"], row["x"], row["y"]): float(row["loss"])
        for row in found["table"]
        if row["run"] == RUNS[0]
    }
    assert len(mine) == 1 + 2 * 2 * 2 + 9
    assert mine["centre", "", "", ""] == pytest.approx(loss(model, found), abs=2e-6)
    assert mine["step", "1", "-0.3", ""] == pytest.approx(
        loss(moved(model, (-0.3, 1)), found), abs=2e-6
    )
    plane = mine["plane", "", "0.4", "-0.4"]
    assert plane == pytest.approx(loss(moved(model, (0.4, 0), (-0.4, 1)), found), abs=2e-6)
    assert mine["plane", "", "0.0", "0.0"] == mine["centre", "", "", ""]


def test_a_direction_is_as_long_as_the_weights_filter_by_filter(found: dict[str, Any]) -> None:
    weights = dict(found["models"][RUNS[0]].named_parameters())
    way = landscape.direction(weights, 0)
    for name, weight in weights.items():
        assert (name in way) == (weight.ndim > 1)
        if name in way:
            torch.testing.assert_close(way[name].norm(dim=1), weight.detach().norm(dim=1))
    other = landscape.direction(weights, 1)
    name = max(way, key=lambda key: way[key].numel())
    cosine = torch.nn.functional.cosine_similarity(way[name].flatten(), other[name].flatten(), 0)
    assert abs(cosine) < 0.1


def test_every_model_is_moved_along_the_same_numbers(found: dict[str, Any]) -> None:
    ways = [landscape.direction(dict(found["models"][run].named_parameters()), 3) for run in RUNS]
    for name in ways[0]:
        units = [way[name] / way[name].norm(dim=1, keepdim=True) for way in ways]
        kept = units[0].isfinite() & units[1].isfinite()
        torch.testing.assert_close(units[0][kept], units[1][kept])


def test_losses_are_finite(found: dict[str, Any], tmp_path: Path) -> None:
    assert all(math.isfinite(float(row["loss"])) for row in found["table"])
    assert {row["run"] for row in found["table"]} == {*RUNS}
