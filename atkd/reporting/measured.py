"""What was measured of each document, by run, from the files of document rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from atkd.evaluation.scores import DOCUMENT_COLUMNS, Row, document_rows, judged, read_documents
from atkd.runtime.files import InputError
from atkd.statistics.estimates import PRIMARY

Measured = dict[str, float]  # metric -> value
Tasks = dict[str, dict[str, Measured]]  # task -> document -> metric -> value
JUDGE, UNREAD = PRIMARY[0], "judge_unparsable"


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
    whole = folder / "documents.csv.gz"
    merged, rated = (_by_run(path, wanted) for path in (whole, folder / "judge" / whole.name))
    found = {}
    for run in wanted:
        path, rows = whole, merged.get(run)
        if rows is None:
            path = folder / "runs" / run / whole.name
            exact = path.with_name("judge_documents.csv.gz")
            own = [*read_documents(path), *(document_rows(exact) if exact.is_file() else ())]
            rows = judged(own, rated.get(run, []))
        found[run] = _tasks(path, rows)
    return found


def _by_run(path: Path, runs: list[str]) -> dict[str, list[Row]]:
    """The rows of these runs in a file of all, if there is one."""
    found: dict[str, list[Row]] = defaultdict(list)
    columns = ("run", *DOCUMENT_COLUMNS)
    for row in document_rows(path, columns) if path.is_file() else ():
        if row["run"] in runs:
            found[row["run"]].append(row)
    return dict(found)


def _tasks(path: Path, rows: Iterable[Row]) -> Tasks:
    found: Tasks = {}
    try:
        for row in rows:
            document = found.setdefault(row["task"], {}).setdefault(row["document"], {})
            document[row["metric"]] = _value(row)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: expected numbers as values ({error})") from None
    return found


def _value(row: Row) -> float:
    if row["value"]:
        return float(row["value"])
    ratio = float(row["numerator"]) / float(row["denominator"])
    return 100 * ratio if row["metric"] == JUDGE else ratio
