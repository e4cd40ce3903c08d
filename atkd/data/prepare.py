"""Data sources with one canonical form: the world, a local data root, hub data sets, downloads."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atkd.data.sources import Placed, Row, read_entries
from atkd.runtime.files import InputError, folder_lock, sha256, write_json, write_jsonl
from atkd.runtime.provenance import Stage

FIELDS = {
    "train": ("instruction", "input", "output"),
    "generation": ("instruction", "input", "output"),
    "pretrain": ("text",),
    "mmlu": ("split", "subject", "question", "choices", "answer"),
    "drop": ("passage", "question", "answers"),
    "bbh": ("task", "input", "target"),
}
MAY_BE_EMPTY = {"input", "answer"}
TASKS = ("dolly", "selfinst", "vicuna", "koala", "wizardlm", "mmlu", "drop", "bbh")
LOCAL_TASKS: dict[str, list[Row]] = {
    name: [{"file": f"{folder}/valid.jsonl"}]
    for name, folder in zip(
        TASKS, ("dolly", "self-inst", "vicuna", "koala", "wizardlm"), strict=False
    )
} | {
    "mmlu": [{"file": f"mmlu/{split}.jsonl.gz", "split": split} for split in ("dev", "test")],
    "drop": [{"file": "drop/dev.jsonl.gz"}],
    "bbh": [{"file": "bbh/test.jsonl.gz"}],
}
LOCAL_TRAIN = {
    "alpaca_davinci003": (
        "alpaca_davinci003/train.jsonl.gz",
        "training answers: text-davinci-003's on Alpaca's prompts, not Alpaca-GPT4",
    ),
    "alpaca_gpt4_subset": (
        "alpaca_gpt4_subset/train.jsonl",
        "training answers: 999 rows that read as Alpaca-GPT4's, not the 52,002 of the full set",
    ),
}
LOCAL_TEXT = {
    "text_novels": "pretraining text: 94 English novels of 1839 to 1929",
    "text_openstax_biology": "pretraining text: an OpenStax biology book",
}


def kind_of(name: str) -> str:
    """The canonical kind of a file: train, pretrain, mmlu, drop, bbh or generation."""
    return name if name in FIELDS else "generation"


def canonical(name: str, placed: Iterable[Placed], keep: bool = False) -> list[Row]:
    """Rows of one file in canonical form, `keep`ing other fields if asked.

    InputError gives the place of the first bad row.
    """
    kind, rows, seen = kind_of(name), [], {}
    for number, (place, raw) in enumerate(placed):
        row = {"id": str(raw.get("id", f"{name}-{number}"))}
        row |= {name: _field(kind, name, raw, place) for name in FIELDS[kind]}
        if row["id"] in seen:
            raise InputError(f"{place}: id {row['id']!r} repeats that of {seen[row['id']]}")
        seen[row["id"]] = place
        rows.append({**row, **{k: v for k, v in raw.items() if k not in row}} if keep else row)
    if not rows:
        raise InputError(f"{name}: no rows found, expected at least one")
    return rows


def _field(kind: str, field: str, raw: Row, place: str) -> Any:
    value = raw.get(field, "" if field == "input" and kind in ("train", "generation") else None)
    if value is None:
        raise InputError(f"{place}: field {field!r} is missing; expected {', '.join(FIELDS[kind])}")
    wanted = {"choices": list, "answers": list, "answer": int}.get(field, str)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{place}: field {field!r} is {value!r}, expected {wanted.__name__}")
    if field == "answer" and not 0 <= value <= 3:
        raise InputError(f"{place}: field 'answer' is {value}, expected 0 to 3")
    if field == "choices" and len(value) != 4:
        raise InputError(f"{place}: field 'choices' has {len(value)} entries, expected 4")
    blank = not value.strip() if isinstance(value, str) else value == []
    if blank and not (field == "input" and kind in ("train", "generation")):
        what = "response is empty" if field == "output" else f"field {field!r} is empty"
        raise InputError(f"{place}: {what}, expected text")
    return value


@dataclass
class Data:
    """Canonical rows of all files (`train`, `pretrain`, one list per task), and what they are."""

    train: list[Row]
    pretrain: list[Row]
    tasks: dict[str, list[Row]]
    notes: list[str] = field(default_factory=list)

    def files(self) -> dict[str, list[Row]]:
        """Relative path -> rows."""
        tasks = {f"tasks/{name}.jsonl": rows for name, rows in self.tasks.items()}
        return {"train.jsonl": self.train, "pretrain.jsonl": self.pretrain} | tasks


def from_world(settings: Row, seed: int) -> Data:
    """The embedded world, generated from `seed`."""
    from atkd.world import builder

    made = builder.generate(settings, seed)
    files = {"train": made.train, "pretrain": made.pretrain} | made.tasks
    checked = {
        name: canonical(
            name, ((f"world {name}[{i}]", row) for i, row in enumerate(rows)), keep=True
        )
        for name, rows in files.items()
    }
    notes = ["generated text about a small invented world; no real data"]
    return Data(checked.pop("train"), checked.pop("pretrain"), checked, notes)


def local_entries(settings: Row) -> tuple[Row, list[str]]:
    """Entries of the files under a data root, and notes on what the text is and is not."""
    base = _data_folder(settings)
    train = settings.get("train", "alpaca_davinci003")
    texts = settings.get("pretrain", ["text_novels"])
    for name, known in ((train, LOCAL_TRAIN), *((text, LOCAL_TEXT) for text in texts)):
        if name not in known:
            raise InputError(f"data.settings: found {name!r}, expected one of {', '.join(known)}")
    tasks = {
        task: [entry | {"file": str(base / entry["file"])} for entry in LOCAL_TASKS[task]]
        for task in settings.get("tasks", TASKS)
        if _known_task(task)
    }
    path, note = LOCAL_TRAIN[train]
    entries = {"train": [{"file": str(base / path)}], "tasks": tasks}
    entries["pretrain"] = [{"file": str(base / text / "train.jsonl.gz")} for text in texts]
    return entries, [note, *(LOCAL_TEXT[text] for text in texts)]


def _data_folder(settings: Row) -> Path:
    """`root` itself, or data/ under `data_root` or the environment's ATKD_DATA."""
    root = settings.get("data_root") or os.environ.get("ATKD_DATA")
    folder = Path(settings.get("root") or Path(root or "") / "data")
    if not (settings.get("root") or root) or not folder.is_dir():
        wanted = (
            "a folder that holds data/ (config key data_root, or environment variable ATKD_DATA)"
        )
        found = folder.parent if settings.get("root") or root else "nothing"
        raise InputError(f"data_root: found {found}, expected {wanted}")
    return folder


def _known_task(task: str) -> bool:
    if task not in LOCAL_TASKS:
        raise InputError(f"data.settings.tasks: found {task!r}, expected {', '.join(LOCAL_TASKS)}")
    return True


def from_entries(entries: Row, settings: Row, seed: int, folder: Path, notes: list[str]) -> Data:
    """Reads `train`, `pretrain` and `tasks` (entries of files, ids or urls), within `limits`."""
    missing = [name for name in ("train", "tasks") if not entries.get(name)]
    if missing:
        raise InputError(f"data.settings.{missing[0]}: missing, expected train and tasks")
    limits = settings.get("limits", {})
    unknown = set(limits) - {"train", "pretrain", *entries["tasks"]}
    if unknown:
        raise InputError(f"data.settings.limits: no file {sorted(unknown)[0]!r} to limit")
    made: dict[str, list[Row]] = {"pretrain": []}  # none is needed where bases come pretrained
    files = {name: entries[name] for name in ("train", "pretrain") if name in entries}
    files |= entries["tasks"]
    for name, parts in files.items():
        parts = [parts] if isinstance(parts, dict) else parts
        placed = read_entries(name, parts, folder, notes)
        rows = canonical(name, _with_text(placed, notes) if name == "pretrain" else placed)
        made[name] = limited(name, rows, limits.get(name), seed)
        if len(made[name]) < len(rows):
            notes.append(f"{name}: {len(made[name])} of {len(rows)} rows, drawn with seed {seed}")
    return Data(made.pop("train"), made.pop("pretrain"), made, notes)


def _with_text(placed: Iterable[Placed], notes: list[str]) -> Iterator[Placed]:
    """Leaves out blank pieces of plain text, and notes how many."""
    blank = 0
    for place, row in placed:
        if isinstance(row.get("text"), str) and not row["text"].strip():
            blank += 1
        else:
            yield place, row
    if blank:
        notes.append(f"pretrain: {blank} blank pieces left out")


def limited(name: str, rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    """A seeded draw of `limit` rows (of characters for `pretrain`), in their first order.

    Shots are never drawn away: MMLU's dev rows all stay; BBH is cut by the prompts stage instead.
    """
    if limit is None:
        return rows
    if limit < 1:
        raise InputError(f"data.settings.limits.{name}: found {limit}, expected at least 1")
    order = list(range(len(rows)))
    random.Random(f"{seed} {name}").shuffle(order)
    if name == "bbh":
        raise InputError("data.settings.limits.bbh: set evaluation.limit.bbh instead")
    if name == "pretrain":
        total, count = 0, 0
        while count < len(order) and total < limit:
            total += len(rows[order[count]]["text"])
            count += 1
        return [rows[index] for index in sorted(order[:count])]
    shots = {index for index in order if rows[index].get("split") == "dev"}
    kept = [index for index in order if index not in shots][:limit]
    return [rows[index] for index in sorted({*kept, *shots})]


def item_key(kind: str, row: Row) -> tuple[str, str]:
    """What makes an evaluation item the same as a training row: its instruction and input."""
    if kind == "generation":
        return row["instruction"].strip(), row["input"].strip()
    if kind == "drop":
        return row["question"].strip(), row["passage"].strip()
    if kind == "mmlu":  # a fact may be taught; the item is the question with its options
        return row["question"].strip(), "\n".join(row["choices"])
    return row["input"].strip(), ""


def separate(data: Data, policy: str = "remove") -> int:
    """Takes evaluation items out of training (or refuses them); returns and notes how many."""
    if policy not in ("remove", "refuse"):
        raise InputError(f"data.settings.overlap: found {policy!r}, expected remove or refuse")
    held = {item_key(kind_of(task), row): task for task, rows in data.tasks.items() for row in rows}
    kept = [row for row in data.train if item_key("generation", row) not in held]
    count = len(data.train) - len(kept)
    if count and policy == "refuse":
        row = next(row for row in data.train if item_key("generation", row) in held)
        task = held[item_key("generation", row)]
        raise InputError(f"train row {row['id']!r} is an item of {task} ({count} such rows)")
    if not kept:
        raise InputError("train: every row is an evaluation item, expected some that are not")
    data.train = kept
    data.notes.append(f"evaluation items found in training and removed: {count}")
    return count


def write(data: Data, folder: Path, source: Row) -> Row:
    """Writes the canonical files, then manifest.json with rows, bytes and sha256; returns it."""
    files = {}
    for name, rows in data.files().items():
        count = write_jsonl(folder / name, rows)
        path = folder / name
        files[name] = {"rows": count, "bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = {"files": files, "source": source, "notes": data.notes}
    write_json(folder / "manifest.json", manifest)
    return manifest


def prepare(source: str, settings: Row, seed: int, folder: Path) -> Row:
    """Data of one source, checked, separated and written; returns the manifest."""
    if source == "world":
        data = from_world(settings, seed)
    elif source == "local":
        entries, notes = local_entries(settings)
        data = from_entries(entries, settings, seed, folder, notes)
    elif source in ("hub", "url"):
        data = from_entries(settings, settings, seed, folder / "downloads", [])
    else:
        raise InputError(f"data.source: found {source!r}, expected world, local, hub or url")
    separate(data, settings.get("overlap", "remove"))
    return write(data, folder, {"source": source, "seed": seed, "settings": settings})


def main() -> None:
    """Writes train.jsonl, pretrain.jsonl, tasks/ and manifest.json from one source."""
    parser = argparse.ArgumentParser(prog="python -m atkd data", description=main.__doc__)
    parser.add_argument("--source", required=True, help="world, local, hub or url")
    parser.add_argument("--settings", default="{}", help="JSON settings of the source")
    parser.add_argument("--seed", type=int, default=1, help="of the world, and of limited draws")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    settings = json.loads(args.settings)
    stage = Stage("data", "data", {"source": args.source} | settings, args.seed)
    stage.ready()
    with folder_lock(args.output):
        manifest = prepare(args.source, settings, args.seed, args.output)
        stage.write(args.output / "provenance.json")
    for name, facts in manifest["files"].items():
        print(f"{facts['rows']:>8} rows  {name}")
    for note in manifest["notes"]:
        print(f"note: {note}", file=sys.stderr)
