"""Low-rank adapters (LoRA): a training that changes few weights, merged into the model at its end.

Hu et al., 2022, arXiv 2106.09685. For teachers that do not fit a device otherwise: the weights of
the model stay as they are, and only the adapters have gradients and moments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from atkd.runtime import packages

SCALE = 2  # alpha over the rank: what the adapters' product is multiplied by


class Adapted(NamedTuple):
    """A model with adapters in its place, and what takes them out again."""

    model: Any
    tuner: Any

    @classmethod
    def of(cls, model: Any, rank: int) -> Adapted:
        """Puts adapters of a rank beside every linear layer but the head; they change nothing yet.

        The model is changed in place. InputError if the package for it is not installed.
        """
        peft = packages.needed("peft", "training.lora_rank")
        settings = peft.LoraConfig(
            r=rank, lora_alpha=SCALE * rank, lora_dropout=0.0, target_modules="all-linear"
        )
        return cls(model, peft.LoraModel(model, settings, "default"))

    def merged(self) -> Any:
        """The model, of its own architecture again, with the adapters' products added."""
        return self.tuner.merge_and_unload()
