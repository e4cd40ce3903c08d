"""A finished run frozen: whether it is complete and consistent, and what is copied of it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import score_metric
from atkd.evaluation.scores import SCORE_COLUMNS
from atkd.methods import Name
from atkd.reporting import pages
from atkd.runtime.files import InputError, atomic_path, sha256, write_json, write_text
from atkd.statistics import estimates
from atkd.statistics.estimates import KEYS, RECORD, Contrast, RunRecord

if TYPE_CHECKING:
    import pandas as pd

SCORES, DOCUMENTS = "scores.csv", "documents.csv.gz"
SCORE_FILES = (SCORES, DOCUMENTS, "costs.csv", RECORD)
TOLERANCE = 0.01  # between a score and what its documents give, in the metric's unit


def missing(run: Path) -> list[str]:
    """What keeps a run from being complete and consistent; empty when nothing does.

    Complete is what has every model of the grid in the run's record, on every task.
    """
    absent = [f"{name}: file not found" for name in SCORE_FILES if not (run / name).is_file()]
    if absent:
        return absent
    record = estimates.read_record(run / RECORD)
    frame = estimates.read_csv(run / SCORES, SCORE_COLUMNS)
    frame = frame.assign(run=_keys(frame))
    scored = frame[frame.metric == "score"]
    found = set(zip(scored.run, scored.task, strict=True))
    lacks = []
    for key in record.runs:
        tasks = [task for task in record.all_tasks if (key, task) not in found]
        if key not in set(frame.run):
            lacks.append(f"{key}: no scores")
        elif tasks:
            lacks.append(f"{key}: task {tasks[0]} has no score")
    strange = sorted(set(frame.run) - set(record.runs))
    lacks += [f"{key}: has scores, but {RECORD} does not name it" for key in strange]
    return lacks or _disagreements(run, frame)


def _keys(frame: pd.DataFrame) -> pd.Series:
    return frame[[*KEYS, "seed"]].astype(str).agg("/".join, axis=1)


def _disagreements(run: Path, frame: pd.DataFrame) -> list[str]:
    """Scores that the documents of their seed do not give (estimates share all seeds' ones)."""
    loaded = estimates.load(run / SCORES, run / DOCUMENTS)
    found = {}
    for seed in sorted(set(frame.seed)):
        rows = {cell: {seed: of[seed]} for cell, of in loaded.rows.items() if seed in of}
        alone = dataclasses.replace(loaded, rows=rows)
        for row in estimates.estimates(alone, [Contrast((cell,)) for cell in rows]):
            key = (*(row[k] for k in KEYS), str(seed), row["task"], row["metric"])
            found[key] = row["value"]
    out = []
    for row in frame[frame.metric.isin(loaded.metrics())].to_dict("records"):
        key = tuple(str(row[k]) for k in (*KEYS, "seed", "task", "metric"))
        other, value = found.get(key), row["value"]
        if other is None or abs(other - value) > TOLERANCE:
            out.append(f"{'/'.join(key)}: scores.csv has {value}, its documents give {other}")
    return out


def freeze(run: Path, output: Path, provenance: dict[str, Any]) -> None:
    """Copies a complete run's score files, probes and provenance (no weights) into `output`.

    Of models that only a study trained the scores are kept and other metrics left out: no table
    shows those, and they are most of the bytes.
    """
    lacks = missing(run)
    if lacks:
        more = f" (and {len(lacks) - 1} more)" if len(lacks) > 1 else ""
        raise InputError(f"{run}: not a complete run: {lacks[0]}{more}; expected a finished run")
    record = estimates.read_record(run / RECORD)
    names = [*SCORE_FILES, *_probe_files(run, record)]
    for name in names:
        if name in (SCORES, DOCUMENTS) and _studied(record):
            write_text(output / name, _thinned(run / name, record))
        else:
            with atomic_path(output / name) as part:
                shutil.copyfile(run / name, part)
    files = {name: sha256(output / name) for name in names}
    write_json(output / "provenance.json", provenance | {"files": files})


def _probe_files(run: Path, record: RunRecord) -> list[str]:
    """A run's probes, relative to it; what shows text only where the text is generated."""
    found = sorted((run / "analyses").glob("*.csv"))
    explorer = run / pages.EXPLORED
    if explorer.is_file() and record.world:
        found.append(explorer)
    return [str(path.relative_to(run)) for path in found]


def _studied(record: RunRecord) -> set[str]:
    """Keys of the models that only a study trained: methods under settings of their own."""
    if not record.analyses:
        return set()
    return {key for key in record.runs if Name.of(key.split("/")[3]).settings}


def _thinned(path: Path, record: RunRecord) -> str:
    """A file of scores or of documents, with nothing but scores of the models of studies."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    keys = frame.run if "run" in frame else _keys(frame)
    own = {score_metric(task, record.rater) for task in record.all_tasks} | {"score"}
    kept = frame[~keys.isin(_studied(record)) | frame.metric.isin(own)]
    return kept.to_csv(index=False, lineterminator="\n")
