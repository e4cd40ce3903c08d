"""Where fixed training sequences come from, and the order in which they are batched.

Batches depend on (seed, step) alone: a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atkd.data.template import template
from atkd.models import tokenizers
from atkd.runtime.files import InputError, read_jsonl

POOL = 32  # batches that are grouped by length together


class Sample(NamedTuple):
    """Token ids, the first `prompt` of which are asked and the first `attended` attended to.

    `spans` are the half-open ranges of places whose token is a target.
    """

    ids: list[int]
    spans: tuple[tuple[int, int], ...]
    prompt: int
    attended: int


def sample(
    prompt: list[int], response: list[int], eos: int, length: int, switches: Collection[str] = ()
) -> Sample:
    """Prompt and response as trained on: every token of the response, EOS included, a target.

    The switches change that; `length` is what padding that is trained on fills up to.
    """
    lead = prompt if "prompt_doubled" in switches else []
    ids = [*lead, *prompt, *response]
    attended = len(ids)
    first, last = _supervised(len(prompt), attended, switches)
    if "eos_untaught" in switches and ids[-1] == eos:
        last -= 1
    if {"padding_taught", "tvd_off_answer"} & set(switches):
        ids += [eos] * (length - attended)
    padding = (attended, len(ids))
    spans = [(1, first), padding] if "tvd_off_answer" in switches else [(first, last), padding]
    return Sample(ids, tuple((a, b) for a, b in spans if a < b), len(prompt), attended)


def _supervised(prompt: int, attended: int, switches: Collection[str]) -> tuple[int, int]:
    """Half-open range of the places whose token is a target, the end of the response included."""
    if "prompt_taught" in switches:
        return 1, attended
    first = prompt - 1 if "prompt_end_taught" in switches else prompt
    return max(1, first), attended


@dataclass(frozen=True)
class Sequences:
    """Samples, the row of the data file each comes from, and how many rows were too long."""

    samples: list[Sample]
    rows: list[int]
    too_long: int

    def __len__(self) -> int:
        return len(self.samples)


class Batch(NamedTuple):
    """One padded micro-batch: ids and attention [B, T], mask of supervised targets [B, T - 1].

    `rows` are the data rows of its samples; `fixed` says that their ids are those of the data, so
    that a teacher's cache may know them.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    supervised_BS: Tensor
    rows: tuple[int, ...]
    fixed: bool

    @property
    def targets_N(self) -> Tensor:
        """The next token at each supervised position [N]."""
        return self.input_ids_BT[:, 1:][self.supervised_BS]

    @property
    def sizes(self) -> list[int]:
        """Supervised tokens of each sample."""
        return self.supervised_BS.sum(1).tolist()


def instructions(
    data: str,
    tokenizer: Any,
    max_length: int,
    text: str | None = None,
    switches: Collection[str] = (),
) -> Sequences:
    """Instruction data: templated prompt plus response, the response's tokens supervised.

    Responses are the data's own plus EOS, or those of `text`, a file of teacher answers. Samples
    longer than `max_length` ids are left out and counted.
    """
    heads = prompt_ids(data, tokenizer)
    tails = answer_ids(text, data, len(heads)) if text else reference_ids(data, tokenizer)
    eos, kept, rows = tokenizer.eos_token_id, [], []
    for row, pair in enumerate(zip(heads, tails, strict=True)):
        made = sample(*pair, eos, max_length, switches)
        if pair[1] and len(made.ids) <= max_length:
            kept.append(made)
            rows.append(row)
    if not kept:
        raise InputError(f"{text or data}: no sample fits max_length {max_length}")
    return Sequences(kept, rows, len(heads) - len(kept))


def prompt_ids(data: str, tokenizer: Any) -> list[list[int]]:
    """Ids of the templated prompt of every row."""
    rows = read_jsonl(data, ("instruction", "output"))
    prompts = [template(row["instruction"], row.get("input", "")) for row in rows]
    return tokenizers.encode_prompts(tokenizer, prompts)


def reference_ids(data: str, tokenizer: Any) -> list[list[int]]:
    """Ids of the data's own response of every row, EOS appended."""
    return tokenizers.encode_responses(tokenizer, [row["output"] for row in read_jsonl(data)])


def answer_ids(text: str, data: str, count: int) -> list[list[int]]:
    """Ids of the teacher's answer to every row, as it gave them."""
    found = [row["ids"] for row in read_jsonl(text, ("ids",))]
    if len(found) != count:
        raise InputError(f"{text}: {len(found)} answers; expected {count}, one a row of {data}")
    return found


def documents(path: str, tokenizer: Any) -> list[list[int]]:
    """Ids of every text for pretraining: BOS, text, EOS."""
    rows = [row["text"] for row in read_jsonl(path, ("text",))]
    eos = tokenizer.eos_token_id
    return [[*ids, eos] for ids in tokenizers.encode_prompts(tokenizer, rows)]


def single_texts(path: str, tokenizer: Any, length: int) -> Sequences:
    """Text for pretraining, a sample each, cut to `length`."""
    cut = [ids[:length] for ids in documents(path, tokenizer)]
    samples = [Sample(ids, ((1, len(ids)),), 1, len(ids)) for ids in cut]
    return Sequences(samples, list(range(len(samples))), 0)


def packed_text(path: str, tokenizer: Any, length: int) -> Sequences:
    """Text for pretraining: documents joined and cut into blocks of `length`."""
    stream = [number for ids in documents(path, tokenizer) for number in ids]
    starts = range(0, len(stream) - length + 1, length)
    blocks = [Sample(stream[i : i + length], ((1, length),), 1, length) for i in starts]
    if not blocks:
        raise InputError(
            f"{path}: {len(stream)} ids of text; expected at least one block of {length}"
        )
    return Sequences(blocks, list(range(len(blocks))), 0)


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


class BatchSampler:
    """The batch of every optimiser step, epoch after epoch."""

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, size, seed
        self.per_epoch = len(epoch_batches(lengths, size, seed, 0))
        self._epoch = -1
        self._batches: list[list[int]] = []

    def __getitem__(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._batches = epoch_batches(self.lengths, self.size, self.seed, epoch)
        return self._batches[place]


class FixedBatches:
    """The supply of micro-batches where all sequences are known beforehand."""

    def __init__(self, sequences: Sequences, pad: int, device: str) -> None:
        self.sequences, self.pad, self.device = sequences, pad, device

    def __call__(self, step: int, indices: Collection[int]) -> Batch:
        samples = [self.sequences.samples[i] for i in indices]
        rows = [self.sequences.rows[i] for i in indices]
        return collate(samples, rows, self.pad, self.device)


def collate(
    samples: Sequence[Sample], rows: Sequence[int], pad: int, device: str, fixed: bool = True
) -> Batch:
    """Pads the samples on the right to the longest of them."""
    longest = max(len(each.ids) for each in samples)
    ids_BT = torch.full((len(samples), longest), pad, dtype=torch.long)
    attention_BT = torch.zeros_like(ids_BT)
    supervised_BS = torch.zeros((len(samples), longest - 1), dtype=torch.bool)
    for row, each in enumerate(samples):
        ids_BT[row, : len(each.ids)] = torch.tensor(each.ids)
        attention_BT[row, : each.attended] = 1
        for first, last in each.spans:
            supervised_BS[row, first - 1 : last - 1] = True
    return Batch(
        ids_BT.to(device), attention_BT.to(device), supervised_BS.to(device), tuple(rows), fixed
    )
