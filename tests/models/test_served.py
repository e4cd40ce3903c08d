"""Answers by a server equal this package's own, id by id; one that does not start says why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import write
from looked_at import numbered_rows, trained_on, write_files, write_models

from atkd.evaluation import evaluate
from atkd.evaluation.settings import EvaluationSettings
from atkd.models import generation, served
from atkd.runtime.files import InputError, read_jsonl
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

RUN = "opt/1m/-/sft/1"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on PATH."""
    paths = f"{write(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", paths)
    monkeypatch.setattr(served, "PAUSE", 0.05)


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """A model, its tokenizer and the prompts it is asked."""
    rows = numbered_rows(5)
    tokenizer = trained_on(rows, 275)
    models = write_models(tmp_path, [RUN], tokenizer, scale=20)
    write_files(tmp_path, rows, tokenizer)
    return {"tokenizer": tokenizer, "model": models[RUN].eval(), "folder": tmp_path / RUN}


def test_ids_are_those_of_this_process(there: None, made: dict[str, Any]) -> None:
    tokenizer, prompts = made["tokenizer"], [[5, 6, 7], [9], [4, 8, 12, 16]]
    rooms, keys = [6, 9, 1], ["a", "b", "c"]
    wanted = generation.answers(made["model"], prompts, keys, rooms, tokenizer, 0.0)
    with (
        served.serving(made["folder"], "float32", 64) as address,
        Progress("x", 3, "answers") as progress,
    ):
        found = served.answers(address, prompts, keys, rooms, tokenizer, 0.0, progress)
    assert found == wanted
    with pytest.raises(OSError):
        served.urllib.request.urlopen(address, timeout=2)


def test_an_evaluation_is_the_same_without_entropies(
    there: None, made: dict[str, Any], tmp_path: Path
) -> None:
    found = {}
    for engine in ("torch", "vllm"):
        settings = EvaluationSettings(tasks=["dolly"], context=64, engine=engine)
        stage = Stage("evaluate", RUN, {})
        evaluate.evaluate_folder(
            made["folder"], tmp_path / "prompts", settings, tmp_path / engine, stage
        )
        found[engine] = list(read_jsonl(tmp_path / engine / "dolly.jsonl"))
    for ours, theirs in zip(found["torch"], found["vllm"], strict=True):
        assert "entropy" in ours and "entropy" not in theirs
        del ours["entropy"]
        assert ours == theirs


def test_a_server_that_does_not_start_says_why(
    there: None, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(InputError, match=r"did not start \(unknown dtype float8"),
        served.serving(made["folder"], "float8", 64),
    ):
        pass
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(InputError, match=r"compute\.answers: found 'vllm', which is not inst"),
        served.serving(made["folder"], "float32", 64),
    ):
        pass


def test_ids_beyond_the_tokenizer_are_refused(
    there: None, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "vocabulary_size", lambda tokenizer: 0)
    with (
        served.serving(made["folder"], "float32", 64) as address,
        Progress("x", 1, "answers") as progress,
        pytest.raises(InputError, match="an answer holds the id"),
    ):
        served.answers(address, [[5, 6, 7]], ["a"], [9], made["tokenizer"], 0.0, progress)
