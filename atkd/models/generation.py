"""Answers of a causal language model: greedy, or sampled with noise keyed by what is sampled.

Shapes: B prompts, T their padded length, S new tokens, b rows still unfinished, V the tokenizer's
ids.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from atkd.models.one_token import step_of, tensors
from atkd.models.tokenizers import vocabulary_size
from atkd.runtime.files import InputError

# Logits [b, V], the rows' places in the whole batch [b] and the step -> chosen ids [b].
Choice = Callable[[Tensor, Tensor, int], Tensor]


class NotFiniteError(InputError):
    """Logits that are NaN or infinite; `row`: which prompt's, of those given."""

    def __init__(self, row: int, found: float) -> None:
        super().__init__(f"the model's logits hold {found}; expected finite numbers")
        self.row = row


def padded(rows: Sequence[list[int]], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [rows, longest row], padded on the left or on the right."""
    longest = max(map(len, rows))
    ids_BT = torch.full((len(rows), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for place, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(len(row))
        ids_BT[place, span] = torch.tensor(row)
        mask_BT[place, span] = 1
    return ids_BT, mask_BT


def likeliest(logits_bV: Tensor, rows_b: Tensor, step: int) -> Tensor:
    """Greedy choice."""
    return logits_bV.argmax(-1)


def sampler(uniform_BS: Tensor, temperature: float) -> Choice:
    """Choice by inverse transform of `uniform_BS`, a number in [0, 1) per prompt and new token.

    The same number and distribution give the same token, whatever else is in the batch.
    """

    def choose(logits_bV: Tensor, rows_b: Tensor, step: int) -> Tensor:
        mass_bV = (logits_bV.double() / temperature).softmax(-1).cumsum(-1)
        aim_b1 = uniform_BS[rows_b, step, None] * mass_bV[:, -1:]
        return torch.searchsorted(mass_bV, aim_b1, right=True)[:, 0].clamp_(
            max=mass_bV.shape[1] - 1
        )

    return choose


def noise(keys: Sequence[str], count: int) -> Tensor:
    """`count` uniform numbers in [0, 1) for each key [keys, count]."""
    sources = [random.Random(key) for key in keys]
    rows = [[source.random() for _ in range(count)] for source in sources]
    return torch.tensor(rows, dtype=torch.float64)


def decode(
    model: Any,
    ids_BT: Tensor,
    mask_BT: Tensor,
    rooms: Sequence[int],
    tokenizer: Any,
    choose: Choice,
) -> Tensor:
    """Answers [B, largest room] to left-padded prompts, padding after EOS or a row's room.

    `rooms`: the most new tokens of each row. Rows leave the batch when they end; ids beyond the
    tokenizer are never chosen. NotFiniteError if a row's logits are NaN or infinite, but for -inf,
    which bans a token.
    """
    from transformers import DynamicCache

    ids_bT, mask_bT = ids_BT.to(model.device), mask_BT.to(model.device)
    room_B, most = torch.tensor(rooms, device=model.device), max(rooms)
    answers_BS = torch.full((len(ids_bT), most), tokenizer.pad_token_id, device=model.device)
    rows_b = torch.arange(len(ids_bT), device=model.device)
    peak_BS = torch.zeros(answers_BS.shape, device=model.device)
    positions_b1 = (mask_bT.sum(-1, keepdim=True) - 1).clamp(min=0)
    eos, vocabulary = tokenizer.eos_token_id, vocabulary_size(tokenizer)
    with torch.no_grad(), evaluating(model):
        cache = DynamicCache(config=model.config)
        logits_b1V = model(
            input_ids=ids_bT,
            attention_mask=mask_bT,
            position_ids=(mask_bT.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        past, advance = tensors(cache), step_of(model)
        for step in range(most):
            logits_bV = logits_b1V[:, -1, :vocabulary]
            peak_BS[rows_b, step] = logits_bV.amax(-1).float()
            chosen_b = choose(logits_bV, rows_b, step)
            answers_BS[rows_b, step] = chosen_b
            going = ((chosen_b != eos) & (room_B[rows_b] > step + 1)).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(rows_b):
                rows_b, chosen_b, mask_bT = rows_b[going], chosen_b[going], mask_bT[going]
                positions_b1, past = (
                    positions_b1[going],
                    [each[going.to(each.device)] for each in past],
                )
            mask_bT = torch.cat([mask_bT, mask_bT.new_ones(len(mask_bT), 1)], dim=1)
            positions_b1 = positions_b1 + 1
            logits_b1V, *past = advance(
                chosen_b[:, None], seen(model, mask_bT), positions_b1, *past
            )
    for row, step in (~peak_BS.isfinite()).nonzero().tolist():
        raise NotFiniteError(row, peak_BS[row, step].item())
    return answers_BS.to(ids_BT.device)


def seen(model: Any, mask_BT: Tensor) -> Tensor:
    """The mask of one new token a row, ready for use where attention takes it as it is (sdpa).

    Making it anew from the row masks costs a sixth of a small model's step.
    """
    ready = getattr(model.config, "_attn_implementation", None) == "sdpa"
    return mask_BT[:, None, None, :] > 0 if ready else mask_BT


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def answers(
    model: Any,
    prompts: Sequence[list[int]],
    keys: Sequence[str],
    rooms: Sequence[int],
    tokenizer: Any,
    temperature: float,
) -> list[list[int]]:
    """Ids of an answer to each prompt, its EOS included where it came within `rooms[i]` tokens.

    Greedy for temperature 0, else sampled with the noise of `keys`.
    """
    ids_BT, mask_BT = padded(prompts, tokenizer.pad_token_id, left=True)
    choose: Choice = likeliest
    if temperature > 0:
        choose = sampler(noise(keys, max(rooms)).to(model.device), temperature)
    found_BS = decode(model, ids_BT, mask_BT, rooms, tokenizer, choose)
    pairs = zip(found_BS.tolist(), rooms, strict=True)
    return [_cut(row[:room], tokenizer.eos_token_id) for row, room in pairs]


def _cut(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row
