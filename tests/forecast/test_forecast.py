"""What a run will cost: shapes by their known sizes, jobs by the workflow's, sums by hand."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import yaml
from helpers import ROOT, Snakemake, smoke

from atkd import config
from atkd.forecast import forecast, machines
from atkd.forecast.forecast import Forecast
from atkd.forecast.lengths import lengths_of
from atkd.forecast.machines import GIB, GPUS, Machine
from atkd.forecast.shapes import KNOWN, Shape, shape_of
from atkd.models.families import size
from atkd.plan import Plan

SLOW = Machine(start=1.0, light=0.5, layer=0.01, token=0.001, operations=1e9, bandwidth=1e9)


def read(name: str) -> dict[str, Any]:
    return config.checked(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text("utf-8")))


def of_smoke(**changes: Any) -> Forecast:
    plan = Plan(config.checked(smoke() | changes))
    return Forecast(plan, lengths_of(plan.config), SLOW)


def test_known_models_have_the_parameters_that_their_names_say() -> None:
    paper = read("paper")
    names = [(family, one) for family, row in paper["families"].items() for one in row["models"]]
    assert {paper["families"][f]["models"][s]["hub"] for f, s in names} == set(KNOWN)
    for family, name in names:
        # TinyLlama's keys and values are shared by heads.
        assert shape_of(paper, family, name).parameters == pytest.approx(size(name), rel=0.15)


def test_a_built_model_has_the_parameters_that_it_is_built_with() -> None:
    from atkd.models import checkpoints, tokenizers

    world = read("world")
    tokenizer = tokenizers.train_tokenizer("llama", ["a few words, and more"] * 5, 262)
    for family, name in (("opt", "125m"), ("pythia", "410m"), ("llama", "7b")):
        build = world["families"][family]["models"][name]["build"] | {"rows": 1500}
        found = checkpoints.build(family, build, tokenizer, 192, 1).num_parameters()
        assert shape_of(world, family, name).parameters == pytest.approx(found, rel=0.1)


def test_an_unknown_model_is_guessed_from_its_name(tmp_path: Any) -> None:
    own = {"models": {"3b": {"hub": "some/model"}, "9b": {"folder": str(tmp_path)}}}
    found = shape_of({"families": {"llama": own}}, "llama", "3b")
    assert found.gated and found.parameters == pytest.approx(3e9, rel=0.5)
    text = '{"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 20, "vocab_size": 99}'
    (tmp_path / "config.json").write_text(text)
    assert shape_of({"families": {"llama": own}}, "llama", "9b") == Shape(2, 8, 20, 99, gated=True)


def test_jobs_are_those_of_the_workflow(checkout: Any, snakemake: Snakemake) -> None:
    said = snakemake(checkout, "-n", "--quiet", "rules", "--configfile", "config/smoke.yaml").stdout
    listed = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}
    found: dict[str, int] = {}
    for node in of_smoke().nodes.values():
        found[node.kind] = found.get(node.kind, 0) + 1
    assert found == {kind: listed[kind] for kind in found} and len(found) == 8


def test_sums_and_the_longest_chain_are_those_of_the_jobs() -> None:
    found = of_smoke()
    stages = found.stages()
    assert sum(row[0] for row in stages.values()) == len(found.nodes)
    total = sum(node.cost.seconds for node in found.nodes.values())
    assert sum(row[1] for row in stages.values()) == pytest.approx(total)
    base, teacher = (
        found.nodes[f"results/smoke/models/llama/1.1b/seed1/{role}/manifest.json"]
        for role in ("base", "teacher")
    )
    assert teacher.end == pytest.approx(base.cost.seconds + teacher.cost.seconds)
    assert max(node.end for node in found.nodes.values()) == found.longest() < total


def test_work_grows_with_what_is_asked() -> None:
    one = of_smoke()
    training = smoke()["training"]
    training["student"] |= {"steps": 2 * training["student"]["steps"]}
    two = of_smoke(training=training)
    key = "results/smoke/students/opt/125m/-/sft/seed1/manifest.json"
    before, after = (each.nodes[key].cost.seconds - SLOW.start for each in (one, two))
    assert after == pytest.approx(2 * before)
    live = of_smoke(teacher_cache=[])
    key = "results/smoke/students/opt/125m/1.3b/supervised_kd/seed1/manifest.json"
    assert live.nodes[key].cost.seconds > one.nodes[key].cost.seconds
    assert "teacher cache" not in live.stages() and one.stages()["teacher cache"][2] > 0


def test_the_papers_forecast_says_what_is_downloaded_and_fits() -> None:
    said = forecast.report(read("paper"), GPUS["a100"], "a100")
    assert "97 models" in said and "facebook/opt-6.7b 12." in said
    rows = dict(re.findall(r"^(\w+ \S+ as .+?) +\d+\.\d  (.+)$", said, re.MULTILINE))
    assert rows["opt 125m as student"] == "24 GiB, 40 GiB, 80 GiB"
    assert rows["llama 7b as teacher, 1 of 4"] == "40 GiB, 80 GiB"
    assert re.search(r"teacher cache saves \d+\.\d+ hours for \d", said)


def test_weights_gradients_and_moments_take_sixteen_bytes() -> None:
    shape = Shape(32, 4096, 11008, 32000, gated=True)
    settings: dict[str, Any] = {
        "batch_size": 1, "max_length": 1, "gradient_checkpointing": True, "optimiser": "adamw",
    }  # fmt: skip
    found = forecast.needs_of(shape, settings)
    assert found == pytest.approx(16 * shape.parameters, rel=1e-3) and found > 100 * GIB
    less = forecast.needs_of(shape, settings | {"optimiser": "adamw_8bit"})
    assert less == pytest.approx(10 * shape.parameters, rel=1e-3)
    least = forecast.needs_of(shape, settings | {"lora_rank": 16})
    assert 4 * shape.parameters < least < 4.6 * shape.parameters


def test_this_machine_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = machines._usual
    monkeypatch.setattr(machines, "_usual", lambda run, seconds=1.0: usual(run, 0.05))
    machines._tell()
    found = Machine(start=1, light=1, **json.loads(capsys.readouterr().out))
    assert found.operations > 1e8 and found.bandwidth > 1e8 and found.token > 0


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["plan", "--config", str(ROOT / "config/smoke.yaml"), "--machine", "h100"]
    monkeypatch.setattr(sys, "argv", argv)
    forecast.main()
    assert capsys.readouterr().out.startswith("results/smoke: 16 models, ")
