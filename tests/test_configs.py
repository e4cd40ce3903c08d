"""The lab and paper configurations, and the reference of their keys."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, Snakemake

from atkd import config as grid
from atkd.data import prepare, prompts
from atkd.data.template import template
from atkd.models import tokenizers
from atkd.runtime.files import InputError
from atkd.tasks import AVERAGES
from atkd.world import builder

REAL = {"opt": (50265, 50272), "pythia": (50277, 50304), "llama": (32000, 32000)}


def read(name: str) -> dict[str, Any]:
    text = (ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")
    return grid.checked(yaml.safe_load(text))


@pytest.fixture
def root() -> Path:
    if not os.environ.get("ATKD_DATA"):
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    return Path(os.environ["ATKD_DATA"]).resolve()


@pytest.mark.parametrize("name", ["world", "learn"])
def test_no_base_of_the_world_reads_a_text_twice(name: str) -> None:
    config = read(name)
    texts = config["data"]["settings"]["pretrain"]
    for row in config["families"].values():
        for model in row["models"].values():
            settings = config["training"]["base"] | model["training"].get("base", {})
            assert settings["steps"] * settings["batch_size"] <= texts and not settings["packed"]


@functools.cache
def some_of_the_world() -> builder.World:
    """Training data, tasks and a part of the pretraining texts."""
    return builder.generate(read("world")["data"]["settings"] | {"pretrain": 30000}, seed=11)


@pytest.mark.parametrize("family", REAL)
def test_every_word_of_the_world_is_one_piece_and_all_that_is_asked_fits(family: str) -> None:
    config, made = read("world"), some_of_the_world()
    taught = [template(row["instruction"], row["input"]) + row["output"] for row in made.train]
    taught += [row["text"] for row in made.pretrain]
    tokenizer = tokenizers.train_tokenizer(family, taught)
    protocol = {key: config["evaluation"][key] for key in ("context", "shots", "max_new_tokens")}
    asked = []
    for task in config["tasks"]:
        settings = prompts.PromptSettings.of(protocol)
        rows, counts = prompts.build(task, made.tasks[task], tokenizer, settings)
        answers = tokenizers.encode_responses(tokenizer, [row["target"] for row in rows])
        assert not counts["shots_dropped"] and not counts["prompts_cut"]
        assert max(map(len, answers)) <= rows[0]["max_new_tokens"]
        asked += [row["prompt"] + row["response"] for row in rows]
    words = sorted({word for text in [*taught, *asked] for word in re.findall(r" ?\w+", text)})
    pieces = tokenizers.encode_responses(tokenizer, words)
    assert [word for word, ids in zip(words, pieces, strict=True) if len(ids) > 2] == []
    answers = tokenizers.encode_responses(tokenizer, [row["output"] for row in made.train])
    assert max(map(len, answers)) <= config["student_text"]["max_new_tokens"] and len(words) > 500


def test_lab_covers_the_families_and_tasks() -> None:
    lab = read("lab")
    assert {pair["family"] for pair in lab["pairs"]} == set(REAL)
    assert set(lab["tasks"]) == set(AVERAGES["average"]) and not lab["extra_tasks"]
    for family, (ids, rows) in REAL.items():
        for model in lab["families"][family]["models"].values():
            assert model["build"].get("rows", ids) == rows


def test_lab_dry_run(checkout: Path, snakemake: Snakemake, tmp_path: Path) -> None:
    lab = ("-n", "--configfile", "config/lab.yaml")
    done = snakemake(checkout, *lab)
    assert done.returncode and "config key data_root: missing" in done.stdout
    done = snakemake(checkout, *lab, "--config", f"data_root={tmp_path}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^student +9$", done.stdout, re.M)
    assert "tables/main_opt.csv" in done.stdout and "tables/rouge_l_" not in done.stdout


def test_lab_tokenizers_are_the_real_ones(root: Path) -> None:
    from atkd.models import tokenizers

    for family, (ids, _) in REAL.items():
        files = read("lab")["families"][family]["tokenizer"]["files"]
        assert len(tokenizers.open_tokenizer({"files": str(root / files)}, family)) == ids


def test_lab_data(root: Path, tmp_path: Path) -> None:
    settings = read("lab")["data"]["settings"] | {"root": str(root / "data")}
    manifest = prepare.prepare("local", settings, 1, tmp_path)
    assert manifest["files"]["train.jsonl"]["rows"] == settings["limits"]["train"]
    assert any("not Alpaca-GPT4" in note for note in manifest["notes"])


def test_paper_is_the_papers_setting() -> None:
    paper = read("paper")
    assert [(p["student"], p["teacher"]) for p in paper["pairs"]] == [
        ("125m", "1.3b"),
        ("125m", "2.7b"),
        ("125m", "6.7b"),
        ("410m", "1.4b"),
        ("410m", "2.8b"),
        ("68m", "1.1b"),
        ("68m", "7b"),
    ]
    for role in ("teacher", "student"):
        said = {"epochs": 3, "learning_rate": 2e-5, "warmup_ratio": 0.03, "max_length": 512}
        said |= {"weight_decay": 0.0, "clip": 1.0, "batch_size": 16, "micro_batch_size": 8}
        assert said.items() <= paper["training"][role].items()
    assert paper["evaluation"]["context"] == 2048
    assert paper["evaluation"]["max_new_tokens"] == {
        "generation": 256, "mmlu": 2, "drop": 8, "bbh": 32,
    }  # fmt: skip
    assert set(paper["data"]["settings"]["tasks"]) == set(AVERAGES["average"])
    assert len(paper["data"]["settings"]["tasks"]["bbh"][0]["configs"]) == 27


def test_paper_dry_run_asks_by_size(checkout: Path, snakemake: Snakemake) -> None:
    done = snakemake(checkout, "-n", "--configfile", "config/paper.yaml")
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^rule (teacher|student|evaluate):\n((?: {4}.*\n)+)", done.stdout, re.M)
    asked = {
        (rule, re.search(r"wildcards: (.*)", text)[1]): re.search(r"mem_mb=(\d+)", text)[1]
        for rule, text in jobs
    }
    assert asked["teacher", "family=llama, size=7b, seed=0"] == "160000"
    run = "family=llama, student=68m, teacher=7b, method=supervised_kd, seed=1"
    assert asked["student", run] == asked["evaluate", run] == "16000"  # from the teacher's cache
    assert asked["student", run.replace("supervised_kd", "gkd")] == "160000"


def test_needs_are_the_largest_of_the_models() -> None:
    paper = read("paper")
    found = grid.needs(paper, "opt", ["125m", "6.7b"])
    assert (found["memory_mb"], found["minutes"], found["gpus"]) == (160000, 1440, 1)
    assert grid.needs(paper, "opt", ["6.7b"], "6.7b")["gpus"] == 4
    assert grid.needs(paper, "opt", ["125m"])["memory_mb"] == 16000


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("world", {"peple": 3}, "unknown key 'peple' (did you mean 'people'?)"),
        ("world", {"people": 1}, "data.settings.people: found 1; expected a number of at least 4"),
        ("world", {"held_out": 0.6}, "data.settings.held_out: found 0.6; expected a number of at"),
        ("local", {"limts": {"train": 3}}, "unknown key 'limts' (did you mean 'limits'?)"),
        ("local", {"train": 3}, "data.settings.train: found 3; expected array"),
        ("local", {"limits": {"train": 0}}, "data.settings.limits.train: found 0"),
        ("hub", {"train": [{"id": "some/set"}]}, "data.settings: 'tasks' is a required property"),
    ],
)
def test_settings_of_a_source_are_checked(source: str, settings: dict, message: str) -> None:
    lab = yaml.safe_load((ROOT / "config/lab.yaml").read_text(encoding="utf-8"))
    lab["data"] = {"source": source, "settings": settings}
    with pytest.raises(InputError, match=re.escape(message)):
        grid.checked(lab)


def test_key_reference_is_up_to_date() -> None:
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    assert text.endswith(grid.reference()), "rewrite the keys with atkd.config.reference()"
