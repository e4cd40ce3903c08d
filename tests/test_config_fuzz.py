"""Arbitrary changes of a configuration: refused by one message, or every job can be planned."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

from helpers import smoke
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atkd import config as grid
from atkd.jobs import JOBS
from atkd.plan import Plan
from atkd.runtime.files import InputError

SMOKE = smoke()
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 4.0, 4.5, 1e300, 10**30, float("nan"), float("inf"), b"x", object,
    "", "-", "banana", "1", "1.0e1", "nan", "null", "true", "[1, 2]", "{a: 1}", "a b", "../up",
    "x\n", "a/b", "\ud800", "\0", "opt", "125m", "gkd", "gkd+released", "sft+", "none+released",
    "dolly", "bbh", "local", "hub", [], {}, [1], ["a", "a"], (1, 2), {1, 2}, {"a": 1}, {1: 2},
    {"build": {"hidden_size": 16, "layers": 1, "heads": 3}}, {"hub": "a", "folder": "b"},
    {"train": "a.jsonl", "tasks": {"dolly": "b.json"}},
    {"train": {"url": "https://h/x?y"}, "tasks": {"dolly": {"id": "x", "split": "y"}}},
]  # fmt: skip
KEYS = [
    "limit",
    "judge",
    "seed",
    "scope",
    "folder",
    "hub",
    "revision",
    "steps",
    "gpus",
    "odd",
    7,
    None,
]
SPELT = [str, repr, lambda value: [value], lambda value: {"a": value}, lambda value: [value, value]]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values."""
    listed = list(enumerate(node)) if isinstance(node, list) else []
    found = [path] if path else []
    for name, child in node.items() if isinstance(node, dict) else listed:
        found += places(child, (*path, name))
    return found


def changed(noise: random.Random) -> Any:
    """Smoke's configuration with up to four values removed, replaced, retyped, added or moved."""
    config = copy.deepcopy(SMOKE)
    for _ in range(noise.randint(1, 4)):
        found = places(config)
        *above, last = noise.choice(found)
        node: Any = config
        for step in above:
            node = node[step]
        action = noise.choice(["remove", "replace", "retype", "add", "move"])
        if action == "remove":
            del node[last]
        elif action == "replace":
            node[last] = copy.deepcopy(noise.choice(ODD))
        elif action == "retype":
            node[last] = noise.choice(SPELT)(node[last])
        elif action == "add" and isinstance(node[last], dict):
            node[last][noise.choice(KEYS)] = copy.deepcopy(noise.choice(ODD))
        elif action == "move":
            *other, _ = noise.choice(found)
            node[last] = copy.deepcopy(at(config, other))
    return config


def at(node: Any, path: list[Any]) -> Any:
    """What stands at a path."""
    for step in path:
        node = node[step]
    return node


TAUGHT = ("text", "cache")  # kinds of jobs of teachers


def commands(plan: Plan) -> list[str]:
    """Command lines of jobs of all kinds, for every run."""
    made = []
    for run in plan.runs:
        size = run.teacher if run.teacher != "-" else run.student
        names = {**vars(run), "seed": str(run.seed), "size": size, "sequences": "teacher"}
        for kind, (_, template) in JOBS.items():
            if kind == "judge" and not plan.judge_settings:
                continue
            if kind == "student" and run.method in ("none", "teacher"):
                continue
            if "-" in (
                run.student if kind in ("fidelity_of", "landscape_of") else "",
                run.teacher if kind in TAUGHT else "",
            ):
                continue
            wanted = {name: names[name] for name in re.findall(r"{(\w+)}", template)}
            made.append(plan.command(kind, wanted))
            assert plan.job(kind, wanted).arguments
    return made


SAFE = re.compile(r"[\w./+=-]+")


@settings(max_examples=700, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32))
@example(0)
def test_a_changed_configuration_is_refused_or_can_be_planned(seed: int) -> None:
    config = changed(random.Random(seed))
    try:
        filled = grid.checked(config)
        plan = Plan(filled)
    except InputError as error:
        assert re.match(r"config key |method |--", str(error)), error
        assert "\n" not in str(error)
        return
    assert grid.checked(filled) == filled
    for line in commands(plan):
        assert all(SAFE.fullmatch(word) for word in line.split()), line
