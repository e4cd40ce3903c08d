"""The settings of an endpoint: checked, named where wrong, and those of the schema."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from atkd.config import SCHEMA
from atkd.judge import endpoint
from atkd.judge.endpoint import checked
from atkd.runtime.files import InputError

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": None}, r"judge\.endpoint: found None; expected a text"),
        ({"endpoint": f"https://me:{KEY}@host/v1"}, r"endpoint: expected http\(s\)://host"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, r"endpoint: expected http\(s\)://host"),
        ({"endpoint": "https://host:port/v1"}, r"endpoint: expected http\(s\)://host"),
        ({"api_key": "x"}, r"judge: found key 'api_key'; expected one of endpoint, model"),
        ({"orders": 3}, r"judge\.orders: found 3; expected an integer from 1 to 2"),
        ({"timeout_s": "9"}, r"judge\.timeout_s: found '9'; expected a number from"),
        ({"max_calls": 0}, r"judge\.max_calls: found 0; expected an integer from 1"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        checked({"endpoint": "http://localhost:1/v1", "model": "m"} | changes)
    assert KEY not in str(caught.value)


def test_addresses_of_servers_are_taken() -> None:
    for address in ("http://[::1]:8000/v1", "https://api.host.example/v1", "http://localhost:1"):
        assert checked({"endpoint": address, "model": "m"})["endpoint"] == address


def test_the_schema_has_the_same_keys_and_defaults() -> None:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    keys = schema["properties"]["evaluation"]["properties"]["judge"]["properties"]
    assert set(keys) == {"endpoint", "model", *endpoint.DEFAULTS}
    for name, value in endpoint.DEFAULTS.items():
        assert keys[name].get("default") == value
    assert list(endpoint.MEANINGS) == ["endpoint", "model", *endpoint.DEFAULTS]
