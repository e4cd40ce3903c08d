"""How alike a model's answers are: distinct words and word pairs over all open-ended answers.

distinct-n is the number of different n-grams over that of all (Li et al., NAACL 2016), in percent,
over all answers of a model together; it falls with the number of words, which stands beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from atkd.runtime.files import read_jsonl, write_csv

COLUMNS = ("run", "statistic", "value", "answers")


def statistics(answers: Iterable[str]) -> dict[str, float]:
    """distinct-1 and distinct-2 in percent, and words an answer."""
    texts = [text.split() for text in answers]
    words = [word for text in texts for word in text]
    pairs = [pair for text in texts for pair in pairwise(text)]
    return {
        "distinct_1": 100 * len(set(words)) / max(len(words), 1),
        "distinct_2": 100 * len(set(pairs)) / max(len(pairs), 1),
        "words": len(words) / max(len(texts), 1),
    }


def rows_of(run: str, samples: Iterable[Path]) -> list[dict[str, Any]]:
    """A row for each statistic of a run's answers."""
    answers = [row["answer"] for path in samples for row in read_jsonl(path, ("answer",))]
    return [
        {"run": run, "statistic": name, "value": f"{value:.6f}", "answers": len(answers)}
        for name, value in statistics(answers).items()
    ]


def main() -> None:
    """Reads the open-ended answers of all runs and writes a CSV."""
    parser = argparse.ArgumentParser(prog="python -m atkd diversity", description=main.__doc__)
    parser.add_argument("--results", required=True, type=Path, help="folder of the results")
    parser.add_argument("--runs", required=True, nargs="+", metavar="KEY", help="keys of the runs")
    parser.add_argument("--tasks", required=True, nargs="+", help="open-ended tasks")
    parser.add_argument("--output", required=True, type=Path, help="CSV to write")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run in args.runs:
        folder = args.results / "runs" / run / "samples"
        rows += rows_of(run, [folder / f"{task}.jsonl" for task in args.tasks])
    write_csv(args.output, COLUMNS, rows)
    print(f"{args.output}: {len(rows)} rows")
