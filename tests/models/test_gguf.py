"""Models out of GGUF files: the weights that the file holds, and what cannot be read is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import rounded, write

from atkd.models import checkpoints, gguf, tokenizers
from atkd.runtime.files import InputError, sha256

TEXT = ["the cat sat on the mat and the dog sat on the cat " * 4]
SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate": 64, "rows": 288}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A file, and the model and tokenizer that are in it."""
    tokenizer = tokenizers.train_tokenizer("pythia", TEXT, 264)
    model = checkpoints.build("llama", SHAPE, tokenizer, 64, 1).eval()
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write(path, model, tokenizer)
    return path, model, tokenizer


def test_weights_are_those_of_the_file_and_can_be_saved(
    made: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    path, model, tokenizer = made
    source = {"gguf": str(path), "sha256": sha256(path)}
    opened = checkpoints.open_source(source, "smol", tokenizer, 64, 1)
    for name, tensor in rounded(model).items():
        torch.testing.assert_close(opened.state_dict()[name], tensor)
    own = tokenizers.open_tokenizer(source, "smol")
    tokenizers.same_vocabulary(tokenizer, own)
    for text in ("the cat", "a dog sat", "<|endoftext|>"):
        wanted = tokenizers.encode_response(tokenizer, text)
        assert tokenizers.encode_response(own, text) == wanted
    checkpoints.check_head(opened, 264)
    checkpoints.save(opened, own, tmp_path, {})
    again = checkpoints.load(tmp_path)
    ids_BT = torch.arange(8)[None]
    torch.testing.assert_close(again(ids_BT).logits, opened.eval()(ids_BT).logits)


def damaged(path: Path, folder: Path, how: str) -> tuple[Path, str | None]:
    """A file that is not as it should be, and the digest that is asked for."""
    data = path.read_bytes()
    found = folder / "bad.gguf"
    if how == "truncated":
        data = data[: len(data) // 2]
    if how == "no GGUF":
        data = b"PK" + data[2:]
    if how == "unknown":
        data = data.replace(b"llama", b"lxama")
    if how != "absent":
        found.write_bytes(data)
    return found, "0" * 64 if how == "another digest" else None


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("absent", marks=pytest.mark.case(
            "model", "a GGUF file that is not there", "bad.gguf: file not found")),
        pytest.param("no GGUF", marks=pytest.mark.case(
            "model", "a zip archive under the name of a GGUF file", "not a GGUF file")),
        pytest.param("another digest", marks=pytest.mark.case(
            "model", "a GGUF file of another digest than `sha256`", "expected 0000")),
        pytest.param("truncated", marks=pytest.mark.case(
            "model", "a GGUF file of which half was downloaded", "bad.gguf: cannot be opened")),
        pytest.param("unknown", marks=pytest.mark.case(
            "model", "a GGUF file of an unknown architecture", "bad.gguf: cannot be opened")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_message(
    made: tuple[Path, Any, Any], tmp_path: Path, how: str, says: str
) -> None:
    path, digest = damaged(made[0], tmp_path, how)
    with pytest.raises(InputError) as caught:
        gguf.open_model(path, digest)
    assert says in str(caught.value) and "\n" not in str(caught.value)
