"""Many questions to an OpenAI-compatible endpoint: bounded, retried, paid once and kept.

Every reply is written down the moment it arrives, so that a run that stops, is killed or runs out
of budget goes on where it was. The key is read from the environment alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from atkd.judge.settings import JudgeSettings, well_formed
from atkd.runtime.files import InputError, read_jsonl
from atkd.runtime.network import obeyed, reason
from atkd.runtime.progress import Progress

Row = dict[str, Any]
Name = tuple[str, ...]
OWN = (200, 400, 413, 422)  # no usable reply to this question, though perhaps to others
AGAIN = (408, 409, 429)  # and every 5xx
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([^u]))")  # of JSON, harmless ones such as \\/ too
TEXT = ("text", "output_text")  # types of a content's parts that are the answer
SECRET = 8  # a shorter key is a placeholder such as EMPTY, and a word replies may hold
IN_A_ROW = 5  # questions without an answer, after which it is not the questions
DEEPEST = 64  # levels of a reply's JSON; one that nests deeper is kept as text
LONGEST_PAUSE_S = 120
GO_ON = "the same command asks the rest"


@dataclass(frozen=True)
class Call:
    """One question: `name` tells it apart among kept replies; `prompt` is the text to send."""

    name: Name
    prompt: str


@dataclass
class CallError(Exception):
    """A call without a usable reply; `again`: worth repeating; `paid`: may have been charged."""

    text: str
    again: bool = True
    paid: bool = True
    pause_s: float = 0.0
    status: int = 0
    raw: Any = None  # what the endpoint sent, if it sent anything

    def __str__(self) -> str:
        return well_formed(self.text)


class StoppedError(InputError):
    """Asking ended early; what was answered is kept. `advice`: how to go on."""

    def __init__(self, text: str, advice: str = GO_ON) -> None:
        super().__init__(text)
        self.advice = advice


def first_choice(raw: Any) -> Row:
    """A chat completion's first choice; empty where there is none, or `raw` is none."""
    choices = raw.get("choices") if isinstance(raw, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def text_of(content: Any) -> str:
    """The text of a message's content: itself, or its parts of text; reasoning is no part of it."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") in TEXT else part
        for part in parts
    ]
    return "".join(text for text in texts if isinstance(text, str))


def is_completion(raw: Any) -> bool:
    """Whether a reply is a chat completion, whatever it says; a server's error is none."""
    return isinstance(raw, dict) and isinstance(raw.get("choices"), list) and not raw.get("error")


def within(value: Any, levels: int) -> bool:
    """Whether JSON nests at most this deep."""
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list):
        return True
    return levels > 0 and all(within(one, levels - 1) for one in inner)


class ReplyLog:
    """Replies by call in an append-only file, and the budget: what the file holds is spent.

    A row with text None is a reply if it is `unanswered`: asked in vain, for good. One that was
    `refused` is a reply until the file is read again: then its call is in `refused`, to be asked.

    A call counts when it was answered, or may have been (time-outs, broken replies); one that the
    endpoint refused by an HTTP status does not. Tokens are those the endpoint reports; where it
    reports none, and as long as a call is open, its upper bound counts.
    """

    def __init__(self, path: Path, max_calls: int | None, max_tokens: int | None) -> None:
        self.path, self.max_calls, self.max_tokens = path, max_calls, max_tokens
        self.replies: dict[Name, Row] = {}
        self.calls = self.tokens = 0
        self.lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as handle:  # a kill may have torn the last line
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)
        for row in read_jsonl(path, ("call", "text", "tokens", "paid", "refused")):
            self._count(row)
        self.refused = {name for name, row in self.replies.items() if row["refused"]}
        for name in self.refused:
            del self.replies[name]

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
            with self.lock:  # both at once, or another call could take what this one spent
                self.calls, self.tokens = self.calls - 1, self.tokens - tokens
                self._append(rows)

    def keep(self, rows: list[Row]) -> None:
        """Appends rows, each on the disk before the next."""
        with self.lock:
            self._append(rows)

    def _append(self, rows: list[Row]) -> None:
        with open(self.path, "ab", buffering=0) as handle:
            for row in rows:
                handle.write(json.dumps(row).encode() + b"\n")
                os.fsync(handle.fileno())
                self._count(row)


class Endpoint:
    """One attempt at a call through the `openai` client; no text leaves it with the key in it."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.key = os.environ.get(settings.key_variable, "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            name = settings.key_variable
            raise InputError(f"environment variable {name}: expected a key in printable ASCII")
        try:
            self.client = self._opened()
        except Exception as error:  # whatever proxies and certificates of the environment lead to
            text = f"evaluation.judge: no connection can be made ({reason(error)})"
            raise InputError(text) from None

    def _opened(self) -> Any:
        from openai import DefaultHttpxClient, OpenAI

        settings = self.settings
        hooks: dict[str, list[Any]] = {"request": [self._start], "response": [self._limit]}
        return OpenAI(
            api_key=self.key or "none",
            base_url=settings.endpoint,
            timeout=settings.timeout_s,
            max_retries=0,  # repeats have a budget here
            http_client=DefaultHttpxClient(
                event_hooks=hooks,
                timeout=settings.timeout_s,
                follow_redirects=False,  # key and texts are for this endpoint alone
            ),
        )

    def _start(self, request: Any) -> None:
        end = time.monotonic() + self.settings.timeout_s
        request.extensions = {**request.extensions, "end": end}

    def _limit(self, response: Any) -> None:
        """The client's own limit is one a read, which a reply that drips never reaches."""
        response.stream = in_time(response.stream, response.request.extensions["end"])

    def clean(self, text: str) -> str:
        """Text without the key, as it is or in JSON's escapes."""
        if len(self.key) < SECRET:
            return text
        text = text.replace(self.key, "[key]")
        plain = ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
        return plain.replace(self.key, "[key]") if self.key in plain else text

    def cleaned(self, value: Any) -> Any:
        """What JSON holds, all its texts without the key."""
        if isinstance(value, dict):
            return {self.clean(name): self.cleaned(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.cleaned(one) for one in value]
        return self.clean(value) if isinstance(value, str) else value

    def ask(self, prompt: str) -> Row:
        """`text` (the reply), `tokens` (None if not reported) and `raw`; CallError without one."""
        import openai

        fields, late = self.settings.body(prompt), f"no reply within {self.settings.timeout_s} s"
        messages = fields.pop("messages")
        try:
            done = self.client.chat.completions.with_raw_response.create(
                model=self.settings.model, messages=messages, extra_body=fields
            )
            return self.read(done.http_response.content)
        except CallError:
            raise
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except TimeoutError as error:  # of `in_time`
            raise CallError(f"{late} ({error})") from None
        except openai.OpenAIError as error:
            cause = self.clean(f"{type(error.__cause__).__name__}: {error.__cause__}")
            what = late if isinstance(error, openai.APITimeoutError) else "connection failed"
            paid = not cause.startswith("Connect")  # else nothing was sent
            raise CallError(f"{what} ({cause}){obeyed()}", paid=paid) from None
        except Exception as error:  # what the client makes of a reply against all rules
            text = f"the reply cannot be read ({type(error).__name__}: {self.clean(str(error))})"
            raise CallError(text, status=200) from None

    def read(self, body: bytes) -> Row:
        """What a reply's body says; CallError, with the body in it, unless it is a completion.

        `text` is empty where a completion holds none: a refusal, a call of a tool, reasoning alone.
        """
        text = body.decode("utf-8-sig", errors="replace")
        try:
            raw = json.loads(text)
            raw = self.cleaned(raw) if within(raw, DEEPEST) else self.clean(text)
        except (ValueError, RecursionError):
            raw = self.clean(text)
        if not is_completion(raw):
            shown = f"not a chat completion: {self.clean(text)[:80]!r}"
            raise CallError(shown, status=200, raw=raw)
        message, usage = first_choice(raw).get("message"), raw.get("usage")
        reply = text_of(message.get("content") if isinstance(message, dict) else None)
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        known = isinstance(used, int) and not isinstance(used, bool) and used >= 0
        reply = self.clean(well_formed(reply))  # its parts may hold the key together
        return {"text": reply, "tokens": used if known else None, "raw": raw}

    def _status(self, error: Any) -> CallError:
        status, body = error.status_code, error.response.content.decode(errors="replace")
        raw = self.clean(body)
        text = raw[:200]
        if status in (401, 403):
            name = self.settings.key_variable
            lack = f"the key in {name} was not accepted" if self.key else f"{name} is not set"
            text = f"{lack}; {text}"
        if error.response.has_redirect_location:
            place = self.clean(error.response.headers["location"])
            text = f"it leads to {place[:200]}, and evaluation.judge.endpoint is not left; {text}"
        again = status in AGAIN or status >= 500
        again = again and getattr(error, "code", None) != "insufficient_quota"
        pause_s = 0.0
        with contextlib.suppress(ValueError):
            pause_s = float(error.response.headers.get("retry-after", ""))
        return CallError(f"HTTP {status}: {text}", again, False, pause_s, status, raw)


def in_time(stream: Any, end: float) -> Any:
    """An HTTP client's stream of bytes that raises TimeoutError once `end` is past (monotonic)."""

    class InTime(type(stream)):  # the client checks the class
        def __init__(self) -> None:
            """All comes from `stream`."""

        def __iter__(self) -> Iterator[bytes]:
            for part in stream:
                if time.monotonic() > end:
                    raise TimeoutError("still coming")
                yield part

        def close(self) -> None:
            stream.close()

    return InTime()


class Client:
    """Asks many questions at once and keeps every reply.

    `problem` says what keeps a log's row from being of use, "" if nothing does. A run that begins
    with `IN_A_ROW` replies that are of no use stops: they are paid, kept, and not asked again.

    A question that is refused, or whose replies stay malformed through all repeats, is left
    unanswered (text None) and the others go on. The log keeps it so once another question is
    answered or all are asked: `IN_A_ROW` such questions in a row stop the run, and so does a run
    without a single answer; these are asked again. Malformed replies, which are paid, are for good;
    refused questions, which are not, are asked again by the next run, and not counted there.
    """

    def __init__(
        self, settings: JudgeSettings, path: Path, problem: Callable[[Row], str] = lambda _: ""
    ) -> None:
        self.settings, self.problem = settings, problem
        self.log = ReplyLog(path, settings.max_calls, settings.max_tokens)
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.repeated = 0
        self.unanswered: list[Row] = []  # since the last answer
        self.useless: list[str] | None = []  # problems of all replies so far; None: one has none

    def name(self, call: Call) -> Name:
        """A call's name in the log: its own, a hash of all that is sent, and the model."""
        text = json.dumps(self.settings.body(call.prompt), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return (*call.name, digest, self.settings.model)

    def bound(self, call: Call) -> int:
        """The most tokens a call can take: a token has at least one byte."""
        return len(well_formed(call.prompt).encode()) + 64 + self.settings.reply_tokens

    def reply(self, call: Call) -> Row | None:
        """The log's row for a call."""
        return self.log.replies.get(self.name(call))

    def missing(self, calls: Iterable[Call]) -> list[Call]:
        """Calls that the log has no reply to."""
        return [call for call in calls if self.reply(call) is None]

    def outlook(self, calls: list[Call]) -> str:
        """What asking will take, in words."""
        left = self.missing(calls)
        most = sum(map(self.bound, left))
        return (
            f"{len(calls)} calls, {len(left)} of them not answered yet (at most {most:,} tokens); "
            f"so far {self.log.calls:,} calls and {self.log.tokens:,} tokens are spent"
        )

    def ask(self, calls: list[Call]) -> None:
        """Asks what the log lacks; StoppedError says why not all of it was answered."""
        missing = self.missing(calls)
        if not missing:
            return
        for row in filter(None, map(self.reply, calls)):
            self._heed(row)
        endpoint, pool = Endpoint(self.settings), ThreadPoolExecutor(self.settings.concurrency)
        try:
            self._check_useful()
            done = len(calls) - len(missing)
            with Progress("judge", len(calls), "calls", done=done) as progress:
                # The first few alone: many at a time would be paid before they tell anything.
                for part in (missing[:IN_A_ROW], missing[IN_A_ROW:]):
                    futures = [pool.submit(self._answer, endpoint, call) for call in part]
                    for future in as_completed(futures):
                        future.result()
                        progress.add()
            self._check_any(calls)
        except StoppedError as error:
            self._shut(pool)
            left = len(self.missing(calls))
            raise StoppedError(
                f"judge stopped: {error}; {len(calls) - left} of {len(calls)} calls are answered "
                f"and kept in {self.log.path}; {error.advice}"
            ) from None
        finally:
            self._shut(pool)
            endpoint.client.close()

    def _heed(self, row: Row) -> None:
        """Counts a reply that is of no use, as long as none was of any."""
        if row["text"] is None or self.useless is None:
            return
        problem = self.problem(row)
        self.useless = [*self.useless, problem] if problem else None

    def _check_useful(self) -> None:
        """StoppedError if all replies are of no use, and enough to tell."""
        if self.useless is not None and len(self.useless) >= IN_A_ROW:
            text = f"none of the first {len(self.useless)} replies is of use, the last: "
            advice = "mend evaluation.judge, or delete that file to pay for them again"
            raise StoppedError(text + self.useless[-1], advice)

    def _shut(self, pool: ThreadPoolExecutor) -> None:
        """Starts no more calls; waits for the open ones, which are paid, so that they are kept."""
        self.stop.set()
        pool.shutdown(cancel_futures=True)
        self._keep()

    def _answer(self, endpoint: Endpoint, call: Call) -> None:
        """Asks until there is a reply; stops all other calls where there is none to be had."""
        try:
            self._repeat(endpoint, call)
        except StoppedError:
            self.stop.set()
            raise

    def _repeat(self, endpoint: Endpoint, call: Call) -> None:
        for attempt in range(self.settings.retries + 1):
            if self.stop.is_set():
                return
            failure = self._attempt(endpoint, call)
            if failure is None:
                self._keep()
                return self._use(call)
            if not failure.again or attempt == self.settings.retries:
                text = f"{'/'.join(call.name)}: {failure} (attempt {attempt + 1})"
                return self._leave(call, failure, text)
            self.repeated += 1
            pause_s = self.settings.backoff_s * 2**attempt * random.uniform(0.75, 1.25)
            self.stop.wait(min(max(pause_s, failure.pause_s), LONGEST_PAUSE_S))

    def _use(self, call: Call) -> None:
        with self.lock:
            if not self.stop.is_set():
                self._heed(self.log.replies[self.name(call)])
                self._check_useful()

    def _attempt(self, endpoint: Endpoint, call: Call) -> CallError | None:
        """One call, kept if it was answered or may be charged; what went wrong, if anything did."""
        bound = self.bound(call)
        paid = {"call": self.name(call), "paid": True, "refused": False}
        with self.log.claim(bound) as rows:
            try:
                found = endpoint.ask(call.prompt)
            except CallError as failure:
                if failure.paid:
                    row = {"text": None, "tokens": bound, "error": str(failure)}
                    rows.append(paid | row | ({} if failure.raw is None else {"raw": failure.raw}))
                return failure
            tokens = bound if found["tokens"] is None else found["tokens"]
            rows.append(paid | found | {"tokens": tokens})
        return None

    def _leave(self, call: Call, failure: CallError, text: str) -> None:
        """Leaves a question unanswered; StoppedError if no other can do better, or too many."""
        if failure.status not in OWN:
            raise StoppedError(text)
        row = {
            "call": self.name(call),
            "text": None,
            "tokens": 0,
            "paid": False,
            "refused": not failure.paid,
            "unanswered": True,
            "error": str(failure),
            "raw": failure.raw,
        }
        with self.lock:
            if self.stop.is_set():
                return
            self.unanswered.append(row)
            fresh = [one for one in self.unanswered if one["call"] not in self.log.refused]
            if len(fresh) >= IN_A_ROW:
                self._drop(f"{len(fresh)} questions in a row without an answer, at last {text}")

    def _drop(self, text: str) -> NoReturn:
        """Stops without keeping what is unanswered, which is then asked again."""
        self.stop.set()
        self.unanswered.clear()
        raise StoppedError(text)

    def _keep(self) -> None:
        """Writes down what is unanswered."""
        with self.lock:
            self.log.keep(self.unanswered)
            self.unanswered.clear()

    def _check_any(self, calls: list[Call]) -> None:
        """StoppedError if all were asked and none was answered."""
        if all((self.reply(call) or {"text": None})["text"] is None for call in calls):
            last = self.unanswered[-1]["error"] if self.unanswered else "kept in the log"
            self._drop(f"no question was answered, the last error: {last}")
