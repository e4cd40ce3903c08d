"""What a job is, and the kinds of jobs with the keys that name them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atkd.runtime.files import InputError

RUN = "{family}/{student}/{teacher}/{method}/{seed}"
# Kind of job -> its stage, and the key that names it there.
JOBS = {
    "data": ("data", "data"),
    "tokenizer": ("tokenizer", "tokenizers/{family}"),
    "prompts": ("prompts", "prompts/{family}"),
    "released_prompts": ("prompts", "released_prompts/{family}"),
    "check": ("check", "checks/{family}/{size}"),
    "base": ("train", "models/{family}/{size}/seed{seed}/base"),
    "teacher": ("train", "models/{family}/{size}/seed{seed}/teacher"),
    "early_teacher": ("train", "models/{family}/{size}/seed{seed}/early_teacher"),
    "student": ("train", RUN),
    "text": ("teacher-answers", "text/{family}/{size}/seed{seed}"),
    "cache": ("teacher-cache", "cache/{family}/{size}/seed{seed}/{sequences}"),
    "evaluate": ("evaluate", RUN),
    "score": ("score", RUN),
    "exact_judge": ("judge", RUN),
    "judge": ("judge", "all"),
    "scores": ("score", "all"),
    "fidelity_of": ("fidelity", "{family}/{student}/seed{seed}"),
    "crosscheck_of": ("crosscheck", RUN),
    "uncertainty_of": ("uncertainty", "{family}/seed{seed}"),
    "landscape_of": ("landscape", "{family}/{student}/seed{seed}"),
    "diversity": ("diversity", "all"),
    "curves": ("curves", "all"),
    "explorer": ("explorer", "all"),
}
Paths = str | Sequence[str]


@dataclass(frozen=True)
class Needs:
    """What a job asks of a machine: GPUs, CPU threads, memory in MB (2**20 bytes), minutes."""

    gpus: int = 0
    threads: int = 1
    memory_mb: int = 4000
    minutes: int = 60


@dataclass(frozen=True)
class Job:
    """One job.

    `command`: its subcommand, where the stage has some. `reads`: files it needs, by the names
    rules use. `options`: its command line; None or an empty list leaves an option out. `settings`:
    the fragment of the configuration that decides its result.
    """

    reads: Mapping[str, Paths]
    options: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    command: str = ""

    @property
    def arguments(self) -> list[str]:
        """The command line after the stage's name."""
        found = [self.command] if self.command else []
        for name, value in self.options.items():
            if value is None or value == []:
                continue
            values = value if isinstance(value, list) else [value]
            found += [f"--{name}", *map(str, values)]
        settings = json.dumps(self.settings, sort_keys=True)
        return found + (["--settings", settings] if self.settings else [])


def folder(path: str) -> str:
    """The folder of a file."""
    return str(Path(path).parent)


def matched(template: str, text: str) -> dict[str, str] | None:
    """The names that a template such as `RUN` has in a text; None where it is no such text."""
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))
    found = re.fullmatch(pattern, text)
    return found.groupdict() if found else None


def named(stage: str, key: str) -> tuple[str, dict[str, str]]:
    """The kind of job that a stage's key names, and its wildcards; InputError if there is none."""
    templates = {kind: template for kind, (of, template) in JOBS.items() if of == stage}
    for kind, template in templates.items():
        if (names := matched(template, key)) is not None:
            return kind, names
    expected = " or ".join(templates.values()) or "no key: the stage has no --run"
    raise InputError(f"--run: found {key!r}; expected {expected}")
