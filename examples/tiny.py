"""Stand-ins for pretrained models, their tokenizer and data, so that the examples run offline."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, logging

logging.set_verbosity_error()
WORDS = 64


def model(width: int) -> LlamaForCausalLM:
    """A random LLaMA."""
    torch.manual_seed(width)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def tokenizer() -> PreTrainedTokenizerFast:
    """One id a word; padding equals the end of text, as with GPT-NeoX."""
    words = {"<eos>": 0} | {f"word{number}": number for number in range(1, WORDS)}
    names = {"eos_token": "<eos>", "pad_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words)), **names)


def samples(count: int = 64) -> list[dict[str, list[int]]]:
    """Prompt and response of unequal lengths; the response and its EOS are supervised."""
    noise, rows = torch.Generator().manual_seed(0), []
    for length in torch.randint(6, 16, (count,), generator=noise).tolist():
        ids = [*torch.randint(1, WORDS, (length,), generator=noise).tolist(), 0]
        rows.append({"input_ids": ids, "labels": [-100] * 4 + ids[4:]})
    return rows
