"""A value under a JSON schema: read in the types it wants, checked, and filled with its defaults.

Beside the vocabulary of JSON Schema a node may say `x-alone` (one item may stand for a list of
one) and `x-text: KEY` (a text stands for a mapping of this key).
"""

from __future__ import annotations

import copy
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from atkd.runtime.files import InputError

DEEPEST = 20  # levels of a value
LARGEST = 10**18  # so that a whole number is one in 64 bits
Node = Mapping[str, Any]


def conform(root: Node, node: Node, given: Any, place: str = "") -> Any:
    """What is given, as `node` of the schema `root` wants it.

    A text stands for what it spells where the schema wants something else, as on a command line; a
    whole number may be written 4.0; null is the same as leaving an optional key out.

    Raises:
        InputError: names the first bad key, `place` in front, what was found and expected.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    value = _typed(root, node, _plain(given, [place] if place else []))
    validator = Draft202012Validator({"$defs": root.get("$defs", {}), **node})
    error = best_match(validator.iter_errors(value), key=_depth)
    if error is not None:
        raise InputError(_message(error, place))
    _fill(root, node, value)
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant by an unknown name, or all that is known: the end of a message."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f"; expected one of {', '.join(known)}"


# A copy of what JSON can hold


def _plain(value: Any, path: list[str]) -> Any:
    """A copy made of what JSON has; InputError names the key of anything else."""
    key = f"config key {'.'.join(path) or '(top level)'}"
    if len(path) > DEEPEST:
        raise InputError(f"config key {path[0]}: nested too deeply; expected {DEEPEST} levels")
    if isinstance(value, Mapping):
        if odd := [name for name in value if not isinstance(name, str)]:
            raise InputError(f"{key}: found the key {odd[0]!r}; expected text, in quotes")
        return {_text(name, key): _plain(item, [*path, name]) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, [*path, str(index)]) for index, item in enumerate(value)]
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}: found {value}; expected a finite number")
    if isinstance(value, int | float) and abs(value) >= LARGEST:
        raise InputError(f"{key}: found too large a number; expected one below {LARGEST:.0e}")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise InputError(f"{key}: found {value} ({type(value).__name__}); expected text, in quotes")


def _text(text: str, key: str) -> str:
    """The text, if a file can hold it; the message shows none of it, for it may be a secret."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{key}: found half a surrogate pair; expected text") from None
    if "\0" in text:
        raise InputError(f"{key}: found a NUL character; expected text")
    return text


# Types


def _resolved(root: Node, node: Node) -> Node:
    """A node with what it refers to."""
    if "$ref" not in node:
        return node
    target: Any = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**_resolved(root, target), **node}


def _child(node: Node, name: str) -> Node | None:
    """What a resolved node says of a mapping's key; None where it says nothing."""
    extra = node.get("additionalProperties")
    known: Mapping[str, Node] = node.get("properties", {})
    return known.get(name, extra if isinstance(extra, dict) else None)


def _typed(root: Node, node: Node, value: Any) -> Any:
    """The value in the types that the schema wants, where it can be read so."""
    node = _resolved(root, node)
    if "x-alone" in node and isinstance(value, str | dict):
        value = [value]
    if "x-text" in node and isinstance(value, str):
        value = {node["x-text"]: value}
    value = _read_as(node, value)
    if isinstance(value, list):
        return [_typed(root, node.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, item in value.items():
        child = _child(node, name)
        typed = _typed(root, child or {}, item)
        if typed is not None or child is None or name in node.get("required", ()):
            made[name] = typed
    return made


def _read_as(node: Node, value: Any) -> Any:
    """A text as what it spells, unless text is wanted; a whole float as an integer."""
    kinds, choices = node.get("type", ()), node.get("enum", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, str) and (
        (kinds and "string" not in kinds) or (choices and value not in choices)
    ):
        value = _spelt(value)
    whole = "integer" in kinds or any(type(choice) is int for choice in choices)
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def _spelt(text: str) -> Any:
    """What a text says in YAML, or 1e-3, which YAML 1.1 takes for text; itself if nothing else."""
    import yaml

    try:
        found = yaml.safe_load(text)
        return _plain(float(found) if isinstance(found, str) else found, [])
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return text


# Messages


def _depth(error: Any) -> Any:
    return (len(error.path), error.validator not in ("anyOf", "oneOf"))


def _message(error: Any, place: str) -> str:
    key = ".".join([*([place] if place else []), *map(str, error.absolute_path)]) or "(top level)"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(name for name in error.instance if name not in known)
        return f"config key {key}: unknown key {unknown!r}{nearest(unknown, known)}"
    if error.validator == "required":
        return f"config key {key}: {error.message}"
    why = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    if isinstance(error.schema, dict) and error.schema.get("writeOnly"):  # may be a secret
        return f"config key {key}: expected {why}"
    found = json.dumps(error.instance, default=str)
    found = found if len(found) <= 80 else found[:77] + "..."
    return f"config key {key}: found {found}; expected {_expected(error)}. {why}".rstrip()


def _expected(error: Any) -> str:
    value = error.validator_value
    words = {
        "type": f"{value}",
        "minimum": f"a number of at least {value}",
        "exclusiveMinimum": f"a number above {value}",
        "maximum": f"a number of at most {value}",
        "exclusiveMaximum": f"a number below {value}",
        "enum": f"one of {value}{_meant(error)}",
        "minItems": f"a list of at least {value}",
        "minProperties": f"a mapping with at least {value} key",
        "minLength": f"a text of at least {value} character",
        "uniqueItems": "no item twice",
        "pattern": f"a match of {value}",
    }
    return words.get(error.validator, f"{error.validator} {value}")


def _meant(error: Any) -> str:
    """The choice that a wrong text is close to, where there is one."""
    close = error.validator == "enum" and isinstance(error.instance, str)
    hint = nearest(error.instance, map(str, error.validator_value)) if close else ""
    return hint if hint.startswith(" (") else ""


# Defaults


def _fill(root: Node, node: Node, value: Any) -> None:
    node = _resolved(root, node)
    if isinstance(value, list):
        for item in value:
            _fill(root, node.get("items", {}), item)
    if not isinstance(value, dict):
        return
    for name, child in node.get("properties", {}).items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
    for name, item in value.items():
        _fill(root, _child(node, name) or {}, item)
