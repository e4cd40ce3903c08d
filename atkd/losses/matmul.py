"""Vocabulary-sized matrix products with float32 (or float64) sums, of float32 or bfloat16 operands.

Bfloat16 products round their operands to 8 bits of mantissa. A GPU writes them in float32; torch's
CPU kernels sum in float32 and round the finished product. Shapes: n rows of a tile, V vocabulary
rows, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from atkd.losses.weighting import Weights

PRODUCTS = ("float32", "bfloat16")
BLOCK = 8192  # vocabulary rows of a head's gradient that exist in low precision at a time
TILE_BYTES = {"cpu": 90_000_000, "cuda": 1 << 30}  # of logits, both models' together


class Head(NamedTuple):
    """An output projection: weight [V, d], bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def cut(self, vocabulary: int | None) -> Head:
        """The first `vocabulary` rows; the very same tensors where that is all of them.

        A slice's gradient is copied into one of the whole, which would double a large gradient.
        """
        if vocabulary is None or vocabulary >= len(self.weight):
            return self
        bias = None if self.bias is None else self.bias[:vocabulary]
        return Head(self.weight[:vocabulary], bias)

    def to(self, dtype: torch.dtype) -> Head:
        """The same with the weight as an operand of this dtype."""
        return Head(self.weight.to(dtype), self.bias)


def sum_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where an operand is, float32 otherwise."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def choose(products: str | None, like: Tensor) -> str:
    """How to multiply; None: "bfloat16" under bfloat16 autocast, else "float32".

    ValueError if `products` is neither.
    """
    device = like.device.type
    if products is None:
        on = torch.is_autocast_enabled(device)
        low = on and torch.get_autocast_dtype(device) == torch.bfloat16
        return "bfloat16" if low else "float32"
    if products not in PRODUCTS:
        raise ValueError(f"products is {products!r}; expected one of {', '.join(PRODUCTS)}")
    return products


def operand_dtype(products: str | None, *tensors: Tensor) -> torch.dtype:
    """What the operands are rounded to: bfloat16 if asked for, else their own common dtype."""
    if products == "bfloat16" and sum_dtype(*tensors) != torch.float64:
        return torch.bfloat16
    return reduce(torch.promote_types, (each.dtype for each in tensors))


class Buffers:
    """Room for the logits of one tile, and the tiles that fit it."""

    def __init__(self, vocabulary: int, models: int, tile: int | None, like: Tensor) -> None:
        self.vocabulary, self.models, self.like = vocabulary, models, like
        room = TILE_BYTES.get(like.device.type, TILE_BYTES["cuda"])
        self.most = tile or max(1, room // (vocabulary * models * like.element_size()))
        self.room: dict[torch.dtype, Tensor] = {}

    def tiles(self, count: int) -> Iterator[Tensor]:
        """Every so many-th token, so that each tile is a fair sample of the batch."""
        pieces = -(-count // self.most)
        return (torch.arange(k, count, pieces, device=self.like.device) for k in range(pieces))

    def logits(self, rows: int) -> Tensor:
        """Uninitialised logits [models, rows, V]."""
        return self._views(self.like.dtype, self.models, rows)

    def low(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised room for one model's logits in lower precision [rows, V]."""
        return self._views(dtype, 1, rows)[0]

    def _views(self, dtype: torch.dtype, models: int, rows: int) -> Tensor:
        kept = self.room.get(dtype)
        if kept is None or kept.shape[1] < rows:
            self.room[dtype] = kept = self.like.new_empty(
                models, rows, self.vocabulary, dtype=dtype
            )
        return kept[:, :rows]


def project(out_nV: Tensor, hidden_nd: Tensor, head: Head, buffers: Buffers) -> Tensor:
    """Logits of a tile into `out_nV`; the operands are of the head's dtype."""
    operands = hidden_nd.to(head.weight.dtype), head.weight.T
    if operands[1].dtype == out_nV.dtype:
        torch.mm(*operands, out=out_nV)
    elif out_nV.is_cuda:
        out_nV.copy_(torch.mm(*operands, out_dtype=out_nV.dtype))
    else:
        low_nV = buffers.low(len(out_nV), operands[1].dtype)
        out_nV.copy_(torch.mm(*operands, out=low_nV))
    return out_nV if head.bias is None else out_nV.add_(head.bias)


@dataclass(frozen=True)
class Slopes:
    """The gradient of a tile's logits [n, V] as an operand, times `lift` where there is one.

    A token's gradients are as small as its share of the step, below what half precision holds, so
    they are lifted to size 1 by a power of two, which products in float32 take back exactly.
    """

    lifted_nV: Tensor
    lift: Tensor | None = None

    @classmethod
    def rounded(
        cls, slope_nV: Tensor, weights: Weights, buffers: Buffers, to: torch.dtype
    ) -> Slopes:
        """As an operand of the dtype `to`."""
        if slope_nV.dtype == to:
            return cls(slope_nV)
        low_nV = buffers.low(len(slope_nV), to)
        if to != torch.float16:  # the others have float32's range
            return cls(low_nV.copy_(slope_nV))
        tiny = torch.finfo(slope_nV.dtype).tiny
        lift = weights.largest().clamp(min=tiny).log2().ceil().neg().exp2()
        return cls(torch.mul(slope_nV, lift, out=low_nV), lift)

    def to_hidden(self, weight_Vd: Tensor, dtype: torch.dtype) -> Tensor:
        """Gradient of the hidden states [n, d]; the weight is of the operand's dtype."""
        return self._level((self.lifted_nV @ weight_Vd).to(dtype))

    def add_to_head(self, grad_Vd: Tensor, hidden_nd: Tensor) -> None:
        """Adds the tile's gradient of the head; hidden states of the operand's dtype."""
        slope_nV = self.lifted_nV
        if slope_nV.dtype == grad_Vd.dtype:
            grad_Vd.addmm_(slope_nV.T, hidden_nd)
        elif grad_Vd.is_cuda:
            grad_Vd += self._level(torch.mm(slope_nV.T, hidden_nd, out_dtype=grad_Vd.dtype))
        else:
            for start in range(0, len(grad_Vd), BLOCK):
                part_Vd = (slope_nV[:, start : start + BLOCK].T @ hidden_nd).to(grad_Vd.dtype)
                grad_Vd[start : start + BLOCK] += self._level(part_Vd)

    def _level(self, product: Tensor) -> Tensor:
        return product if self.lift is None else product / self.lift
