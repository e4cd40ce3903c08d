"""Weights as files: what is damaged, of another model, or no number, is refused by name."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError

Damage = Callable[[Path], Any]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train_tokenizer("llama", ["the cat sat on the mat " * 4], 262)


@pytest.fixture(scope="module")
def whole(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in hub layout."""
    folder = tmp_path_factory.mktemp("whole")
    checkpoints.build("llama", SHAPE, tokenizer, 32, 1).save_pretrained(folder)
    return folder


def refused(folder: Path, tokenizer: Any) -> str:
    with pytest.raises(InputError) as error:
        checkpoints.open_source({"folder": str(folder)}, "llama", tokenizer, 32, 1)
    return str(error.value)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = change(tensors[name])
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def filled(name: str, value: float) -> Damage:
    return changed(name, lambda tensor: tensor.index_fill(0, torch.tensor([1]), value))


def configured(**keys: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return damage


def old_layout(folder: Path, size: int | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    if size is not None:
        os.truncate(folder / "pytorch_model.bin", size)


def sharded(folder: Path) -> list[Path]:
    model = checkpoints.open_source({"folder": str(folder)}, "llama", None, 32, 1)  # type: ignore[arg-type]
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    return sorted(folder.glob("model-*.safetensors"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            filled("model.layers.1.mlp.up_proj.weight", math.nan),
            marks=pytest.mark.case(
                "model",
                "A checkpoint with a NaN in one matrix (it was scored, as 0)",
                "model.safetensors: model.layers.1.mlp.up_proj.weight holds nan; expected finite "
                "numbers",
            ),
        ),
        pytest.param(
            filled("model.norm.weight", -math.inf),
            marks=pytest.mark.case(
                "model",
                "A checkpoint with an infinite weight",
                "model.safetensors: model.norm.weight holds -inf; expected finite numbers",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "model.safetensors").write_text(POINTER),
            marks=pytest.mark.case(
                "model",
                "Weights that Git LFS has not fetched",
                "model.safetensors: a Git LFS pointer; expected the file, see `git lfs pull`",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text(POINTER),
            marks=pytest.mark.case(
                "model",
                "A config.json that Git LFS has not fetched",
                "config.json: a Git LFS pointer; expected the file, see `git lfs pull`",
            ),
        ),
        pytest.param(
            lambda folder: os.truncate(folder / "model.safetensors", 20000),
            marks=pytest.mark.case(
                "model",
                "Weights cut off by a broken download",
                "model.safetensors: not a whole safetensors file",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            marks=pytest.mark.case(
                "model", "Weights of no byte", "model.safetensors: not a whole safetensors file"
            ),
        ),
        pytest.param(
            lambda folder: old_layout(folder, 20000),
            marks=pytest.mark.case(
                "model",
                "pytorch_model.bin cut off",
                "pytorch_model.bin: not whole; expected all of a checkpoint saved by torch",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "model.safetensors").unlink(),
            marks=pytest.mark.case(
                "model", "A model folder without weights", "cannot be opened (Error no file named"
            ),
        ),
        pytest.param(
            lambda folder: sharded(folder)[1].unlink(),
            marks=pytest.mark.case(
                "model",
                "One of several files of weights is missing",
                "model-00002-of-00004.safetensors: not found; model.safetensors.index.json names "
                "it",
            ),
        ),
        pytest.param(
            lambda folder: shutil.copy(*sharded(folder)[:2]),
            marks=pytest.mark.case(
                "model",
                "Two files of weights are the same file under two names",
                "parameters missing, first model.",
            ),
        ),
        pytest.param(
            configured(hidden_size=8, head_dim=4),
            marks=pytest.mark.case(
                "model",
                "config.json of a model of another width",
                "lm_head.weight has the shape (262, 16); config.json wants (262, 8)",
            ),
        ),
        pytest.param(
            configured(num_hidden_layers=1),
            marks=pytest.mark.case(
                "model",
                "config.json with fewer layers than the weights have (they were dropped)",
                "9 weights that its architecture has no place for, first "
                "model.layers.1.input_layernorm.weight",
            ),
        ),
        pytest.param(
            configured(num_hidden_layers=3),
            marks=pytest.mark.case(
                "model",
                "config.json with more layers than the weights have",
                "9 parameters missing, first model.layers.2.input_layernorm.weight",
            ),
        ),
        pytest.param(
            changed("lm_head.weight", lambda tensor: (tensor * 127).to(torch.int8)),
            marks=pytest.mark.case(
                "model",
                "Quantised weights without their scales (read as the numbers they store)",
                "model.safetensors: lm_head.weight holds integers; expected floating-point numbers",
            ),
        ),
        pytest.param(
            configured(model_type="llama9"),
            marks=pytest.mark.case(
                "model",
                "An architecture that this transformers does not know",
                "cannot be opened (The checkpoint you are trying to load has model type `llama9`",
            ),
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text('{"model_type": '),
            marks=pytest.mark.case(
                "model", "config.json cut off", "config.json:1: not valid JSON (Expecting value)"
            ),
        ),
    ],
)
def test_a_damaged_model_is_named(
    damage: Damage, whole: Path, tokenizer: Any, tmp_path: Path, says: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    damage(folder)
    assert says in refused(folder, tokenizer)


def test_whole_models_open_in_every_layout(whole: Path, tokenizer: Any, tmp_path: Path) -> None:
    heads = []
    for name, lay_out in {"single": lambda _: None, "shards": sharded, "old": old_layout}.items():
        folder = shutil.copytree(whole, tmp_path / name)
        lay_out(folder)
        model = checkpoints.open_source({"folder": str(folder)}, "llama", tokenizer, 32, 1)
        heads.append(checkpoints.head(model).weight)
    assert heads[0].equal(heads[1]) and heads[0].equal(heads[2])


def test_what_training_spoiled_is_not_saved(whole: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = checkpoints.open_source({"folder": str(whole)}, "llama", tokenizer, 32, 1)
    with torch.no_grad():
        checkpoints.head(model).weight[3, 3] = math.inf
    with pytest.raises(InputError, match=r"model to save: lm_head\.weight holds inf"):
        checkpoints.save(model, tokenizer, tmp_path, {"identity": "name"})
    assert not list(tmp_path.iterdir())


@pytest.mark.case(
    "model",
    "A head whose bias bans tokens by -inf",
    "opened: its logits equal the model's own, the banned ones left out",
)
def test_a_heads_bias_may_ban_tokens(whole: Path, tokenizer: Any) -> None:
    from atkd.models import weights

    model = checkpoints.open_source({"folder": str(whole)}, "llama", tokenizer, 32, 1)
    bias = torch.zeros(262).index_fill_(0, torch.tensor([5, 9]), -math.inf)
    checkpoints.head(model).bias = torch.nn.Parameter(bias)
    checkpoints.check_head(model, 262)
    assert weights.not_finite(model) is None
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(InputError, match="differs from its logits by nan"):
        checkpoints.check_head(model, 262)


@pytest.mark.case(
    "model",
    "A folder with a manifest.json of something else where a trained model is expected",
    "manifest.json: not of a model that was trained here",
)
def test_a_strange_manifest_is_named(tmp_path: Path, says: str) -> None:
    for content in ("[]", '{"files": 3}', "{}"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=says):
            checkpoints.load(tmp_path)
