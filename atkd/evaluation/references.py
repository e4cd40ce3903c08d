"""Texts of known answers, and what a model says at every position of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atkd.evaluation.settings import FidelitySettings
from atkd.models import checkpoints, tokenizers
from atkd.models.generation import padded
from atkd.runtime.files import InputError, read_jsonl
from atkd.world.grammar import grammar, next_tokens

TILE = 2**23  # logits held at once: positions x vocabulary


@dataclass(frozen=True)
class Text:
    """A reference as ids: the prompt's and the response's, and the true distributions if known."""

    task: str
    prompt: list[int]
    response: list[int]
    truth: list[dict[int, float]]


@dataclass(frozen=True)
class View:
    """What a model says at the N response positions of all texts: hidden states, and its head."""

    hidden_Nd: Tensor
    weight_Vd: Tensor
    bias_V: Tensor | None

    def log_p(self, rows: slice) -> Tensor:
        """Log-probabilities in nats of some positions, on the head's device [rows, V]."""
        hidden = self.hidden_Nd[rows].to(self.weight_Vd.device)
        return (
            torch.nn.functional.linear(hidden, self.weight_Vd, self.bias_V).float().log_softmax(-1)
        )


def read_texts(data: Path, prompts: Path, tokenizer: Any, settings: FidelitySettings) -> list[Text]:
    """The first references of each task; EOS ends those that were not cut to fit the context."""
    encode = lru_cache(maxsize=None)(
        lambda text: tuple(tokenizers.encode_response(tokenizer, text, eos=False))
    )
    made = []
    for task in settings.tasks:
        rows = {row["id"]: row for row in read_jsonl(data / f"{task}.jsonl", ("id",))}
        asked = list(read_jsonl(prompts / f"{task}.jsonl", ("id", "prompt", "target", "response")))
        for row in asked[: settings.documents]:
            ids = tokenizers.encode_response(
                tokenizer, row["response"], eos=row["response"] == row["target"]
            )
            known = rows.get(row["id"], {}).get("grammar")
            truth = (
                next_tokens(grammar(known), ids, encode, tokenizer.eos_token_id) if known else []
            )
            made.append(Text(task, tokenizers.encode_prompt(tokenizer, row["prompt"]), ids, truth))
    if not made:
        raise InputError(f"{prompts}: no references found, expected some of {settings.tasks}")
    return made


def view(folder: Path, texts: Sequence[Text], vocabulary: int, settings: FidelitySettings) -> View:
    """What a saved model says; its hidden states are kept on the CPU."""
    device = checkpoints.pick_device(settings.device)
    model = checkpoints.load(folder, device, settings.dtype)
    found = look(model, texts, vocabulary, settings.batch_size)
    if not found.hidden_Nd.isfinite().all():
        raise InputError(f"model {folder}: its hidden states on references are not finite")
    return found


def look(model: Any, texts: Sequence[Text], vocabulary: int, batch_size: int) -> View:
    """What a model says at the response positions of all texts."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i].prompt + texts[i].response))
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            part = [texts[index] for index in order[start : start + batch_size]]
            rows = [text.prompt + text.response[:-1] for text in part]
            ids_BT, mask_BT = padded(rows, 0, left=False)
            hidden_BTd = checkpoints.hidden_states(
                model, ids_BT.to(model.device), mask_BT.to(model.device)
            ).cpu()
            for index, text, hidden_Td in zip(order[start:], part, hidden_BTd, strict=False):
                first = len(text.prompt) - 1
                found[index] = hidden_Td[first : first + len(text.response)].clone()
        weight, bias = checkpoints.head_rows(model, vocabulary)
        hidden_Nd = torch.cat([found[index] for index in range(len(texts))])
        return View(hidden_Nd, weight.clone(), None if bias is None else bias.clone())


def targets_of(texts: Sequence[Text]) -> Tensor:
    """The response tokens of all texts [N]."""
    return torch.tensor([token for text in texts for token in text.response])


def log_probabilities(seen: View, targets_N: Tensor) -> Tensor:
    """Log-probability in nats of each target [N]."""
    parts = []
    with torch.inference_mode():
        for rows in tiles(len(targets_N), len(seen.weight_Vd)):
            log_p = seen.log_p(rows).cpu()
            parts.append(log_p.gather(1, targets_N[rows][:, None])[:, 0].double())
    return torch.cat(parts)


def tiles(count: int, vocabulary: int) -> Iterator[slice]:
    """Slices over `count` positions."""
    size = max(1, TILE // vocabulary)
    return (slice(start, start + size) for start in range(0, count, size))
