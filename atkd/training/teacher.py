"""A teacher's view of a micro-batch, by running it beside the student."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from atkd.losses.fused import Head, fused_targets
from atkd.models import checkpoints

if TYPE_CHECKING:
    from atkd.data.sequences import Batch


class TeacherSignal(NamedTuple):
    """Final hidden states [N, d], uncertainty [N] and log-normaliser without the target [N].

    None is what no teacher gives, or nobody asked for.
    """

    hidden_Nd: Tensor | None
    uncertainty_N: Tensor | None
    log_normaliser_N: Tensor | None


class LiveTeacher:
    """A teacher that runs beside the student."""

    def __init__(self, model: Any, vocabulary: int) -> None:
        self.model, self.head = model, Head(*checkpoints.head_rows(model, vocabulary))

    @classmethod
    def open(cls, folder: str | Path, device: str, dtype: str, vocabulary: int) -> LiveTeacher:
        """The teacher saved in a folder; InputError where `check_head` refuses it."""
        model = checkpoints.load(folder, device, dtype)
        checkpoints.check_head(model, vocabulary)
        return cls(model, vocabulary)

    def signal(self, batch: Batch, ranked: bool = True) -> TeacherSignal:
        """Hidden states at the supervised positions and, if `ranked`, what a product tells."""
        with torch.no_grad():
            hidden_BTd = checkpoints.hidden_states(
                self.model, batch.input_ids_BT, batch.attention_mask_BT
            )
            hidden_Nd = hidden_BTd[:, :-1][batch.supervised_BS]
            if not ranked:
                return TeacherSignal(hidden_Nd, None, None)
            return TeacherSignal(hidden_Nd, *fused_targets(hidden_Nd, self.head, batch.targets_N))
