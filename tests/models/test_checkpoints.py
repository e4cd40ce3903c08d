"""Models as files: what is refused when it is opened, and what a tokenizer's ids allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import dispatch_model
from helpers import with_a_hole

from atkd.models import checkpoints, generation, tokenizers
from atkd.models.families import FAMILIES
from atkd.runtime.files import InputError

TEXT = ["the cat sat on the mat and the dog sat on the cat " * 4]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train_tokenizer("pythia", TEXT, 264)


def shape(**changes: int) -> dict[str, int]:
    return {"hidden_size": 16, "layers": 1, "heads": 2} | changes


def test_too_few_rows_name_the_key(tokenizer: Any) -> None:
    message = r"build\.rows: found 100; expected at least the tokenizer's 264"
    with pytest.raises(InputError, match=message):
        checkpoints.build("pythia", shape(rows=100), tokenizer, 32, 1)


def test_a_seed_decides_the_weights(tokenizer: Any) -> None:
    one, two, other = (
        checkpoints.head(checkpoints.build("pythia", shape(), tokenizer, 32, seed)).weight
        for seed in (1, 1, 2)
    )
    assert one.equal(two) and not one.equal(other)


def test_rows_beyond_the_tokenizer_never_get_probability(tokenizer: Any) -> None:
    model = checkpoints.build("pythia", shape(rows=300), tokenizer, 32, 1).eval()
    checkpoints.check_head(model, 264)
    hidden = model.get_input_embeddings().weight[:3]
    assert checkpoints.project(model, hidden, 264).shape == (3, 264)
    with pytest.raises(InputError, match="300 embedding rows; expected at least"):
        checkpoints.check_head(model, 301)


@pytest.mark.case(
    "text",
    "`build.rows: 264` with a tokenizer of 264 tokens whose largest id is 268",
    "config key build.rows: found 264; expected at least the tokenizer's 269",
)
def test_rows_cover_the_largest_id(tokenizer: Any, tmp_path: Path, says: str) -> None:
    holed = with_a_hole(tokenizer, "pythia", tmp_path)
    model = checkpoints.build("pythia", shape(), holed, 32, 1)
    assert len(checkpoints.head(model).weight) == 269
    with pytest.raises(InputError, match=says):
        checkpoints.build("pythia", shape(rows=264), holed, 32, 1)


def test_a_folder_that_is_missing_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model folder .*none: not found"):
        checkpoints.open_source({"folder": str(tmp_path / "none")}, "pythia", tokenizer, 32, 1)


def test_a_saved_model_comes_back_and_its_manifest_is_last(tokenizer: Any, tmp_path: Path) -> None:
    model = checkpoints.build("pythia", shape(), tokenizer, 32, 1)
    checkpoints.save(model, tokenizer, tmp_path, {"identity": "name"})
    again = checkpoints.load(tmp_path)
    assert (
        checkpoints.head(again).weight.equal(checkpoints.head(model).weight) and not again.training
    )
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == checkpoints.MANIFEST


def test_a_gpu_that_is_not_there_is_said() -> None:
    import torch

    assert checkpoints.pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch sees no GPU"):
            checkpoints.pick_device("cuda")


def binary_folder(tokenizer: Any, folder: Path, weights: Any) -> dict[str, str]:
    """A model folder in the old layout: a pickle of tensors instead of safetensors."""
    import torch

    model = checkpoints.build("pythia", shape(), tokenizer, 32, 1)
    model.config.save_pretrained(folder)
    torch.save(weights(model), folder / "pytorch_model.bin")
    return {"folder": str(folder)}


def test_other_formats_are_converted_to_safetensors_once(tokenizer: Any, tmp_path: Path) -> None:
    source = binary_folder(tokenizer, tmp_path, lambda model: model.state_dict())
    model = checkpoints.open_source(source, "pythia", tokenizer, 32, 1)
    checkpoints.save(model, tokenizer, tmp_path / "base", {"identity": "name"})
    built = checkpoints.build("pythia", shape(), tokenizer, 32, 1)
    assert checkpoints.head(checkpoints.load(tmp_path / "base")).weight.equal(
        checkpoints.head(built).weight
    )
    assert not list((tmp_path / "base").glob("*.bin"))


class Code:
    """A pickle that would run code when opened without care."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code from a checkpoint ran",)


def test_a_checkpoint_that_carries_code_is_not_run(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = binary_folder(tokenizer, tmp_path, lambda model: {"weight": Code()})
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        checkpoints.open_source(source, "pythia", tokenizer, 32, 1)
    assert "code from a checkpoint ran" not in capsys.readouterr().out


def test_weights_that_are_missing_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    def without_a_block(model: Any) -> dict[str, Any]:
        return {k: v for k, v in model.state_dict().items() if "mlp" not in k}

    source = binary_folder(tokenizer, tmp_path, without_a_block)
    with pytest.raises(InputError, match="parameters missing, first"):
        checkpoints.open_source(source, "pythia", tokenizer, 32, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_pieces_answers_as_in_one(family: str, tmp_path: Path) -> None:
    """Pieces on the disk and in memory, moved as those on several GPUs are."""
    found = tokenizers.train_tokenizer(family, TEXT, 264)
    checkpoints.save(checkpoints.build(family, shape(layers=2), found, 64, 1), found, tmp_path, {})
    whole, pieces = checkpoints.load(tmp_path), checkpoints.load(tmp_path)
    last = next(name for name, _ in whole.named_modules() if name.endswith("layers.1"))
    places = {name: "cpu" for name, child in whole.named_modules() if not [*child.children()]}
    places = {name: each for name, each in places.items() if not name.startswith(last)}
    dispatch_model(pieces, places | {last: "disk"}, "cpu", offload_dir=str(tmp_path / "off"))
    checkpoints.check_head(pieces, len(found))
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    options = (["a", "b"], [6, 9], found, 1.0)
    expected = generation.answers(whole, prompts, *options)
    assert generation.answers(pieces, prompts, *options) == expected


def test_only_a_process_that_was_given_several_gpus_spreads_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert checkpoints.placement("cuda") == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert checkpoints.placement("cuda") == {"device_map": "auto"}
    assert checkpoints.placement("cpu") == {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert checkpoints.placement("cuda") == {}
