"""Teacher answers: as generated, in order, resumable, and read back id by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atkd.data import sequences
from atkd.models import checkpoints, generation, tokenizers
from atkd.runtime.files import InputError, read_jsonl, write_jsonl
from atkd.training import teacher_answers

KNOBS = teacher_answers.AnswerSettings(
    "opt", seed=1, temperature=1.0, max_new_tokens=9, max_length=60, batch_size=4,
    dtype="float32", device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random teacher, its tokenizer, and prompts of different lengths, one too long."""
    folder = tmp_path_factory.mktemp("text")
    rows = [
        {"id": f"r{i}", "instruction": "go on " * (i % 4 + 1), "output": "and on"}
        for i in range(10)
    ]
    rows[7]["instruction"] = "far too long " * 30
    write_jsonl(folder / "train.jsonl", rows)
    tokenizer = tokenizers.train_tokenizer("opt", ["go on and on, far too long"] * 9, 265)
    checkpoints.set_up(0)
    shape = {"hidden_size": 16, "layers": 1, "heads": 2}
    model = checkpoints.build("opt", shape, tokenizer, 64, 2).eval()
    prompts = sequences.prompt_ids(str(folder / "train.jsonl"), tokenizer)
    return folder, model, [row["id"] for row in rows], prompts, tokenizer


def test_answers_follow_the_rows_and_are_read_back(made: Any, tmp_path: Path) -> None:
    folder, model, ids, prompts, tokenizer = made
    path = tmp_path / "teacher.jsonl"
    count = teacher_answers.write(path, model, ids, prompts, KNOBS, tokenizer, "x")
    rows = list(read_jsonl(path))
    assert [row["id"] for row in rows] == ids and rows[7]["ids"] == []
    assert count == sum(len(row["ids"]) for row in rows)
    alone = generation.answers(model, [prompts[5]], ["1/5/text"], [9], tokenizer, 1.0)[0]
    assert rows[5]["ids"] == alone
    data = sequences.instructions(str(folder / "train.jsonl"), tokenizer, 60, str(path))
    assert data.too_long == 1 and data.rows == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert data.samples[5].ids == prompts[5] + rows[5]["ids"]
    assert not list(tmp_path.glob("*.part*")) and not list(tmp_path.glob("*.identity"))


def test_an_interrupted_run_keeps_whole_blocks(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model, ids, prompts, tokenizer = made
    monkeypatch.setattr(teacher_answers, "BLOCK", 3)
    whole, path = tmp_path / "whole.jsonl", tmp_path / "teacher.jsonl"
    teacher_answers.write(whole, model, ids, prompts, KNOBS, tokenizer, "x")
    original, calls = teacher_answers.answer_block, []

    def dies(model: Any, block: Any, first: int, *rest: Any) -> Any:
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(model, block, first, *rest)

    monkeypatch.setattr(teacher_answers, "answer_block", dies)
    with pytest.raises(KeyboardInterrupt):
        teacher_answers.write(path, model, ids, prompts, KNOBS, tokenizer, "x")
    with open(f"{path}.part", "a", encoding="utf-8") as handle:
        handle.write('{"id": "r6", "ids": [1')
    capsys.readouterr()
    teacher_answers.write(path, model, ids, prompts, KNOBS, tokenizer, "x")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "answers: 6 of 10 answers (60%)"
    assert told[-1].startswith("answers: 10 of 10 answers (100%), ") and "tokens/s" in told[-1]
    assert calls == [0, 3, 6, 6, 9] and path.read_bytes() == whole.read_bytes()


def test_answers_to_other_data_are_refused(made: Any, tmp_path: Path) -> None:
    folder, model, ids, prompts, tokenizer = made
    teacher_answers.write(tmp_path / "t.jsonl", model, ids[:4], prompts[:4], KNOBS, tokenizer, "x")
    with pytest.raises(InputError, match="4 answers; expected 10, one a row"):
        sequences.instructions(
            str(folder / "train.jsonl"), tokenizer, 60, str(tmp_path / "t.jsonl")
        )
