"""Score files -> the table of secondary metrics: what a score does not say about a model.

`python -m atkd secondary --scores scores.csv --output tables` writes secondary.{md,tex,csv}.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.reporting.table import Table, counted
from atkd.statistics.estimates import AVERAGES, FAMILIES, KEYS, is_world, label, read_csv, sort_key

if TYPE_CHECKING:
    import pandas as pd

EASY, HARD = "bits_per_byte_easy", "bits_per_byte_hard"
# Metric -> (column head, tasks it is averaged over, digits); a metric of other tasks is not shown.
SHOWN = {
    "bits_per_byte": ("Bits/byte", AVERAGES["average"], 3),
    EASY: ("easy", AVERAGES["average"], 3),
    HARD: ("hard", AVERAGES["average"], 3),
    "option_accuracy": ("MMLU by likelihood", ["mmlu"], 1),
    "calibration_error": ("Calibration error", ["mmlu"], 1),
    "distinct_1": ("Distinct-1", AVERAGES["generation"], 1),
    "distinct_2": ("Distinct-2", AVERAGES["generation"], 1),
    "entropy": ("Entropy", AVERAGES["generation"], 2),
}
NOTES = [
    "Bits per byte of the reference, split by easy and hard tokens (they add up): easy where the "
    "row's teacher gives the token more than its median probability of the task's tokens. Lower is "
    "better, but this is what ATKD gives up on easy tokens by construction.",
    "MMLU by likelihood: percent of questions whose likeliest letter is right; calibration error "
    "of the softmax over the letters, ten bins, percent.",
    "Distinct-n: percent of n-grams that are new to a task's answers. Entropy: bits per token of "
    "the model's distributions along its own greedy answers.",
]


def means(scores: pd.DataFrame) -> dict[tuple[str, ...], dict[str, float]]:
    """Cell -> metric -> mean over the metric's tasks and seeds; `@teacher` stays in the name."""
    plain = scores.metric.str.partition("@")[0]
    tasks = {name: set(names) for name, (_, names, _) in SHOWN.items()}
    kept = [task in tasks.get(name, ()) for task, name in zip(scores.task, plain, strict=True)]
    parts = scores[kept].groupby([*KEYS, "metric", "task"]).value.mean()
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for (*cell, metric), value in parts.groupby([*KEYS, "metric"]).mean().items():
        found.setdefault(tuple(cell), {})[metric] = value
    return found


def members(cells: list[tuple[str, ...]], family: str, teacher: str) -> list[tuple[str, ...]]:
    """A teacher, the students it taught, and the same students without a teacher."""
    taught = [c for c in cells if (c[0], c[2]) == (family, teacher)]
    students = {c[1] for c in taught}
    return [*taught, *(c for c in cells if (c[0], c[2]) == (family, "-") and c[1] in students)]


def build(path: str | Path) -> list[Table]:
    """The table of a scores.csv, or none where it holds no secondary metric but bits per byte."""
    import pandas as pd

    scores = read_csv(path, ["config", *KEYS, "seed", "task", "metric", "value", "n"])
    if not set(scores.metric) & (set(SHOWN) - {"bits_per_byte"}):
        return []
    found, config = means(scores), str(scores.config[0])
    cells = sorted(found, key=sort_key)
    rows: list[list[str] | None] = []
    data: list[dict[str, Any]] = []
    for family, teacher in dict.fromkeys((c[0], c[2]) for c in cells if c[3] == "teacher"):
        rows += [None] if rows else []
        for cell in sorted(members(cells, family, teacher), key=sort_key):
            known = found[cell]
            split = f"@{teacher}" if cell[2] == "-" else ""
            values = {n: known.get(n + split if n in (EASY, HARD) else n) for n in SHOWN}
            model = (cell[2] if cell[1] == "-" else cell[1]).upper()
            shown = ["" if v is None else f"{v:.{SHOWN[n][2]}f}" for n, v in values.items()]
            title = f"{FAMILIES.get(family, family)} {teacher.upper()}"
            rows.append([title, f"{model} {label(cell[3])}", *shown])
            data.append({"split_by": teacher} | dict(zip(KEYS, cell, strict=True)) | values)
    heads = ["Teacher", "Model", *(head for head, *_ in SHOWN.values())]
    text = [*NOTES, f"{_documents(scores)} Plain means over tasks and seeds, without intervals."]
    text += ["(world): generated analogues of the paper's tasks."] if is_world(config) else []
    title = f"Secondary metrics ({config})"
    return [Table("secondary", title, heads, rows, text, pd.DataFrame(data))]


def _documents(scores: pd.DataFrame) -> str:
    """Documents per task (those that any metric shown has), and the number of seeds."""
    part = scores[scores.metric.str.partition("@")[0].isin(SHOWN)]
    counts = part.groupby("task").n.max()
    sizes = [(task, int(counts[task])) for task in AVERAGES["average"] if task in counts]
    return f"{counted(sizes)}; seeds: {scores.seed.nunique()}."


def draw(scores: str | Path, output: str | Path) -> list[Table]:
    """Writes the table, if there is one, into the folder `output`."""
    found = build(scores)
    for table in found:
        table.save(output)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd secondary", description=__doc__)
    parser.add_argument("--scores", required=True, help="scores.csv")
    parser.add_argument("--output", required=True, help="folder for the table")
    args = parser.parse_args()
    names = [table.name for table in draw(args.scores, args.output)]
    print(f"{args.output}: {', '.join(names) or 'no secondary metrics in the scores'}")
