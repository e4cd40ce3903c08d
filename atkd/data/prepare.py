"""Data sources with one canonical form: the world, a local data root, hub data sets, downloads."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from atkd.config import DATA_FOLDER, SOURCES, checked_data
from atkd.data.sources import Placed, Row, read_entries
from atkd.runtime.cli import json_object
from atkd.runtime.files import InputError, folder_lock, sha256, write_json, write_jsonl
from atkd.runtime.provenance import Stage
from atkd.tasks import INSTRUCTION, TASKS, row_of

TYPES: dict[str, type] = {"choices": list, "answers": list, "answer": int}  # all others: str


class LocalSet(NamedTuple):
    """A file of training data or text under the data folder, and what it is and is not."""

    file: str
    note: str


LOCAL_TRAIN = {
    "alpaca_davinci003": LocalSet(
        "alpaca_davinci003/train.jsonl.gz",
        "training answers: text-davinci-003's on Alpaca's prompts, not Alpaca-GPT4",
    ),
    "alpaca_gpt4_subset": LocalSet(
        "alpaca_gpt4_subset/train.jsonl",
        "training answers: 999 rows that read as Alpaca-GPT4's, not the 52,002 of the full set",
    ),
}
LOCAL_TEXT = {
    "text_novels": LocalSet(
        "text_novels/train.jsonl.gz", "pretraining text: 94 English novels of 1839 to 1929"
    ),
    "text_openstax_biology": LocalSet(
        "text_openstax_biology/train.jsonl.gz", "pretraining text: an OpenStax biology book"
    ),
}


def fields_of(name: str) -> tuple[str, ...]:
    """What a row of a file must have: `train`, `pretrain` or a task; InputError otherwise."""
    if name == "pretrain":
        return ("text",)
    return INSTRUCTION if name == "train" else row_of(name).fields


def canonical(name: str, placed: Iterable[Placed], keep: bool = False) -> list[Row]:
    """Rows of one file in canonical form, `keep`ing other fields if asked.

    InputError gives the place of the first bad row.
    """
    wanted = fields_of(name)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for number, (place, raw) in enumerate(placed):
        row = {"id": _id(raw, f"{name}-{number}", place)}
        row |= {field: _field(field, raw, wanted, place) for field in wanted}
        if row["id"] in seen:
            raise InputError(f"{place}: id {row['id']!r} repeats that of {seen[row['id']]}")
        seen[row["id"]] = place
        rows.append({**row, **{k: v for k, v in raw.items() if k not in row}} if keep else row)
    if not rows:
        raise InputError(f"{name}: no rows found, expected at least one")
    return rows


def _id(raw: Row, default: str, place: str) -> str:
    """A row's id, text or a whole number; the default where it has none."""
    value = raw.get("id")
    if value is None:
        return default
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InputError(f"{place}: field 'id' is {value!r}, expected text or a whole number")
    return _encodable(str(value), "id", place)


def _field(field: str, raw: Row, wanted: tuple[str, ...], place: str) -> Any:
    """A row's value of a field, checked; an instruction may have no input."""
    optional = field == "input" and "instruction" in wanted
    value = raw.get(field)
    if value is None and optional:
        return ""
    if value is None:
        raise InputError(f"{place}: field {field!r} is missing; expected {', '.join(wanted)}")
    kind = TYPES.get(field, str)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{place}: field {field!r} is {value!r}, expected {kind.__name__}")
    if field == "answer" and not 0 <= value <= 3:
        raise InputError(f"{place}: field 'answer' is {value}, expected 0 to 3")
    if field == "choices" and len(value) != 4:
        raise InputError(f"{place}: field 'choices' has {len(value)} entries, expected 4")
    for text in value if isinstance(value, list) else ():
        if not isinstance(text, str):
            raise InputError(f"{place}: field {field!r} has the entry {text!r}, expected text")
        _encodable(text, field, place)
    blank = not value.strip() if isinstance(value, str) else value == []
    if blank and not optional:
        if field == "output":
            how = "data.settings.blank_output: drop leaves such rows out"
            raise InputError(f"{place}: response is empty, expected text ({how})")
        raise InputError(f"{place}: field {field!r} is empty, expected text")
    return _encodable(value, field, place) if isinstance(value, str) else value


def _encodable(text: str, field: str, place: str) -> str:
    """The text, if a file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise InputError(
            f"{place}: field {field!r} holds {half}, half a surrogate pair; expected text"
        ) from None
    return text


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


def from_world(settings: Mapping[str, Any], seed: int) -> Data:
    """The embedded world, generated from `seed`."""
    from atkd.world import builder

    made = builder.generate(settings, seed)
    notes = ["generated text about a small invented world; no real data"]
    tasks = {name: _generated(name, rows) for name, rows in made.tasks.items()}
    return Data(
        _generated("train", made.train), _generated("pretrain", made.pretrain), tasks, notes
    )


def _generated(name: str, rows: list[Row]) -> list[Row]:
    placed = ((f"world {name}[{index}]", row) for index, row in enumerate(rows))
    return canonical(name, placed, keep=True)


def local_entries(settings: Mapping[str, Any]) -> tuple[Row, list[str]]:
    """Entries of the files under a data root, and notes on what the text is and is not."""
    base = _data_folder(settings)
    tasks, notes = settings["tasks"], list[str]()
    if isinstance(tasks, list):
        tasks = {task: _task_entries(task) for task in tasks}

    def placed(entries: list[Row], known: Mapping[str, LocalSet]) -> list[Row]:
        made = []
        for entry in entries:
            name = entry.get("file", "")
            if name in known:
                notes.append(known[name].note)
                name = known[name].file
            made.append(entry | {"file": str(base / name)} if name else entry)
        return made

    entries: Row = {
        "train": placed(settings["train"], LOCAL_TRAIN),
        "pretrain": placed(settings["pretrain"], LOCAL_TEXT),
        "tasks": {task: placed(of_task, {}) for task, of_task in tasks.items()},
    }
    return entries, notes


def _task_entries(task: str) -> list[Row]:
    """A task's own files."""
    return [
        {"file": file.path} | ({"split": file.split} if file.split else {})
        for file in TASKS[task].files
    ]


def _data_folder(settings: Mapping[str, Any]) -> Path:
    """`root` itself, or data/ under the environment's ATKD_DATA."""
    root = os.environ.get("ATKD_DATA")
    folder = Path(settings.get("root") or Path(root or "") / DATA_FOLDER)
    if not (settings.get("root") or root) or not folder.is_dir():
        raise InputError(
            f"data.settings.root: found {folder if root or settings.get('root') else 'nothing'}, "
            "expected a folder of data sets (config key data_root, or the environment variable "
            "ATKD_DATA, names the folder it is under)"
        )
    return folder


def from_entries(
    entries: Row, settings: Mapping[str, Any], seed: int, folder: Path, notes: list[str]
) -> Data:
    """Reads `train`, `pretrain` and `tasks` (entries of files, ids or urls), within `limits`."""
    made: dict[str, list[Row]] = {"pretrain": []}  # none is needed where bases come pretrained
    parts_of = {name: entries[name] for name in ("train", "pretrain") if entries[name]}
    parts_of |= entries["tasks"]
    _check_files(parts_of)
    drop = settings["blank_output"] == "drop"
    for name, parts in parts_of.items():
        placed = read_entries(parts, folder, notes)
        if name == "pretrain":
            placed = _without_blank(name, "text", placed, notes)
        elif drop:
            placed = _without_blank(name, "output", placed, notes)
        rows = canonical(name, placed)
        limit = settings["limits"].get(name)
        made[name] = limited(name, rows, limit, seed)
        if len(made[name]) < len(rows):
            notes.append(f"{name}: {len(made[name])} of {len(rows)} rows, drawn with seed {seed}")
    return Data(made.pop("train"), made.pop("pretrain"), made, notes)


def _check_files(entries: Mapping[str, list[Row]]) -> None:
    """InputError on the first file that is not there, before any is read."""
    for name, parts in entries.items():
        for path in (Path(entry["file"]) for entry in parts if "file" in entry):
            if not path.exists():
                key = name if name in ("train", "pretrain") else f"tasks.{name}"
                known = {"train": LOCAL_TRAIN, "pretrain": LOCAL_TEXT}.get(name, {})
                also = f", or one of {', '.join(known)}" if known else ""
                raise InputError(
                    f"config key data.settings.{key}: {path} not found; expected a file or folder"
                    f" of rows{also}"
                )


def _without_blank(
    name: str, field: str, placed: Iterable[Placed], notes: list[str]
) -> Iterator[Placed]:
    """Leaves out rows whose text in a field is blank or null, and notes how many."""
    blank = 0
    for place, row in placed:
        value = row.get(field, field)
        if value is None or (isinstance(value, str) and not value.strip()):
            blank += 1
        else:
            yield place, row
    if blank:
        notes.append(f"{name}: {blank} rows with a blank {field} left out")


def limited(name: str, rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    """A seeded draw of `limit` rows (of characters for `pretrain`), in their first order.

    Shots are never drawn away: MMLU's dev rows all stay; BBH is cut by the prompts stage instead.
    """
    if limit is None:
        return rows
    order = list(range(len(rows)))
    random.Random(f"{seed} {name}").shuffle(order)
    if name == "pretrain":
        total, count = 0, 0
        while count < len(order) and total < limit:
            total += len(rows[order[count]]["text"])
            count += 1
        return [rows[index] for index in sorted(order[:count])]
    shots = {index for index in order if rows[index].get("split") == "dev"}
    kept = [index for index in order if index not in shots][:limit]
    return [rows[index] for index in sorted({*kept, *shots})]


def item_keys(row: Row, asks: tuple[str, ...]) -> list[str]:
    """What makes a row the same as another: the text of what is asked, in any order of its fields.

    It is one text, as a model reads it, wherever a row splits it into fields; blanks count once.
    """
    texts = ["\n".join(row[name]) if isinstance(row[name], list) else row[name] for name in asks]
    return [" ".join(" ".join(order).split()) for order in itertools.permutations(texts)]


def separate(data: Data, policy: str = "remove") -> int:
    """Takes evaluation items out of training (or refuses them); returns and notes how many."""
    if policy not in ("remove", "refuse"):
        raise InputError(f"data.settings.overlap: found {policy!r}, expected remove or refuse")
    held = {
        key: task
        for task, rows in data.tasks.items()
        for row in rows
        for key in item_keys(row, row_of(task).asks)
    }
    asked = [item_keys(row, ("instruction", "input"))[0] for row in data.train]
    found = [index for index, key in enumerate(asked) if key in held]
    if found and policy == "refuse":
        first, task = data.train[found[0]]["id"], held[asked[found[0]]]
        raise InputError(f"train row {first!r} is an item of {task} ({len(found)} such rows)")
    if len(found) == len(data.train):
        raise InputError("train: every row is an evaluation item, expected some that are not")
    data.train = [row for row, key in zip(data.train, asked, strict=True) if key not in held]
    data.notes.append(f"evaluation items found in training and removed: {len(found)}")
    return len(found)


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
    settings = checked_data(source, settings)
    if source == "world":
        data = from_world(settings, seed)
    elif source == "local":
        entries, notes = local_entries(settings)
        data = from_entries(entries, settings, seed, folder, notes)
    else:
        data = from_entries(settings, settings, seed, folder / "downloads", [])
    if source == "world":
        separate(data)
    else:
        separate(data, settings["overlap"])
    return write(data, folder, {"source": source, "seed": seed, "settings": settings})


def main() -> None:
    """Writes train.jsonl, pretrain.jsonl, tasks/ and manifest.json from one source."""
    parser = argparse.ArgumentParser(prog="python -m atkd data", description=main.__doc__)
    parser.add_argument("--source", required=True, help=", ".join(SOURCES))
    parser.add_argument("--settings", default="{}", help="JSON settings of the source")
    parser.add_argument("--seed", type=int, default=1, help="of the world, and of limited draws")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    settings = checked_data(args.source, json_object("--settings", args.settings))
    stage = Stage("data", "data", {"source": args.source} | settings, args.seed)
    stage.ready()
    with folder_lock(args.output):
        manifest = prepare(args.source, settings, args.seed, args.output)
        stage.write(args.output / "provenance.json")
    for name, facts in manifest["files"].items():
        print(f"{facts['rows']:>8} rows  {name}")
    for note in manifest["notes"]:
        print(f"note: {note}", file=sys.stderr)
