"""Samples of instruction data: what is asked, what is a target, what is too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from atkd.data import sequences
from atkd.data.template import template
from atkd.models import tokenizers
from atkd.runtime.files import InputError, write_jsonl

TEXT = "Ann and Bob sit near a map of the old town, and it is Ann. Human: Assistant: Who? " * 8


def test_the_prompt_is_asked_the_response_taught_and_the_longest_fits_exactly(
    tmp_path: Path,
) -> None:
    tokenizer = tokenizers.train_tokenizer("pythia", [TEXT], 270)
    row = {"id": "a", "instruction": "Who?", "input": "", "output": "It is Ann."}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    prompt = tokenizers.encode_prompt(tokenizer, template("Who?"))
    response = tokenizers.encode_response(tokenizer, "It is Ann.")
    exact = len(prompt + response)
    for length in (200, exact):
        (made,) = sequences.instructions(str(tmp_path / "rows.jsonl"), tokenizer, length).samples
        assert made.ids == prompt + response and made.ids[: made.prompt] == prompt
        assert made.spans == ((len(prompt), exact),) and made.attended == exact
    with pytest.raises(InputError, match="no sample fits max_length"):
        sequences.instructions(str(tmp_path / "rows.jsonl"), tokenizer, exact - 1)
