"""A live teacher's view of a batch."""

from __future__ import annotations

import pytest
import torch

from atkd.data.sequences import Sample, collate
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError
from atkd.training.teacher import LiveTeacher


@pytest.mark.case(
    "model",
    "A teacher whose hidden states overflow on one of its training rows",
    "data row 9: the teacher's hidden states are not finite",
)
def test_what_is_no_number_names_the_data_row(says: str) -> None:
    tokenizer = tokenizers.train_tokenizer("pythia", ["the cat sat on the mat " * 4], 262)
    shape = {"hidden_size": 16, "layers": 1, "heads": 2}
    model = checkpoints.build("pythia", shape, tokenizer, 32, 1).eval()
    with torch.no_grad():  # a weight as large as a finite number gets, read by one token alone
        model.get_input_embeddings().weight[200] = 3e38
    samples = [Sample([5, 6, 7, 8], ((2, 4),), 2, 4), Sample([5, 6, 200, 8, 9], ((2, 5),), 2, 5)]
    batch = collate(samples, [4, 9], tokenizer.pad_token_id, "cpu")
    teacher = LiveTeacher(model, len(tokenizer))
    with pytest.raises(InputError, match=says):
        teacher.signal(batch)
    teacher.signal(collate(samples[:1], [4], tokenizer.pad_token_id, "cpu"))
