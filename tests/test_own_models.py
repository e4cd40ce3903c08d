"""A teacher out of a GGUF file and a student of its layers, healed, as config/README.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from gguf_files import write
from helpers import ROOT, Snakemake, copy_of_checkout

from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import read_json, read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the recipe's configuration, its file and its data."""
    root = copy_of_checkout(tmp_path_factory.mktemp("own") / "checkout")
    page = (ROOT / "config/README.md").read_text("utf-8")
    (recipe,) = re.findall(r"```yaml gguf\n(.*?)```", page, re.DOTALL)
    assert len(recipe.splitlines()) <= 10
    (root / "own.yaml").write_text(recipe, "utf-8")
    rows = [{"instruction": f"Count to {n}.", "output": f"{n} cats"} for n in range(24)]
    write_jsonl(root / "data/rows.jsonl", rows[:20])
    write_jsonl(root / "data/asked.jsonl", rows[20:])
    texts = [{"text": f"Tom has {n} cats and counts to {n + 1}. " * 4} for n in range(40)]
    write_jsonl(root / "data/manuals/one.jsonl", texts)
    tokenizer = tokenizers.train_tokenizer("pythia", [json.dumps(row) for row in rows + texts], 300)
    shape = {"hidden_size": 32, "layers": 4, "heads": 2, "intermediate": 64, "rows": 320}
    model = checkpoints.build("llama", shape, tokenizer, 256, 1)
    with torch.no_grad():
        checkpoints.head(model).weight *= 20  # sharp, so that there is something to learn
    write(root / "whole.gguf", model, tokenizer)
    small = {
        "methods": ["none", "sft", "supervised_kd_atkd"], "tasks": ["dolly"], "extra_tasks": [],
        "analyses": [],
        "training": {
            "base": {"steps": 6, "batch_size": 4, "max_length": 64, "optimiser": "adamw",
                     "packed": True, "checkpoint_every": 2},
            **{role: {"steps": 4, "batch_size": 4} for role in ("teacher", "student")},
        },
        "families": {"smol": {"models": {"half": {"heal": {"steps": 30, "learning_rate": 0.003}}}}},
        "evaluation": {"max_new_tokens": {"generation": 4}},
    }  # fmt: skip
    (root / "small.yaml").write_text(json.dumps(small), "utf-8")
    return root


@pytest.mark.slow
def test_a_file_teaches_what_is_left_of_it(folder: Path, snakemake: Snakemake) -> None:
    files = ["config/world.yaml", "own.yaml", "small.yaml"]
    done = snakemake(folder, "--cores", "2", "--configfile", *files, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:]
    models = folder / "results/own/models/smol"
    half = checkpoints.load(models / "half/seed1/base")
    assert half.config.num_hidden_layers == 2
    facts = read_json(models / "half/seed1/base/provenance.json")
    assert facts["steps"] == 30 and facts["settings"]["recipe"]["loss"] == "forward_kl"
    losses = [row["loss"] for row in read_jsonl(models / "half/seed1/base/metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0], losses
    whole = read_json(models / "whole/seed1/base/provenance.json")
    assert "train_s" not in whole and whole["settings"]["source"]["gguf"].endswith("whole.gguf")
    assert (folder / "results/own/tables/main_smol.md").is_file()


@pytest.mark.slow
def test_a_healed_model_is_made_once_for_more_methods(folder: Path, snakemake: Snakemake) -> None:
    files = ["config/world.yaml", "own.yaml", "small.yaml"]
    line = ["-n", "--configfile", *files, "--config", "methods=[none,sft,supervised_kd]"]
    listed = snakemake(folder, *line)
    assert listed.returncode == 0 and "rule base:" not in listed.stdout, listed.stdout[-3000:]
