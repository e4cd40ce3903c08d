"""Small models of a family, and the files of a run that probes look at them with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atkd.data import prompts
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import write_jsonl

Rows = Sequence[dict[str, Any]]


def numbered_rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Rows that ask for a number."""
    return [
        {"id": f"d-{n}", "instruction": f"Say {n}.", "input": "", "output": f"{n} is {n % 3}."}
        | fields
        for n in range(count)
    ]


def trained_on(rows: Rows, size: int, more: Sequence[str] = ()) -> Any:
    """A tokenizer of `size` ids of the rows' texts and more."""
    texts = [prompts.template(row["instruction"]) + row["output"] for row in rows]
    return tokenizers.train_tokenizer("opt", [*texts, *more], size)


def write_models(
    folder: Path, runs: Sequence[str], tokenizer: Any, seeds: Sequence[int] = (), scale: float = 1.0
) -> dict[str, Any]:
    """Random models of one layer, saved under their runs' keys; `scale`: of their embeddings."""
    models = {}
    for run, seed in zip(runs, seeds or range(len(runs)), strict=True):
        shape = {"hidden_size": 16, "layers": 1, "heads": 2, "rows": 320}
        models[run] = checkpoints.build("opt", shape, tokenizer, 64, seed)
        models[run].get_input_embeddings().weight.data *= scale
        checkpoints.save(models[run], tokenizer, folder / run, {})
    return models


def write_files(folder: Path, rows: Rows, tokenizer: Any) -> list[dict[str, Any]]:
    """Writes the rows as the task dolly, as training rows and as prompts, which are returned."""
    settings = prompts.PromptSettings(context=64, max_new_tokens={"generation": 16})
    made, _ = prompts.build("dolly", list(rows), tokenizer, settings)
    write_jsonl(folder / "prompts/dolly.jsonl", made)
    write_jsonl(folder / "tasks/dolly.jsonl", rows)
    write_jsonl(folder / "train.jsonl", rows)
    return made


def command(stage: str, folder: Path, runs: Sequence[str], settings: str, output: str) -> list[str]:
    """A probe's command line but for its training rows."""
    argv = [*stage.split(), "--runs", *runs, "--models", *(str(folder / run) for run in runs)]
    argv += ["--tasks", str(folder / "tasks"), "--prompts", str(folder / "prompts")]
    return [*argv, "--settings", settings, "--output", str(folder / output)]
