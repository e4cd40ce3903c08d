"""Calls to a server that answers, refuses, stumbles and dies: paid for once and kept."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from judge_server import Reply, Server, completion, serving

from atkd.judge.client import Call, Client, ReplyLog, StoppedError
from atkd.judge.settings import JudgeSettings
from atkd.runtime.files import InputError

KEY = "sk-very-secret-0123456789"
ESCAPED = KEY[:3] + "".join(f"\\u{ord(letter):04X}" for letter in KEY[3:])
CALLS = [Call(("run", "task", f"doc-{i}", "1"), f"prompt {i}") for i in range(8)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
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


def test_a_log_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("atkd.judge.client.EVERY", 3)
    with serving(good) as server:
        client(server, tmp_path).ask(CALLS[:2])
        client(server, tmp_path).ask(CALLS)
    said = capsys.readouterr().err.splitlines()
    assert said == ["judge: 3 of 8 calls are done", "judge: 6 of 8 calls are done"]


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
    "another shape": (200, b'{"choices": []}'),
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


REFUSAL, FILTERED = (400, b"not this one"), (200, b'{"choices": []}')


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
