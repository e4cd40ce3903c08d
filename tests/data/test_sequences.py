"""Samples of instruction data: what is asked, what is a target, what is too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from atkd.data import sequences
from atkd.data.template import template
from atkd.models import tokenizers
from atkd.models.families import FAMILIES
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


@pytest.mark.case(
    "text",
    "special tokens in an instruction, an input, an output and a text for pretraining",
    "one EOS for each response and each document, where it ends; no BOS within",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_in_rows_are_text(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizers.train_tokenizer(family, [TEXT], 270)
    written = "a <s> b </s> c <|endoftext|> d <unk><pad><|padding|>"
    row = {"id": "a", "instruction": written, "input": written, "output": written}
    write_jsonl(tmp_path / "rows.jsonl", [row, row])
    special, bos = set(tokenizer.all_special_ids), tokenizers.encode_prompt(tokenizer, "")
    for made in sequences.instructions(str(tmp_path / "rows.jsonl"), tokenizer, 900).samples:
        inner = made.ids[len(bos) : -1]
        assert not special & set(inner) and made.ids[-1] == tokenizer.eos_token_id
        prompt = tokenizer.decode(made.ids[: made.prompt], skip_special_tokens=True)
        assert prompt == template(written, written)
        assert tokenizer.decode(made.ids[made.prompt : -1]) == written
    write_jsonl(tmp_path / "text.jsonl", [{"text": written}] * 3)
    ids = tokenizers.encode_response(tokenizer, written)
    length = 3 * (len(bos) + len(ids))
    (block,) = sequences.packed_text(str(tmp_path / "text.jsonl"), tokenizer, length).samples
    assert block.ids == [*bos, *ids] * 3
    assert sum(number in special for number in block.ids) == 3 * (len(bos) + 1)
    apart = sequences.single_texts(str(tmp_path / "text.jsonl"), tokenizer, length)
    assert [each.ids for each in apart.samples] == [[*bos, *ids]] * 3 and apart.rows == [0, 1, 2]
    (cut, _, _) = sequences.single_texts(str(tmp_path / "text.jsonl"), tokenizer, 9).samples
    assert cut.ids == [*bos, *ids][:9] and cut.spans == ((1, 9),) and cut.attended == 9
