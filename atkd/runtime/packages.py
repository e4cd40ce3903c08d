"""Packages that only some settings need."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from typing import Any

from atkd.runtime.files import InputError


def check(package: str, key: str) -> None:
    """InputError if the package that a configuration's key needs is not installed."""
    name = package.partition(".")[0]
    if importlib.util.find_spec(name) is None:
        raise InputError(f"config key {key}: needs the package {name}; pip install {name}")


def check_command(name: str, key: str) -> None:
    """InputError if the command that a configuration's key needs is not installed."""
    if shutil.which(name) is None:
        raise InputError(f"config key {key}: found {name!r}, which is not installed here")


def needed(package: str, key: str) -> Any:
    """The package; InputError as of `check`."""
    check(package, key)
    return importlib.import_module(package)
