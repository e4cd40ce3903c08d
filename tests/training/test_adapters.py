"""Low-rank adapters: they alone are trained, and what is saved answers as the adapted model did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainings import curve, prepared, train

from atkd.models import checkpoints, tokenizers
from atkd.models.families import FAMILIES
from atkd.training.adapters import Adapted

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_trained_alone_and_merge_to_the_same_model(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, ["go on and on"] * 9, 262)
    model = checkpoints.build(family, SHAPE, tokenizer, 32, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids_BT = torch.arange(24).reshape(2, 12)
    plain_BTV = model(input_ids=ids_BT).logits.detach()
    adapted = Adapted.of(model, 2)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained and all("lora" in name and "head" not in name for name in trained)
    torch.testing.assert_close(model(input_ids=ids_BT).logits, plain_BTV)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    for _ in range(3):
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    changed_BTV = model(input_ids=ids_BT).logits.detach()
    merged = adapted.merged()
    assert type(merged) is type(model) and merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(merged(input_ids=ids_BT).logits, changed_BTV)
    assert not torch.allclose(changed_BTV, plain_BTV)
    same = {name for name, each in merged.state_dict().items() if torch.equal(each, before[name])}
    assert any("embed" in name for name in same) and same != before.keys()


@pytest.mark.slow
def test_a_teacher_with_adapters_resumes_to_the_same(tmp_path: Path) -> None:
    root, knobs = prepared(tmp_path), {"lora_rank": 4}
    whole = train(root, "teacher", "whole", base="base", knobs=knobs)
    with pytest.raises(AssertionError, match="stopped at step 5"):
        train(root, "teacher", "part", base="base", knobs=knobs, stop="5")
    resumed = train(root, "teacher", "part", base="base", knobs=knobs)
    assert curve(resumed) == curve(whole)
    weights, others = (load_file(each / "model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert weights.keys() == load_file(root / "base/model.safetensors").keys()
    checkpoints.load(resumed)
