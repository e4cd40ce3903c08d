"""Score files -> numbers with intervals: what a run is, every cell of it, every difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.evaluation.metrics import JUDGE, METRICS, WORDLESS, Rater, rater, score_metric
from atkd.methods import METHODS, Name, title_of
from atkd.models.families import FAMILIES, size
from atkd.runtime.files import InputError, read_json, reading, write_text
from atkd.statistics import intervals
from atkd.tasks import AVERAGE_TITLES, AVERAGES, TASKS, open_ended

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RECORD = "run.json"
ROUGE = "rouge_l"
RATED = "a language model's rating (100 x the answers' sum / the references')"
KEYS = ["family", "student", "teacher", "method"]
# The columns read here.
SCORES = [*KEYS, "seed", "task", "metric", "value", "n"]
DOCUMENTS = ["run", "task", "document", "group", "metric", "value", "numerator", "denominator"]
UNRANKED = 1000  # behind all that a registry knows
SHARED = 0  # seed of a model that the runs of all seeds share (`seeds_cover` of a configuration)


class Cell(NamedTuple):
    """A model of the grid, seeds apart; `-` stands for no student, or no teacher."""

    family: str
    student: str
    teacher: str
    method: str


@dataclass(frozen=True)
class RunRecord:
    """What a run says of itself (`run.json`, beside its scores).

    `source`: where its data came from (world, local, hub, url). `tasks` are those of the averages,
    `extra_tasks` others. `judge`: whether a language model was to rate answers. `analyses`: those
    beside the main grid. `runs`: the key family/student/teacher/method/seed of every model.
    """

    config: str
    source: str
    seeds: list[int]
    tasks: list[str]
    extra_tasks: list[str]
    families: list[str]
    pairs: list[dict[str, str]]
    methods: list[str]
    judge: bool
    analyses: list[str]
    runs: list[str]

    @property
    def world(self) -> bool:
        """Whether the tasks are the embedded world's analogues, whatever the run is called."""
        return self.source == "world"

    @property
    def rater(self) -> Rater:
        """Who rates open-ended answers, so that the rating is their score."""
        return rater(self.source, self.judge)

    @property
    def all_tasks(self) -> list[str]:
        """Every task that was asked."""
        return [*self.tasks, *self.extra_tasks]

    @property
    def cells(self) -> list[Cell]:
        """The models of the grid, each once."""
        return list(dict.fromkeys(Cell(*key.split("/")[:4]) for key in self.runs))


def read_record(path: str | Path) -> RunRecord:
    """A run's record.

    Args:
        path: the file `run.json`.

    Raises:
        InputError: the file is missing or no JSON object, or lacks a key.
    """
    if not Path(path).is_file():
        raise InputError(
            f"{path}: file not found; expected the run's record (source of data, tasks and the "
            "grid of models), which a run writes beside its scores.csv"
        )
    found = read_json(path)
    names = [one.name for one in fields(RunRecord)]
    missing = [name for name in names if not isinstance(found, dict) or name not in found]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing; expected {', '.join(names)}")
    return RunRecord(**{name: found[name] for name in names})


@dataclass(frozen=True)
class Contrast:
    """What to estimate: the mean of cells, less the mean of others where there are any."""

    ours: tuple[Cell, ...]
    theirs: tuple[Cell, ...] = ()
    kind: str = "cell"


def sort_key(cell: tuple[str, ...]) -> tuple[Any, ...]:
    """Orders cells: family, no teacher, teachers by size, each baseline before what wraps it.

    A method under settings of its own stands behind the one without.
    """
    family, student, teacher, method = cell
    families, methods = list(FAMILIES), ["teacher", *METHODS]
    row = Name.of(method).row
    base = METHODS[row].base or row if row in METHODS else row
    rank = methods.index(base) if base in methods else UNRANKED
    place = families.index(family) if family in families else UNRANKED
    return place, family, size(teacher), teacher, rank, size(student), method


def as_configured(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose method has no settings of its own in its name."""
    return frame[[not Name.of(method).settings for method in frame.method]]


def task_label(task: str, world: bool, count: int = 0) -> str:
    """A column's head: says when a task is the world's analogue, or an average lacks tasks."""
    if task not in AVERAGES:
        name = TASKS[task].title if task in TASKS else task.capitalize()
        return f"{name} (world)" if world else name
    whole = len(AVERAGES[task])
    lack = f" ({count} of {whole} tasks)" if 0 < count < whole else ""
    return AVERAGE_TITLES[task] + lack


def scored_by(task: str, spoken: str) -> str:
    """What a task's score is, and the tasks that share it: `prefix match for MMLU and DROP`."""
    if open_ended(task):
        return f"{spoken} for the generation sets"
    own = TASKS[task].metric
    kin = [row.title for row in TASKS.values() if row.average and row.metric == own]
    *most, last = kin or [TASKS[task].title]
    return f"{spoken} for {', '.join(most)} and {last}" if most else f"{spoken} for {last}"


@dataclass
class Scores:
    """Documents' values as matrices (runs R, documents D) per (task, metric), NaN where absent.

    A metric that is a ratio of sums has its numerators in `values` and its `denominators`. `own`
    is the metric that a task's score is, `scored` the same in words; `wordless` is what the
    function of this name found.
    """

    record: RunRecord
    rows: dict[Cell, dict[int, int]]  # cell -> seed -> row
    values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    denominators: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    groups: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    scored: dict[str, str] = field(default_factory=dict)
    wordless: dict[str, tuple[int, int]] = field(default_factory=dict)

    def columns(self) -> dict[str, list[str]]:
        """Column -> the tasks it averages: the paper's tasks that were run, averages, others."""
        found = {task for task, _ in self.values}
        means = {name: [t for t in tasks if t in found] for name, tasks in AVERAGES.items()}
        means = {name: tasks for name, tasks in means.items() if tasks}
        others = sorted(found - set(AVERAGES["average"]))
        return {t: [t] for t in means.get("average", []) + others} | means

    def wordless_in(self, metric: str, columns: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The part of `wordless` that shows in columns of a metric: where that is ROUGE-L."""
        tasks = {task for column in columns for task in self.columns()[column]}
        if metric == "score":
            tasks = {task for task in tasks if self.own.get(task) == ROUGE}
        told = tasks if metric in ("score", ROUGE) else ()
        return {task: counts for task, counts in self.wordless.items() if task in told}

    def metrics(self) -> list[str]:
        """What to estimate; ROUGE-L only beside a judge, for else it is the score itself."""
        told = any(m == ROUGE and self.own.get(task) != m for task, m in self.values)
        shown = [name for name, row in METRICS.items() if row.estimated]
        return [name for name in shown if told or name != ROUGE]


def read_csv(path: str | Path, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV file (gzip by suffix), names read as text.

    Args:
        path: the file.
        columns: names that it must have.

    Raises:
        InputError: names the file that cannot be read, the column it lacks, or that it is empty.
    """
    import pandas as pd

    names = ("config", "run", "task", "document", "group", "metric")
    types = dict.fromkeys([*KEYS, *names], str)
    with reading(path):
        try:
            frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
        except ValueError as error:
            raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    missing = [name for name in columns if name not in frame]
    if missing or frame.empty:
        lack = f"column {missing[0]!r} is missing" if missing else "no rows"
        raise InputError(f"{path}: {lack}; expected {','.join(columns)}")
    return frame


def load(
    scores_path: str | Path, documents_path: str | Path, record_path: str | Path | None = None
) -> Scores:
    """Documents' values of all models that have scores.

    Args:
        scores_path: scores.csv, which says what models there are.
        documents_path: documents.csv.gz.
        record_path: the run's record; run.json beside the scores where none is given.

    Raises:
        InputError: a file is missing or damaged, a run has no documents, or a document occurs twice
            in one run and task.
    """
    frame = read_csv(scores_path, SCORES)
    documents = read_csv(documents_path, DOCUMENTS)
    record = read_record(record_path or Path(scores_path).with_name(RECORD))
    return scores_of(frame, documents, record, documents_path)


def scores_of(
    frame: pd.DataFrame, documents: pd.DataFrame, record: RunRecord, name: str | Path
) -> Scores:
    """The same from tables that were read; `name` is the documents' in messages."""
    scores = Scores(record, {})
    scores.wordless = wordless(documents)
    runs: dict[str, int] = {}
    for *cell, seed in frame[[*KEYS, "seed"]].drop_duplicates().itertuples(index=False):
        run = "/".join([*cell, str(seed)])
        scores.rows.setdefault(Cell(*cell), {})[int(seed)] = runs[run] = len(runs)
    absent = sorted(set(runs) - set(documents.run))
    if absent:
        raise InputError(f"{name}: no rows for run {absent[0]}, which has scores")
    documents = documents.assign(row=documents.run.map(runs)).dropna(subset="row")
    if documents.duplicated(["run", "task", "metric", "document"]).any():
        raise InputError(f"{name}: a document occurs twice in one run and task")
    for (task, metric), part in documents.groupby(["task", "metric"]):
        _place(scores, str(task), str(metric), part, len(runs))
    for task in {task for task, _ in scores.values}:
        _score(scores, task)
    return scores


def wordless(documents: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Tasks with references that ROUGE-L cannot compare -> how many, of how many."""
    part = documents[documents.metric == WORDLESS].drop_duplicates(["task", "document"])
    return {
        str(task): (int((rows.value > 0).sum()), len(rows)) for task, rows in part.groupby("task")
    }


def _score(scores: Scores, task: str) -> None:
    """The task's own metric under the name `score`, in percent also where it is a ratio."""
    own = score_metric(task, scores.record.rater) if task in TASKS else ""
    if (task, own) not in scores.values:
        if own == JUDGE:
            raise InputError(
                f"{RECORD}: a judge is to rate the answers to {task}, and the documents hold no "
                "rating; expected its ratings or another record"
            )
        return
    rated, row = (task, own) in scores.denominators, METRICS[own]
    scores.own[task] = own
    scores.scored[task] = scored_by(task, RATED if rated else row.score or row.words)
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


def parts(
    scores: Scores, metric: str, wanted: Contrast, columns: Iterable[str] = ()
) -> dict[str, intervals.Components | None]:
    """Variance components, per task, of a cell's mean, of several cells', or of a difference.

    Args:
        scores: the values.
        metric: a name of `Scores.values`.
        wanted: the cells; over the seeds that all of them have, where a model that the runs of all
            seeds share counts as one of each.
        columns: those whose tasks are wanted, all where none is named.

    Returns:
        Task -> components; None for a task without the metric or without a shared document.
    """
    picked = _picked(scores, [*wanted.ours, *wanted.theirs])
    known = scores.columns()
    tasks = dict.fromkeys(task for column in columns or known for task in known[column])
    return {task: _part(scores, (task, metric), picked, len(wanted.ours)) for task in tasks}


def _picked(scores: Scores, cells: list[Cell]) -> list[list[int]]:
    """Each cell's rows at the seeds that all have; one that all seeds share stands for each."""
    own = [scores.rows[cell] for cell in cells]
    apart = [set(rows) for rows in own if {*rows} != {SHARED} or SHARED in scores.record.seeds]
    seeds = sorted(set.intersection(*apart)) if apart else [SHARED]
    return [[rows[seed] if seed in rows else rows[SHARED] for seed in seeds] for rows in own]


def _part(
    scores: Scores, key: tuple[str, str], rows: list[list[int]], ours: int
) -> intervals.Components | None:
    if key not in scores.values or not rows[0]:
        return None
    values = [scores.values[key][side] for side in rows]
    below = scores.denominators.get(key)
    lengths = None if below is None else [below[side] for side in rows]
    over_groups = key[0] in TASKS and TASKS[key[0]].over_groups and below is None
    groups = scores.groups[key] if over_groups else None
    return intervals.contrast(values[:ours], values[ours:], lengths, groups)


def names(wanted: Contrast) -> dict[str, Any]:
    """What a row is about: the first side's cell, `all` where its cells differ."""
    shared = [set(part) for part in zip(*wanted.ours, strict=True)]
    cell = Cell(*(part.pop() if len(part) == 1 else "all" for part in shared))
    return {
        "pairs": len(wanted.ours),
        "teacher_size": size(cell.teacher),
        **cell._asdict(),
        "label": title_of(cell.method),
        "versus": "; ".join("/".join(other) for other in wanted.theirs),
    }


def estimates(
    scores: Scores,
    wanted: Iterable[Contrast],
    metrics: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Every contrast on every metric and column (task or average), or on those that are named.

    Args:
        scores: the values.
        wanted: what to estimate.
        metrics, columns: names of them; all where none is given.

    Returns:
        Rows with what they are about, the fields of `intervals.Estimate`, and `iqm` (over four
        tasks or more, else NaN); rows of differences also have `detectable`. In the metric's unit.
    """
    rows = []
    for contrast, metric in itertools.product(wanted, metrics or scores.metrics()):
        found = parts(scores, metric, contrast, columns)
        for column, tasks in scores.columns().items():
            if columns and column not in columns:
                continue
            known = [part for part in map(found.get, tasks) if part is not None]
            if len(known) == len(tasks):
                rows.append(_row(scores, contrast, metric, column, tasks, known))
    return rows


def average(scores: Scores, contrast: Contrast) -> dict[str, Any]:
    """The row of `estimates` on the average score."""
    (row,) = estimates(scores, [contrast], ("score",), ("average",))
    return row


def _row(
    scores: Scores,
    contrast: Contrast,
    metric: str,
    column: str,
    tasks: list[str],
    known: list[intervals.Components],
) -> dict[str, Any]:
    import numpy as np

    kinds = dict.fromkeys(scores.scored.get(task, "") for task in tasks)
    seed_means_TS = np.stack([task.seed_means for task in known])
    estimate = intervals.estimate(known)
    row = {
        "kind": contrast.kind,
        "metric": metric,
        "task": column,
        "tasks": len(tasks),
        "task_label": task_label(column, scores.record.world, len(tasks)),
        "scored": ", ".join(kinds) if metric == "score" else "",
        **names(contrast),
        **estimate._asdict(),
        "iqm": intervals.interquartile_mean(seed_means_TS) if len(tasks) > 3 else math.nan,
    }
    return row | ({"detectable": intervals.detectable(estimate)} if contrast.theirs else {})


def save_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a CSV with six decimals."""
    write_text(path, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
