"""How far long work is: a bar on a terminal, and in a log a line now and then.

A log has a line when work begins, at every tenth of it, and at least every `EVERY_S` seconds, also
while a single step takes longer. Lines go to standard error, as bars do.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

EVERY_S = 30.0
PARTS = 10  # of the work, with a line each


class Progress:
    """Counts what is done of `total` (None: unknown) units of some work.

        with Progress("train", steps, "steps") as progress:
            progress.add(tokens=512, loss=2.5)

    `done`: what an earlier run left. `shown`: False says nothing, as all processes but one do.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        done: int = 0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.clock = what, total, unit, clock
        self.done = self.before = done
        self.tokens = 0
        self.facts: dict[str, float] = {}
        self.start = self.told = clock()
        self.shown = shown
        self.bar: Any = None
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
            self.bar = self._bar()
        elif self.shown:
            self._tell()
            self.watch.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        if self.watch.is_alive():
            self.watch.join()  # a process that ends while it speaks would be aborted
        if self.bar is not None:
            self.bar.close()

    def add(self, count: int = 1, tokens: int = 0, **facts: float) -> None:
        """Counts units as done, and the tokens they took; `facts` (a loss) replace earlier ones."""
        with self.lock:
            before, self.done = self.done, self.done + count
            self.tokens += tokens
            self.facts |= facts
            if self.bar is not None:
                self.bar.set_postfix_str(", ".join(self._facts()), refresh=False)
                self.bar.update(count)
            elif self.shown and (self._tenth(before) < self._tenth(self.done) or self._due()):
                self._tell()

    def skip(self, count: int) -> None:
        """Counts units that an earlier run did, which say nothing of this one's speed."""
        with self.lock:
            self.done, self.before = self.done + count, self.before + count
            if self.bar is not None:
                self.bar.update(count)

    def line(self) -> str:
        """What a log is told: what, how much of it, facts, speed, time left."""
        total = "" if self.total is None else f" of {self.total:,}"
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        return ", ".join(
            [f"{self.what}: {self.done:,}{total} {self.unit}{share}", *self._facts(), *self._left()]
        )

    def _facts(self) -> list[str]:
        facts = [f"{name} {value:#.4g}" for name, value in self.facts.items()]
        seconds = self.clock() - self.start
        if self.tokens and seconds > 0:
            facts.append(f"{self.tokens / seconds:,.0f} tokens/s")
        elif self.done > self.before and seconds > 0:
            speed = (self.done - self.before) / seconds
            facts.append(
                f"{speed:,.0f} {self.unit}/s" if speed >= 10 else f"{speed:.2g} {self.unit}/s"
            )
        return facts

    def _left(self) -> list[str]:
        now = self.done - self.before
        if not self.total or now <= 0 or self.done >= self.total:
            return []
        seconds = (self.total - self.done) / now * (self.clock() - self.start)
        minutes, hours = round(seconds) // 60, round(seconds) // 3600
        return [f"{hours}:{minutes % 60:02d}:{round(seconds) % 60:02d} left"]

    def _tenth(self, done: int) -> int:
        return PARTS * done // self.total if self.total else 0

    def _due(self) -> bool:
        return self.clock() - self.told >= EVERY_S

    def _tell(self) -> None:
        self.told = self.clock()
        print(self.line(), file=sys.stderr, flush=True)

    def _watch(self) -> None:
        """Speaks where a single step takes longer than a line is due."""
        while not self.ended.wait(max(0.0, self.told + EVERY_S - self.clock())):
            with self.lock:
                if self._due() and not self.ended.is_set():
                    self._tell()

    def _bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=self.what, total=self.total, initial=self.done, unit=f" {self.unit}",
            unit_scale=True,
        )  # fmt: skip
