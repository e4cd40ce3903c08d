"""The settings of a judge: checked by the schema, named where wrong, told by the command's help."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest

from atkd.config import checked_part, schema
from atkd.judge.settings import JudgeSettings, described
from atkd.runtime.files import InputError

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": None}, r"judge\.endpoint: expected http\(s\)://host"),
        ({"endpoint": f"https://me:{KEY}@host/v1"}, r"endpoint: expected http\(s\)://host"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, r"endpoint: expected http\(s\)://host"),
        ({"endpoint": "https://host:port/v1"}, r"endpoint: expected http\(s\)://host"),
        ({"api_key": "x"}, r"judge: unknown key 'api_key'; expected one of endpoint, model"),
        ({"orders": 3}, r"judge\.orders: found 3; expected one of \[1, 2\]"),
        ({"timeout_s": "9s"}, r"judge\.timeout_s: found \"9s\"; expected number\. Longest wait"),
        ({"timeout_s": 0}, r"judge\.timeout_s: found 0; expected a number of at least 0\.001"),
        ({"concurrency": 1001}, r"concurrency: found 1001; expected a number of at most 1000"),
        ({"retries": True}, r"judge\.retries: found true; expected integer"),
        ({"backoff_s": 61}, r"judge\.backoff_s: found 61; expected a number of at most 60"),
        ({"max_calls": 0}, r"judge\.max_calls: found 0; expected a number of at least 1"),
        ({"model": ""}, r"judge\.model: found \"\"; expected a text of at least 1 character"),
        ({"request": []}, r"judge\.request: found \[\]; expected object"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        JudgeSettings.of({"endpoint": "http://localhost:1/v1", "model": "m"} | changes)
    assert str(caught.value).startswith("config key evaluation.judge")
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_needed_is_asked_for() -> None:
    for name in ("endpoint", "model"):
        given = {"endpoint": "http://localhost:1/v1", "model": "m"}
        del given[name]
        with pytest.raises(InputError, match=f"evaluation.judge: '{name}' is a required property"):
            JudgeSettings.of(given)


def test_addresses_of_servers_are_taken() -> None:
    for address in ("http://[::1]:8000/v1", "https://api.host.example/v1", "http://localhost:1"):
        assert JudgeSettings.of({"endpoint": address, "model": "m"}).endpoint == address


def test_the_schema_alone_has_keys_and_defaults() -> None:
    keys = schema()["$defs"]["judge"]["properties"]
    assert set(keys) == {one.name for one in fields(JudgeSettings)}
    for one in fields(JudgeSettings):
        absent = "default" not in keys[one.name] and one.name not in ("endpoint", "model")
        assert one.default is (None if absent else MISSING)
    given = {"endpoint": "http://localhost:1", "model": "m", "request": {"seed": 1}}
    made = JudgeSettings.of(given)
    assert (made.timeout_s, made.retries, made.orders, made.max_calls) == (60, 5, 1, None)
    assert made.request == {"seed": 1} and checked_part("judge", given)["concurrency"] == 4
    assert given == {"endpoint": "http://localhost:1", "model": "m", "request": {"seed": 1}}


def test_every_setting_is_told_with_its_default() -> None:
    lines = described().splitlines()
    assert len(lines) == len(fields(JudgeSettings))
    assert "  timeout_s     Longest wait for a reply [60]" in lines
