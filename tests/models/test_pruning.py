"""Fewer layers of a model: those that were asked for, unchanged, in their order."""

from __future__ import annotations

import pytest
import torch

from atkd.models import checkpoints, tokenizers
from atkd.models.families import FAMILIES
from atkd.models.pruning import keep_layers
from atkd.runtime.files import InputError

SHAPE = {"hidden_size": 16, "layers": 4, "heads": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_computes_as_it_did(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, ["go on and on"] * 9, 262)
    model = checkpoints.build(family, SHAPE, tokenizer, 32, 1).eval()
    whole = keep_layers(model, [0, 1, 2, 3])
    ids_BT = torch.arange(12)[None]
    torch.testing.assert_close(whole.eval()(ids_BT).logits, model(ids_BT).logits)
    some = keep_layers(model, [0, 2]).eval()
    assert some.config.num_hidden_layers == 2 and model.config.num_hidden_layers == 4
    layers = next(m for name, m in model.named_modules() if name.endswith("layers"))
    # Layers that add nothing to the stream leave it as if they were not there.
    for number in (1, 3):
        for name, weight in layers[number].named_parameters():
            if any(end in name for end in ("o_proj", "out_proj", "down_proj", "fc2")) or (
                name.startswith(("attention.dense.", "mlp.dense_4h"))
            ):
                torch.nn.init.zeros_(weight)
    torch.testing.assert_close(some(ids_BT).logits, model(ids_BT).logits)
    checkpoints.check_head(some, 262)
    kept = checkpoints.head(some).weight is some.get_input_embeddings().weight
    assert kept == (checkpoints.head(model).weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize("kept", [[0, 4], [2, 1], [1, 1], [-1]])
def test_layers_that_are_not_there_or_do_not_rise_are_refused(kept: list[int]) -> None:
    tokenizer = tokenizers.train_tokenizer("llama", ["go on and on"] * 9, 262)
    model = checkpoints.build("llama", SHAPE, tokenizer, 32, 1)
    with pytest.raises(InputError, match=r"keep_layers: found \["):
        keep_layers(model, kept)
