"""What each of the released code's departures from the paper is worth: variant minus plain.

python -m atkd deviations --scores scores.csv --documents documents.csv.gz --output tables
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from atkd.methods import SWITCHES
from atkd.reporting.table import MINUS, Table, detectable_note, number
from atkd.runtime.files import InputError
from atkd.statistics.estimates import Contrast, Scores, estimates, label, load, sort_key

COLUMNS = {"generation": "Generation", "understanding": "Understanding", "average": "Average"}
TOGETHER = "all of them together"


def pairs(scores: Scores) -> list[Contrast]:
    """Variant against plain, of every switch that was run."""
    found = []
    for cell in sorted(scores.rows, key=sort_key):
        name, _, switch = cell[3].partition("+")
        plain = (*cell[:3], name)
        if switch and plain in scores.rows:
            found.append((((cell,), (plain,)), switch))
    return found


def table(scores: Scores) -> Table:
    """A row per switch and method: differences in points with intervals, least seeds below."""
    import pandas as pd

    rows = [row for row in estimates(scores, pairs(scores)) if row["metric"] == "score"]
    if not rows:
        raise InputError("no variant was run; set the config key deviations to true")
    data = pd.DataFrame([row | _names(row) for row in rows if row["task"] in COLUMNS])
    shown: list[list[str] | None] = []
    order = [*SWITCHES, "released"]
    for switch, part in sorted(data.groupby("switch"), key=lambda item: order.index(item[0])):
        shown.append(None)
        for key, cell in part.groupby(["family", "teacher", "method"], sort=False):
            by_task = {row.task: row for row in cell.itertuples()}
            meaning = SWITCHES[switch].meaning if switch in SWITCHES else TOGETHER
            values = [_cell(by_task[task]) if task in by_task else "" for task in COLUMNS]
            values += [number(by_task["average"].detectable) if "average" in by_task else ""]
            shown.append([meaning, f"{label(key[2])}", *values])
    heads = ["Departure of the released code", "Method", *COLUMNS.values(), "Detectable"]
    notes = _notes(data, scores.config)
    title = "What each departure of the released code from the paper moves, in points"
    return Table("deviations", title, heads, shown[1:], notes, data)


def _names(row: dict[str, Any]) -> dict[str, str]:
    name, _, switch = row["method"].partition("+")
    return {"method": name, "switch": switch, "label": label(name)}


def _cell(row: Any) -> str:
    mark = "*" if row.low > 0 or row.high < 0 else ""
    text = f"{row.value:+.2f}{mark} [{row.low:+.2f}, {row.high:+.2f}]"
    return text.replace("-", MINUS)


def _notes(data: Any, config: str) -> list[str]:
    seeds, documents = data.seeds.min(), data[data.task == "average"].documents.min()
    outside = int(((data.low > 0) | (data.high < 0)).sum())
    return [
        "Variant minus plain method, same seeds and documents; positive: the departure helps.",
        f"{seeds} seed(s), {documents} documents; 95 % intervals over {data.over.iloc[0]}, one by "
        f"one and uncorrected: of {len(data)}, {outside} exclude 0 (*), and about "
        f"{0.05 * len(data):.0f} would by chance.",
        f"Configuration {config}. Teachers are the same on both sides. {detectable_note(data)}",
    ]


def main() -> None:
    """Writes tables/deviations.{md,tex,csv}."""
    parser = argparse.ArgumentParser(prog="python -m atkd deviations", description=main.__doc__)
    parser.add_argument("--scores", required=True, type=Path, help="scores.csv")
    parser.add_argument("--documents", required=True, type=Path, help="documents.csv.gz")
    parser.add_argument("--output", required=True, type=Path, help="folder of tables")
    args = parser.parse_args()
    made = table(load(args.scores, args.documents))
    made.save(args.output)
    print(made.markdown())
