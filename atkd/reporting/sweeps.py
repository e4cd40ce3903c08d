"""Methods under settings of their own, beside the same methods as configured."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from atkd.analyses import ANALYSES
from atkd.methods import Name, setting_title, title_of
from atkd.reporting import registry
from atkd.reporting.inputs import Run
from atkd.reporting.table import Table, detectable_note, notes, number, signed
from atkd.statistics.estimates import Cell, Contrast, RunRecord, average, sort_key

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[str, str, str]  # setting, method without it, value
Blocks = list[tuple[Key, list[Cell]]]
CONFIGURED = "as configured"
COLUMNS = ("Value", "Pairs", "Score [interval]", "Change [interval]", "Detectable")


def swept(cells: list[Cell]) -> dict[Key, list[Cell]]:
    """The cells of every value of every setting that a method's name carries.

    A cell of several settings belongs to each of them, beside cells that share the others.
    """
    found: dict[Key, list[Cell]] = defaultdict(list)
    for cell in sorted(cells, key=sort_key):
        for setting, value in Name.of(cell.method).settings.items():
            found[setting, without(cell.method, setting), value].append(cell)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], _rank(*item[0][1:]))))


def without(method: str, setting: str) -> str:
    """A method's name less one of its settings."""
    return "+".join(part for part in method.split("+") if not part.startswith(f"{setting}="))


def _rank(method: str, value: str) -> tuple[Any, ...]:
    """Methods as in other tables; numbers by size."""
    try:
        size = float(value)
    except ValueError:
        size = math.inf
    return *sort_key(("", "", "", method)), size, value


def has_sweeps(record: RunRecord) -> bool:
    """Whether a method was run under settings of its own, beside those of studies."""
    return bool(swept(asked(record)))


def asked(record: RunRecord) -> list[Cell]:
    """The cells whose methods the configuration names itself."""
    told = {method for name in record.analyses for method in ANALYSES[name].methods}
    return [cell for cell in record.cells if cell.method not in told]


@registry.table(
    "sweeps",
    category="Settings",
    applies=has_sweeps,
    caption=(
        "Methods under settings of their own (learning rate, k, lambda, ...) against the same "
        "methods as configured: average score (higher is better) and the difference in points."
    ),
)
def sweeps(run: Run) -> Table | None:
    """A row per setting, method and value, the configured one first."""
    import pandas as pd

    found = swept([cell for cell in asked(run.record) if cell in run.scores.rows])
    if not found:
        return None
    rows: list[list[str] | None] = []
    kept: list[dict[str, Any]] = []
    blocks = itertools.groupby(found.items(), key=lambda item: item[0][:2])
    for (setting, method), values in blocks:
        rows.append(None)
        for (_, _, value), cells in _with_plain(method, list(values), run):
            plain = [cell._replace(method=method) for cell in cells]
            paired = value != CONFIGURED and set(plain) <= set(run.scores.rows)
            row = _estimate(run, cells, []) | {"setting": setting, "of": method, "at": value}
            change = _estimate(run, cells, plain) if paired else None
            rows.append(_shown(row, change))
            kept.append(row | _change(change))
    data = pd.DataFrame(kept)
    return Table(
        f"Methods under settings of their own ({run.title}), average score",
        ["Setting", "Method", *COLUMNS],
        rows[1:],
        _about(run, data),
        data,
    )


def _with_plain(method: str, values: Blocks, run: Run) -> Blocks:
    """The values of a method's setting, behind the configured one where it was run."""
    cells = dict.fromkeys(cell._replace(method=method) for _, part in values for cell in part)
    plain = [cell for cell in cells if cell in run.scores.rows]
    return [(("", method, CONFIGURED), plain), *values] if plain else values


def _estimate(run: Run, ours: list[Cell], theirs: list[Cell]) -> dict[str, Any]:
    """The average score of cells, or what they have over others."""
    return average(run.scores, Contrast(tuple(ours), tuple(theirs), "sweep"))


def _change(change: dict[str, Any] | None) -> dict[str, Any]:
    names = ("value", "low", "high", "detectable")
    return {f"change_{name}": change[name] for name in names} if change else {}


def _shown(row: dict[str, Any], change: dict[str, Any] | None) -> list[str]:
    level = f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"
    last = ["", ""]
    if change:
        last = [signed(SimpleNamespace(**change)), number(change["detectable"])]
    names = [setting_title(row["setting"]), title_of(row["of"]), row["at"]]
    return [*names, str(row["pairs"]), level, *last]


def _about(run: Run, data: pd.DataFrame) -> list[str]:
    return [
        "Change: against the same method as configured, same pairs, documents and seeds, in "
        "points; single comparisons, uncorrected.",
        *notes(data, "score", run.scores),
        detectable_note(data),
    ]
