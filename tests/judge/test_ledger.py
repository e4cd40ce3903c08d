"""The ledger: what it keeps, what it counts as spent, and what a kill leaves of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atkd.judge.ledger import Ledger, StoppedError
from atkd.runtime.files import InputError


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"call": [name], "text": "x", "tokens": 7, "paid": True, "refused": False} | changes


def opened(path: Path, calls: int | None = None, tokens: int | None = None) -> Ledger:
    return Ledger(path / "deep" / "replies.jsonl", calls, tokens)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for made in (
        row("a", text="two\nlines \u2028 \ud800"),
        row("b", text=None, paid=True),
        row("c", text=None, tokens=0, paid=False, unanswered=True),
    ):
        with ledger.claim(50) as rows:
            rows.append(made)
    again = opened(tmp_path)
    assert again.replies == ledger.replies and set(again.replies) == {("a",), ("c",)}
    assert (again.calls, again.tokens) == (ledger.calls, ledger.tokens) == (2, 14)
    assert again.replies["a",]["text"] == "two\nlines \u2028 \ud800"


def test_a_refused_call_is_asked_again_once_the_file_is_read_again(tmp_path: Path) -> None:
    ledger, refusal = opened(tmp_path), {"text": None, "tokens": 0, "paid": False, "refused": True}
    ledger.keep([row("a", **refusal), row("b", **refusal), row("b")])
    assert set(ledger.replies) == {("a",), ("b",)} and not ledger.refused
    again = opened(tmp_path)
    assert set(again.replies) == {("b",)} and again.refused == {("a",)}


def test_a_torn_last_line_is_cut_and_a_bad_line_is_named(tmp_path: Path) -> None:
    with opened(tmp_path).claim(1) as rows:
        rows += [row("a"), row("b")]
    path = tmp_path / "deep" / "replies.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with opened(tmp_path).claim(1) as rows:
        rows.append(row("b"))
    assert path.read_bytes() == whole
    path.write_bytes(whole[9:])
    with pytest.raises(InputError, match=r"replies.jsonl:1: not valid JSON"):
        opened(tmp_path)


def test_a_budget_holds_while_calls_are_open(tmp_path: Path) -> None:
    ledger = opened(tmp_path, calls=2, tokens=100)
    with ledger.claim(60) as rows:
        with pytest.raises(StoppedError, match=r"evaluation\.judge\.max_tokens, 100, is spent"):
            ledger.claim(41).__enter__()
        with (
            ledger.claim(40),
            pytest.raises(StoppedError, match=r"evaluation\.judge\.max_calls, 2, is spent"),
        ):
            ledger.claim(0).__enter__()
        rows.append(row("a", tokens=10))
    assert (ledger.calls, ledger.tokens) == (1, 10)  # settled: one kept, one never paid
    assert json.loads(ledger.path.read_text())["tokens"] == 10
