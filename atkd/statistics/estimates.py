"""Score files -> numbers with intervals: every cell, and every difference worth asking about."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.runtime.files import InputError, write_text
from atkd.statistics import intervals

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TASKS = {"dolly": "DollyEval", "selfinst": "SelfInst", "vicuna": "VicunaEval", "koala": "Koala"}
TASKS |= {"wizardlm": "WizardLM", "mmlu": "MMLU", "drop": "DROP", "bbh": "BBH"}
AVERAGES = {"generation": list(TASKS)[:5], "understanding": list(TASKS)[5:], "average": list(TASKS)}
METHODS = {"teacher": "Teacher", "none": "No training", "sft": "SFT", "seqkd": "SeqKD"}
METHODS |= {"supervised_kd": "Supervised KD", "reverse_kd": "Reverse KD", "imitkd": "ImitKD"}
METHODS |= {"f_distill": "f-distill", "gkd": "GKD", "dkd": "Decoupled KD"}
FAMILIES = {"opt": "OPT", "pythia": "Pythia", "llama": "LLaMA"}
OVER_GROUPS = ("bbh",)  # plain mean over groups, as the score; all other tasks over documents
PRIMARY = ("judge", "rouge_l", "prefix_match")  # a task's `score` is the first of these it has
SCORED = {"judge": "the exact judge's rating (percent of 10 points) for the generation sets"}
SCORED |= {"rouge_l": "ROUGE-L F (no stemmer) for the generation sets"}
SCORED |= {"prefix_match": "prefix match for MMLU, DROP and BBH"}
RATED = (
    "a language model's rating (100 x the answers' sum / the references') for the generation sets"
)


Cell = tuple[str, str, str, str]
Sides = tuple[tuple[Cell, ...], tuple[Cell, ...]]  # mean of the first less mean of the second
Contrast = tuple[Sides, str]  # what to estimate, and its `kind`
KEYS = ["family", "student", "teacher", "method"]
COST_COLUMNS = ["run", "stage", "wall_s", "cpu_s", "startup_s", "peak_memory_mb"]
DOCUMENT_COLUMNS = ["run", "task", "document", "group", "metric", "value", "numerator"]
DOCUMENT_COLUMNS += ["denominator"]


def label(method: str) -> str:
    """How a method is written for people; `x_atkd` is `X + ATKD`."""
    base = method.removesuffix("_atkd")
    return METHODS.get(base, base) + (" + ATKD" if method.endswith("_atkd") else "")


def sort_key(cell: Cell) -> tuple[Any, ...]:
    """Orders cells: family, no teacher, teachers by size, each baseline before its ATKD."""
    family, student, teacher, method = cell
    known, base = list(METHODS), method.removesuffix("_atkd")
    rank = known.index(base) if base in known else len(known)
    place = list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES)
    return place, family, size(teacher), teacher, rank, size(student), method


def size(text: str) -> float:
    """Parameters meant by a size label such as 125m or 6.7b; `-` and unknown labels are 0."""
    unit = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower(), 0.0)
    try:
        return float(text[:-1]) * unit
    except ValueError:
        return 0.0


def is_world(config: str) -> bool:
    """Whether a configuration's tasks are the embedded world's analogues, not the real sets."""
    return config.startswith(("world", "smoke", "deviations"))


def task_label(task: str, config: str, count: int = 0) -> str:
    """A column's head: says when a task is the world's analogue, or an average lacks tasks."""
    name = TASKS.get(task, task.capitalize())
    if 0 < count < len(AVERAGES.get(task, [])):
        return f"{name} ({count} of {len(AVERAGES[task])} tasks)"
    return f"{name} (world)" if task not in AVERAGES and is_world(config) else name


@dataclass
class Scores:
    """Documents' values as matrices (runs R, documents D) per (task, metric), NaN where absent.

    A metric that is a ratio of sums has its numerators in `values` and its `denominators`.
    """

    config: str
    rows: dict[Cell, dict[int, int]]  # (family, student, teacher, method) -> seed -> row
    values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    denominators: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    groups: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    scored: dict[str, str] = field(default_factory=dict)  # task -> what its score is

    def columns(self) -> dict[str, list[str]]:
        """Column -> the tasks it averages: the paper's tasks that were run, averages, others."""
        found = {task for task, _ in self.values}
        means = {name: [t for t in tasks if t in found] for name, tasks in AVERAGES.items()}
        means = {name: tasks for name, tasks in means.items() if tasks}
        tasks = means.get("average", []) + sorted(found - set(TASKS))
        return {t: [t] for t in tasks} | means

    def metrics(self) -> list[str]:
        """What to estimate; ROUGE-L only beside a judge, for else it is the score itself."""
        own = SCORED["rouge_l"]
        other = any(m == "rouge_l" and self.scored[task] != own for task, m in self.values)
        shown = (name for name, row in METRICS.items() if row.estimated)
        return [name for name in shown if other or name != "rouge_l"]


def read_csv(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """A CSV (gzip by suffix) with at least `columns`; InputError names the file and the lack."""
    import pandas as pd

    types = dict.fromkeys([*KEYS, "config", "run", "task", "document", "group", "metric"], str)
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    missing = [name for name in columns if name not in frame]
    if missing or frame.empty:
        lack = f"column {missing[0]!r} is missing" if missing else "no rows"
        raise InputError(f"{path}: {lack}; expected {','.join(columns)}")
    return frame


def load(scores_path: str | Path, documents_path: str | Path) -> Scores:
    """Reads both files; InputError if a run has no documents or a document occurs twice."""
    frame = read_csv(scores_path, ["config", *KEYS, "seed", "task", "metric", "value", "n"])
    documents = read_csv(documents_path, DOCUMENT_COLUMNS)
    scores, runs = Scores(str(frame.config[0]), {}), {}
    for *cell, seed in frame[[*KEYS, "seed"]].drop_duplicates().itertuples(index=False):
        run = "/".join([*cell, str(seed)])
        scores.rows.setdefault(tuple(cell), {})[int(seed)] = runs[run] = len(runs)
    absent = sorted(set(runs) - set(documents.run))
    if absent:
        raise InputError(f"{documents_path}: no rows for run {absent[0]}, which {scores_path} has")
    documents = documents.assign(row=documents.run.map(runs)).dropna(subset="row")
    if documents.duplicated(["run", "task", "metric", "document"]).any():
        raise InputError(f"{documents_path}: a document occurs twice in one run and task")
    for (task, metric), part in documents.groupby(["task", "metric"]):
        _place(scores, str(task), str(metric), part, len(runs))
    for task in {task for task, _ in scores.values}:
        _score(scores, task)
    return scores


def _score(scores: Scores, task: str) -> None:
    """The task's primary metric under the name `score`, in percent also where it is a ratio."""
    own = next((m for m in PRIMARY if (task, m) in scores.values), None)
    if own is None:
        return
    rated = (task, own) in scores.denominators
    scores.scored[task] = RATED if rated else SCORED[own]
    for kept in (scores.values, scores.groups, *([scores.denominators] if rated else [])):
        kept[task, "score"] = kept[task, own]
    if rated:
        scores.values[task, "score"] = 100.0 * scores.values[task, own]


def _place(scores: Scores, task: str, metric: str, part: pd.DataFrame, runs: int) -> None:
    import numpy as np
    import pandas as pd

    codes, names = pd.factorize(part.document, sort=True)
    values_RD, below_RD = np.full((2, runs, len(names)), np.nan)
    cells = (part.row.to_numpy(int), codes)
    ratio = part.numerator.notna().any()
    values_RD[cells] = part.numerator if ratio else part.value
    scores.values[task, metric] = values_RD
    if ratio:
        below_RD[cells] = part.denominator
        scores.denominators[task, metric] = below_RD
    first = part.drop_duplicates("document").sort_values("document")
    scores.groups[task, metric] = first.group.fillna("").to_numpy(str)


def parts(scores: Scores, metric: str, sides: Sides) -> dict[str, intervals.Components | None]:
    """Components per task of a cell's mean, of several cells' mean, or of a difference.

    Over the seeds that all cells have; None for a task without the metric or a shared document.
    """
    cells = [*sides[0], *sides[1]]
    seeds = sorted(set.intersection(*(set(scores.rows[cell]) for cell in cells)))
    picked = [[scores.rows[cell][seed] for seed in seeds] for cell in cells]
    tasks = [column for column in scores.columns() if column not in AVERAGES]
    return {task: _part(scores, (task, metric), picked, len(sides[0])) for task in tasks}


def _part(
    scores: Scores, key: tuple[str, str], rows: list[list[int]], ours: int
) -> intervals.Components | None:
    if key not in scores.values or not rows[0]:
        return None
    values = [scores.values[key][side] for side in rows]
    below = scores.denominators.get(key)
    lengths = None if below is None else [below[side] for side in rows]
    groups = scores.groups[key] if key[0] in OVER_GROUPS and below is None else None
    return intervals.contrast(values[:ours], values[ours:], lengths, groups)


def names(sides: Sides) -> dict[str, Any]:
    """What a row is about: the first side's cell, `all` where its cells differ."""
    shared = [set(part) for part in zip(*sides[0], strict=True)]
    cell = [part.pop() if len(part) == 1 else "all" for part in shared]
    versus = "; ".join("/".join(cell) for cell in sides[1])
    found = {"pairs": len(sides[0]), "teacher_size": size(cell[2])}
    return found | dict(zip(KEYS, cell, strict=True)) | {"label": label(cell[3]), "versus": versus}


def estimates(scores: Scores, wanted: Iterable[Contrast]) -> list[dict[str, Any]]:
    """One row per metric, column and contrast; `iqm` only over four tasks or more.

    Rows of differences also have `detectable`.
    """
    import numpy as np

    rows = []
    for (sides, kind), metric in itertools.product(wanted, scores.metrics()):
        found = parts(scores, metric, sides)
        for column, tasks in scores.columns().items():
            known = [found[task] for task in tasks]
            if None in known:
                continue
            row = {"kind": kind, "metric": metric, "task": column, "tasks": len(tasks)}
            row["task_label"] = task_label(column, scores.config, len(tasks))
            kinds = dict.fromkeys(scores.scored.get(task, "") for task in tasks)
            row["scored"] = ", ".join(kinds) if metric == "score" else ""
            spread = np.stack([task.seed_means for task in known])
            middle = intervals.interquartile_mean(spread) if len(tasks) > 3 else math.nan
            estimate = intervals.estimate(known)
            row |= names(sides) | estimate._asdict() | {"iqm": middle}
            rows.append(row | ({"detectable": intervals.detectable(estimate)} if sides[1] else {}))
    return rows


def save_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a CSV with six decimals."""
    write_text(path, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
