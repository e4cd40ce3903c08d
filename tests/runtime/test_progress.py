"""How far long work is: a log's lines by a clock that the test turns, and a real job's log."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from atkd.runtime import progress
from atkd.runtime.progress import Progress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = capsys.readouterr()
    assert not found.out
    return found.err.splitlines()


def test_a_line_at_every_tenth(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 40, "steps", clock=clock) as told:
        for step in range(40):
            clock.now += 0.5
            told.add(tokens=512, loss=3 - step / 40)
    said = lines(capsys)
    assert said[:2] == [
        "train: 0 of 40 steps (0%)",
        "train: 4 of 40 steps (10%), loss 2.925, 1,024 tokens/s, 0:00:18 left",
    ]
    assert said[-1] == "train: 40 of 40 steps (100%), loss 2.025, 1,024 tokens/s"
    assert len(said) == 1 + progress.PARTS


def test_a_line_at_least_every_thirty_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("cache", 1000, "tokens", clock=clock) as told:
        for _ in range(8):
            clock.now += 10
            told.add(1)
    assert [line.split(" tokens")[0] for line in lines(capsys)] == [
        "cache: 0 of 1,000", "cache: 3 of 1,000", "cache: 6 of 1,000",
    ]  # fmt: skip


def test_a_step_that_takes_longer_is_no_silence(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with Progress("answers", 10, "answers") as told:
        told.ended.wait(0.3)
    assert 2 <= len(lines(capsys)) <= 7
    told.ended.wait(0.2)
    assert not lines(capsys)  # nothing after the end


def test_what_an_earlier_run_did_is_no_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("answers", 100, "answers", done=40, clock=clock) as told:
        told.skip(40)
        clock.now += 5
        told.add(10)
    assert lines(capsys) == [
        "answers: 40 of 100 answers (40%)",
        "answers: 90 of 100 answers (90%), 2 answers/s, 0:00:05 left",
    ]


def test_work_of_unknown_size_and_none(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("rows.json", None, "bytes", clock=clock) as told:
        clock.now += 40
        told.add(1_000_000)
    with Progress("prompts", 0, "tasks", clock=clock):
        pass
    assert lines(capsys) == [
        "rows.json: 0 bytes", "rows.json: 1,000,000 bytes, 25,000 bytes/s", "prompts: 0 of 0 tasks",
    ]  # fmt: skip
    with Progress("train", 10, "steps", shown=False) as told:
        told.add(10)
    assert not lines(capsys)


def test_every_line_is_out_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Log(io.StringIO):
        """Holds what was written, and what of it was flushed."""

        out = ""

        def flush(self) -> None:
            self.out = self.getvalue()

    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    with Progress("train", 2, "steps", clock=clock) as told:
        told.add()
        assert log.out.count("\n") == 2


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        """A terminal."""

        def isatty(self) -> bool:
            return True

    shown: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress("train", 4, "steps", done=1) as told:
        told.skip(1)
        for _ in range(2):
            told.add(tokens=10, loss=2.5)
    text = shown.getvalue()
    assert "train: 100%" in text and "4.00/4.00" in text and "loss 2.500" in text
    assert not re.search(r"train: \d+ of", text)
