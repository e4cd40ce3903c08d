"""Files between stages: located errors, whole writes, equal bytes, locks that die with holders."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atkd import files
from atkd.files import InputError

HOLD = """
import sys, time
from atkd.files import folder_lock
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
        ('{"a": 1}\n\n', r"bad\.jsonl:2: not valid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(files.read_jsonl(tmp_path / "bad.jsonl", ("a",)))


def test_files_that_are_missing_or_not_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: file not found"):
        list(files.read_jsonl(tmp_path / "none.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}\n')
    for name in ("cut.jsonl.gz", "latin.jsonl"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as UTF-8 JSON lines"):
            list(files.read_jsonl(tmp_path / name))
    (tmp_path / "bad.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(InputError, match=r"bad\.json:\d: not valid JSON"):
        files.read_json(tmp_path / "bad.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"a": 1}])

    def rows() -> object:
        yield {"a": 2}
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        files.write_jsonl(path, rows())
    assert list(files.read_jsonl(path)) == [{"a": 1}] and os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_command_line_ends_with_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad() -> None:
        raise InputError("data.jsonl:3: response is empty, expected text")

    with pytest.raises(SystemExit) as caught:
        files.cli(bad)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: data.jsonl:3: response is empty, expected text\n"
    monkeypatch.setattr(sys, "argv", ["stage", "--settings", '{"a": }'])
    with pytest.raises(SystemExit):
        files.cli(lambda: json.loads(sys.argv[2]))
    error = capsys.readouterr().err
    assert error.startswith("error: --settings: not valid JSON (Expecting value: line 1 column 7")
    with pytest.raises(json.JSONDecodeError):
        files.cli(lambda: json.loads("{"))


@pytest.mark.parametrize("stage", ["data", "tokens", "prompts", "check", "train", "evaluate"])
def test_malformed_settings_end_every_stage_with_one_message(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib

    out = str(tmp_path / "out")
    options = {
        "data": ["--source", "world", "--output", out],
        "tokens": ["--family", "opt", "--output", out],
        "prompts": ["--data", out, "--tokenizer", out, "--output", out],
        "check": ["--tokenizers", out, "--output", out],
        "train": [
            "--role",
            "base",
            "--run",
            "r",
            "--seed",
            "1",
            "--tokenizer",
            out,
            "--output",
            out,
        ],
        "evaluate": ["--model", out, "--prompts", out, "--run", "r", "--output", out],
    }[stage]
    monkeypatch.setattr(sys, "argv", ["stage", *options, "--settings", "{'a': 1}"])
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LMEVAL_LOG_LEVEL", "ERROR")
    with pytest.raises(SystemExit) as caught:
        files.cli(importlib.import_module(f"atkd.{stage}").main)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: --settings: not valid JSON")
    assert error.count("\n") == 1 and not Path(out).exists()


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


def test_only_the_first_process_of_a_training_takes_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atkd.train import only_trainer

    with only_trainer(str(tmp_path)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        with only_trainer(str(tmp_path)):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(InputError, match="is in use by process"), only_trainer(str(tmp_path)):
            pass


def test_start_up_leaves_no_garbage_collector_off() -> None:
    with files.start_up():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled() and gc.get_freeze_count() > len(kept)
    gc.unfreeze()
    with pytest.raises(InputError), files.start_up():
        raise InputError("bad")
    assert gc.isenabled()
    gc.unfreeze()
