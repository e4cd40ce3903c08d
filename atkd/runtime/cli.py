"""How a stage's command line starts and ends."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

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
    except json.JSONDecodeError as error:
        if error.doc not in sys.argv:
            raise
        option = sys.argv[sys.argv.index(error.doc) - 1]
        print(f"error: {option}: not valid JSON ({error}): {error.doc[:80]!r}", file=sys.stderr)
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


def settings_of(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """The dataclass `kind` filled with what a stage was given.

    InputError on a key that it does not know, or that is missing and has no default.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"settings: found {unknown[0]!r}, expected {', '.join(known)}")
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"settings: {name!r} is missing, expected {', '.join(known)}")
    return kind(**given)
