"""Muon for the weight matrices of a small model: momentum made orthogonal before it is applied.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. Every singular value of a matrix's
update becomes about one, so that rare directions, such as those that copying needs, grow as fast as
frequent ones. Torch has the same optimiser, but orthogonalises in bfloat16, which CPUs emulate, and
one matrix at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the quintic that takes singular values towards one
ITERATIONS = 5
MOMENTUM = 0.95
RATE = 0.25  # of AdamW's learning rate, which embeddings of a small model want high


class Muon(torch.optim.Optimizer):
    """Steps of 0.2 sqrt(longer side) times the orthogonal update and the learning rate.

    The factor is Liu et al.'s (2025, arXiv 2502.16982); it gives steps the size that AdamW's have.
    """

    def __init__(
        self, matrices: Iterable[Parameter], learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates every matrix that has a gradient; those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for shape, weights in alike.items():
                update_Lmn = orthogonal(torch.stack([self._momentum(each) for each in weights]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for weight, update_mn in zip(weights, update_Lmn, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update_mn, alpha=-size)

    def _momentum(self, weight: Parameter) -> Tensor:
        """Nesterov's: the gradient pulled towards the running mean that already holds it."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices_Lmn: Tensor) -> Tensor:
    """Each matrix with its singular values near one (0.7 to 1.2) and its singular vectors kept."""
    tall = matrices_Lmn.shape[1] > matrices_Lmn.shape[2]
    found = matrices_Lmn.mT if tall else matrices_Lmn
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = found @ found.mT
        found = first * found + (third * square + fifth * square @ square) @ found
    return found.mT if tall else found


def hidden_matrices(model: torch.nn.Module) -> list[Parameter]:
    """The weight matrices between embeddings and head, which are what Muon is for."""
    ends = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    ends |= {id(head.weight)} if head is not None else set()
    return [each for each in model.parameters() if each.ndim == 2 and id(each) not in ends]
