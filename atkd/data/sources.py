"""Where rows come from: files, hub data sets and downloads, each row with its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atkd.runtime.files import InputError, read_json, read_jsonl, sha256
from atkd.runtime.network import reason
from atkd.runtime.progress import Progress

Row = dict[str, Any]
Placed = tuple[str, Row]  # where a row was found (file:line), and the row


def read_file(path: str | Path) -> Iterator[Placed]:
    """Rows of `.jsonl`, `.jsonl.gz` or a `.json` list, each with its file:line (or file[index])."""
    if str(path).endswith(".json"):
        rows = read_json(path)
        if not isinstance(rows, list):
            raise InputError(f"{path}: found {type(rows).__name__}, expected a list of objects")
        yield from ((f"{path}[{index}]", row) for index, row in enumerate(rows))
    else:
        yield from ((f"{path}:{line}", row) for line, row in enumerate(read_jsonl(path), 1))


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
                why = reason(error)
                raise InputError(f"{name}: cannot be loaded at {revision} ({why})") from None
            for index, row in enumerate(rows):
                yield (
                    f"{name}/{config or 'default'}/{split}[{index}]",
                    {"split": split} | ({"task": config} if config else {}) | row,
                )


def download(entry: Row, folder: Path) -> Path:
    """Fetches `url` into `folder` unless it is there, resuming a part; its `sha256` must match."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    url, wanted = entry["url"], entry.get("sha256")
    if not wanted:
        raise InputError(f"{url}: sha256 is missing, expected 64 hex digits")
    path = folder / f"{wanted[:12]}-{url.rsplit('/', 1)[-1]}"
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


def read_entries(name: str, entries: list[Row], folder: Path, notes: list[str]) -> Iterator[Placed]:
    """Rows of all `entries` of one file, columns renamed as each entry's `columns` says."""
    for entry in entries:
        if "url" in entry:
            placed = read_file(download(entry, folder))
        elif "id" in entry:
            placed = read_hub(entry, notes)
        elif "file" in entry:
            placed = read_file(entry["file"])
        else:
            raise InputError(f"data.{name}: found {entry}, expected a file, an id or a url")
        columns = entry.get("columns", {})
        for place, row in placed:
            row = {"split": entry["split"]} | row if "split" in entry else row
            yield place, _renamed(row, columns)


def _renamed(row: Row, columns: dict[str, str]) -> Row:
    """`columns` maps a canonical field to the source's, dots reaching into nested fields."""
    if not isinstance(row, dict):
        return {}
    made = {key: value for key, value in row.items() if key not in columns}
    for field, source in columns.items():
        value: Any = row
        for step in source.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        made[field] = value
    return made
