"""Vocabulary-sized matrix products into float32 (or float64) buffers, in float32 or bfloat16.

With bfloat16 products the operands are rounded to 8 bits of mantissa, block of vocabulary rows by
block, so that no second copy of a head exists; what they are added to is float32. A GPU writes
the products themselves in float32, torch's CPU kernels sum in float32 and round the product.
Shapes: n rows of a tile, V vocabulary rows, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRODUCTS = ("float32", "bfloat16")
BLOCK = 8192  # vocabulary rows whose low-precision copies exist at a time


class Head(NamedTuple):
    """An output projection: weight [V, d], bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def cut(self, vocabulary: int | None) -> Head:
        """The first `vocabulary` rows; None: all."""
        return Head(*(None if each is None else each[:vocabulary] for each in self))

    def detach(self) -> Head:
        """The same without a graph."""
        return Head(*(None if each is None else each.detach() for each in self))


def sum_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where an operand is, float32 otherwise."""
    import torch

    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def choose(products: str | None, like: Tensor) -> str:
    """How to multiply; None: "bfloat16" under bfloat16 autocast, else "float32".

    ValueError if `products` is neither.
    """
    import torch

    device = like.device.type
    if products is None:
        on = torch.is_autocast_enabled(device)
        low = on and torch.get_autocast_dtype(device) == torch.bfloat16
        return "bfloat16" if low else "float32"
    if products not in PRODUCTS:
        raise ValueError(f"products is {products!r}; expected one of {', '.join(PRODUCTS)}")
    return products


def operand_dtype(products: str, *tensors: Tensor) -> torch.dtype:
    """What the operands are rounded to: bfloat16 if asked for, else their own common dtype."""
    import torch

    if products == "bfloat16" and sum_dtype(*tensors) != torch.float64:
        return torch.bfloat16
    return reduce(torch.promote_types, (each.dtype for each in tensors))


def blocks(rows: int, low: bool) -> Iterator[slice]:
    """The whole vocabulary for products in the buffers' own dtype, blocks of it for lower ones."""
    step = BLOCK if low else rows
    return (slice(start, start + step) for start in range(0, rows, step))


def project(out_nV: Tensor, hidden_nd: Tensor, head: Head, dtype: torch.dtype) -> Tensor:
    """Logits of a tile into `out_nV`, the operands rounded to `dtype`."""
    import torch

    low = dtype != out_nV.dtype
    hidden_nd = hidden_nd.to(dtype)
    for part in blocks(out_nV.shape[1], low):
        weight_Vd = head.weight[part].to(dtype)
        if low:
            out_nV[:, part] = low_product(hidden_nd, weight_Vd.T)
        else:
            torch.mm(hidden_nd, weight_Vd.T, out=out_nV)
    return out_nV if head.bias is None else out_nV.add_(head.bias)


def low_product(left_nm: Tensor, right_mk: Tensor) -> Tensor:
    """A product of low-precision operands, summed in float32, in float32 where torch offers it."""
    import torch

    if left_nm.is_cuda:
        return torch.mm(left_nm, right_mk, out_dtype=torch.float32)
    return left_nm @ right_mk


def send_back(
    slope_nV: Tensor,
    hidden_nd: Tensor,
    weight_Vd: Tensor,
    dtype: torch.dtype,
    grad_weight_Vd: Tensor | None,
    wants_hidden: bool,
) -> Tensor | None:
    """From a tile's gradient in the logits: adds the head's, returns the hidden states' [n, d]."""
    import torch

    low = dtype != slope_nV.dtype
    hidden_nd = hidden_nd.to(dtype)
    grad_nd = slope_nV.new_zeros(hidden_nd.shape) if wants_hidden else None
    for part in blocks(slope_nV.shape[1], low):
        part_nV = slope_nV[:, part].to(dtype)
        if grad_nd is not None and low:
            grad_nd += low_product(part_nV, weight_Vd[part].to(dtype))
        elif grad_nd is not None:
            torch.mm(part_nV, weight_Vd.to(dtype), out=grad_nd)
        if grad_weight_Vd is not None and low:
            grad_weight_Vd[part] += low_product(part_nV.T, hidden_nd)
        elif grad_weight_Vd is not None:
            grad_weight_Vd.addmm_(part_nV.T, hidden_nd)
    return grad_nd
