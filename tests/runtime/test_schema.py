"""Values in the types a schema wants: what is read as what, and that nothing else gets through."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atkd.runtime.files import InputError
from atkd.runtime.schema import conform

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["must"],
    "properties": {
        "must": {"type": "integer"},
        "whole": {"type": "integer"},
        "share": {"type": "number", "minimum": 0},
        "flag": {"type": "boolean"},
        "name": {"type": "string"},
        "orders": {"enum": [1, 2]},
        "seeds": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        "limit": {"type": "object", "additionalProperties": {"type": "integer"}},
        "files": {"$ref": "#/$defs/files", "default": [{"file": "some"}]},
        "free": {"type": "object"},
    },
    "$defs": {
        "files": {"type": "array", "x-alone": True, "items": {"$ref": "#/$defs/file"}},
        "file": {"type": "object", "x-text": "file", "properties": {"file": {"type": "string"}}},
    },
}


def read(**given: Any) -> Any:
    return conform(SCHEMA, SCHEMA, {"must": 1, **given}, "top")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"seeds": "[1,2,3]"}, {"seeds": [1, 2, 3]},
                     marks=pytest.mark.case("config", "`--config 'seeds=[1,2,3]'`, which Snakemake "
                                            "gives as text", "the list 1, 2, 3")),
        ({"seeds": ["1", "2"]}, {"seeds": [1, 2]}),
        pytest.param({"whole": 4.0}, {"whole": 4},
                     marks=pytest.mark.case("config", "`batch_size: 4.0`", "4")),
        pytest.param({"whole": "1.0e1"}, {"whole": 10},
                     marks=pytest.mark.case("config", "`batch_size: 1.0e1`", "10")),
        pytest.param({"share": "1e-3"}, {"share": 0.001},
                     marks=pytest.mark.case("config", "`learning_rate: 1e-3`, text in YAML 1.1",
                                            "0.001")),
        ({"share": 4}, {"share": 4}),
        ({"flag": "true"}, {"flag": True}),
        ({"flag": "False"}, {"flag": False}),
        ({"name": "1e3"}, {"name": "1e3"}),
        ({"name": "null"}, {"name": "null"}),
        ({"orders": "2"}, {"orders": 2}),
        ({"orders": 2.0}, {"orders": 2}),
        ({"limit": "{a: 3}"}, {"limit": {"a": 3}}),
        pytest.param({"limit": {"a": "null", "b": None, "c": "7"}}, {"limit": {"c": 7}},
                     marks=pytest.mark.case("config", "`limit: {dolly: null}`",
                                            "as if the key were not there")),
        ({"whole": None}, {}),
        ({"files": "a"}, {"files": [{"file": "a"}]}),
        ({"files": {"file": "a"}}, {"files": [{"file": "a"}]}),
        ({"files": ["a", {"file": "b"}]}, {"files": [{"file": "a"}, {"file": "b"}]}),
        ({"free": {"a": "1", "b": None}}, {"free": {"a": "1", "b": None}}),
    ],
)  # fmt: skip
def test_what_is_given_is_read_in_the_type_that_is_wanted(given: Any, wanted: Any) -> None:
    found = read(**given)
    assert found == {"must": 1, "files": [{"file": "some"}]} | wanted
    for name, value in wanted.items():
        assert type(found[name]) is type(value)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": 4.5}, "top.whole: found 4.5; expected integer"),
        ({"whole": "4.5"}, "top.whole: found 4.5; expected integer"),
        ({"whole": True}, "top.whole: found true; expected integer"),
        ({"whole": "yes"}, "top.whole: found true; expected integer"),
        ({"whole": "banana"}, 'top.whole: found "banana"; expected integer'),
        ({"whole": "[1"}, 'top.whole: found "[1"; expected integer'),
        ({"share": math.nan}, "top.share: found nan; expected a finite number"),
        ({"share": "nan"}, 'top.share: found "nan"; expected number'),
        ({"share": ".inf"}, 'top.share: found ".inf"; expected number'),
        ({"share": "1e999"}, 'top.share: found "1e999"; expected number'),
        ({"free": {"a": [-math.inf]}}, "top.free.a.0: found -inf; expected a finite number"),
        ({"whole": -(10**9999)}, "top.whole: found too large a number; expected one below 1e+18"),
        ({"share": 1e300}, "top.share: found too large a number; expected one below 1e+18"),
        ({"seeds": [1, "1.0"]}, "top.seeds: found [1, 1]; expected no item twice"),
        ({"must": None}, "top.must: found null; expected integer"),
        ({"orders": True}, "top.orders: found true; expected one of [1, 2]"),
        ({"free": {3: 4}}, "top.free: found the key 3; expected text, in quotes"),
        ({"name": datetime.date(2024, 1, 2)}, "top.name: found 2024-01-02 (date); expected text"),
        ({"name": "a\ud800"}, "top.name: found half a surrogate pair; expected text"),
        ({"name": "a\0b"}, "top.name: found a NUL character; expected text"),
        ({"free": {"a": LOOP}}, "top: nested too deeply; expected 20 levels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused_by_one_message(given: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(**given)
    assert f"config key {message}" in str(caught.value)


SPELT = st.integers().map(str) | st.floats().map(repr) | st.sampled_from(["null", "[1]", "{a: 1}"])
FLAT = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | SPELT
FLAT |= st.binary(max_size=2)
KEYS = st.text(max_size=3) | st.integers(0, 9)
VALUES = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(KEYS, FLAT, max_size=3)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "odd"]), VALUES))
def test_whatever_is_given_is_of_the_schema_or_refused(value: dict[str, Any]) -> None:
    try:
        found = conform(SCHEMA, SCHEMA, value)
    except InputError as error:
        assert "\n" not in str(error).replace("\\n", "")
        return
    assert conform(SCHEMA, SCHEMA, found) == found
    assert type(found["must"]) is int and type(found.get("whole", 1)) is int
    assert math.isfinite(found.get("share", 0.0)) and found.get("orders", 1) in (1, 2)
    assert all(type(item["file"]) is str for item in found["files"] if "file" in item)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(-(10**17), 10**17) | st.floats(0, 1e17))
def test_a_number_as_text_is_that_number(value: float) -> None:
    name = "whole" if isinstance(value, int) else "share"
    assert read(**{name: repr(value)})[name] == value
