"""Mixtures: the coin, whose answers are trained on, and which of their tokens are targets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atkd.data import sequences
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import write_jsonl
from atkd.training.on_policy import OnPolicyBatches, StudentText


@pytest.fixture(scope="module", params=["opt", "llama"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random student, a tokenizer whose padding is EOS (llama), and data."""
    folder: Path = tmp_path_factory.mktemp("onpolicy")
    rows = [
        {"id": str(i), "instruction": "go " * (i % 3 + 1), "output": "on and on"} for i in range(8)
    ]
    write_jsonl(folder / "train.jsonl", rows)
    tokenizer = tokenizers.train_tokenizer(request.param, ["go on and on"] * 9, 262)
    checkpoints.set_up(0)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    model = checkpoints.build(request.param, shape, tokenizer, 64, 2)
    data = sequences.instructions(str(folder / "train.jsonl"), tokenizer, 60)
    return SimpleNamespace(model=model, tokenizer=tokenizer, data=data)


def mixture(made: Any, fraction: float, seed: int = 1, **options: Any) -> OnPolicyBatches:
    settings = StudentText(student_fraction=fraction, text_temperature=1.0, max_new_tokens=7)
    fixed = sequences.FixedBatches(made.data, made.tokenizer.pad_token_id, "cpu")
    return OnPolicyBatches(fixed, lambda: made.model, made.tokenizer, settings, 60, seed, **options)


def test_the_coin_falls_as_often_as_asked_and_depends_on_seed_and_step(made: Any) -> None:
    coins = {seed: [mixture(made, 0.5, seed).by_student(k) for k in range(2000)] for seed in (1, 2)}
    assert abs(sum(coins[1]) / 2000 - 0.5) < 0.04 and coins[1] != coins[2]
    assert coins[1] == [mixture(made, 0.5, 1).by_student(k) for k in range(2000)]
    assert all(mixture(made, 1.0).by_student(k) for k in range(50))


def test_fixed_steps_are_the_data_and_student_steps_the_students_answers(made: Any) -> None:
    supply, indices = mixture(made, 0.5), [0, 4, 5]
    student = next(k for k in range(99) if supply.by_student(k))
    data = next(k for k in range(99) if not supply.by_student(k))
    fixed = supply(data, indices)
    assert fixed.fixed and torch.equal(fixed.input_ids_BT, supply.fixed(0, indices).input_ids_BT)
    batch = supply(student, indices)
    assert not batch.fixed and batch.rows == (0, 4, 5)
    for row, index in enumerate(indices):
        prompt = made.data.samples[index].prompt
        ids = batch.input_ids_BT[row, batch.attention_mask_BT[row].bool()].tolist()
        places = batch.supervised_BS[row].nonzero()[:, 0].tolist()
        assert ids[:prompt] == made.data.samples[index].ids[:prompt]
        assert places == list(range(prompt - 1, len(ids) - 1))  # the prompt's last is no target
        assert 1 <= len(places) <= 7
    again = supply(student, indices)
    assert torch.equal(batch.input_ids_BT, again.input_ids_BT)


def test_answers_follow_the_student_as_it_is(made: Any) -> None:
    supply = mixture(made, 1.0)
    before = supply(3, [0, 1]).input_ids_BT
    head = made.model.get_output_embeddings().weight
    kept = head.detach().clone()
    with torch.no_grad():
        head[made.tokenizer.eos_token_id] = 0.0
        head.mul_(-30)
    after = supply(3, [0, 1]).input_ids_BT
    with torch.no_grad():
        head.copy_(kept)
    assert before.shape != after.shape or not torch.equal(before, after)


def test_eos_is_taught_where_padding_is_eos(made: Any) -> None:
    eos = made.tokenizer.eos_token_id
    supply, found = mixture(made, 1.0), 0
    for step in range(60):
        batch = supply(step, list(range(8)))
        for row in range(8):
            taught = batch.input_ids_BT[row, 1:][batch.supervised_BS[row]].tolist()
            found += eos in taught
            assert eos not in taught[:-1]
    assert found > 0
