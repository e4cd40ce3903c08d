"""How a stage's command line starts and ends."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from atkd.runtime.files import InputError

Settings = TypeVar("Settings")


def run(main: Callable[[], None]) -> None:
    """Runs a command line; bad input ends it with one message on stderr and status 2.

    Text that the locale's encoding lacks is escaped, where a print would end in a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # of a pipe that a fork server's job was given
                stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@contextlib.contextmanager
def start_up() -> Iterator[None]:
    """Imports and loading without the garbage collector, which then leaves what they made alone.

    Torch, transformers and lm-eval make 700,000 objects that stay. To look for garbage among them
    again and again, and once more at exit, costs two of seven CPU-seconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def json_object(option: str, text: str) -> dict[str, Any]:
    """What a command line's option holds; InputError names the option if it is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option}: not valid JSON ({error}): {text[:80]!r}") from None
    if not isinstance(found, dict):
        raise InputError(f"{option}: found {type(found).__name__}; expected a JSON object")
    return found


def settings_of(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """The dataclass `kind` filled with what a stage was given.

    InputError on a key that it does not know, that is missing and has no default, or whose value is
    of another type.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    kinds = get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            raise InputError(f"settings: found {name!r}, expected {', '.join(known)}")
        if not any(_is(value, each) for each in _alternatives(kinds[name])):
            expected = str(known[name].type)
            raise InputError(f"settings: {name} is {value!r}, expected {expected}")
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"settings: {name!r} is missing, expected {', '.join(known)}")
    return kind(**given)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union; any other type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value, of JSON or already built, is of a plain type."""
    plain = get_origin(kind) or kind
    if plain is Any:
        return True
    if plain in (int, float):
        return isinstance(value, (int, plain)) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if plain in (list, tuple) else plain)
