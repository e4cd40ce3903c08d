"""What a report shows: every table and figure, each one function registered by a decorator.

The files that a run writes, the rules that declare them, what Snakemake's report says of them and
the page's sections follow from the entries here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from atkd.reporting.table import KINDS as TABLE_KINDS
from atkd.runtime.files import InputError
from atkd.statistics.estimates import RunRecord

Make = Callable[..., Any]
MODULES = (  # where entries are, in the page's order
    "verdicts",
    "score_tables",
    "skills",
    "figures",
    "studies",
    "probes",
    "beyond",
    "sweeps",
    "diagnostics",
)
FIGURE_KINDS = ("svg", "png", "txt")
NUMBERS = ("estimates.csv", "differences.csv")  # beside the tables: all that figures are drawn from
WORLD = "The tasks are the embedded world's analogues of the paper's, not the real sets."


def always(record: RunRecord) -> bool:
    """Of every run."""
    return True


@dataclass(frozen=True)
class Entry:
    """A table or a figure.

    `name`: of its files; with `{family}` in it there is one for every family, whose name `make`
    gets. `category` and `caption`: in Snakemake's report. `section`: of the page; empty for none.
    `applies`: whether a run has it. `analysis`: it shows `analyses/<name>.csv`, which is asked for
    by name, and so is the table. `make`: draws it from `inputs.Run` (a table) or `inputs.Numbers`
    (a figure, and the rows it shows); None where the files hold nothing to show.
    """

    name: str
    category: str
    caption: str
    section: str
    applies: Callable[[RunRecord], bool]
    analysis: bool
    make: Make

    @property
    def shows(self) -> str:
        """The caption's first sentence."""
        return self.caption.partition(". ")[0].rstrip(".")

    def families(self, record: RunRecord) -> dict[str, tuple[str, ...]]:
        """Name of every table or figure -> what `make` gets beside the run."""
        if "{family}" not in self.name:
            return {self.name: ()}
        return {self.name.format(family=family): (family,) for family in record.families}


_TABLES: dict[str, Entry] = {}
_FIGURES: dict[str, Entry] = {}


def table(
    name: str,
    category: str,
    caption: str,
    section: str = "more",
    applies: Callable[[RunRecord], bool] = always,
    analysis: bool = False,
) -> Callable[[Make], Make]:
    """Registers a function that makes a `Table` of a `Run`; see `Entry`."""

    def register(make: Make) -> Make:
        _TABLES[name] = Entry(name, category, caption, section, applies, analysis, make)
        return make

    return register


def figure(
    name: str,
    caption: str,
    category: str = "Figures",
    section: str = "figures",
    applies: Callable[[RunRecord], bool] = always,
) -> Callable[[Make], Make]:
    """Registers a function that makes a figure, and the rows it shows, of `Numbers`."""

    def register(make: Make) -> Make:
        _FIGURES[name] = Entry(name, category, caption, section, applies, False, make)
        return make

    return register


def _complete(known: dict[str, Entry]) -> list[Entry]:
    for module in MODULES:
        import_module(f"atkd.reporting.{module}")
    return list(known.values())


def tables() -> list[Entry]:
    """Every table."""
    return _complete(_TABLES)


def figures() -> list[Entry]:
    """Every figure."""
    return _complete(_FIGURES)


class Output(NamedTuple):
    """A file of a run, relative to its folder; with a category Snakemake's report shows it."""

    path: str
    category: str = ""
    shows: str = ""


def _files(
    folder: str, kinds: tuple[str, ...], entries: Iterable[Entry], record: RunRecord
) -> list[Output]:
    return [
        Output(f"{folder}/{name}.{kind}", entry.category if kind == kinds[0] else "", entry.shows)
        for entry in entries
        if entry.applies(record)
        for name in entry.families(record)
        for kind in kinds
    ]


def table_outputs(record: RunRecord) -> list[Output]:
    """Files of the tables that a run has of itself, and the numbers beside them."""
    entries = [entry for entry in tables() if not entry.analysis or entry.name in record.analyses]
    numbers = [Output(f"tables/{name}") for name in NUMBERS]
    return [*numbers, *_files("tables", TABLE_KINDS, entries, record)]


def figure_outputs(record: RunRecord) -> list[Output]:
    """Files of a run's figures."""
    return _files("figures", FIGURE_KINDS, figures(), record)


def outputs(record: RunRecord) -> list[str]:
    """Every file of tables and figures that a run writes, relative to its folder."""
    return [found.path for found in (*table_outputs(record), *figure_outputs(record))]


def analyses() -> list[str]:
    """The tables of analyses that are asked for by name."""
    return [entry.name for entry in tables() if entry.analysis]


def chosen(entries: list[Entry], only: Iterable[str]) -> list[Entry]:
    """The entries of these names, all where none is given; InputError names an unknown one."""
    wanted, known = list(only), {entry.name: entry for entry in entries}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"found {unknown[0]!r}; expected one of {', '.join(known)}")
    return [known[name] for name in wanted] or entries
