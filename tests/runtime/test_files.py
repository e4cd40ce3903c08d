"""Files between stages: located errors, whole writes, equal bytes, locks that die with holders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atkd.runtime import files
from atkd.runtime.files import InputError

HOLD = """
import sys, time
from atkd.runtime.files import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_rows_come_back_and_gzip_is_byte_reproducible(tmp_path: Path) -> None:
    rows = [{"a": "caf\u00e9\u2028"}, {"a": 2}]
    for name in ("plain.jsonl", "one.jsonl.gz", "two.jsonl.gz"):
        assert files.write_jsonl(tmp_path / name, rows) == 2
        assert list(files.read_jsonl(tmp_path / name, ("a",))) == rows
    assert files.sha256(tmp_path / "one.jsonl.gz") == files.sha256(tmp_path / "two.jsonl.gz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', r"bad\.jsonl:2: not valid JSON \(.*\): '{\"a\":'"),
        ('{"a": 1}\n[1]\n', r"bad\.jsonl:2: found list, expected a JSON object"),
        ('{"b": 1}\n', r"bad\.jsonl:1: field 'a' is missing; expected a"),
        ('\ufeff{"a": 1}\n\n{"a": \n', r"bad\.jsonl:3: not valid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(files.read_jsonl(tmp_path / "bad.jsonl", ("a",)))


def test_files_that_are_missing_or_not_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: file not found"):
        list(files.read_jsonl(tmp_path / "none.jsonl"))
    (tmp_path / "bad.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(InputError, match=r"bad\.json:\d: not valid JSON"):
        files.read_json(tmp_path / "bad.json")


READERS = {
    "read_json": files.read_json,
    "read_jsonl": lambda path: list(files.read_jsonl(path)),
    "read_yaml": files.read_yaml,
    "read_text": files.read_text,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.case("machine", "a folder where a file belongs", ": is a folder, expected a file")
def test_a_folder_is_no_file(read: Callable[[Path], object], tmp_path: Path, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}{says}"
    with pytest.raises(InputError, match=r"rows\.jsonl: cannot be read \(Not a directory\)"):
        (tmp_path / "file").touch()
        read(tmp_path / "file/rows.jsonl")
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
        read(tmp_path / ("n" * 300))


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("a/b.jsonl", "jsonl"),
        ("b.JSON.GZ", "json"),
        ("x.y/b.parquet", "parquet"),
        ("https://h/a/b.json?download=true", "json"),
        ("https://h/a%2Fb.jsonl.gz#top", "jsonl"),
    ],
)
def test_a_format_is_told_by_a_name(address: str, wanted: str) -> None:
    assert files.format_of(address) == wanted
    with pytest.raises(InputError, match=r"here: found .*; expected a name that ends in \.jsonl"):
        files.format_of(f"https://h/?{address}", "here")


def test_a_csv_leaves_empty_what_a_row_lacks_and_takes_no_other_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    files.write_csv(path, ("a", "b"), [{"a": 1, "b": "x, y"}, {"a": 2}])
    assert path.read_bytes() == b'a,b\n1,"x, y"\n2,\n'
    with pytest.raises(ValueError, match="'c'"):
        files.write_csv(path, ("a", "b"), [{"c": 3}])
    assert path.read_bytes() == b'a,b\n1,"x, y"\n2,\n'


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"a": 1}])

    def rows() -> object:
        yield {"a": 2}
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        files.write_jsonl(path, rows())
    assert list(files.read_jsonl(path)) == [{"a": 1}] and os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        held = f"{tmp_path} is in use by process {holder.pid} on {os.uname().nodename}; wait for it"
        with pytest.raises(InputError, match=held), files.folder_lock(tmp_path, wait=False):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with files.folder_lock(tmp_path, wait=False):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_children_do_not_inherit_a_lock(tmp_path: Path) -> None:
    with files.folder_lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with files.folder_lock(tmp_path, wait=False):
            assert child.poll() is None
    finally:
        child.communicate(b"\n")
