"""Muon: orthogonal updates of AdamW's size, for hidden matrices alone, the same after a resume."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from atkd.models import checkpoints, tokenizers
from atkd.models.families import FAMILIES
from atkd.training import muon


@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8)])
def test_an_update_keeps_directions_and_evens_their_sizes(shape: tuple[int, int]) -> None:
    matrices_Lmn = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    found_Lmn = muon.orthogonal(matrices_Lmn)
    left, _, right = torch.linalg.svd(matrices_Lmn, full_matrices=False)
    turned = left.mT @ found_Lmn @ right.mT  # diagonal where the singular vectors are the same
    sizes = turned.diagonal(dim1=1, dim2=2)
    assert (turned - torch.diag_embed(sizes)).abs().max() < 1e-3
    assert sizes.min() > 0.3 and sizes.max() < 1.3


def test_matrices_are_updated_one_by_one_as_together() -> None:
    matrices_Lmn = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([muon.orthogonal(each[None]) for each in matrices_Lmn])
    assert torch.allclose(alone, muon.orthogonal(matrices_Lmn), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_heads_and_vectors_are_left_to_adamw(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, ["go on and on"] * 9, 262)
    shape = {"hidden_size": 8, "layers": 2, "heads": 2}
    model = checkpoints.build(family, shape, tokenizer, 32, 1)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(weight)] for weight in muon.hidden_matrices(model)}
    assert found and all(".layers." in name or ".h." in name for name in found)
    every = {name for name, weight in model.named_parameters() if weight.ndim == 2}
    assert all("embed" in name or "lm_head" in name for name in every - found)


def quadratic(weight: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
    return (weight - aim).square().sum()


def trained(steps: int, state: dict[str, Any] | None = None, start: Any = None) -> Any:
    """A weight after some steps towards zero, and the optimiser."""
    weight = torch.nn.Parameter(torch.ones(3, 4) if start is None else start.clone())
    optimiser = muon.Muon([weight], 0.05, 0.01)
    if state:
        optimiser.load_state_dict(state)
    for _ in range(steps):
        optimiser.zero_grad()
        quadratic(weight, torch.arange(12.0).view(3, 4) / 12).backward()
        optimiser.step()
    return weight.detach(), optimiser


def test_it_goes_downhill_and_continues_from_its_state() -> None:
    aim = torch.arange(12.0).view(3, 4) / 12
    whole, _ = trained(6)
    assert quadratic(whole, aim) < quadratic(torch.ones(3, 4), aim)
    half, optimiser = trained(3)
    rest, _ = trained(3, copy.deepcopy(optimiser.state_dict()), half)
    assert torch.equal(rest, whole)
