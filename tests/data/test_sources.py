"""Files of rows: what plainly is a row is read, and anything else is named in one message."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from atkd.data import prepare, sources
from atkd.runtime import network
from atkd.runtime.files import InputError

ROW = {"instruction": "Say it.", "input": "", "output": "It."}
LINE = json.dumps(ROW).encode() + b"\n"


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def listed(rows: list[Any]) -> bytes:
    return json.dumps(rows).encode()


def packed(rows: list[Any]) -> bytes:
    return gzip.compress(lines(rows), 1, mtime=0)


def table(rows: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    "rows.jsonl": lines,
    "rows.jsonl.gz": packed,
    "rows.json": listed,
    "rows.json.gz": lambda rows: gzip.compress(listed(rows), 1, mtime=0),
    "rows.parquet": table,
    "ROWS.JSONL": lines,
    "packed.jsonl": packed,  # gzip is told by the bytes
}


def rows_of(*entries: Any, folder: Path = Path("/nowhere")) -> list[dict[str, Any]]:
    made = [entry if isinstance(entry, dict) else {"file": str(entry)} for entry in entries]
    return [row for _, row in sources.read_entries(made, folder, [])]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_rows_that_were_written(name: str, tmp_path: Path) -> None:
    rows = [ROW, {"instruction": "caf\u00e9\u2028 \U0001f600", "input": None, "output": "\\n"}]
    (tmp_path / name).write_bytes(WRITERS[name](rows))
    assert rows_of(tmp_path / name) == rows
    found = prepare.canonical("train", sources.read_place(tmp_path / name))
    assert [row["input"] for row in found] == ["", ""]


@pytest.mark.case("data", "a folder of several files", "all of them in the order of their names")
def test_a_folders_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["test-00000-of-00001.parquet", "dev.jsonl.gz", "b.json", ".hidden.jsonl", "README.md"]
    for number, name in enumerate(names):
        writer = {".parquet": table, ".gz": packed, ".json": listed}.get(Path(name).suffix, lines)
        (tmp_path / name).write_bytes(writer([{"n": number}]))
    (tmp_path / "deeper.jsonl").mkdir()
    splits = [("b", 2), ("dev", 1), ("test", 0)]
    assert [(row["split"], row["n"]) for row in rows_of(tmp_path)] == splits
    named = rows_of({"file": str(tmp_path), "split": "all"})
    assert {row["split"] for row in named} == {"all"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + LINE,
                     marks=pytest.mark.case("data", "a byte-order mark", "no part of the text")),
        pytest.param(b"\n" + LINE + b"  \r\n\n",
                     marks=pytest.mark.case("data", "blank lines", "no rows")),
        pytest.param(LINE[:-1] + b"\r\n",
                     marks=pytest.mark.case("data", "line ends of Windows", "line ends")),
        pytest.param(LINE.replace(b'"input": ""', b'"input": null'),
                     marks=pytest.mark.case("data", '`"input": null`', "no input")),
        pytest.param(LINE.replace(b'{', b'{"id": null, '),
                     marks=pytest.mark.case("data", '`"id": null`', "an id of its place")),
    ],
)  # fmt: skip
def test_what_plainly_is_a_row_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    found = prepare.canonical("train", sources.read_place(tmp_path / "rows.jsonl"))
    assert found == [{"id": "train-0", **ROW}]


DEEP = b'{"a": ' + b"[" * 100_000 + b"\n"
BAD = [
    pytest.param("a.jsonl", LINE + b'{"instruction": "caf\xe9"}\n', marks=pytest.mark.case(
        "data", "Latin-1 lines", "a.jsonl:2: byte 0xe9 is not UTF-8; save it so")),
    pytest.param("a.json", b'[{"instruction":\n "caf\xe9"}]', marks=pytest.mark.case(
        "data", "a Latin-1 list", "a.json:2: byte 0xe9 is not UTF-8; save it so")),
    pytest.param("a.jsonl", "\ufeff{}".encode("utf-16"), marks=pytest.mark.case(
        "data", "UTF-16", "a.jsonl:1: byte 0xff is not UTF-8; save it so")),
    pytest.param("a.jsonl", LINE + LINE.replace(b"It.", b"\\ud800"), marks=pytest.mark.case(
        "data", "half a surrogate pair, `\\ud800`",
        "a.jsonl:2: field 'output' holds '\\ud800', half a surrogate pair; expected text")),
    pytest.param("a.jsonl.gz", packed([ROW] * 99)[:-9], marks=pytest.mark.case(
        "data", "a truncated gzip file", "a.jsonl.gz: damaged or no gzip file (Compressed file "
        "ended before the end-of-stream marker was reached)")),
    pytest.param("a.jsonl.gz", packed([ROW])[:10] + b"\xff" * 40, marks=pytest.mark.case(
        "data", "a damaged gzip file",
        "a.jsonl.gz: damaged or no gzip file (Error -3 while decompressing data")),
    pytest.param("a.json.gz", LINE, marks=pytest.mark.case(
        "data", "plain text named .gz", "a.json.gz: damaged or no gzip file (Not a gzipped file")),
    pytest.param("a.parquet", LINE * 9, marks=pytest.mark.case(
        "data", "no Parquet", "a.parquet: not valid Parquet (Parquet magic bytes not found")),
    pytest.param("a.jsonl", LINE + LINE[:20] + b"\x00" * 9, marks=pytest.mark.case(
        "data", "NUL bytes where a kill tore a line",
        "a.jsonl:2: not valid JSON (Invalid control character at)")),
    pytest.param("a.jsonl", LINE.replace(b"{", b'{"output": "Other.", '), marks=pytest.mark.case(
        "data", "a key that a row has twice",
        "a.jsonl:1: not valid JSON (key 'output' occurs twice)")),
    pytest.param("a.jsonl", DEEP, marks=pytest.mark.case(
        "data", "100,000 brackets", "a.jsonl:1: not valid JSON (nested too deeply)")),
    pytest.param("a.jsonl", b'{"id": ' + b"9" * 5000 + b"}\n", marks=pytest.mark.case(
        "data", "a number of 5,000 digits",
        "a.jsonl:1: not valid JSON (Exceeds the limit (4300 digits)")),
    pytest.param("a.jsonl", LINE.replace(b'"It."', b"NaN"), marks=pytest.mark.case(
        "data", "NaN for a text", "a.jsonl:1: field 'output' is nan, expected str")),
    pytest.param("a.jsonl", LINE.replace(b"{", b'{"id": NaN, '), marks=pytest.mark.case(
        "data", "NaN for an id", "a.jsonl:1: field 'id' is nan, expected text or a whole number")),
    pytest.param("a.json", b"[3]", marks=pytest.mark.case(
        "data", "a list of numbers", "a.json[0]: found int, expected an object")),
    pytest.param("a.json", LINE + LINE, marks=pytest.mark.case(
        "data", "JSON lines named .json",
        "a.json:2: not valid JSON (Extra data); lines of JSON end in .jsonl, or set `format`")),
    pytest.param("a.csv", b"instruction,output\n", marks=pytest.mark.case(
        "data", "another format", "a.csv: expected a name that ends in .jsonl, .json, .parquet, "
        ".gz or not, or the key `format`")),
    pytest.param("a.jsonl", b"\n", marks=pytest.mark.case(
        "data", "a file of blank lines alone", "train: no rows found, expected at least one")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), BAD)
def test_anything_else_is_named_in_one_message(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare.canonical("train", sources.read_place(tmp_path / name))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.case(
    "data",
    "a data file that Git LFS has not fetched, in any format",
    "a Git LFS pointer; expected the file, see `git lfs pull`",
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.parquet"])
def test_files_that_git_lfs_has_not_fetched_are_named(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    with pytest.raises(InputError) as caught:
        list(sources.read_file(tmp_path / name))
    assert f"{tmp_path / name}: {says}" in str(caught.value)


def test_folders_and_locked_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no file found that ends in \.jsonl, \.json"):
        rows_of(tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: is a folder, expected a file"):
        list(sources.read_file(tmp_path / "empty", "json"))
    path = tmp_path / "locked.jsonl"
    path.write_bytes(LINE)
    path.chmod(0)
    if not os.access(path, os.R_OK):  # the superuser reads it
        with pytest.raises(InputError, match=r"locked\.jsonl: cannot be read \(Permission denied"):
            rows_of(path)


@pytest.mark.case(
    "data",
    "a column of `columns` that a row has not",
    "b.jsonl:1: columns.output is 'answer', but the row has question, reply",
)
def test_columns_that_a_file_has_not_are_named(says: str, tmp_path: Path) -> None:
    columns = {"instruction": "question", "output": "answer"}
    (tmp_path / "a.jsonl").write_bytes(lines([{"question": "Q", "answer": "A"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([{"question": "Q", "reply": "A"}]))
    first, second = ({"file": str(tmp_path / name), "columns": columns} for name in FILES)
    assert rows_of(first) == [{"question": "Q", "answer": "A", "instruction": "Q", "output": "A"}]
    with pytest.raises(InputError) as caught:
        rows_of(first, second)
    assert says in str(caught.value)


FILES = ("a.jsonl", "b.jsonl")


@pytest.mark.case(
    "data",
    "a hub data set whose files have different columns",
    "its files have different columns: reply not in all of them",
)
def test_hub_files_of_different_columns_are_named(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "a.jsonl").write_bytes(lines([{"question": "Q", "answer": "A"}]))
    (hub / "b.jsonl").write_bytes(lines([{"question": "Q", "reply": "A"}]))
    with pytest.raises(InputError) as caught:
        rows_of({"id": str(hub)})
    assert f"hub: cannot be loaded at main ({says})" in str(caught.value)


@pytest.mark.case(
    "data",
    "`rows: [2, 9]` of a file of four rows",
    "the 7 rows from 2 to 9 are asked for; found 2 of them",
)
def test_parts_of_a_file_share_no_row(says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"n": n} for n in range(4)]))

    def part(first: int, last: int) -> list[int]:
        return [row["n"] for row in rows_of({"file": str(path), "rows": [first, last]})]

    assert part(0, 3) == [0, 1, 2] and part(3, 4) == [3] and part(2, 2) == []
    with pytest.raises(InputError, match=says):
        part(2, 9)
    with pytest.raises(InputError, match="the 1 rows from 7 to 8 are asked for; found 0"):
        part(7, 8)


def test_a_nested_column_may_be_null(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"a": {"b": 1}, "c.d": 2}, {"a": None, "c.d": 3}]))
    entry = {"file": str(tmp_path / "a.jsonl"), "columns": {"x": "a.b", "y": "c.d"}}
    assert [(row["x"], row["y"]) for row in rows_of(entry)] == [(1, 2), (None, 3)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT | st.lists(TEXT, max_size=3)
ROWS = st.lists(st.dictionaries(TEXT, VALUE, max_size=3), max_size=4)
TEXTS = st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT | st.none()}), min_size=1, max_size=4)


@pytest.mark.parametrize("name", [name for name in WRITERS if "parquet" not in name])
@settings(max_examples=250, deadline=None, derandomize=True)
@given(ROWS)
def test_any_rows_come_back(name: str, tmp_path_factory: Any, rows: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(WRITERS[name](rows))
    assert rows_of(path) == rows


@settings(max_examples=250, deadline=None, derandomize=True)
@given(TEXTS)
def test_any_table_comes_back(tmp_path_factory: Any, rows: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    path.write_bytes(table(rows))
    assert rows_of(path) == rows


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=250, deadline=None, derandomize=True)
@given(TEXTS, st.binary(max_size=8), st.integers(0, 400), st.integers(0, 20))
def test_any_bytes_are_rows_or_refused_by_name(
    name: str, tmp_path_factory: Any, rows: list[Any], noise: bytes, start: int, cut: int
) -> None:
    content = WRITERS[name](rows)
    start = start % (len(content) + 1)
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[:start] + noise + content[start + cut :])
    try:
        found = prepare.canonical("pretrain", sources.read_place(path))
    except InputError as error:
        assert name in str(error) or "no rows found" in str(error)
        return
    assert json.dumps(found, ensure_ascii=False).encode()


BODY = b'[{"instruction": "Go."}]'
ENTRY = {"sha256": hashlib.sha256(BODY).hexdigest()}


class Cut(http.server.BaseHTTPRequestHandler):
    """Hangs up half-way, unless it is asked for the rest."""

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start:] if start else BODY[:9])

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies that it found first
    for name in network.VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.case(
    "data",
    "A server that hangs up in the middle of a download",
    "cannot be fetched (9 of 24 bytes came); run again to resume",
)
def test_a_download_that_was_cut_goes_on(says: str, server: str, tmp_path: Path) -> None:
    entry = ENTRY | {"url": f"{server}/rows.json"}
    with pytest.raises(InputError) as caught:
        sources.download(entry, tmp_path)
    assert says in str(caught.value)
    assert sources.download(entry, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        pytest.param(
            "https://example.invalid/rows.json", "HTTPS_PROXY", "http://proxy:port",
            marks=pytest.mark.case(
                "machine",
                "A download with a malformed HTTPS_PROXY",
                "https://example.invalid/rows.json: cannot be fetched (nonnumeric port: 'port'; "
                "the environment sets HTTPS_PROXY, which connections obey); run again to resume",
            ),
        ),
        pytest.param(
            "http://127.0.0.1:1/rows.json", "SSL_CERT_FILE", "/nowhere.pem",
            marks=pytest.mark.case(
                "machine",
                "A download from a server that is not there, with an SSL_CERT_FILE",
                "http://127.0.0.1:1/rows.json: cannot be fetched ([Errno 111] Connection refused; "
                "the environment sets SSL_CERT_FILE, which connections obey); run again to resume",
            ),
        ),
        pytest.param(
            "rows.json", "ALL_PROXY", "",
            marks=pytest.mark.case(
                "data",
                "A download whose url has no scheme",
                "rows.json: cannot be fetched (unknown url type: 'rows.json'); run again to resume",
            ),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_one_message(
    url: str, variable: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as caught:
        sources.download(ENTRY | {"url": url}, tmp_path)
    assert str(caught.value) == says


@pytest.mark.case(
    "machine",
    "A hub data set with a malformed HTTPS_PROXY",
    "owner/rows: cannot be loaded at main (Invalid port: 'port'; the environment sets HTTPS_PROXY, "
    "which connections obey)",
)
def test_a_hub_that_cannot_be_reached_is_one_message(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OddError(Exception):
        """Of an HTTP client: no kind that is known here."""

    def load_dataset(*_: Any, **__: Any) -> None:
        raise OddError("Invalid port: 'port'")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:port")
    with pytest.raises(InputError) as caught:
        list(sources.read_hub({"id": "owner/rows"}, []))
    assert str(caught.value) == says
