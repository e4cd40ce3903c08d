"""Teacher-generated answers to the training prompts, for SeqKD and f-distill.

    python -m atkd teacher-answers --teacher T --data D --settings '{...}' --output teacher.jsonl

One line a data row: its id, the answer's ids (EOS included where it came) and its text. Rows are
answered in blocks; a killed run keeps the blocks it finished.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atkd.runtime.cli import start_up
from atkd.runtime.files import folder_lock, read_json, read_jsonl, sha256, write_json
from atkd.runtime.provenance import Stage, settings_hash, versions

BLOCK = 1024


def answer_block(
    model: Any, prompts: list[list[int]], first: int, settings: Mapping[str, Any], tokenizer: Any
) -> list[list[int]]:
    """Answers to prompts that are rows `first`, `first` + 1, ...; batched by prompt length.

    A prompt that leaves no room within `max_length` gets an empty answer.
    """
    from atkd.models.generation import answers

    size, longest = settings["batch_size"], settings["max_length"]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    order = [i for i in order if len(prompts[i]) < longest]
    found: dict[int, list[int]] = {}
    for start in range(0, len(order), size):
        part = order[start : start + size]
        room = [longest - len(prompts[i]) for i in part]
        made = answers(
            model,
            [prompts[i] for i in part],
            [f"{settings['seed']}/{first + i}/text" for i in part],
            [min(settings["max_new_tokens"], each) for each in room],
            tokenizer,
            settings["temperature"],
        )
        found |= zip(part, made, strict=True)
    return [found.get(index, []) for index in range(len(prompts))]


def write(
    path: Path,
    model: Any,
    ids: list[str],
    prompts: list[list[int]],
    settings: Mapping[str, Any],
    tokenizer: Any,
    identity: str,
) -> int:
    """Answers every row that has none yet; returns the tokens of all answers."""
    from tqdm import tqdm

    part, mark = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.identity")
    done = kept_rows(part, mark, identity)
    with (
        open(part, "a", encoding="utf-8") as handle,
        tqdm(total=len(prompts), initial=done, unit=" answers", disable=None) as bar,
    ):
        for first in range(done, len(prompts), BLOCK):
            block = prompts[first : first + BLOCK]
            for row, answer in enumerate(
                answer_block(model, block, first, settings, tokenizer), first
            ):
                text = tokenizer.decode(answer, skip_special_tokens=True)
                line = {"id": ids[row], "ids": answer, "output": text}
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
            handle.flush()
            bar.update(len(block))
    count = sum(len(row["ids"]) for row in read_jsonl(part))
    os.replace(part, path)
    mark.unlink()
    return count


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
    keys = "family, seed, temperature, max_new_tokens, max_length, batch_size, dtype, device"
    parser.add_argument("--settings", required=True, help=f"JSON: {keys}")
    parser.add_argument("--output", required=True, type=Path, help="JSON lines to write")
    args = parser.parse_args()
    settings = json.loads(args.settings)
    stage = Stage("text", args.run, settings, settings["seed"])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(args.output.parent):
        with start_up():
            from atkd.data import sequences
            from atkd.models import checkpoints, tokenizers

            checkpoints.set_up(settings["seed"])
            device = checkpoints.pick_device(settings["device"])
            tokenizer = tokenizers.open_tokenizer({"folder": str(args.teacher)}, settings["family"])
            ids = [row["id"] for row in read_jsonl(args.data, ("id",))]
            prompts = sequences.prompt_ids(str(args.data), tokenizer)
            model = checkpoints.load(args.teacher, device, settings["dtype"])
            sources = [sha256(args.teacher / "manifest.json"), sha256(args.data)]
            identity = settings_hash([settings, sources, versions()])
        stage.ready()
        count = write(args.output, model, ids, prompts, settings, tokenizer, identity)
        stage.write(args.output.with_name("provenance.json"), device=device, tokens=count)
