"""Answers of a causal language model: greedy, or sampled with noise keyed by what is sampled.

Shapes: B prompts, T their padded length, b rows still unfinished, V the tokenizer's ids.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Choice = Callable[["Tensor", "Tensor", int], "Tensor"]


def padded(rows: Sequence[list[int]], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [rows, longest row]."""
    import torch

    longest = max(map(len, rows))
    blank = [longest - len(row) for row in rows]
    ids = [[pad] * n + row if left else row + [pad] * n for n, row in zip(blank, rows, strict=True)]
    mask = [[0] * n + [1] * (longest - n) for n in blank]
    return torch.tensor(ids), torch.tensor(mask if left else [row[::-1] for row in mask])


def likeliest(logits_bV: Tensor, rows_b: Tensor, step: int) -> Tensor:
    """Greedy choice."""
    return logits_bV.argmax(-1)


def sampler(uniform_BS: Tensor, temperature: float) -> Choice:
    """Choice by inverse transform of `uniform_BS`, a number in [0, 1) per prompt and new token.

    The same number and distribution give the same token, whatever else is in the batch.
    """

    def choose(logits_bV: Tensor, rows_b: Tensor, step: int) -> Tensor:
        import torch

        mass_bV = (logits_bV.double() / temperature).softmax(-1).cumsum(-1)
        aim_b1 = uniform_BS[rows_b, step, None] * mass_bV[:, -1:]
        return torch.searchsorted(mass_bV, aim_b1, right=True)[:, 0].clamp_(
            max=mass_bV.shape[1] - 1
        )

    return choose


def noise(keys: Sequence[str], count: int) -> Tensor:
    """`count` uniform numbers in [0, 1) for each key [keys, count]."""
    import torch

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
) -> torch.Tensor:
    """Answers [B, largest room] to left-padded prompts, padding after EOS or a row's room.

    Rows leave the batch when they end; ids beyond the tokenizer are never chosen.
    """
    import torch
    from transformers import DynamicCache

    ids, mask = ids_BT.to(model.device), mask_BT.to(model.device)
    room_B, most = torch.tensor(rooms, device=model.device), max(rooms)
    answers = torch.full((len(ids), most), tokenizer.pad_token_id, device=model.device)
    rows = torch.arange(len(ids), device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    eos, vocabulary = tokenizer.eos_token_id, len(tokenizer)
    with torch.no_grad(), evaluating(model):
        for step in range(most):
            logits = model(
                input_ids=ids,
                attention_mask=mask if step == 0 else seen(model, mask),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            chosen = choose(logits[:, -1, :vocabulary], rows, step)
            answers[rows, step] = chosen
            going = ((chosen != eos) & (room_B[rows] > step + 1)).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(rows):
                rows, chosen, mask = rows[going], chosen[going], mask[going]
                positions = positions[going]
                cache.batch_select_indices(going)
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return answers.to(ids_BT.device)


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
    choose = likeliest
    if temperature > 0:
        choose = sampler(noise(keys, max(rooms)).to(model.device), temperature)
    found_BS = decode(model, ids_BT, mask_BT, rooms, tokenizer, choose)
    pairs = zip(found_BS.tolist(), rooms, strict=True)
    return [_cut(row[:room], tokenizer.eos_token_id) for row, room in pairs]


def _cut(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row
