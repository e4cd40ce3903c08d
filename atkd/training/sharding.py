"""One training's weights, gradients and optimiser states spread over its processes (FSDP2).

Each process keeps a share of every tensor and gathers a layer's weights while it works on them.
Whole tensors are made for checkpoints and for the finished model alone, so that a training goes on
with another number of processes, sharded or not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: torch.nn.Module, model: Any, device: str, processes: int) -> None:
    """Shards a model layer by layer, and what is left of the module around it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (processes,))
    layers = set(model._no_split_modules or ())  # what transformers itself keeps in one piece
    for each in list(model.modules()):
        if type(each).__name__ in layers:
            fully_shard(each, mesh=mesh)
    fully_shard(module, mesh=mesh)


def gathered(tree: Any) -> Any:
    """A tree of plain values and tensors with whole tensors, on the CPU where they were shares.

    Every process has to ask for it.
    """
    if isinstance(tree, DTensor):
        return tree.full_tensor().cpu()
    if isinstance(tree, Mapping):
        return {key: gathered(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(value) for value in tree)
    return tree


def whole(model: Any) -> Any:
    """A model of its own with the weights of a sharded one. Every process has to ask for it."""
    weights = gathered(dict(model.state_dict()))
    found = type(model)(copy.deepcopy(model.config))
    found.load_state_dict(weights)
    return found


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Puts whole weights into a model, sharded or not; KeyError names one that is missing."""
    own = model.state_dict(keep_vars=True)
    found = [name for name in own if name in weights]  # in one order on every process
    with torch.no_grad():
        for name in found:
            own[name].copy_(spread(weights[name], own[name]))
    tied = {id(own[name]) for name in found}
    for name, tensor in own.items():
        if id(tensor) not in tied:
            raise KeyError(name)


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Puts whole moments into the optimiser of sharded weights."""
    owners = [each for group in optimiser.param_groups for each in group["params"]]
    found = {
        place: {name: spread(value, owners[place]) for name, value in moments.items()}
        for place, moments in state["state"].items()
    }
    optimiser.load_state_dict({**state, "state": found})


def spread(value: Any, like: Tensor) -> Any:
    """A whole tensor as the shares that a sharded one of its shape has; anything else as it is."""
    if not (isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
