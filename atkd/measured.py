"""What was measured of each document, by run, from the files of document rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from atkd.estimates import PRIMARY
from atkd.files import InputError, open_text

Measured = dict[str, float]  # metric -> value
Tasks = dict[str, dict[str, Measured]]  # task -> document -> metric -> value
JUDGE, EXACT, UNREAD = PRIMARY[0], "judge_exact", "judge_unparsable"


def primary(scores: Measured) -> float | None:
    """The value that counts as a document's score; none where its judge's reply was unreadable."""
    names = PRIMARY[:1] if UNREAD in scores else PRIMARY
    return next((scores[name] for name in names if name in scores), None)


def measured(folder: Path, runs: Iterable[str]) -> dict[str, Tasks]:
    """Run -> its documents' metrics, judges' ratings in percent, from results/<config>.

    From documents.csv.gz of all runs, which has a language model's ratings; for a run that it lacks
    from the run's own file and judge/documents.csv.gz. InputError names a missing or broken file.
    """
    wanted = list(runs)
    merged, rated = (_by_run(folder / name / "documents.csv.gz", wanted) for name in ("", "judge"))
    found = {}
    for run in wanted:
        if run not in merged:
            own = folder / "runs" / run / "documents.csv.gz"
            merged[run] = _judged(_tasks(own, _rows(own)), rated.get(run, {}))
        found[run] = merged[run]
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with open_text(path) as handle:
        yield from csv.DictReader(handle)


def _tasks(path: Path, rows: Iterable[dict[str, str]]) -> Tasks:
    found: Tasks = {}
    try:
        for row in rows:
            document = found.setdefault(row["task"], {}).setdefault(row["document"], {})
            document[row["metric"]] = _value(row)
    except (OSError, EOFError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: expected a run's documents.csv.gz ({error!r})") from None
    return found


def _value(row: dict[str, str]) -> float:
    if row["value"]:
        return float(row["value"])
    ratio = float(row["numerator"]) / float(row["denominator"])
    return 100 * ratio if row["metric"] == JUDGE else ratio


def _by_run(path: Path, runs: list[str]) -> dict[str, Tasks]:
    parts: dict[str, list[dict[str, str]]] = {}
    try:
        for row in _rows(path) if path.is_file() else ():
            if row["run"] in runs:
                parts.setdefault(row["run"], []).append(row)
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{path}: expected runs' documents.csv.gz ({error!r})") from None
    return {run: _tasks(path, parts[run]) for run in parts}


def _judged(own: Tasks, rated: Tasks) -> Tasks:
    """A run's documents with a language model's ratings, whose place the exact judge's give up."""
    for task, documents in rated.items():
        for scores in own.get(task, {}).values():
            if JUDGE in scores:
                scores[EXACT] = scores.pop(JUDGE)
        for document, scores in documents.items():
            own.setdefault(task, {}).setdefault(document, {}).update(scores)
    return own
