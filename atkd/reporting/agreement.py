"""What judges say beside ROUGE-L: their agreement, and a language model's ratings per model.

Everything comes from documents.csv.gz, so that it can be redrawn from a frozen run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.reporting.table import counted
from atkd.statistics.estimates import (
    AVERAGES,
    DOCUMENT_COLUMNS,
    KEYS,
    label,
    read_csv,
    sort_key,
    task_label,
)

if TYPE_CHECKING:
    import pandas as pd

JUDGE, ORDER, UNREAD = "judge", "judge_order", "judge_unparsable"
OTHERS = {"rouge_l": "ROUGE-L", "judge_exact": "exact judge"}
LEAST = 3  # points that a correlation needs to say anything


def correlation(first: pd.Series, second: pd.Series) -> tuple[float, float]:
    """Pearson's and Spearman's coefficients, NaN for too few points or a constant."""
    if len(first) < LEAST or first.nunique() < 2 or second.nunique() < 2:
        return math.nan, math.nan
    return float(first.corr(second)), float(first.rank().corr(second.rank()))


def answer_values(documents: pd.DataFrame, other: str) -> pd.DataFrame:
    """One row per answer both metrics rated: run, task, judge, other, and the judge's two sums."""
    keys = ["run", "task", "document"]
    rated = documents[documents.metric == JUDGE].set_index(keys)
    ratio = rated.numerator.notna()
    # The exact judge's percent is a ratio too: of its rating to ten points.
    frame = rated.assign(
        ours=rated.numerator.where(ratio, rated.value / 10), best=rated.denominator.where(ratio, 10)
    )[["ours", "best"]]
    frame["other"] = documents[documents.metric == other].set_index(keys).value
    frame["judge"] = 100 * frame.ours / frame.best
    return frame.dropna().reset_index()


def run_means(values: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Each run's plain mean over `tasks` of both metrics; runs that lack a task are left out."""
    sums = values[values.task.isin(tasks)].groupby(["run", "task"])
    means = sums[["other"]].mean()
    means["judge"] = 100 * sums.ours.sum() / sums.best.sum()
    means = means[means.groupby("run").other.transform("size") == len(tasks)]
    return means.groupby("run").mean()


def agreement(documents: pd.DataFrame, other: str) -> pd.DataFrame:
    """Correlation of the judge with another metric, per task and over the generation sets."""
    import pandas as pd

    values, rows = answer_values(documents, other), []
    found = set(values.task)
    known = [task for task in AVERAGES["generation"] if task in found]
    groups = {task: [task] for task in known + sorted(found - set(known))}
    groups |= {"generation": known} if len(known) > 1 else {}
    for name, tasks in groups.items():
        part, means = values[values.task.isin(tasks)], run_means(values, tasks)
        row: dict[str, Any] = {"task": name, "against": other, "tasks": len(tasks)}
        row |= {"answers": len(part)}
        row["pearson"], row["spearman"] = correlation(part.judge, part.other)
        row["runs"] = len(means)
        row["pearson_means"], row["spearman_means"] = correlation(means.judge, means.other)
        rows.append(row)
    return pd.DataFrame(rows)


def ratings(documents: pd.DataFrame) -> pd.DataFrame:
    """A language model's ratings of each model's answers, generation sets and seeds pooled."""
    import pandas as pd

    part = documents[documents.task.isin(AVERAGES["generation"])]
    rows = []
    for cell, found in part.groupby(part.run.str.rpartition("/")[0], sort=False):
        rated = found[found.metric == JUDGE]
        lead = rated.numerator - rated.denominator
        row: dict[str, Any] = dict(zip(KEYS, str(cell).split("/"), strict=True))
        row |= {"answers": len(rated)}
        row["score"] = 100 * rated.numerator.sum() / rated.denominator.sum() if len(rated) else None
        row |= {"mean_difference": lead.mean(), "wins": (lead > 0).sum(), "ties": (lead == 0).sum()}
        row |= {"losses": (lead < 0).sum()}
        row |= {"order_effect": found.value[found.metric == ORDER].mean()}
        row |= {"unparsable": found.value[found.metric == UNREAD].mean()}
        rows.append(row)
    rows.sort(key=lambda row: sort_key(tuple(row[key] for key in KEYS)))
    return pd.DataFrame(rows)


def shown(value: float, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def rated_part(documents: pd.DataFrame) -> str:
    """What the judge rated: documents per task, and the number of seeds."""
    rated = documents[documents.metric == JUDGE]
    counts = rated.groupby("task").document.nunique()
    known = [task for task in AVERAGES["generation"] if task in counts]
    known += sorted(set(counts.index) - set(known))
    seeds = rated.run.str.rpartition("/")[2].nunique()
    return f"{counted((task, int(counts[task])) for task in known)}; seeds: {seeds}."


def agreement_table(documents: pd.DataFrame, config: str) -> tuple[Any, ...]:
    """The parts of a table: name, title, heads, rows, notes, data."""
    import pandas as pd

    others = [name for name in OTHERS if (documents.metric == name).any()]
    frame = pd.concat([agreement(documents, name) for name in others])
    heads = ["Task", "Judge against", "Answers", "Pearson", "Spearman"]
    heads += ["Models", "Pearson of means", "Spearman of means"]
    numbers = ("pearson", "spearman", "pearson_means", "spearman_means")
    rows = []
    for row in frame.itertuples():
        first, second, third, fourth = (shown(getattr(row, name), 2) for name in numbers)
        names = [task_label(row.task, config, row.tasks), OTHERS[row.against]]
        rows.append([*names, str(row.answers), first, second, str(row.runs), third, fourth])
    notes = [
        "Correlation over single answers, all models and seeds pooled, and over the models' means "
        f"(each seed its own model). A dash: fewer than {LEAST} points, or all the same.",
        rated_part(documents),
    ]
    return "judge_agreement", f"Agreement of the judge ({config})", heads, rows, notes, frame


def ratings_table(documents: pd.DataFrame, config: str) -> tuple[Any, ...]:
    """The parts of a table of a language model's ratings."""
    frame = ratings(documents)
    heads = ["Model", "Method", "Answers", "Score", "Mean difference", "Wins", "Ties", "Losses"]
    heads += ["Order effect", "Unreadable %"]
    rows = []
    for row in frame.itertuples():
        model = " ← ".join(size.upper() for size in (row.student, row.teacher) if size != "-")
        counts = [str(count) for count in (row.wins, row.ties, row.losses)]
        means = [shown(row.score, 2), shown(row.mean_difference, 2), *counts]
        rest = [shown(row.order_effect, 2), shown(row.unparsable, 1)]
        rows.append([model, label(row.method), str(row.answers), *means, *rest])
    notes = [
        "Ratings from 1 to 10 of the answer and of the reference, all generation sets pooled. "
        "Score: 100 x sum of the answers' / sum of the references'. Mean difference and wins: the "
        "answer against the reference. Order effect: points that standing first is worth (dash: "
        "one order asked). Answers with a reply that could not be read are left out.",
        rated_part(documents[documents.task.isin(AVERAGES["generation"])]),
    ]
    return "judge_ratings", f"Ratings by a language model ({config})", heads, rows, notes, frame


def judge_tables(path: str | Path, config: str) -> list[tuple[Any, ...]]:
    """Parts of the tables that a run's documents have the rows for; none where no judge ran."""
    documents = read_csv(path, DOCUMENT_COLUMNS)
    rated = documents[documents.metric == JUDGE]
    if rated.empty:
        return []
    made = [agreement_table(documents, config)] if documents.metric.isin(OTHERS).any() else []
    return made + ([ratings_table(documents, config)] if rated.numerator.notna().any() else [])
