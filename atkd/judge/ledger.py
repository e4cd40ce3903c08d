"""What was asked of a paid service: replies by call in an append-only file, and the budget."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atkd.runtime.files import InputError, read_jsonl

Row = dict[str, Any]


class StoppedError(InputError):
    """Asking ended early; what was answered is kept."""


class Ledger:
    """Replies on disk by call, and the budget: what the file holds counts as spent.

    A row with text None is a reply if it is `unanswered`: asked in vain, for good. One that was
    `refused` is a reply until the file is read again: then its call is in `refused`, to be asked.

    A call counts when it was answered, or may have been (time-outs, broken replies); one that the
    endpoint refused by an HTTP status does not. Tokens are those the endpoint reports; where it
    reports none, and as long as a call is open, its upper bound counts.
    """

    def __init__(self, path: Path, max_calls: int | None, max_tokens: int | None) -> None:
        self.path, self.max_calls, self.max_tokens = path, max_calls, max_tokens
        self.replies: dict[tuple[str, ...], Row] = {}
        self.refused: set[tuple[str, ...]] = set()
        self.calls = self.tokens = 0
        self.lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_torn_line()
        for row in read_jsonl(path, ("call", "text", "tokens", "paid", "refused")):
            self._count(row)
        self.refused = {name for name, row in self.replies.items() if row["refused"]}
        self.replies = {n: row for n, row in self.replies.items() if n not in self.refused}

    def _cut_torn_line(self) -> None:
        with open(self.path, "a+b") as handle:
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)

    def _count(self, row: Row) -> None:
        if row["paid"]:
            self.calls += 1
            self.tokens += row["tokens"]
        if row["text"] is not None or row["refused"] or row.get("unanswered"):
            self.replies[tuple(row["call"])] = row

    @contextlib.contextmanager
    def claim(self, tokens: int) -> Iterator[list[Row]]:
        """Takes one call and `tokens` from the budget; rows put into the list settle it."""
        with self.lock:
            for name, spent, most in (
                ("max_calls", self.calls + 1, self.max_calls),
                ("max_tokens", self.tokens + tokens, self.max_tokens),
            ):
                if most is not None and spent > most:
                    text = f"the budget evaluation.judge.{name}, {most}, is spent"
                    raise StoppedError(f"{text} (raise it to go on)")
            self.calls, self.tokens = self.calls + 1, self.tokens + tokens
        rows: list[Row] = []
        try:
            yield rows
        finally:
            with self.lock:
                self.calls, self.tokens = self.calls - 1, self.tokens - tokens
                for row in rows:
                    self._append(row)

    def keep(self, rows: list[Row]) -> None:
        """Writes down rows that are not paid."""
        with self.lock:
            for row in rows:
                self._append(row)

    def _append(self, row: Row) -> None:
        line = json.dumps(row) + "\n"
        with open(self.path, "ab", buffering=0) as handle:
            handle.write(line.encode())
            os.fsync(handle.fileno())
        self._count(row)
