"""Where rows come from: files, folders, hub data sets and downloads, each row with its place."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from atkd.runtime.files import (
    FORMATS,
    InputError,
    check_fetched,
    file_name,
    format_of,
    numbered_jsonl,
    read_json,
    reading,
    sha256,
)
from atkd.runtime.network import reason
from atkd.runtime.progress import Progress

Row = dict[str, Any]
Placed = tuple[str, Row]  # where a row was found (file:line), and the row


def read_file(path: str | Path, kind: str = "") -> Iterator[Placed]:
    """Rows of a file, each with its file:line (or file[index]).

    `kind`, one of `FORMATS`, where the file's name does not tell. InputError names a file that
    cannot be read.
    """
    kind = kind or format_of(path)
    if kind == "jsonl":
        yield from ((f"{path}:{line}", row) for line, row in numbered_jsonl(path))
        return
    rows = _listed(path) if kind == "json" else _parquet(path)
    yield from ((f"{path}[{index}]", row) for index, row in enumerate(rows))


def _listed(path: str | Path) -> list[Row]:
    """The rows of a JSON list."""
    try:
        rows = read_json(path)
    except InputError as error:
        hint = (
            "; lines of JSON end in .jsonl, or set `format`" if "Extra data" in str(error) else ""
        )
        raise InputError(f"{error}{hint}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {type(rows).__name__}, expected a list of objects")
    return rows


def _parquet(path: str | Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    with reading(path):
        check_fetched(path)
        try:
            with open(path, "rb") as handle:
                for batch in parquet.ParquetFile(handle).iter_batches():
                    yield from batch.to_pylist()
        except (ArrowException, ValueError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path}: not valid Parquet ({reason})") from None


def read_place(path: Path, kind: str = "", split: str = "") -> Iterator[Placed]:
    """Rows of a file, or of a folder's files in the order of their names.

    `split` is that field of rows that have none. Where it is empty, a file in a folder gives them
    the start of its name: `dev` of `dev.jsonl.gz` or of `dev-00000-of-00001.parquet`.
    """
    if not path.is_dir():
        yield from _split(read_file(path, kind), split)
        return
    with reading(path):
        members = [member for member in sorted(path.iterdir()) if _has_rows(member)]
    if not members:
        expected = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"{path}: no file found that ends in {expected}, .gz or not")
    for member in members:
        yield from _split(read_file(member), split or re.split(r"[-.]", member.name)[0])


def _split(placed: Iterable[Placed], split: str) -> Iterator[Placed]:
    """Rows, which all are objects, with a `split`."""
    given = {"split": split} if split else {}
    for place, row in placed:
        if not isinstance(row, dict):
            raise InputError(f"{place}: found {type(row).__name__}, expected an object")
        yield place, {**given, **row}


def _has_rows(path: Path) -> bool:
    """Whether a folder's member is a file of rows by its name."""
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return ending in FORMATS and path.is_file() and not path.name.startswith(".")


def read_hub(entry: Row, notes: list[str]) -> Iterator[Placed]:
    """Rows of a hub data set: `id`, `revision`, `configs`, `splits`; notes an unpinned revision."""
    import datasets

    name, revision = entry["id"], entry.get("revision") or "main"
    if revision == "main":
        notes.append(f"unpinned: {name} at revision main")
    for config in entry.get("configs", [None]):
        for split in entry.get("splits", ["train"]):
            try:
                rows = datasets.load_dataset(name, config, split=split, revision=revision)
            except Exception as error:  # of scripts, files, connections: there is no common kind
                why = _why(error)
                raise InputError(f"{name}: cannot be loaded at {revision} ({why})") from None
            for index, row in enumerate(rows):
                yield (
                    f"{name}/{config or 'default'}/{split}[{index}]",
                    {"split": split} | ({"task": config} if config else {}) | row,
                )


def _why(error: Exception) -> str:
    """The reason of a failed load, on one line."""
    from datasets.table import CastError

    cause = error.__cause__
    if isinstance(cause, CastError):
        odd = {*cause.table_column_names} ^ {*cause.requested_column_names}
        return f"its files have different columns: {', '.join(sorted(odd))} not in all of them"
    return reason(error)


def download(entry: Row, folder: Path) -> Path:
    """Fetches `url` into `folder` unless it is there, resuming a part; its `sha256` must match."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    url, wanted = entry["url"], entry["sha256"]
    path = folder / f"{wanted[:12]}-{file_name(url)[-100:]}"
    part = path.with_name(f"{path.name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and sha256(path) == wanted:
        return path
    have = part.stat().st_size if part.exists() else 0
    try:
        request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urlopen(request, timeout=60) as reply:
            _receive(reply, part, have if reply.status == 206 else 0)
    except HTTPError as error:
        if error.code != 416:  # 416: the part is already whole
            raise InputError(f"{url}: the server answered {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(
            f"{url}: cannot be fetched ({reason(error)}); run again to resume"
        ) from None
    found = sha256(part)
    if found != wanted:
        part.unlink()
        raise InputError(f"{url}: sha256 is {found}, expected {wanted}")
    os.replace(part, path)
    return path


def _receive(reply: Any, part: Path, have: int) -> None:
    """Adds the rest of a file to the `have` bytes of it that are here."""
    length = reply.headers.get("Content-Length") or ""
    total = have + int(length) if length.isdecimal() else None
    with (
        open(part, "ab" if have else "wb") as out,
        Progress(part.name.removesuffix(".part"), total, "bytes", done=have) as progress,
    ):
        while block := reply.read(1 << 16):
            out.write(block)
            progress.add(len(block))
    if total is not None and progress.done < total:
        raise OSError(f"{progress.done} of {total} bytes came")


def read_entries(entries: list[Row], folder: Path, notes: list[str]) -> Iterator[Placed]:
    """Rows of all `entries` of one file, columns renamed as each entry's `columns` says."""
    for entry in entries:
        if "id" in entry:
            placed = read_hub(entry, notes)
        else:
            path = download(entry, folder) if "url" in entry else Path(entry["file"])
            kind = entry.get("format") or (format_of(entry["url"]) if "url" in entry else "")
            placed = read_place(path, kind, entry.get("split", ""))
        for place, row in _between(placed, entry):
            yield place, _renamed(place, row, entry.get("columns", {}))


def _between(placed: Iterable[Placed], entry: Row) -> Iterator[Placed]:
    """The rows of the places that an entry's `rows` names, all without it."""
    if "rows" not in entry:
        yield from placed
        return
    first, last = entry["rows"]
    count = 0
    for found in itertools.islice(placed, first, last):
        count += 1
        yield found
    if count < last - first:
        name = entry.get("file") or entry.get("url") or entry["id"]
        asked = f"the {last - first} rows from {first} to {last}"
        raise InputError(f"{name}: {asked} are asked for; found {count} of them")


def _renamed(place: str, row: Row, columns: dict[str, str]) -> Row:
    """`columns` maps a canonical field to the source's, dots reaching into nested fields."""
    made = {key: value for key, value in row.items() if key not in columns}
    for field, source in columns.items():
        made[field] = _column(place, row, field, source)
    return made


def _column(place: str, row: Row, field: str, source: str) -> Any:
    """The value of a source's column; null where a field above it is null."""
    if source in row:
        return row[source]
    value: Any = row
    for step in source.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or step not in value:
            found = ", ".join(map(str, row))
            raise InputError(f"{place}: columns.{field} is {source!r}, but the row has {found}")
        value = value[step]
    return value
