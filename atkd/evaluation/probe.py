"""What probes share: stages that look at models of one family on texts of known answers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from atkd.evaluation.settings import FidelitySettings
from atkd.models import tokenizers
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import InputError, collect_csv, write_csv
from atkd.runtime.provenance import Stage

Row = dict[str, Any]
Settings = TypeVar("Settings", bound=FidelitySettings)


@dataclass(frozen=True)
class Given:
    """What a probe looks at, and on which texts.

    `folders`: run key -> model. `tasks`, `prompts`: folders of <task>.jsonl of the data, and of
    what models are asked. `data`: training rows, of a probe that reads them.
    """

    folders: Mapping[str, Path]
    tasks: Path
    prompts: Path
    data: Path = Path()

    @property
    def family(self) -> str:
        """The family of all models."""
        return next(iter(self.folders)).split("/")[0]

    def tokenizer(self, stage: Stage) -> Any:
        """The models' tokenizer; what is imported and opened until then is start-up."""
        _, folder = min(self.folders.items())
        with start_up():
            import_module("transformers.modeling_utils")
            found = tokenizers.open_tokenizer({"folder": str(folder)}, self.family)
        stage.ready()
        return found


@dataclass(frozen=True)
class Probe(Generic[Settings]):
    """A probe that writes a CSV for each job, and one of all jobs'.

    `looks_at`: the models of a job, in words. `training`: whether it reads training rows.
    """

    name: str
    looks_at: str
    settings: type[Settings]
    columns: Sequence[str]
    measure: Callable[[Given, Settings, Stage], list[Row]]
    training: bool = False

    def main(self) -> None:
        """The command line."""
        about = f"Looks at {self.looks_at}, or collects what jobs found."
        parser = argparse.ArgumentParser(prog=f"python -m atkd {self.name}", description=about)
        commands = parser.add_subparsers(dest="command", required=True)
        one = commands.add_parser("run", help=f"{self.looks_at} -> CSV")
        add_options(one, self.settings, self.training)
        gather = commands.add_parser("collect", help="CSVs of all jobs -> one")
        gather.add_argument("--found", required=True, nargs="+", type=Path, help="jobs' CSVs")
        gather.add_argument("--output", required=True, type=Path, help="CSV to write")
        args = parser.parse_args()
        if args.command == "collect":
            count = collect_csv(args.found, args.output, self.columns)
        else:
            given, settings, stage = opened(self.name, self.settings, args)
            rows = self.measure(given, settings, stage)
            write_csv(args.output, self.columns, rows)
            stage.write(args.output.with_suffix(".provenance.json"))
            count = len(rows)
        print(f"{args.output}: {count} rows")


def add_options(
    parser: argparse.ArgumentParser, settings: type[FidelitySettings], training: bool
) -> None:
    """The options that `opened` reads, and --output."""
    parser.add_argument(
        "--runs", required=True, nargs="+", metavar="KEY",
        help="family/student/teacher/method/seed of each model",
    )  # fmt: skip
    parser.add_argument("--models", required=True, nargs="+", type=Path, help="their folders")
    parser.add_argument("--tasks", required=True, type=Path, help="folder of the data's tasks")
    parser.add_argument("--prompts", required=True, type=Path, help="folder of prompt files")
    if training:
        parser.add_argument("--data", required=True, type=Path, help="training rows")
    parser.add_argument("--settings", default="{}", help=settings.about())
    parser.add_argument("--output", required=True, type=Path, help="file to write")


def opened(
    name: str, kind: type[Settings], args: argparse.Namespace
) -> tuple[Given, Settings, Stage]:
    """What a command line says; InputError unless every run has a folder."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if len(args.runs) != len(args.models):
        found = f"{len(args.models)} for {len(args.runs)} runs"
        raise InputError(f"--models: found {found}; expected a folder for each")
    folders = dict(zip(args.runs, args.models, strict=True))
    said = arithmetic.chosen(json_object("--settings", args.settings))
    data = getattr(args, "data", Path())
    given = Given(folders, args.tasks, args.prompts, data)
    return given, kind.of(said), Stage(name, args.runs[0], said)
