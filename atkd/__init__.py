"""ATKD: adaptive teaching for knowledge distillation of autoregressive language models.

The public face is lazy: importing any ``atkd`` module never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_PUBLIC = dict.fromkeys(("atkd_loss", "kd_loss", "token_terms", "METHODS"), "atkd.objectives")
_PUBLIC |= {"fused_kd_loss": "atkd.fused"}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from atkd.fused import fused_kd_loss as fused_kd_loss
    from atkd.objectives import METHODS as METHODS
    from atkd.objectives import atkd_loss as atkd_loss
    from atkd.objectives import kd_loss as kd_loss
    from atkd.objectives import token_terms as token_terms
else:

    def __getattr__(name: str) -> Any:
        if name in _PUBLIC:
            return getattr(import_module(_PUBLIC[name]), name)
        raise AttributeError(f"module 'atkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
