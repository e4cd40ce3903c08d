"""A model's step by one token a row, without the time that Python takes for it.

At the width of the embedded world's models two thirds of a step are Python's. Traced, the same
operations run in the same order and give the same bits.

Shapes: b rows, H heads of width d, P positions before the new one, V the model's ids.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Token ids [b, 1], attention mask, positions [b, 1], and keys and values [b, H, P, d] of each layer
# -> logits [b, 1, V], and keys and values with the new position.
Step = Callable[..., tuple[Tensor, ...]]
TRACED = ("opt", "gpt_neox", "llama")  # architectures whose step is the same at every position


class OneToken(torch.nn.Module):
    """The step itself, as the model's own code takes it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids_b1: Tensor, mask: Tensor, positions_b1: Tensor, *past_bHPd: Tensor
    ) -> tuple[Tensor, ...]:
        """See `Step`."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        for layer in range(len(past_bHPd) // 2):
            cache.update(past_bHPd[2 * layer], past_bHPd[2 * layer + 1], layer)
        logits_b1V = self.model(
            input_ids=ids_b1,
            attention_mask=mask,
            position_ids=positions_b1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return (logits_b1V, *tensors(cache))


def tensors(cache: Any) -> list[Tensor]:
    """Keys and values of each layer in turn."""
    return [each for layer in cache.layers for each in (layer.keys, layer.values)]


def worth_tracing(model: Any) -> bool:
    """Whether Python's share of a step counts, and the step's operations are always the same."""
    config = model.config
    return (
        model.device.type == "cpu"
        and config.model_type in TRACED
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and "forward" not in vars(model)  # put in its place by somebody, or spread over devices
        and not torch.is_autocast_enabled("cpu")
    )


@functools.lru_cache(maxsize=1)
def traced(model: Any) -> Step:
    """The traced step of the model that was asked for last; its weights may change, not its shape.

    Traced on two rows and two positions, which stand for any number of either.
    """
    from transformers import DynamicCache

    ids_22 = torch.zeros(2, 2, dtype=torch.long)
    cache = DynamicCache(config=model.config)
    model(input_ids=ids_22, past_key_values=cache, use_cache=True)
    mask_2113 = torch.ones(2, 1, 1, 3, dtype=torch.bool)
    inputs = (ids_22[:, :1], mask_2113, torch.full((2, 1), 2), *tensors(cache))
    # Of Python values that become constants, as they are here, and of old attributes looked at.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Step = torch.jit.trace(OneToken(model), inputs, check_trace=False)
    return found


def step_of(model: Any) -> Step:
    """How to take a model's step by one token."""
    return traced(model) if worth_tracing(model) else OneToken(model)
