"""Score files -> numbers with intervals: every cell, and every difference worth asking about."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd import stats
from atkd.files import InputError, write_text

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
METRICS = {"score": ("Score", "points", 2), "bits_per_byte": ("Bits per byte", "bits", 3)}
PRIMARY = ("judge", "rouge_l", "prefix_match")  # a task's score is the first of these it has
SCORED = {"judge": "the exact judge's rating (percent of 10 points) for the generation sets"}
SCORED |= {"rouge_l": "ROUGE-L F (no stemmer) for the generation sets"}
SCORED |= {"prefix_match": "prefix match for MMLU, DROP and BBH"}
RATED = (
    "a language model's rating (100 x the answers' sum / the references') for the generation sets"
)
Cell = tuple[str, str, str, str]
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
    """Documents' values as matrices (runs R, documents D) per task and metric, NaN where absent."""

    config: str
    rows: dict[Cell, dict[int, int]]  # (family, student, teacher, method) -> seed -> row
    values: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    denominators: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    scored: dict[str, str] = field(default_factory=dict)  # task -> what its score is

    def columns(self) -> dict[str, list[str]]:
        """Column -> the tasks it averages: the paper's tasks that were run, averages, others."""
        found = {task for task, _ in self.values}
        means = {name: [t for t in tasks if t in found] for name, tasks in AVERAGES.items()}
        means = {name: tasks for name, tasks in means.items() if tasks}
        tasks = means.get("average", []) + sorted(found - set(TASKS))
        return {t: [t] for t in tasks} | means


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
    found = {task: set(part) for task, part in documents.groupby("task").metric}
    for (task, metric), part in documents.groupby(["task", "metric"]):
        if metric == next((m for m in PRIMARY if m in found[task]), None):
            rated = part.numerator.notna().any()
            scores.scored[str(task)] = RATED if rated else SCORED[str(metric)]
            _place(scores, (str(task), "score"), part, len(runs))
        elif metric == "bits_per_byte":
            _place(scores, (str(task), str(metric)), part, len(runs))
    return scores


def _place(scores: Scores, key: tuple[str, str], part: pd.DataFrame, runs: int) -> None:
    import numpy as np
    import pandas as pd

    codes, names = pd.factorize(part.document, sort=True)
    values_RD, below_RD = np.full((2, runs, len(names)), np.nan)
    cells = (part.row.to_numpy(int), codes)
    scores.values[key] = values_RD
    if part.numerator.notna().any():  # a ratio of sums
        values_RD[cells] = part.numerator * (100.0 if key[1] == "score" else 1.0)
        below_RD[cells] = part.denominator
        scores.denominators[key] = below_RD
    else:
        values_RD[cells] = part.value
        first = part.drop_duplicates("document").sort_values("document")
        scores.groups[key[0]] = first.group.fillna("").to_numpy(str)


def _paired(
    scores: Scores, task: str, metric: str, sides: list[list[int]]
) -> stats.Components | None:
    values_RD = scores.values.get((task, metric))
    if values_RD is None or not sides[0]:
        return None
    below_RD = scores.denominators.get((task, metric))
    lengths = None if below_RD is None else [below_RD[rows] for rows in sides]
    groups = scores.groups[task] if (task, metric) == ("bbh", "score") else None
    return stats.paired([values_RD[rows] for rows in sides], lengths, groups)


def estimates(scores: Scores, cells: dict[tuple[Cell, ...], str]) -> list[dict[str, Any]]:
    """One row per metric, column and cell, or pair of cells (first minus second, shared seeds).

    `cells` maps (cell,) or (cell, cell) to the row's `kind`.
    """
    rows = []
    for (sides, kind), metric in itertools.product(cells.items(), METRICS):
        seeds = sorted(set.intersection(*(set(scores.rows[side]) for side in sides)))
        picked = [[scores.rows[side][seed] for seed in seeds] for side in sides]
        columns = scores.columns()
        parts = {t: _paired(scores, t, metric, picked) for t in columns if t not in AVERAGES}
        for column, tasks in columns.items():
            found = [parts[task] for task in tasks]
            if None not in found:
                names = {"kind": kind, "metric": metric, "task": column, "tasks": len(tasks)}
                names["teacher_size"] = size(sides[0][2])
                kinds = dict.fromkeys(scores.scored.get(task, "") for task in tasks)
                names["scored"] = ", ".join(kinds) if metric == "score" else ""
                names["task_label"] = task_label(column, scores.config, len(tasks))
                names |= dict(zip(KEYS, sides[0], strict=True)) | {"label": label(sides[0][-1])}
                names["versus"] = "/".join(sides[-1]) if len(sides) > 1 else ""
                rows.append(names | stats.estimate(found)._asdict())
    return rows


def contrasts(scores: Scores) -> dict[tuple[Cell, ...], str]:
    """Pairs of cells to compare: ATKD with its baseline, and the controls with each other."""
    found: dict[tuple[Cell, ...], str] = {}
    for family, student, teacher, method in scores.rows:
        here, base = (family, student, teacher, method), method.removesuffix("_atkd")
        sft, none = (family, student, "-", "sft"), (family, student, "-", "none")
        if base != method:
            found[here, (family, student, teacher, base)] = "gain"
        elif method == "sft":
            found[here, none] = f"{student} SFT > {student} untrained"
        elif teacher != "-" and method != "teacher":
            found[(family, "-", teacher, "teacher"), sft] = f"{teacher} teacher > {student} SFT"
    teachers = sorted((c for c in scores.rows if c[3] == "teacher"), key=lambda c: size(c[2]))
    for small, large in itertools.combinations(teachers, 2):
        if small[0] == large[0] and size(small[2]) < size(large[2]):
            found[large, small] = f"{large[2]} teacher > {small[2]} teacher"
    kept = {pair: kind for pair, kind in found.items() if set(pair) <= set(scores.rows)}
    return dict(sorted(kept.items(), key=lambda item: sort_key(item[0][0])))


def save_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a CSV with six decimals."""
    write_text(path, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
