"""Teacher-generated answers to the training prompts, for SeqKD and f-distill.

    python -m atkd teacher-answers --teacher T --data D --settings '{...}' --output teacher.jsonl

One line a data row: its id, the answer's ids (EOS included where it came) and its text. Rows are
answered in blocks; a killed run keeps the blocks it finished.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from atkd.data import sequences
from atkd.data.template import fingerprint
from atkd.models import checkpoints, served, tokenizers
from atkd.models.generation import NotFiniteError, answers
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, settings_of, start_up
from atkd.runtime.files import (
    InputError,
    folder_lock,
    naming,
    read_json,
    read_jsonl,
    sha256,
    write_json,
)
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage, settings_hash, versions

BLOCK = 1024


@dataclass(frozen=True)
class AnswerSettings:
    """How a teacher answers.

    `max_new_tokens` bounds an answer, `max_length` prompt and answer together, in tokens;
    `batch_size`: prompts answered at once; `temperature` 0 is greedy; `engine`: torch, or vllm.
    """

    family: str
    seed: int
    temperature: float
    max_new_tokens: int
    max_length: int
    batch_size: int
    dtype: str
    device: str
    engine: str = "torch"


def answer_block(
    model: Any,
    prompts: list[list[int]],
    first: int,
    settings: AnswerSettings,
    tokenizer: Any,
    progress: Progress,
) -> list[list[int]]:
    """Answers to prompts that are rows `first`, `first` + 1, ...; batched by prompt length.

    A prompt that leaves no room within `max_length` gets an empty answer. `model`: the address of
    a server where that is what answers.
    """
    rooms = [min(settings.max_new_tokens, settings.max_length - len(prompt)) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    order = [index for index in order if rooms[index] > 0]
    found: dict[int, list[int]] = {}
    progress.add(len(prompts) - len(order))
    if isinstance(model, str):
        asked = [prompts[index] for index in order]
        keys = [f"{settings.seed}/{first + index}/text" for index in order]
        room = [rooms[index] for index in order]
        made = served.answers(model, asked, keys, room, tokenizer, settings.temperature, progress)
        found = dict(zip(order, made, strict=True))
        return [found.get(index, []) for index in range(len(prompts))]
    for start in range(0, len(order), settings.batch_size):
        part = order[start : start + settings.batch_size]
        try:
            made = answers(
                model,
                [prompts[index] for index in part],
                [f"{settings.seed}/{first + index}/text" for index in part],
                [rooms[index] for index in part],
                tokenizer,
                settings.temperature,
            )
        except NotFiniteError as error:
            raise InputError(f"data row {first + part[error.row]}: {error}") from None
        found.update(zip(part, made, strict=True))
        progress.add(len(part), tokens=sum(map(len, made)))
    return [found.get(index, []) for index in range(len(prompts))]


def write(
    path: Path,
    model: Any,
    ids: list[str],
    prompts: list[list[int]],
    settings: AnswerSettings,
    tokenizer: Any,
    identity: str,
) -> int:
    """Answers every row that has none yet; returns the tokens of all answers."""
    part, mark = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.identity")
    done = kept_rows(part, mark, identity)
    with (
        open(part, "a", encoding="utf-8") as handle,
        Progress("answers", len(prompts), "answers", done=done) as progress,
    ):
        for first in range(done, len(prompts), BLOCK):
            block = prompts[first : first + BLOCK]
            made = answer_block(model, block, first, settings, tokenizer, progress)
            for row, answer in enumerate(made, first):
                text = tokenizer.decode(answer, skip_special_tokens=True)
                line = {"id": ids[row], "ids": answer, "output": text}
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
            handle.flush()
    count = sum(len(row["ids"]) for row in read_jsonl(part))
    os.replace(part, path)
    mark.unlink()
    return count


@contextlib.contextmanager
def answering(teacher: Path, device: str, settings: AnswerSettings) -> Iterator[Any]:
    """What answers: the model itself, or the address of a server of it."""
    if settings.engine == "vllm":
        with served.serving(teacher, settings.dtype, settings.max_length) as address:
            yield address
    else:
        with start_up():
            model = checkpoints.load(teacher, device, settings.dtype)
        yield model


def kept_rows(part: Path, mark: Path, identity: str) -> int:
    """Rows in whole blocks that an interrupted run of the same identity left; the rest is cut."""
    path = part if part.exists() and mark.exists() and read_json(mark) == identity else None
    lines = path.read_bytes().splitlines(keepends=True) if path else []
    whole = len([line for line in lines if line.endswith(b"}\n")]) // BLOCK * BLOCK
    part.write_bytes(b"".join(lines[:whole]))
    write_json(mark, identity)
    return whole


def main() -> None:
    """Lets a teacher answer every training prompt; a rerun keeps what is answered."""
    parser = argparse.ArgumentParser(
        prog="python -m atkd teacher-answers", description=main.__doc__
    )
    parser.add_argument("--teacher", required=True, type=Path, help="folder of the teacher")
    parser.add_argument("--data", required=True, type=Path, help="instruction data, JSON lines")
    parser.add_argument("--run", required=True, help="name of the run in cost files")
    keys = ", ".join(field.name for field in fields(AnswerSettings))
    parser.add_argument("--settings", required=True, help=f"JSON: {keys}")
    parser.add_argument("--output", required=True, type=Path, help="JSON lines to write")
    args = parser.parse_args()
    given = arithmetic.chosen(json_object("--settings", args.settings))
    settings = settings_of(AnswerSettings, given)
    stage = Stage("text", args.run, asdict(settings), settings.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(args.output.parent):
        with start_up():
            checkpoints.set_up(settings.seed)
            device = checkpoints.pick_device(settings.device)
            tokenizer = tokenizers.open_tokenizer({"folder": str(args.teacher)}, settings.family)
            ids = [row["id"] for row in read_jsonl(args.data, ("id",))]
            prompts = sequences.prompt_ids(str(args.data), tokenizer)
            sources = [sha256(args.teacher / checkpoints.MANIFEST), sha256(args.data)]
            identity = settings_hash([asdict(settings), fingerprint(), sources, versions()])
        with naming(args.run), answering(args.teacher, device, settings) as model:
            stage.ready()
            count = write(args.output, model, ids, prompts, settings, tokenizer, identity)
        stage.write(args.output.with_name("provenance.json"), device=device, tokens=count)
