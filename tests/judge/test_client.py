"""Calls to a server that answers, refuses, stumbles and dies: paid for once and kept."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from judge_server import Reply, Server, completion, serving

from atkd.judge.client import (
    TEXT,
    Call,
    CallError,
    Client,
    Endpoint,
    ReplyLog,
    StoppedError,
    first_choice,
    is_completion,
    text_of,
)
from atkd.judge.judge import order_row, problem
from atkd.judge.settings import JudgeSettings
from atkd.runtime.files import InputError
from atkd.runtime.network import VARIABLES

KEY = "sk-very-secret-0123456789"
ESCAPED = KEY[:3] + "".join(f"\\u{ord(letter):04X}" for letter in KEY[3:])
CALLS = [Call(("run", "task", f"doc-{i}", "1"), f"prompt {i}") for i in range(8)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def client(server: Server, folder: Path, **changes: Any) -> Client:
    given = {"endpoint": server.endpoint, "model": "m", "backoff_s": 0.001, "timeout_s": 30}
    return Client(JudgeSettings.of(given | changes), folder / "replies.jsonl")


def good(server: Server, prompt: str, attempt: int) -> Reply:
    return completion("fine")


def test_every_call_is_asked_once_and_its_raw_reply_kept(tmp_path: Path) -> None:
    with serving(good) as server:
        one = client(server, tmp_path)
        one.ask(CALLS)
        client(server, tmp_path).ask(CALLS)
        client(server, tmp_path).ask([*CALLS, Call(CALLS[0].name, "another prompt")])
        client(server, tmp_path, model="n").ask(CALLS[:1])
    assert Counter(body["messages"][0]["content"] for body in server.seen) == {
        **{call.prompt: 1 for call in CALLS[1:]}, "prompt 0": 2, "another prompt": 1,
    }  # fmt: skip
    assert server.keys == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.seen} == {"m", "n"}
    assert all(body["temperature"] == 0 and body["max_tokens"] == 64 for body in server.seen)
    row = one.reply(CALLS[3])
    assert row["raw"] == json.loads(completion("fine")[1])
    assert row["call"][:4] == CALLS[3].name and len(row["call"][4]) == 16 and row["call"][5] == "m"
    assert one.log.calls == 8 and one.log.tokens == 240


def slow(server: Server, prompt: str, attempt: int) -> Reply:
    time.sleep(1.2)
    return completion("late")


def test_a_reply_that_drips_is_given_up(tmp_path: Path) -> None:
    """No read takes long, all of them together would take five seconds."""
    with serving(good) as server:
        server.pause_s = 5 / len(completion("fine")[1])
        one, start = client(server, tmp_path, timeout_s=0.3, retries=0), time.monotonic()
        with pytest.raises(StoppedError, match=r"no reply within 0\.3 s .*still coming"):
            one.ask(CALLS[:1])
        assert time.monotonic() - start < 3 and one.log.calls == 1
        server.pause_s = 0
        client(server, tmp_path, timeout_s=5).ask(CALLS)


def test_a_log_is_told_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(good) as server:
        client(server, tmp_path).ask(CALLS[:2])
        client(server, tmp_path).ask(CALLS)
    said = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert said[3] == "judge: 2 of 8 calls (25%)" and said[-1] == "judge: 8 of 8 calls (100%)"
    assert len(said) == 3 + 7


def test_a_key_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with (
        serving(lambda *_: (401, b"{}")) as server,
        pytest.raises(StoppedError, match="HTTP 401: OPENAI_API_KEY is not set"),
    ):
        client(server, tmp_path).ask(CALLS)


FAILURES = {
    "rate limit": (429, b'{"error": {"message": "slow down"}}'),
    "server error": (500, b"oops"),
    "overloaded": (503, b""),
    "not JSON": (200, b"<html>"),
    "JSON cut": (200, completion("fine")[1][:40]),
    "another shape": (200, b'{"choices": null}'),
    "an error as a reply": (200, b'{"choices": [], "error": {"code": 429}}'),
    "no mapping": (200, b"[1]"),
    "body cut": None,
    "too late": slow,
}
UNPAID = ("rate limit", "server error", "overloaded")


@pytest.mark.parametrize("name", FAILURES)
def test_a_stumbling_server_is_asked_again(name: str, tmp_path: Path) -> None:
    found = FAILURES[name]

    def script(server: Server, prompt: str, attempt: int) -> Reply | None:
        if attempt > 1:
            return completion("fine")
        return found(server, prompt, attempt) if callable(found) else found

    with serving(script) as server:
        one = client(server, tmp_path, timeout_s=0.8 if name == "too late" else 30)
        one.ask(CALLS[:4])
    assert set(server.attempts.values()) == {2} and one.repeated == 4
    assert not one.missing(CALLS[:4]) and one.reply(CALLS[0])["text"] == "fine"
    assert one.log.calls == (4 if name in UNPAID else 8)
    assert ReplyLog(tmp_path / "replies.jsonl", None, None).tokens == one.log.tokens


def test_pauses_grow_and_heed_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    with serving(lambda *_: (429, b"{}")) as server:
        for wanted, header in (([1, 2, 4], {}), ([3, 3, 4], {"retry-after": "3"})):
            server.headers = header
            one = client(server, tmp_path, retries=3, backoff_s=1)
            monkeypatch.setattr(one.stop, "wait", pauses.append)
            with pytest.raises(StoppedError, match=r"run/task/doc-0/1: HTTP 429.*attempt 4"):
                one.ask(CALLS[:1])
            assert pauses == wanted
            pauses.clear()


def test_a_slow_server_is_waited_for_and_calls_at_a_time_are_limited(tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        time.sleep(0.05)
        return completion("fine")

    with serving(script) as server:
        client(server, tmp_path, concurrency=3).ask(CALLS)
    assert server.most_open == 3 and len(server.seen) == 8


def test_a_server_that_dies_half_way(tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply | None:
        return completion("fine") if len(server.seen) <= 4 else (500, b"")

    with serving(script) as server:
        with pytest.raises(StoppedError) as caught:
            client(server, tmp_path, concurrency=1, retries=1).ask(CALLS)
        port = server.server_port
    said = str(caught.value)
    assert said.startswith("judge stopped: run/task/doc-4/1: HTTP 500")
    assert f"4 of 8 calls are answered and kept in {tmp_path / 'replies.jsonl'}" in said
    with pytest.raises(StoppedError, match=r"connection failed \(ConnectError.*4 of 8 calls"):
        client(server, tmp_path, retries=1).ask(CALLS)
    assert ReplyLog(tmp_path / "replies.jsonl", None, None).calls == 4  # nothing else was paid
    with serving(good, port) as server:
        client(server, tmp_path).ask(CALLS)
    assert server.attempts == {call.prompt: 1 for call in CALLS[4:]}


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"{}", "HTTP 401: the key in OPENAI_API_KEY was not accepted"),
        (404, b"no such model", "HTTP 404: no such model"),
        (429, b'{"error": {"code": "insufficient_quota"}}', "HTTP 429"),
    ],
)
def test_what_no_repeat_can_mend_stops_at_once(
    status: int, body: bytes, message: str, tmp_path: Path
) -> None:
    with serving(lambda *_: (status, body)) as server:
        with pytest.raises(StoppedError, match=message):
            client(server, tmp_path, concurrency=2).ask(CALLS)
        assert len(server.seen) <= 2


REFUSAL, FILTERED = (400, b"not this one"), (200, b'{"error": "filtered"}')


@pytest.mark.parametrize(("reply", "paid", "again"), [(REFUSAL, 0, 1), (FILTERED, 2, 0)])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_single_question_without_an_answer_does_not_stop_the_others(
    place: int, reply: Reply, paid: int, again: int, tmp_path: Path
) -> None:
    """A refusal costs nothing and is asked again by the next run; the other is paid only once."""

    def script(server: Server, prompt: str, attempt: int) -> Reply:
        return reply if prompt == f"prompt {place}" else completion("fine")

    with serving(script) as server:
        for run in range(2):
            one = client(server, tmp_path, concurrency=1, retries=1)
            one.ask(CALLS)
            assert server.attempts[f"prompt {place}"] == max(paid, 1) + run * again
    assert len(server.seen) == 7 + max(paid, 1) + again and one.log.calls == 7 + paid
    row = one.reply(CALLS[place])
    assert row["text"] is None and row["error"] and not one.missing(CALLS)
    assert row["raw"] == (reply[1].decode() if paid == 0 else json.loads(reply[1]))


@pytest.mark.parametrize("reply", [REFUSAL, FILTERED])
def test_many_in_a_row_without_an_answer_stop_the_run(reply: Reply, tmp_path: Path) -> None:
    """These are not kept: what was wrong with the server may be mended."""
    said = "5 questions in a row without an answer, at last run/task/doc-4/1: .*0 of 8 calls"
    with serving(lambda *_: reply) as server:
        for _ in range(2):
            with pytest.raises(StoppedError, match=said):
                client(server, tmp_path, concurrency=1, retries=0).ask(CALLS)
        with pytest.raises(StoppedError, match="no question was answered, the last error: "):
            client(server, tmp_path, retries=0).ask(CALLS[:3])
        assert len(server.seen) == 13
    with serving(good) as server:
        one = client(server, tmp_path)
        one.ask(CALLS)
    assert all(one.reply(call)["text"] == "fine" for call in CALLS)


def test_questions_refused_before_do_not_stop_the_next_run(tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        return completion("fine") if prompt in ("prompt 3", "prompt 7") else REFUSAL

    with serving(script) as server:
        for total in (8, 14):
            one = client(server, tmp_path, concurrency=1)
            one.ask(CALLS)
            assert len(server.seen) == total and not one.missing(CALLS)


def test_a_budget_of_calls_stops_cleanly_and_can_be_raised(tmp_path: Path) -> None:
    with serving(good) as server:
        for most, total in ((5, 5), (5, 5), (7, 7)):
            with pytest.raises(StoppedError, match=rf"max_calls, {most}, is spent.*{total} of 8"):
                client(server, tmp_path, max_calls=most).ask(CALLS)
            assert len(server.seen) == total
        client(server, tmp_path, max_calls=8).ask(CALLS)
    assert set(server.attempts.values()) == {1} and len(server.seen) == 8


def test_calls_that_end_at_the_same_time_do_not_lend_each_other_budget(tmp_path: Path) -> None:
    log = ReplyLog(tmp_path / "replies.jsonl", 40, None)
    paid = {"text": "x", "tokens": 1, "paid": True, "refused": False}

    def spend(worker: int) -> int:
        count = 0
        with contextlib.suppress(StoppedError):
            while True:
                with log.claim(1) as rows:
                    rows.append({"call": [str(worker), str(count)]} | paid)
                count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == log.calls == 40


@pytest.mark.parametrize("reported", [30, None])
def test_a_budget_of_tokens_is_never_overrun(reported: int | None, tmp_path: Path) -> None:
    with serving(lambda *_: completion("fine", reported)) as server:
        one = client(server, tmp_path, max_tokens=300)
        with pytest.raises(StoppedError, match="max_tokens, 300, is spent"):
            one.ask(CALLS)
    # A call may take 8 + 64 + 64 tokens: two fit; where 30 are reported, more calls follow.
    assert one.log.tokens == sum(row["tokens"] for row in one.log.replies.values()) <= 300
    assert len(server.seen) == 2 if reported is None else len(server.seen) >= 2


def test_fields_of_the_request_can_be_replaced(tmp_path: Path) -> None:
    request = {"max_tokens": None, "max_completion_tokens": 9, "temperature": None, "seed": 1}
    with serving(good) as server:
        client(server, tmp_path, request=request).ask(CALLS[:1])
        client(server, tmp_path).ask(CALLS[:1])  # another request, another reply
    first, second = server.seen
    assert first["max_completion_tokens"] == 9 and first["seed"] == 1
    assert "max_tokens" not in first and "temperature" not in first and "max_tokens" in second


def echo(server: Server, prompt: str, attempt: int) -> Reply:
    """Gives away what it was sent."""
    said = f"key {max(server.keys)} of {prompt}"
    statuses = {"prompt 1": 500, "prompt 2": 429, "prompt 3": 400, "prompt 4": 200}
    if prompt == "prompt 6":  # JSON that spells the key in escapes
        return 200, completion("SAID")[1].replace(b"SAID", ESCAPED.encode())
    if prompt == "prompt 7":
        return 404, f'{{"error": "{ESCAPED}"}}'.encode()
    if prompt == "prompt 5":
        return 401, said.encode()
    if attempt == 1 and prompt in statuses:
        return statuses[prompt], said.encode()
    return completion(said)


def test_the_key_is_written_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with serving(echo) as server:
        one = client(server, tmp_path, concurrency=1)
        one.ask([*CALLS[:5], CALLS[6]])
        raised = []
        for calls in (CALLS[5:6], CALLS[7:]):
            with pytest.raises(StoppedError) as caught:
                client(server, tmp_path, concurrency=1).ask(calls)
            raised.append("".join(traceback.format_exception(caught.value)))
    assert server.keys == {f"Bearer {KEY}"} and one.reply(CALLS[6])["text"] == "[key]"
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    written += [*capfd.readouterr(), caplog.text, *raised]
    assert "[key]" in written[0] and "[key]" in written[-1]
    assert not [text for text in written if KEY in text or KEY[:3] + "\\" in text]


def test_a_key_that_no_header_can_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-\u201cquoted\u201d")
    with serving(good) as server, pytest.raises(InputError, match="variable MY_KEY") as caught:
        client(server, tmp_path, key_variable="MY_KEY").ask(CALLS)
    assert "secret" not in str(caught.value)


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"call": [name], "text": "x", "tokens": 7, "paid": True, "refused": False} | changes


def opened(path: Path, calls: int | None = None, tokens: int | None = None) -> ReplyLog:
    return ReplyLog(path / "deep" / "replies.jsonl", calls, tokens)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for made in (
        row("a", text="two\nlines \u2028 \ud800"),
        row("b", text=None, paid=True),
        row("c", text=None, tokens=0, paid=False, unanswered=True),
    ):
        with log.claim(50) as rows:
            rows.append(made)
    again = opened(tmp_path)
    assert again.replies == log.replies and set(again.replies) == {("a",), ("c",)}
    assert (again.calls, again.tokens) == (log.calls, log.tokens) == (2, 14)
    assert again.replies["a",]["text"] == "two\nlines \u2028 \ud800"


def test_a_refused_call_is_asked_again_once_the_file_is_read_again(tmp_path: Path) -> None:
    log, refusal = opened(tmp_path), {"text": None, "tokens": 0, "paid": False, "refused": True}
    log.keep([row("a", **refusal), row("b", **refusal), row("b")])
    assert set(log.replies) == {("a",), ("b",)} and not log.refused
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
    log = opened(tmp_path, calls=2, tokens=100)
    with log.claim(60) as rows:
        with pytest.raises(StoppedError, match=r"evaluation\.judge\.max_tokens, 100, is spent"):
            log.claim(41).__enter__()
        with (
            log.claim(40),
            pytest.raises(StoppedError, match=r"evaluation\.judge\.max_calls, 2, is spent"),
        ):
            log.claim(0).__enter__()
        rows.append(row("a", tokens=10))
    assert (log.calls, log.tokens) == (1, 10)  # settled: one kept, one never paid
    assert json.loads(log.path.read_text())["tokens"] == 10


def said(message: Any, **others: Any) -> bytes:
    """The body of a completion with this message."""
    return json.dumps({"choices": [{"message": message} | others]}).encode()


TEXTS = {
    "parts of text": (
        said({"content": [{"type": "text", "text": "Ratings: 7"}, {"type": "text", "text": " 9"}]}),
        "Ratings: 7 9",
    ),
    "output_text": (
        said({"content": [{"type": "output_text", "text": "Ratings: 7 9", "annotations": []}]}),
        "Ratings: 7 9",
    ),
    "reasoning first": (
        said({"content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Ratings: 1 1"}]},
            {"type": "reasoning", "text": "Ratings: 2 2"},
            {"type": "text", "text": "Ratings: 7 9"},
        ]}),
        "Ratings: 7 9",
    ),
    "a list of strings": (said({"content": ["Ratings: 7 9"]}), "Ratings: 7 9"),
    "a byte-order mark": (b"\xef\xbb\xbf" + said({"content": "Ratings: 7 9"}), "Ratings: 7 9"),
    "half a surrogate pair": (said({"content": "7 9 \ud83d"}), "7 9 ?"),
    "reasoning alone": (said({"content": None, "reasoning_content": "Ratings: 7 9"}), ""),
    "a refusal": (said({"content": None, "refusal": "Ratings: 7 9"}), ""),
    "a call of a tool": (said({"content": None, "tool_calls": [{"function": {"name": "f"}}]}), ""),
    "a number": (said({"content": 7}), ""),
    "no message": (said(None), ""),
    "no choice": (b'{"choices": []}', ""),
    "a choice of another kind": (b'{"choices": ["Ratings: 7 9"]}', ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(
            *TEXTS["parts of text"],
            marks=pytest.mark.case(
                "judge",
                'A judge answers with a list of parts: {"content": [{"type": "text", ...}, ...]}',
                "Parts of type text or output_text are read as one text; reasoning is not.",
            ),
        ),
        *[pytest.param(*found, id=name) for name, found in TEXTS.items()],
    ],
)
def test_a_completion_is_read_whatever_its_content(body: bytes, text: str, tmp_path: Path) -> None:
    """It is paid: kept as it came, and not asked again."""
    with serving(lambda *_: (200, body)) as server:
        for _ in range(2):
            one = client(server, tmp_path, retries=3)
            one.ask(CALLS[:1])
    assert len(server.seen) == 1 and one.log.calls == 1
    row = one.reply(CALLS[0])
    assert row["text"] == text and row["raw"] == json.loads(body.decode("utf-8-sig"))


@pytest.mark.case(
    "judge",
    "A reply with content null (a refusal, reasoning alone, a call of a tool), or without a choice",
    "Kept as it came, counted as unreadable, and never asked (and paid) again.",
)
def test_a_reply_without_text_is_no_reason_to_pay_again(tmp_path: Path) -> None:
    with serving(lambda *_: (200, TEXTS["a refusal"][0])) as server:
        client(server, tmp_path).ask(CALLS[:4])
        one = client(server, tmp_path)
        one.ask(CALLS[:4])
    assert len(server.seen) == one.log.calls == 4 and not one.missing(CALLS[:4])


@pytest.mark.parametrize("body", [b"<html>no</html>", b"\xff\xfe", b'"text"', b"[" * 10**5, b""])
def test_what_is_no_completion_is_kept_as_it_came(body: bytes, tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        return (200, body) if attempt == 1 else completion("fine")

    with serving(script) as server:
        client(server, tmp_path).ask(CALLS[:1])
    first, second = map(json.loads, (tmp_path / "replies.jsonl").read_text().splitlines())
    text = body.decode(errors="replace")
    assert first["raw"] == ("text" if body == b'"text"' else text) and second["text"] == "fine"
    assert first["paid"] and first["error"].startswith("not a chat completion: ")


def useless(row: dict[str, Any]) -> str:
    return "" if row["text"] == "fine" else f"no ratings in {row['text']!r}"


@pytest.mark.case(
    "judge",
    "A judge whose first five replies state no ratings",
    "none of the first 5 replies is of use, the last: no ratings in 'Sure!'; 5 of 8 calls are "
    "answered and kept in",
)
def test_a_judge_that_begins_with_nothing_of_use_is_stopped(says: str, tmp_path: Path) -> None:
    with serving(lambda *_: completion("Sure!")) as server:
        for _ in range(2):  # the second time for nothing
            one = client(server, tmp_path, concurrency=1000)
            one.problem = useless
            with pytest.raises(StoppedError) as caught:
                one.ask(CALLS)
            assert says in str(caught.value) and "delete that file" in str(caught.value)
        assert len(server.seen) == one.log.calls == 5


def test_a_judge_that_was_of_use_once_goes_on(tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        return completion("fine" if prompt == "prompt 4" else "Sure!")

    with serving(script) as server:
        for number in (4, 8):
            one = client(server, tmp_path, concurrency=1)
            one.problem = useless
            one.ask(CALLS[:number])
        assert len(server.seen) == 8


@pytest.mark.case(
    "judge",
    "Half a surrogate pair in a prompt or an answer",
    "Sent as a question mark, for UTF-8 cannot hold it; the reply is found again under its name.",
)
def test_half_a_surrogate_pair_is_sent_as_a_question_mark(tmp_path: Path) -> None:
    call = Call(("run", "task", "doc-\udfff", "1"), "an answer \ud83d of a model")
    with serving(good) as server:
        client(server, tmp_path).ask([call])
        one = client(server, tmp_path)
        assert one.missing([call]) == [] and one.reply(call)["text"] == "fine"
    assert server.attempts == {"an answer ? of a model": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(
            "ALL_PROXY",
            "socks5://me:secret@proxy:1080",
            marks=pytest.mark.case(
                "judge",
                "ALL_PROXY=socks5://... where the package socksio is not installed",
                "evaluation.judge: no connection can be made (Using SOCKS proxy, but the 'socksio' "
                "package is not installed. Make sure to install httpx using `pip install "
                "httpx[socks]`.; the environment sets ALL_PROXY, which connections obey)",
            ),
        ),
        pytest.param(
            "SSL_CERT_FILE",
            "/nowhere.pem",
            marks=pytest.mark.case(
                "judge",
                "SSL_CERT_FILE names no file",
                "evaluation.judge: no connection can be made ([Errno 2] No such file or directory; "
                "the environment sets SSL_CERT_FILE, which connections obey)",
            ),
        ),
        pytest.param(
            "HTTPS_PROXY",
            "http://me:secret@proxy:port",
            marks=pytest.mark.case(
                "judge",
                "A malformed HTTPS_PROXY",
                "evaluation.judge: no connection can be made (Invalid port: 'port'; the "
                "environment sets HTTPS_PROXY, which connections obey)",
            ),
        ),
    ],
)
def test_a_connection_that_cannot_be_made_is_one_message(
    name: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "ALL_PROXY" and importlib.util.find_spec("socksio"):
        pytest.skip("socksio is installed")
    monkeypatch.setenv(name, value)
    with serving(good) as server, pytest.raises(InputError) as caught:
        client(server, tmp_path).ask(CALLS)
    assert str(caught.value) == says and not server.seen


@pytest.mark.case(
    "judge",
    "An endpoint that redirects",
    "HTTP 307: it leads to https://elsewhere.example/v1/chat/completions, and "
    "evaluation.judge.endpoint is not left",
)
def test_a_redirection_is_told_and_not_followed(says: str, tmp_path: Path) -> None:
    with serving(lambda *_: (307, b"")) as server:
        server.headers = {"location": "https://elsewhere.example/v1/chat/completions"}
        with pytest.raises(StoppedError) as caught:
            client(server, tmp_path, concurrency=1).ask(CALLS)
    assert says in str(caught.value) and len(server.seen) == 1


@pytest.mark.case(
    "judge",
    "An endpoint that answers with a web page",
    "questions in a row without an answer, at last run/task/doc-4/1: not a chat completion: "
    "'<!doctype html><title>Sign in</title>' (attempt 1); 0 of 8 calls are answered and kept in",
)
def test_a_web_page_is_told(says: str, tmp_path: Path) -> None:
    page = b"<!doctype html><title>Sign in</title>"
    with serving(lambda *_: (200, page)) as server, pytest.raises(StoppedError) as caught:
        client(server, tmp_path, concurrency=1, retries=0).ask(CALLS)
    assert says in str(caught.value) and len(server.seen) == 5


@pytest.mark.case(
    "judge",
    "An endpoint that hangs up without a word",
    "judge stopped: run/task/doc-0/1: connection failed (RemoteProtocolError: Server disconnected "
    "without sending a response.) (attempt 2); 0 of 1 calls are answered and kept in",
)
def test_an_endpoint_that_hangs_up_is_told(says: str, tmp_path: Path) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        raise ConnectionAbortedError("hangs up")

    with serving(script) as server, pytest.raises(StoppedError) as caught:
        client(server, tmp_path, retries=1).ask(CALLS[:1])
    assert says in str(caught.value) and len(server.seen) == 2


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("header", [
    {"content-type": "text/html; charset=hex"}, {"content-type": "text/html; charset=utf-7"},
    {"content-encoding": "gzip"}, {"retry-after": "nan"}, {"retry-after": "-1e999"},
])  # fmt: skip
def test_headers_against_all_rules_are_one_message(
    header: dict[str, str], status: int, tmp_path: Path
) -> None:
    with serving(lambda *_: (status, b"+2D0- \xff")) as server:
        server.headers = header
        with pytest.raises(StoppedError, match="judge stopped: "):
            client(server, tmp_path, concurrency=1, retries=1).ask(CALLS[:5])
    (tmp_path / "replies.jsonl").read_text(encoding="ascii")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["choices", "message", "content", "text", "type", "usage", "total_tokens", "error",
         "finish_reason", "reasoning_content", "tool_calls", "x"]) | st.text(max_size=3), inner,
        max_size=4),
    max_leaves=6,
)  # fmt: skip
CONTENT = JSON | st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "output_text", "thinking", "image_url"]), "text": JSON}
    )
)
COMPLETION = st.fixed_dictionaries({
    "choices": JSON | st.lists(st.fixed_dictionaries(
        {"message": JSON | st.fixed_dictionaries({"content": CONTENT}), "finish_reason": JSON}),
        max_size=2),
    "usage": JSON | st.fixed_dictionaries({"total_tokens": JSON}),
})  # fmt: skip


@pytest.mark.case(
    "judge",
    "Any JSON, and any bytes, as the body of a judge's reply (thousands, made at random)",
    "Read as a completion or told to be none; kept as it came; no rating without a text.",
)
@given(body=(JSON | COMPLETION).map(lambda value: json.dumps(value).encode()) | st.binary())
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_body_is_read_or_told(body: bytes) -> None:
    endpoint = object.__new__(Endpoint)
    endpoint.key = KEY
    try:
        found = endpoint.read(body)
    except CallError as error:
        found = {"text": None, "raw": error.raw, "error": str(error)}
    else:
        assert found["tokens"] is None or found["tokens"] >= 0
        assert found["text"] or problem(found)
        assert isinstance(found["raw"]["choices"], list)
    row = json.loads(json.dumps(found))
    assert bool(problem(row)) == (order_row(1, row)["model"] is None)
    json.dumps(order_row(1, row), ensure_ascii=False).encode()


@given(body=COMPLETION)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_text_comes_from_texts_of_the_content(body: dict[str, Any]) -> None:
    body = json.loads(json.dumps(body))
    assume(is_completion(body))
    message = first_choice(body).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    text = text_of(content)
    if isinstance(content, str) or not text:
        return
    assert isinstance(content, list) and len(text) == sum(
        len(part if isinstance(part, str) else part["text"]) for part in content
        if isinstance(part, str) or (isinstance(part, dict) and part.get("type") in TEXT
                                     and isinstance(part.get("text"), str))
    )  # fmt: skip
