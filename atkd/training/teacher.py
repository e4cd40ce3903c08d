"""A teacher's view of a micro-batch, by running it beside the student."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from atkd.losses.fused import Head, fused_targets
from atkd.models import checkpoints
from atkd.runtime.files import InputError

if TYPE_CHECKING:
    from atkd.data.sequences import Batch


class TeacherSignal(NamedTuple):
    """Final hidden states [N, d], uncertainty [N] and log-normaliser without the target [N].

    None is what no teacher gives, or nobody asked for.
    """

    hidden_Nd: Tensor | None
    uncertainty_N: Tensor | None
    log_normaliser_N: Tensor | None


def check_finite(hidden_Nd: Tensor, batch: Batch) -> None:
    """InputError naming the first data row whose hidden states are NaN or infinite."""
    if hidden_Nd.isfinite().all():
        return
    owner_N = torch.tensor(batch.rows).repeat_interleave(torch.tensor(batch.sizes))
    row = owner_N[~hidden_Nd.isfinite().all(1).cpu()][0].item()
    raise InputError(f"data row {row}: the teacher's hidden states are not finite")


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
            check_finite(hidden_Nd, batch)
            if not ranked:
                return TeacherSignal(hidden_Nd, None, None)
            return TeacherSignal(hidden_Nd, *fused_targets(hidden_Nd, self.head, batch.targets_N))
