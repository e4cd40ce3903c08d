"""Families: a row decides everything that is known of one, and a new row is enough."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from atkd.config import schema
from atkd.models import checkpoints, generation, tokenizers
from atkd.models.families import FAMILIES, Family, family_of
from atkd.runtime.files import InputError

TEXT = ["the cat sat on the mat and the dog sat on the cat " * 4]
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2}


@pytest.fixture(params=[("llama", True), ("pythia", False)], ids=["BOS", "no BOS"])
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A family whose tokenizer is of its own on a known architecture, with a BOS or without."""
    like, adds_bos = request.param
    roles = {"eos_token": "<end>", "pad_token": "<pad>"}
    row = replace(
        FAMILIES[like],
        title="Toy 2",
        specials=("<pad>", "<begin>", "<end>"),
        roles=roles | ({"bos_token": "<begin>"} if adds_bos else {}),
        adds_bos=adds_bos,
        real_size=None,
    )
    monkeypatch.setitem(FAMILIES, "toy2", row)
    return "toy2"


def test_a_new_family_is_a_row(toy: str) -> None:
    tokenizer = tokenizers.train_tokenizer(toy, TEXT, 262)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<begin>", "<end>"]
    assert (tokenizers.encode_prompt(tokenizer, "the cat")[0] == 1) == FAMILIES[toy].adds_bos
    model = checkpoints.build(toy, SHAPE, tokenizer, 32, 1)
    assert model.config.model_type == FAMILIES[toy].model_type
    checkpoints.check_head(model, len(tokenizer))
    prompts = tokenizers.encode_prompts(tokenizer, ["the cat", "the"])
    found = generation.answers(model, prompts, ["a", "b"], [4, 4], tokenizer, 1.0)
    assert all(1 <= len(ids) <= 4 for ids in found)


@pytest.mark.parametrize("use", ["build", "train", "open"])
def test_an_unknown_family_is_named_with_the_known_ones(use: str) -> None:
    tokenizer = tokenizers.train_tokenizer("llama", TEXT, 262)
    uses = {
        "build": lambda: checkpoints.build("bloom", SHAPE, tokenizer, 32, 1),
        "train": lambda: tokenizers.train_tokenizer("bloom", TEXT, 262),
        "open": lambda: tokenizers.open_tokenizer({"files": "/nowhere"}, "bloom"),
    }
    with pytest.raises(InputError, match=r"found 'bloom', .*expected one of opt, pythia, llama"):
        uses[use]()


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "dropout": 0.0}),
        ("pythia", {"intermediate_size": 64, "hidden_dropout": 0.0, "rotary_pct": 0.25}),
        ("llama", {"intermediate_size": 64}),
    ],
)
def test_a_shape_becomes_the_architectures_own_arguments(
    family: str, wanted: dict[str, Any]
) -> None:
    row = family_of(family)
    assert row.own_arguments(SHAPE) == wanted
    wanted = dict(wanted)
    tokenizer = tokenizers.train_tokenizer(family, TEXT, 264)
    config = checkpoints.build(family, SHAPE, tokenizer, 32, 1).config
    if share := wanted.pop("rotary_pct", None):
        assert config.rope_parameters["partial_rotary_factor"] == share
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 1, 2)
    assert (config.vocab_size, config.max_position_embeddings) == (264, 32)
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ids


@pytest.mark.parametrize(("family", "key"), [("llama", "dropout"), ("pythia", "embed")])
def test_a_key_the_architecture_lacks_is_refused(family: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"build\.{key}: found 8; .* has no such setting"):
        family_of(family).own_arguments(SHAPE | {key: 8})


@pytest.mark.parametrize("row", FAMILIES.values(), ids=lambda row: row.title)
def test_rows_name_what_exists(row: Family) -> None:
    assert row.files in tokenizers.FORMATS
    assert set(row.roles.values()) <= set(row.specials)
    module = importlib.import_module(row.modeling)
    assert any(isinstance(value, type) and issubclass(value, torch.nn.Module)
               for value in vars(module).values())  # fmt: skip
    build = schema()["$defs"]["model"]["properties"]["build"]["properties"]
    assert {*checkpoints.COMMON, *row.arguments} <= set(build)
