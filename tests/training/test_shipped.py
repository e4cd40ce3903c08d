"""Bases that come with the project: taken over byte for byte, and only where they are the run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, read_json, write_jsonl
from atkd.training import shipped, train

KNOBS = {
    "steps": 4, "batch_size": 4, "learning_rate": 0.01, "warmup_ratio": 0.1, "weight_decay": 0.0,
    "beta2": 0.99, "clip": 1.0, "max_length": 32, "checkpoint_every": 50, "packed": False,
    "gradient_checkpointing": False, "optimiser": "muon", "saved_dtype": "bfloat16",
}  # fmt: skip
SETTINGS = {
    "family": "llama",
    "source": {"build": {"hidden_size": 16, "layers": 1, "heads": 2}},
    "training": KNOBS,
    "compute": {"device": "cpu", "precision": "float32", "teacher_dtype": "float32"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, a tokenizer, a base that a run has made, and the same base as it is shipped."""
    root = tmp_path_factory.mktemp("shipped")
    texts = [f"{name} has {count} cups." for name in ("Ann", "Bob") for count in range(20)]
    write_jsonl(root / "text.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(texts)])
    tokenizers.save(tokenizers.train_tokenizer("llama", texts, 290), root / "tokenizer")
    make(root, root / "run/models/llama/68m/seed1/base")
    shipped.collect(root / "run", root / "bases")
    return root


def make(root: Path, output: Path, seed: int = 1, **options: Any) -> Path:
    """One base by its command line."""
    given = {
        "role": "base", "run": "test", "seed": seed, "settings": json.dumps(SETTINGS),
        "tokenizer": root / "tokenizer", "data": root / "text.jsonl", "output": output, **options,
    }  # fmt: skip
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *words])
        train.main()
    return output


def place(root: Path) -> Path:
    return root / "bases/llama/68m/seed1"


def test_a_shipped_base_is_the_one_that_pretraining_makes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, taken = root / "run/models/llama/68m/seed1/base", tmp_path / "base"
    make(root, taken, shipped=place(root))
    assert "NOT PRETRAINED" in capsys.readouterr().out
    same = [path.name for path in sorted(made.iterdir()) if path.name != "provenance.json"]
    for name in same:
        assert (taken / name).read_bytes() == (made / name).read_bytes(), name
    facts, origin = read_json(taken / "provenance.json"), read_json(made / "provenance.json")
    assert facts["shipped"]["cost"] == origin["cost"] and facts["steps"] == origin["steps"]
    assert facts["run"] == "test" and facts["cost"] != origin["cost"]
    assert checkpoints.load(taken).config.hidden_size == 16


def test_what_is_shipped_has_no_tokenizer_and_half_the_bytes(root: Path) -> None:
    names = {path.name for path in place(root).iterdir()}
    assert names == {*shipped.NAMES, "manifest.json", "model.safetensors"}
    size = checkpoints.load(root / "run/models/llama/68m/seed1/base").num_parameters()
    assert (place(root) / "model.safetensors").stat().st_size < 2 * size + 3000


@pytest.mark.parametrize("change", [{"seed": 2}, {"data": "other.jsonl"}, {"settings": "steps"}])
def test_a_base_of_another_recipe_is_pretrained(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    if "data" in change:
        write_jsonl(tmp_path / "other.jsonl", [{"id": "0", "text": "Ann has 3 cups."}] * 30)
        change = {"data": tmp_path / "other.jsonl"}
    if "settings" in change:
        change = {"settings": json.dumps(SETTINGS | {"training": KNOBS | {"steps": 3}})}
    made = make(root, tmp_path / "base", shipped=place(root), **change)
    assert "a base of other settings or data; pretraining" in capsys.readouterr().out
    assert "shipped" not in read_json(made / "provenance.json")


def test_nothing_shipped_is_no_news(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(root, tmp_path / "base", shipped=tmp_path / "absent")
    assert "absent" not in capsys.readouterr().out


def test_damaged_weights_are_refused(root: Path, tmp_path: Path) -> None:
    shipped.collect(root / "run", tmp_path)
    damaged = tmp_path / "llama/68m/seed1"
    weights = damaged / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="sha256 differs"):
        make(root, tmp_path / "base", shipped=damaged)
    assert not (tmp_path / "base/manifest.json").exists()


def test_a_run_without_bases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished base; expected models"):
        shipped.collect(tmp_path, tmp_path / "bases")
