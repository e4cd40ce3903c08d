"""Sampling: the right distribution, keyed noise, and answers that end where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from atkd.models import checkpoints, generation, one_token, tokenizers


@pytest.fixture(scope="module", params=["opt", "pythia", "llama"])
def places(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A random model of each family and its tokenizer."""
    tokenizer = tokenizers.train_tokenizer(
        request.param, ["some text to learn, and more of it"] * 9, 270
    )
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "rows": 280, "dropout": 0.3}
    if request.param == "llama":
        shape.pop("dropout")
    checkpoints.set_up(0)
    return checkpoints.build(request.param, shape, tokenizer, 64, 3), tokenizer


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, float("-inf")]])
    uniform = torch.linspace(0, 1 - 1e-9, 4001, dtype=torch.float64)[:, None]
    choose = generation.sampler(uniform, temperature=2.0)
    found = choose(logits.expand(4001, 4), torch.arange(4001), 0)
    shares = found.bincount(minlength=4) / 4001
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(0), atol=1e-3, rtol=0)


def test_the_ends_of_the_unit_interval_give_likely_tokens() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]] * 2)
    uniform = torch.tensor([[0.0], [1 - 1e-16]], dtype=torch.float64)
    assert generation.sampler(uniform, 1.0)(logits, torch.arange(2), 0).tolist() == [1, 1]


def test_noise_depends_on_its_key_alone() -> None:
    table = generation.noise(["1/2/3", "1/2/4"], 5)
    assert torch.equal(generation.noise(["1/2/4"], 3)[0], table[1, :3])
    assert (table[0] != table[1]).all() and ((table >= 0) & (table < 1)).all()


def prompts(tokenizer: Any) -> list[list[int]]:
    return tokenizers.encode_prompts(tokenizer, ["some", "some text to learn", "more of", "and it"])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_do_not_depend_on_their_neighbours(places: Any, temperature: float) -> None:
    model, tokenizer = places
    rows, keys, rooms = prompts(tokenizer), list("abcd"), [6, 9, 3, 9]
    together = generation.answers(model, rows, keys, rooms, tokenizer, temperature)
    alone = [
        generation.answers(model, [row], [key], [room], tokenizer, temperature)[0]
        for row, key, room in zip(rows, keys, rooms, strict=True)
    ]
    assert together == alone
    assert all(1 <= len(a) <= room for a, room in zip(together, rooms, strict=True))
    assert all(tokenizer.eos_token_id not in a[:-1] for a in together)
    if temperature:
        assert together != generation.answers(model, rows, list("wxyz"), rooms, tokenizer, 1.0)


def test_a_training_model_answers_without_dropout_and_goes_on_training(places: Any) -> None:
    model, tokenizer = places
    rows, rooms = prompts(tokenizer), [5] * 4
    quiet = generation.answers(model.eval(), rows, list("abcd"), rooms, tokenizer, 0)
    loud = generation.answers(model.train(), rows, list("abcd"), rooms, tokenizer, 0)
    assert quiet == loud and model.training


def test_samples_equal_step_by_step_sampling(places: Any) -> None:
    """Against the whole sequence run anew for every token, without a key-value cache."""
    model, tokenizer = places
    model.eval()
    row = prompts(tokenizer)[1]
    answer = generation.answers(model, [row], ["k"], [8], tokenizer, 0.7)[0]
    ids, aims = list(row), generation.noise(["k"], 8)[0]
    for step, token in enumerate(answer):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, : len(tokenizer)]
        mass = (logits.double() / 0.7).softmax(0).cumsum(0)
        assert token == int((mass <= aims[step] * mass[-1]).sum())
        ids.append(token)


@pytest.mark.case(
    "model",
    "Logits that are NaN or inf while a model answers (its answer was scored)",
    "the model's logits hold nan; expected finite numbers",
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_of_logits_that_are_no_numbers_are_refused(
    places: Any, temperature: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = places
    forward = model.forward

    def spoiled(**inputs: Any) -> Any:
        found = forward(**inputs)
        found.logits[2, -1, 7] = torch.nan
        return found

    monkeypatch.setattr(model, "forward", spoiled)
    with pytest.raises(generation.NotFiniteError, match=says) as error:
        generation.answers(model, prompts(tokenizer), list("abcd"), [1] * 4, tokenizer, temperature)
    assert error.value.row == 2


def test_a_banned_token_is_never_chosen(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = places
    forward = model.forward

    def banning(**inputs: Any) -> Any:
        found = forward(**inputs)
        found.logits[..., 100:200] = -torch.inf
        return found

    monkeypatch.setattr(model, "forward", banning)
    for temperature in (0.0, 1.0):
        found = generation.answers(
            model, prompts(tokenizer), list("abcd"), [9] * 4, tokenizer, temperature
        )
        assert not {token for row in found for token in row} & set(range(100, 200))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_traced_step_is_the_models_own(places: Any, rows: int) -> None:
    model, tokenizer = places
    ids_BT, mask_BT = generation.padded(prompts(tokenizer)[:rows], tokenizer.pad_token_id, True)
    assert one_token.worth_tracing(model)
    own, traced = one_token.OneToken(model), one_token.step_of(model)
    cache = DynamicCache(config=model.config)
    with torch.no_grad(), generation.evaluating(model):
        model(input_ids=ids_BT, attention_mask=mask_BT, past_key_values=cache, use_cache=True)
        past = one_token.tensors(cache)
        for _ in range(4):
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(rows, 1)], 1)
            inputs = ids_BT[:, -1:], mask_BT[:, None, None] > 0, mask_BT.sum(1, True) - 1
            one, two = traced(*inputs, *past), own(*inputs, *past)
            assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))
            past = one[1:]


def test_a_traced_step_follows_the_weights(places: Any) -> None:
    model, tokenizer = places
    line = (model, prompts(tokenizer), list("abcd"), [9] * 4, tokenizer, 0.0)
    before = generation.answers(*line)
    weight = model.get_output_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(-weight)
    after = generation.answers(*line)
    one_token.traced.cache_clear()
    assert after == generation.answers(*line) != before
    with torch.no_grad():
        weight.copy_(kept)


def test_only_steps_that_are_always_the_same_are_traced(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = places
    with torch.autocast("cpu", torch.bfloat16):
        assert not one_token.worth_tracing(model)
    monkeypatch.setattr(model.config, "model_type", "gemma3")
    assert isinstance(one_token.step_of(model), one_token.OneToken)
