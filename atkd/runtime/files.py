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
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO, cast
from urllib.parse import unquote, urlsplit

FORMATS = ("jsonl", "json", "parquet")  # of rows: JSON objects a line, in a list, Parquet
LFS_POINTER = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched


class InputError(ValueError):
    """Bad input from outside: names the key or file, the value found, what was expected."""


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def starts_with(path: Path, start: bytes) -> bool:
    """Whether a file begins with these bytes."""
    with open(path, "rb") as handle:
        return handle.read(len(start)) == start


def check_fetched(path: str | os.PathLike[str]) -> None:
    """InputError naming a file, or the first in a folder, that Git LFS has not fetched."""
    place = Path(path)
    for each in sorted(place.iterdir()) if place.is_dir() else [place]:
        if each.is_file() and starts_with(each, LFS_POINTER):
            raise _unfetched(each)


def _unfetched(path: str | os.PathLike[str]) -> InputError:
    return InputError(f"{path}: a Git LFS pointer; expected the file, see `git lfs pull`")


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


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Says in one InputError that names `path` why it cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or no gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def format_of(address: str | os.PathLike[str], place: str = "") -> str:
    """The one of FORMATS that a file's name tells, `.gz` or not, or the path of its address.

    InputError, at `place`, where it tells none.
    """
    ending = str(file_name(address)).lower().removesuffix(".gz").rpartition(".")[2]
    if ending in FORMATS:
        return ending
    endings = ", ".join(f".{name}" for name in FORMATS)
    expected = f"expected a name that ends in {endings}, .gz or not, or the key `format`"
    raise InputError(f"{place}: found {address}; {expected}" if place else f"{address}: {expected}")


def file_name(address: str | os.PathLike[str]) -> str:
    """The last part of a path or of an address, without its query."""
    text = str(address)
    return (unquote(urlsplit(text).path) if "://" in text else text).rpartition("/")[2]


def _open_bytes(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file's bytes; those of gzip are told by its name or its first two, and decompressed."""
    with open(path, "rb") as handle:
        start = handle.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise _unfetched(path)
    packed = start[:2] == b"\x1f\x8b" or str(path).endswith(".gz")
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else open(path, "rb")


def _decoded(path: Any, content: bytes, line: int = 1) -> str:
    """UTF-8 from a file's `line` on; a byte-order mark at its start is no text."""
    try:
        return content.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        byte = error.object[error.start]
        raise InputError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save it so") from None


def read_text(path: str | os.PathLike[str]) -> str:
    """A whole UTF-8 text (`.gz` decompressed); InputError names a file that cannot be read."""
    with reading(path), _open_bytes(path) as handle:
        return _decoded(path, handle.read())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys are not to repeat."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {repeated!r} occurs twice")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _parsed(path: Any, text: str, line: int | None = None) -> Any:
    """The JSON value of a whole text, or of one line of it."""
    shown = f": {text.strip()[:60]!r}" if line else ""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{line or error.lineno}"
        raise InputError(f"{place}: not valid JSON ({error.msg}){shown}") from None
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # a repeated key, or a number of thousands of digits
        reason = str(error)
    place = f"{path}:{line}" if line else f"{path}"
    raise InputError(f"{place}: not valid JSON ({reason}){shown}")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; InputError names the file when it is missing or malformed."""
    return _parsed(path, read_text(path))


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Reads a YAML file; InputError names it when it is missing, malformed or repeats a key."""
    import yaml

    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _refuse_repeats(node, path, set())
        return None if node is None else loader.construct_document(node)
    except InputError:
        raise
    except RecursionError:
        reason = "nested too deeply"
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())  # beside YAML's own, those of the date 2024-13-01
    raise InputError(f"{path}: not valid YAML ({reason})")


def _refuse_repeats(node: Any, path: Any, seen: set[int]) -> None:
    """InputError on a key that a YAML mapping has twice, and of which the last would win."""
    if not isinstance(getattr(node, "value", None), list) or id(node) in seen:
        return
    seen.add(id(node))
    keys: set[Any] = set()
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            _refuse_repeats(part, path, seen)
        if isinstance(child, tuple) and isinstance(child[0].value, str):
            key = child[0].value
            if key in keys and key != "<<":
                line = child[0].start_mark.line + 1
                raise InputError(f"{path}:{line}: key {key!r} occurs twice")
            keys.add(key)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_jsonl(
    path: str | os.PathLike[str], fields: Iterable[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; InputError gives file:line for a bad line or a missing field."""
    return (row for _, row in numbered_jsonl(path, fields))


def numbered_jsonl(
    path: str | os.PathLike[str], fields: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a JSON-lines file with the numbers of their lines, blank ones left out."""
    wanted = tuple(fields)
    with reading(path), _open_bytes(path) as handle:
        for number, content in enumerate(handle, 1):
            line = _decoded(path, content, number)
            if line.strip():
                yield number, _row(path, number, line, wanted)


def _row(path: Any, number: int, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    row = _parsed(path, line, number)
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


def collect_csv(
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    columns: Sequence[str],
) -> int:
    """Writes the rows of several CSV files as one, each once and in order; returns their number."""
    rows: dict[str, dict[str, str]] = {}
    for path in paths:
        with open_text(path) as handle:
            rows |= {json.dumps(row): row for row in csv.DictReader(handle)}
    write_csv(output, columns, (rows[key] for key in sorted(rows)))
    return len(rows)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's bytes; InputError names a file that cannot be read."""
    with reading(path), open(path, "rb") as handle:
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
