"""How command lines start and end: one message for bad input, the garbage collector on again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from atkd import __main__
from atkd.runtime import cli
from atkd.runtime.files import InputError


def test_a_command_line_ends_with_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad() -> None:
        raise InputError("data.jsonl:3: response is empty, expected text")

    with pytest.raises(SystemExit) as caught:
        cli.run(bad)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: data.jsonl:3: response is empty, expected text\n"
    with pytest.raises(SystemExit):
        cli.run(lambda: cli.json_object("--settings", '{"a": }'))
    error = capsys.readouterr().err
    assert error.startswith("error: --settings: not valid JSON (Expecting value: line 1 column 7")


@dataclass(frozen=True)
class Made:
    """Settings of every kind of value."""

    steps: int
    rate: float = 0.1
    name: str | None = None
    tasks: tuple[str, ...] = ()
    limit: Mapping[str, int] = field(default_factory=dict)
    on: bool = False
    more: Any = None


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            {"steps": "many"},
            marks=pytest.mark.case(
                "config",
                "a stage's settings with text for a number",
                "settings: steps is 'many', expected int",
            ),
        ),
        pytest.param(
            {"steps": True},
            marks=pytest.mark.case(
                "config",
                "a stage's settings with true for a number",
                "settings: steps is True, expected int",
            ),
        ),
        pytest.param(
            {"steps": 1, "tasks": "dolly"},
            marks=pytest.mark.case(
                "config",
                "a stage's settings with text for a list",
                "settings: tasks is 'dolly', expected tuple[str, ...]",
            ),
        ),
        pytest.param(
            {"steps": 1, "limit": [3]},
            marks=pytest.mark.case(
                "config",
                "a stage's settings with a list for a mapping",
                "settings: limit is [3], expected Mapping[str, int]",
            ),
        ),
        pytest.param(
            {},
            marks=pytest.mark.case(
                "config",
                "a stage's settings without a key that has no default",
                "settings: 'steps' is missing, expected steps, rate",
            ),
        ),
        pytest.param(
            {"step": 1},
            marks=pytest.mark.case(
                "config",
                "a stage's settings with an unknown key",
                "settings: found 'step', expected steps, rate",
            ),
        ),
    ],
)
def test_settings_of_other_types_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        cli.settings_of(Made, given)
    assert says in str(caught.value)


def test_settings_are_taken_in_every_type_that_json_has() -> None:
    given = {"steps": 3, "rate": 1, "name": "n", "tasks": ["a"], "limit": {"a": 1}, "on": True}
    found = cli.settings_of(Made, given | {"more": [{}]})
    assert (found.rate, found.name, found.tasks) == (1, "n", ["a"])
    assert cli.settings_of(Made, {"steps": 3, "name": None}) == Made(3)


@pytest.mark.case(
    "config", "`--settings '[1]'` of a stage", "--settings: found list; expected a JSON object"
)
def test_settings_that_are_no_object_are_named(says: str) -> None:
    with pytest.raises(InputError, match=says):
        cli.json_object("--settings", "[1]")


@pytest.mark.parametrize("stage", ["data", "tokenizer", "prompts", "check", "train", "evaluate"])
def test_malformed_settings_end_every_stage_with_one_message(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    options = {
        "data": ["--source", "world", "--output", out],
        "tokenizer": ["--family", "opt", "--output", out],
        "prompts": ["--data", out, "--tokenizer", out, "--output", out],
        "check": ["--family", "opt", "--size", "1b", "--tokenizer", out, "--output", out],
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
    monkeypatch.setattr(sys, "argv", ["atkd", stage, *options, "--settings", "{'a': 1}"])
    monkeypatch.delenv("ATKD_WARM", raising=False)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LMEVAL_LOG_LEVEL", "ERROR")
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: --settings: not valid JSON")
    assert error.count("\n") == 1 and not Path(out).exists()


@pytest.mark.case(
    "machine",
    "Text that the terminal's encoding lacks (PYTHONIOENCODING=ascii)",
    "Escaped where it is printed: caf\\xe9",
)
def test_text_that_an_encoding_lacks_is_escaped() -> None:
    code = "from atkd.runtime import cli; cli.run(lambda: print('caf\xe9 \u2212'))"
    there = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, check=True)
    assert done.stdout == b"caf\\xe9 \\u2212\n"


def test_start_up_leaves_no_garbage_collector_off() -> None:
    with cli.start_up():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled() and gc.get_freeze_count() > len(kept)
    gc.unfreeze()
    with pytest.raises(InputError), cli.start_up():
        raise InputError("bad")
    assert gc.isenabled()
    gc.unfreeze()


def test_the_command_line_names_its_stages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["atkd", "--help"])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    shown = capsys.readouterr().out
    assert not caught.value.code and all(f"  {name} " in shown for name in __main__.STAGES)
    monkeypatch.setattr(sys, "argv", ["atkd", "trian"])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: found stage 'trian'; expected one")
