"""Files that stages meet through: located errors, atomic writes, hashes, folder locks."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

LFS_POINTER = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched


class InputError(ValueError):
    """Bad input from outside: names the key or file, the value found, what was expected."""


def starts_with(path: Path, start: bytes) -> bool:
    """Whether a file begins with these bytes."""
    with open(path, "rb") as handle:
        return handle.read(len(start)) == start


def check_fetched(folder: Path) -> None:
    """InputError naming the first file of a folder that Git LFS has not fetched."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and starts_with(path, LFS_POINTER):
            raise InputError(f"{path}: a Git LFS pointer; expected the file, see `git lfs pull`")


@contextlib.contextmanager
def naming(run: str) -> Iterator[None]:
    """Says which run an InputError is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{run}: {error}") from None


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` only if the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".part-{os.getpid()}-{target.name}")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def open_text(path: str | os.PathLike[str], mode: str = "r") -> Iterator[TextIO]:
    """UTF-8 text, LF line ends; `.gz` is (de)compressed, byte-reproducibly on writing."""
    if not str(path).endswith(".gz"):
        with open(path, mode, encoding="utf-8", newline="\n") as handle:
            yield handle
    elif mode == "r":
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            yield handle
    else:
        with (
            open(path, "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as handle,
        ):
            yield handle


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text atomically (`.gz` compressed)."""
    with atomic_path(path) as part, open_text(part, "w") as handle:
        handle.write(text)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; InputError names the file when it is missing or malformed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_jsonl(
    path: str | os.PathLike[str], fields: Iterable[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; InputError gives file:line for a bad line or a missing field."""
    wanted = tuple(fields)
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, 1):
                yield _row(path, number, line, wanted)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 JSON lines ({error})") from None


def _row(path: Any, number: int, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        shown = line.strip()[:60]
        raise InputError(f"{path}:{number}: not valid JSON ({error.msg}): {shown!r}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}:{number}: found {type(row).__name__}, expected a JSON object")
    missing = [name for name in fields if name not in row]
    if missing:
        raise InputError(
            f"{path}:{number}: field {missing[0]!r} is missing; expected {', '.join(fields)}"
        )
    return row


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows atomically (`.gz` compressed); returns how many."""
    count = 0
    with atomic_path(path) as part, open_text(part, "w") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_csv(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes rows atomically, LF line ends; columns a row lacks stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def folder_lock(folder: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """Holds the operating system's lock on `folder`/.lock; a dead process holds nothing.

    Says who holds it while waiting; with `wait=False` raises InputError instead.
    """
    import fcntl  # of POSIX alone, while files are read and written anywhere

    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            message = f"{folder} is in use by process {handle.read().strip() or '?'}"
            if not wait:
                raise InputError(f"{message}; wait for it or stop it") from None
            print(f"{message}; waiting for it to finish", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(f"{os.getpid()} on {os.uname().nodename}\n")
        handle.flush()
        yield
