"""A method as a job runs it: its row, a configuration's overrides, and the switches that touch it.

A name may carry switches: `imitkd+greedy_student_text`, or `imitkd+released` for all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from atkd.files import InputError
from atkd.objectives import METHODS, Method
from atkd.released import SWITCHES, touches

ALL = "released"


class Recipe(NamedTuple):
    """Loss (None: not trained), whose answers the fixed sequences hold, settings, switches."""

    loss: str | None
    sequences: str
    settings: Mapping[str, Any]
    switches: tuple[str, ...]

    @property
    def distils(self) -> bool:
        """Whether a teacher's distribution enters the loss."""
        return self.loss not in (None, "cross_entropy")

    @property
    def student_fraction(self) -> float:
        """Share of steps on the student's own answers."""
        return self.settings.get("student_fraction", 0)

    @property
    def sample_switches(self) -> tuple[str, ...]:
        """The switches that change the samples trained on, so that no cache knows them."""
        return tuple(name for name in self.switches if SWITCHES[name].changes_samples)

    @property
    def cacheable(self) -> bool:
        """Whether a teacher's cache can serve some of its steps."""
        return self.distils and self.student_fraction < 1 and not self.sample_switches


def row_of(name: str) -> Method:
    """The table's row of a method, switches or not; InputError if it is unknown."""
    base = name.partition("+")[0]
    if base not in METHODS:
        close = difflib.get_close_matches(base, METHODS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else f"; expected one of {[*METHODS]}"
        raise InputError(f"unknown method {base!r}{hint}")
    return METHODS[base]


def switches_of(name: str) -> list[str]:
    """The switches a method's name carries; InputError if one is unknown."""
    found = name.split("+")[1:]
    unknown = [switch for switch in found if switch not in (*SWITCHES, ALL)]
    if unknown:
        raise InputError(
            f"method {name!r}: unknown switch {unknown[0]!r}; expected one of {[*SWITCHES, ALL]}"
        )
    return list(SWITCHES) if ALL in found else found


def trained_as(name: str) -> str:
    """The method whose student this one is tested with: a test template trains nothing."""
    return name.removesuffix("+test_template")


def recipe(
    name: str, family: str, overrides: Mapping[str, Any], released: Collection[str] = ()
) -> Recipe:
    """The method under these overrides, with the switches that touch it."""
    row = row_of(name)
    settings = {**row.settings, **overrides}
    wanted = {*switches_of(name), *released}
    found = tuple(s for s in SWITCHES if s in wanted and touches(s, family, row, settings))
    loss = "kl_mixture" if "jsd_as_kl_mixture" in found else row.loss
    settings |= {"scope": "sample"} if "split_per_sample" in found else {}
    settings |= {"temperature": 0.0} if "greedy_student_text" in found else {}
    return Recipe(loss, row.sequences, settings, found)


def overrides(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a configuration sets for a method: `student_text` if it needs some, its own settings."""
    own = config["method_settings"].get(name.partition("+")[0], {})
    common = config["student_text"] if "student_fraction" in row_of(name).settings else {}
    return {**common, **own}


def deviations(config: Mapping[str, Any], family: str) -> list[str]:
    """The variants that measure the released code's departures: each switch alone, then all.

    Of every chosen method, those switches that touch it.
    """
    made = []
    for name in config["methods"]:
        found = recipe(name, family, overrides(config, name), SWITCHES).switches
        made += [f"{name}+{switch}" for switch in found]
        made += [f"{name}+{ALL}"] if len(found) > 1 else []
    return made
