"""Where training sequences come from, and the order in which they are batched.

Batches depend on (seed, step) alone: a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd import tokens
from atkd.files import InputError, read_jsonl
from atkd.prompts import template

if TYPE_CHECKING:
    from torch import Tensor

POOL = 32


@dataclass(frozen=True)
class Sequences:
    """Token ids of every sample, and how many leading ids of each are prompt (not supervised)."""

    ids: list[list[int]]
    prompt_lengths: list[int]
    too_long: int

    def __len__(self) -> int:
        return len(self.ids)


class Batch(NamedTuple):
    """One padded micro-batch: ids and attention [B, T], mask of supervised targets [B, T - 1]."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    supervised_BS: Tensor

    @property
    def targets_N(self) -> Tensor:
        """The next token at each supervised position [N]."""
        return self.input_ids_BT[:, 1:][self.supervised_BS]


def ground_truth(path: str, tokenizer: Any, max_length: int) -> Sequences:
    """Instruction data: templated prompt plus reference response plus EOS, the response supervised.

    Samples longer than `max_length` ids are left out and counted.
    """
    rows = list(read_jsonl(path, ("instruction", "output")))
    prompts = [template(row["instruction"], row.get("input", "")) for row in rows]
    heads = tokens.encode_prompts(tokenizer, prompts)
    tails = tokens.encode_responses(tokenizer, [row["output"] for row in rows])
    kept = [(h, t) for h, t in zip(heads, tails, strict=True) if len(h) + len(t) <= max_length]
    if not kept:
        raise InputError(f"{path}: no sample fits max_length {max_length}")
    return Sequences([h + t for h, t in kept], [len(h) for h, _ in kept], len(rows) - len(kept))


def packed_text(path: str, tokenizer: Any, length: int) -> Sequences:
    """Text for pretraining: documents (BOS, text, EOS) joined and cut into blocks of `length`."""
    rows = [row["text"] for row in read_jsonl(path, ("text",))]
    stream = [
        number
        for ids in tokens.encode_prompts(tokenizer, rows)
        for number in [*ids, tokenizer.eos_token_id]
    ]
    blocks = [
        stream[start : start + length] for start in range(0, len(stream) - length + 1, length)
    ]
    if not blocks:
        raise InputError(
            f"{path}: {len(stream)} ids of text; expected at least one block of {length}"
        )
    return Sequences(blocks, [1] * len(blocks), 0)


def epoch_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of every batch of one epoch: shuffled, then grouped by length within pools.

    The last partial batch is dropped, unless it is the only one.
    """
    order = list(range(len(lengths)))
    noise = random.Random(f"{seed}/{epoch}")
    noise.shuffle(order)
    batches = []
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    whole = [batch for batch in batches if len(batch) == size] or batches[:1]
    noise.shuffle(whole)
    return whole


class Order:
    """The batch of every optimiser step, epoch after epoch."""

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, size, seed
        self.per_epoch = len(epoch_batches(lengths, size, seed, 0))
        self._epoch, self._batches = -1, []

    def __getitem__(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._batches = epoch_batches(self.lengths, self.size, self.seed, epoch)
        return self._batches[place]


def collate(sequences: Sequences, indices: Sequence[int], pad: int, device: str) -> Batch:
    """Pads the samples on the right to the longest of them."""
    import torch

    longest = max(len(sequences.ids[i]) for i in indices)
    ids_BT = torch.full((len(indices), longest), pad, dtype=torch.long)
    attention_BT = torch.zeros_like(ids_BT)
    supervised_BS = torch.zeros((len(indices), longest - 1), dtype=torch.bool)
    for row, index in enumerate(indices):
        ids = sequences.ids[index]
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        attention_BT[row, : len(ids)] = 1
        supervised_BS[row, sequences.prompt_lengths[index] - 1 : len(ids) - 1] = True
    return Batch(ids_BT.to(device), attention_BT.to(device), supervised_BS.to(device))
