"""ATKD: adaptive teaching for knowledge distillation of autoregressive language models.

The public face is lazy: importing any ``atkd`` module never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_PUBLIC = dict.fromkeys(("atkd_loss", "kd_loss", "token_terms"), "atkd.losses.functional")
_PUBLIC |= {"fused_kd_loss": "atkd.losses.fused", "METHODS": "atkd.methods"}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from atkd.losses.functional import atkd_loss as atkd_loss
    from atkd.losses.functional import kd_loss as kd_loss
    from atkd.losses.functional import token_terms as token_terms
    from atkd.losses.fused import fused_kd_loss as fused_kd_loss
    from atkd.methods import METHODS as METHODS
else:

    def __getattr__(name: str) -> Any:
        if name in _PUBLIC:
            return getattr(import_module(_PUBLIC[name]), name)
        raise AttributeError(f"module 'atkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
