"""Many questions to an endpoint: at once, bounded, retried, paid once and kept.

Every reply goes to the ledger the moment it arrives, so that a run that stops, is killed or runs
out of budget goes on where it was.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed

from atkd.judge.endpoint import OWN, Call, CallError, Endpoint, Row, ledger_name
from atkd.judge.ledger import Ledger, StoppedError

IN_A_ROW = 5  # questions without an answer, after which it is not the questions
LONGEST_PAUSE_S = 120
EVERY = 100  # calls from one line of a log to the next


class Asker:
    """Asks many questions at once and keeps every reply.

    A question that is refused, or whose replies stay malformed through all repeats, is left
    unanswered (text None) and the others go on. The ledger keeps it so once another question is
    answered or all are asked: `IN_A_ROW` such questions in a row stop the run, and so does a run
    without a single answer; these are asked again. Malformed replies, which are paid, are for good;
    refused questions, which are not, are asked again by the next run, and not counted there.
    """

    def __init__(self, settings: Row, ledger: Ledger) -> None:
        self.settings, self.ledger = settings, ledger
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.repeated = 0
        self.unanswered: list[Row] = []  # since the last answer

    def bound(self, call: Call) -> int:
        """The most tokens a call can take: a token has at least one byte."""
        return len(call.prompt.encode()) + 64 + self.settings["reply_tokens"]

    def reply(self, call: Call) -> Row | None:
        """The ledger's row for a call."""
        return self.ledger.replies.get(ledger_name(self.settings, call))

    def missing(self, calls: Iterable[Call]) -> list[Call]:
        """Calls that the ledger has no reply to."""
        return [call for call in calls if self.reply(call) is None]

    def outlook(self, calls: list[Call]) -> str:
        """What asking will take, in words."""
        left = self.missing(calls)
        most = sum(map(self.bound, left))
        return (
            f"{len(calls)} calls, {len(left)} of them not answered yet (at most {most:,} tokens); "
            f"so far {self.ledger.calls:,} calls and {self.ledger.tokens:,} tokens are spent"
        )

    def ask(self, calls: list[Call]) -> None:
        """Asks what the ledger lacks; StoppedError says why not all of it was answered."""
        from tqdm import tqdm

        missing = self.missing(calls)
        if not missing:
            return
        endpoint, pool = Endpoint(self.settings), ThreadPoolExecutor(self.settings["concurrency"])
        told = len(calls) - len(missing)
        bar = tqdm(total=len(calls), initial=told, desc="judge", disable=None)
        try:
            for done in as_completed([pool.submit(self._one, endpoint, call) for call in missing]):
                done.result()
                bar.update()
                told += 1
                if told % EVERY == 0 and not sys.stderr.isatty():  # where there is no bar
                    print(f"judge: {told} of {len(calls)} calls are done", file=sys.stderr)
            self._end(calls)
        except StoppedError as error:
            self._shut(pool)
            self._keep()
            left = len(self.missing(calls))
            raise StoppedError(
                f"judge stopped: {error}; {len(calls) - left} of {len(calls)} calls are answered "
                f"and kept in {self.ledger.path}; the same command asks the rest"
            ) from None
        finally:
            self._shut(pool)
            self._keep()
            bar.close()
            endpoint.client.close()

    def _shut(self, pool: ThreadPoolExecutor) -> None:
        """Starts no more calls; waits for the open ones, which are paid, so that they are kept."""
        self.stop.set()
        pool.shutdown(cancel_futures=True)

    def _one(self, endpoint: Endpoint, call: Call) -> None:
        """Asks until there is a reply; stops all other calls where there is none to be had."""
        try:
            self._repeat(endpoint, call, self.settings["retries"])
        except StoppedError:
            self.stop.set()
            raise

    def _repeat(self, endpoint: Endpoint, call: Call, last: int) -> None:
        for attempt in range(last + 1):
            if self.stop.is_set():
                return
            failure = self._attempt(endpoint, call)
            if failure is None:
                return self._keep()
            if not failure.again or attempt == last:
                text = f"{'/'.join(call.name)}: {failure} (attempt {attempt + 1})"
                if failure.status not in OWN:
                    raise StoppedError(text)
                return self._leave(call, failure, text)
            self.repeated += 1
            pause_s = self.settings["backoff_s"] * 2**attempt * random.uniform(0.75, 1.25)
            self.stop.wait(min(max(pause_s, failure.pause_s), LONGEST_PAUSE_S))

    def _attempt(self, endpoint: Endpoint, call: Call) -> CallError | None:
        """One call, kept if it was answered or may be charged; what went wrong, if anything did."""
        bound = self.bound(call)
        row: Row = {"call": ledger_name(self.settings, call), "text": None, "tokens": bound}
        with self.ledger.claim(bound) as rows:
            try:
                found = endpoint.ask(call.prompt)
            except CallError as failure:
                if failure.paid:
                    rows.append(row | {"paid": True, "refused": False, "error": str(failure)})
                return failure
            tokens = bound if found["tokens"] is None else found["tokens"]
            rows.append(row | found | {"tokens": tokens, "paid": True, "refused": False})
        return None

    def _leave(self, call: Call, failure: CallError, text: str) -> None:
        """Leaves a question unanswered; StoppedError after too many in a row."""
        name = ledger_name(self.settings, call)
        row: Row = {"call": name, "text": None, "tokens": 0, "paid": False}
        row |= {"refused": failure.refused, "unanswered": True, "error": str(failure)}
        with self.lock:
            if self.stop.is_set():
                return
            self.unanswered.append(row)
            fresh = [one for one in self.unanswered if one["call"] not in self.ledger.refused]
            if len(fresh) >= IN_A_ROW:
                self._drop(f"{len(fresh)} questions in a row without an answer, at last {text}")

    def _drop(self, text: str) -> None:
        self.stop.set()
        self.unanswered.clear()
        raise StoppedError(text)

    def _keep(self) -> None:
        """Writes down what is unanswered."""
        with self.lock:
            self.ledger.keep(self.unanswered)
            self.unanswered.clear()

    def _end(self, calls: list[Call]) -> None:
        """StoppedError if all were asked and none was answered."""
        if all((self.reply(call) or {"text": None})["text"] is None for call in calls):
            last = self.unanswered[-1]["error"] if self.unanswered else "kept in the ledger"
            self._drop(f"no question was answered, the last error: {last}")
