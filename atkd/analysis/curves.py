"""How trainings went: each training's loss and tokens, in a few windows of its steps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from atkd.runtime.files import read_json, read_jsonl, write_csv

Row = dict[str, Any]
COLUMNS = ("run", "stage", "step", "share", "loss", "tokens")
WINDOWS = 20


def windows(log: Sequence[Row], tokens: float) -> Iterator[Row]:
    """Mean loss of each of the windows, at the last step and the tokens read by then."""
    last = log[-1]["step"]
    size = max(1, len(log) / WINDOWS)
    for at in range(min(WINDOWS, len(log))):
        part = log[round(at * size) : round((at + 1) * size)]
        step = part[-1]["step"]
        loss = sum(row["loss"] for row in part) / len(part)
        share = step / last
        yield {
            "step": step,
            "share": f"{share:.4f}",
            "loss": f"{loss:.6f}",
            "tokens": round(tokens * share),
        }


def rows_of(folder: Path) -> list[Row]:
    """A training's windows; none of a model that was taken over."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    facts = read_json(folder / "provenance.json")
    log = list(read_jsonl(path, ("step", "loss")))
    whole = facts["tokens"] * facts["steps"] / max(1, facts["steps"] - facts["first_step"])
    names = {"run": facts["run"], "stage": facts["stage"]}
    return [names | row for row in windows(log, whole)] if log else []


def main() -> None:
    """Reads the logs of all trainings and writes a CSV."""
    parser = argparse.ArgumentParser(prog="python -m atkd curves", description=main.__doc__)
    parser.add_argument("--models", required=True, nargs="+", type=Path, help="model folders")
    parser.add_argument("--output", required=True, type=Path, help="CSV to write")
    args = parser.parse_args()
    rows = [row for folder in args.models for row in rows_of(folder)]
    write_csv(args.output, COLUMNS, rows)
    print(f"{args.output}: {len(rows)} rows")
