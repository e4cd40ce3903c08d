"""An OpenAI-compatible endpoint: its settings, a request's fields, one attempt at a call.

The key is read from the environment alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atkd.runtime.files import InputError

Row = dict[str, Any]
DEFAULTS: Row = {
    "key_variable": "OPENAI_API_KEY", "orders": 1, "prompt": None, "concurrency": 4,
    "timeout_s": 60, "retries": 5, "backoff_s": 1, "max_calls": None, "max_tokens": None,
    "reply_tokens": 64, "request": {},
}  # fmt: skip
MEANINGS = {
    "endpoint": "address of an OpenAI-compatible server with its version (needed)",
    "model": "name of the model that the server knows (needed)",
    "key_variable": "environment variable that holds the key; the key is read there alone",
    "orders": "1: the model's answer is shown first; 2: also the reference first",
    "prompt": "file with a prompt of your own",
    "concurrency": "calls under way at a time",
    "timeout_s": "longest wait for a reply",
    "retries": "repeats of a call after rate limits, server errors, broken replies",
    "backoff_s": "pause before the first repeat, doubled each time",
    "max_calls": "budget of calls, over all attempts",
    "max_tokens": "budget of tokens, prompts and replies",
    "reply_tokens": "longest reply; what it cuts off is not read",
    "request": "fields of each request that replace ours; null removes one",
}
RANGES: dict[str, tuple[float, float]] = {
    "orders": (1, 2), "concurrency": (1, 1000), "timeout_s": (0.001, 86400), "retries": (0, 100),
    "backoff_s": (0, 60), "max_calls": (1, 10**9), "max_tokens": (1, 10**12),
    "reply_tokens": (1, 10**6),
}  # fmt: skip
OWN = (200, 400, 413, 422)  # no usable reply to this question, though perhaps to others
AGAIN = (408, 409, 429)  # and every 5xx
ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[^/@?#:\s]+)(:\d+)?(/[^@?#\s]*)?")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([^u]))")  # of JSON, harmless ones such as \\/ too
SECRET = 8  # a shorter key is a placeholder such as EMPTY, and a word replies may hold


@dataclass(frozen=True)
class Call:
    """One question: `name` tells it apart in the ledger; `prompt` is the text to send."""

    name: tuple[str, ...]
    prompt: str


def body(settings: Row, prompt: str) -> Row:
    """The request's fields, the model apart; `request` replaces fields, null removes one."""
    fields = {"temperature": 0, "max_tokens": settings["reply_tokens"]} | settings["request"]
    fields = {name: value for name, value in fields.items() if value is not None}
    return {"messages": [{"role": "user", "content": prompt}]} | fields


def ledger_name(settings: Row, call: Call) -> tuple[str, ...]:
    """A call's name in the ledger: its own, a hash of all that is sent, and the model."""
    text = json.dumps(body(settings, call.prompt), sort_keys=True)
    return (*call.name, hashlib.sha256(text.encode()).hexdigest()[:16], settings["model"])


def described() -> str:
    """Every setting on a line: name, meaning, default."""
    lines = []
    for name, meaning in MEANINGS.items():
        default = DEFAULTS.get(name)
        shown = "" if default is None else f" [{json.dumps(default)}]"
        lines.append(f"  {name:<13} {meaning}{shown}\n")
    return "".join(lines)


def cut_off(row: Row) -> bool:
    """Whether the ledger's row is a reply that the limit on its length ended."""
    choices = (row.get("raw") or {}).get("choices") or [{}]
    return choices[0].get("finish_reason") == "length"


class CallError(Exception):
    """A call without a usable reply; `again`: worth repeating; `paid`: may have been charged."""

    def __init__(
        self, text: str, again: bool = True, paid: bool = True, pause_s: float = 0, status: int = 0
    ) -> None:
        super().__init__(text)
        self.again, self.paid, self.pause_s, self.status = again, paid, pause_s, status
        self.refused = status in OWN and not paid


def checked(settings: Mapping[str, Any]) -> Row:
    """The settings of a judge with defaults filled in; InputError names a bad key."""
    place = "evaluation.judge"
    known = ("endpoint", "model", *DEFAULTS)
    for name in settings:
        if name not in known:
            raise InputError(f"{place}: found key {name!r}; expected one of {', '.join(known)}")
    for name in ("endpoint", "model"):
        if not isinstance(settings.get(name), str) or not settings[name]:
            raise InputError(f"{place}.{name}: found {settings.get(name)!r}; expected a text")
    if not ADDRESS.fullmatch(settings["endpoint"]):
        # Not shown: what does not belong here may be a key.
        raise InputError(
            f"{place}.endpoint: expected http(s)://host[:port]/path without user name, password, "
            "? or #; a key belongs in the environment variable that key_variable names"
        )
    filled = DEFAULTS | {name: value for name, value in settings.items() if value is not None}
    for name, (least, most) in RANGES.items():
        value = filled[name]
        whole = name not in ("timeout_s", "backoff_s")
        right = isinstance(value, int if whole else int | float) and least <= value <= most
        if not right and (value is not None or DEFAULTS[name] is not None):
            what = f"{'an integer' if whole else 'a number'} from {least} to {most}"
            raise InputError(f"{place}.{name}: found {value!r}; expected {what}")
    return filled


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


class Endpoint:
    """The `openai` client, one attempt at a time; no text leaves it with the key in it."""

    def __init__(self, settings: Row) -> None:
        from openai import DefaultHttpxClient, OpenAI

        self.settings, self.timeout_s = settings, settings["timeout_s"]
        self.key = os.environ.get(settings["key_variable"], "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            name = settings["key_variable"]
            raise InputError(f"environment variable {name}: expected a key in printable ASCII")
        options: Row = {"timeout": settings["timeout_s"], "max_retries": 0}
        hooks = {"request": [self._start], "response": [self._limit]}
        options["http_client"] = DefaultHttpxClient(event_hooks=hooks, timeout=options["timeout"])
        self.client = OpenAI(api_key=self.key or "none", base_url=settings["endpoint"], **options)

    def _start(self, request: Any) -> None:
        request.extensions = {**request.extensions, "end": time.monotonic() + self.timeout_s}

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

        fields = body(self.settings, prompt)
        messages = fields.pop("messages")
        try:
            done = self.client.chat.completions.with_raw_response.create(
                model=self.settings["model"], messages=messages, extra_body=fields
            )
            return self._read(done.http_response.text)
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except TimeoutError as error:  # of `in_time`
            raise CallError(f"no reply within {self.timeout_s} s ({error})") from None
        except openai.OpenAIError as error:
            cause = f"{type(error.__cause__).__name__}: {error.__cause__}"
            late = isinstance(error, openai.APITimeoutError)
            text = f"no reply within {self.timeout_s} s (" if late else "connection failed ("
            paid = not cause.startswith("Connect")  # else nothing was sent
            raise CallError(self.clean(f"{text}{cause})"), paid=paid) from None

    def _read(self, text: str) -> Row:
        try:
            raw = self.cleaned(json.loads(text))  # its escapes undone, which may hide the key
            reply = raw["choices"][0]["message"]["content"] or ""
            reply = reply.encode(errors="replace").decode()  # half a surrogate pair cannot be kept
            used = (raw.get("usage") or {}).get("total_tokens")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            text = f"not a chat completion: {self.clean(text)[:80]!r}"
            raise CallError(text, status=200) from None
        return {"text": reply, "tokens": used if isinstance(used, int) else None, "raw": raw}

    def _status(self, error: Any) -> CallError:
        status, text = error.status_code, self.clean(error.response.text)[:200]
        if status in (401, 403):
            name = self.settings["key_variable"]
            lack = f"the key in {name} was not accepted" if self.key else f"{name} is not set"
            text = f"{lack}; {text}"
        again = status in AGAIN or status >= 500
        if getattr(error, "code", None) == "insufficient_quota":
            again = False
        with contextlib.suppress(ValueError):
            pause_s = float(error.response.headers.get("retry-after", ""))
            return CallError(f"HTTP {status}: {text}", again, False, pause_s, status)
        return CallError(f"HTTP {status}: {text}", again, False, 0, status)
