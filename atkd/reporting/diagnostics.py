"""Tables beside the scores: what judges, secondary metrics, costs and analyses say of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.evaluation.metrics import JUDGE, METRICS, UNREAD
from atkd.methods import SWITCHES, Name, title_of
from atkd.models.families import family_title
from atkd.reporting import registry
from atkd.reporting.inputs import Run
from atkd.reporting.score_tables import judged
from atkd.reporting.table import (
    MINUS,
    Table,
    arrow,
    counted,
    detectable_note,
    number,
    studied_note,
    wordless_note,
)
from atkd.runtime.files import InputError
from atkd.statistics.estimates import (
    KEYS,
    Cell,
    Contrast,
    Scores,
    estimates,
    sort_key,
    task_label,
    wordless,
)
from atkd.tasks import AVERAGE_TITLES, AVERAGES

if TYPE_CHECKING:
    import pandas as pd

Rows = list[list[str] | None]


# Where the time went.

PHASES = {
    **dict.fromkeys(["base", "teacher", "student", "cache", "text"], "training"),
    **dict.fromkeys(["evaluate", "generate"], "evaluation"),
}


def phases(costs: pd.DataFrame) -> pd.DataFrame:
    """Seconds by stage: jobs, start-up, own work, wall, CPU; every job's wall time counts once."""
    costs = costs.assign(phase=costs.stage.map(PHASES).fillna("rest"))
    costs["startup_s"] = costs.startup_s.fillna(0.0).clip(upper=costs.wall_s)
    costs["work_s"] = costs.wall_s - costs.startup_s
    jobs = costs.groupby(["phase", "stage"], sort=False)
    table = jobs[["startup_s", "work_s", "wall_s", "cpu_s"]].sum()
    table.insert(0, "jobs", jobs.size())
    table["peak_memory_mb"] = jobs.peak_memory_mb.max()
    return table.reset_index().sort_values(["phase", "wall_s"], ascending=[False, False])


def time_split(table: pd.DataFrame) -> dict[str, float]:
    """Job seconds of start-up, training, evaluation and the rest, from `phases`."""
    parts = {"start-up": float(table.startup_s.sum())}
    for phase in ("training", "evaluation", "rest"):
        parts[phase] = float(table.work_s[table.phase == phase].sum())
    return parts


@registry.table(
    "costs",
    category="Costs",
    section="costs",
    caption=(
        "Seconds by stage, summed over jobs: start-up (imports, loading), work, wall and CPU time, "
        "and peak memory."
    ),
)
def cost_table(run: Run) -> Table | None:
    """Where the time went."""
    if run.costs is None:
        return None
    table = phases(run.costs)
    split = time_split(table)
    total = sum(split.values()) or 1.0
    numbers = table[["startup_s", "work_s", "wall_s", "cpu_s", "peak_memory_mb"]]
    rows: Rows = [
        [row.phase, row.stage, str(row.jobs), *(f"{v:,.1f}" for v in numbers.loc[row.Index])]
        for row in table.itertuples()
    ]
    sums = [*(f"{v:,.1f}" for v in numbers.sum()[:4]), f"{numbers.peak_memory_mb.max():,.1f}"]
    parts = ", ".join(f"{name} {s:,.0f} s ({s / total:.0%})" for name, s in split.items())
    scored = run.costs.run[run.costs.stage == "evaluate"]
    seeds = scored.str.split("/").str[-1].nunique()
    return Table(
        f"Where the time went ({run.title})",
        ["Phase", "Stage", "Jobs", "Start-up s", "Work s", "Wall s", "CPU s", "Peak MB"],
        [*rows, None, ["all", "", str(table.jobs.sum()), *sums]],
        [
            f"Seconds summed over jobs (several may run at once): {parts}.",
            f"Models scored: {len(scored)}; seeds: {seeds}.",
        ],
        table,
    )


# The judge beside ROUGE-L, and a language model's ratings.

ORDER = "judge_order"
OTHERS = ("rouge_l", "judge_exact")  # what a judge is held against
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
    # The exact judge's percent is a ratio to 100.
    frame = rated.assign(
        ours=rated.numerator.where(ratio, rated.value), best=rated.denominator.where(ratio, 100)
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

    values = answer_values(documents, other)
    found = set(values.task)
    known = [task for task in AVERAGES["generation"] if task in found]
    groups = {task: [task] for task in known + sorted(found - set(known))}
    groups |= {"generation": known} if len(known) > 1 else {}
    rows = [_agreement_row(values, name, tasks) for name, tasks in groups.items()]
    frame = pd.DataFrame(rows)
    frame.insert(1, "against", other)
    return frame


def _agreement_row(values: pd.DataFrame, name: str, tasks: list[str]) -> dict[str, Any]:
    part, means = values[values.task.isin(tasks)], run_means(values, tasks)
    pearson, spearman = correlation(part.judge, part.other)
    pearson_means, spearman_means = correlation(means.judge, means.other)
    return {
        "task": name,
        "tasks": len(tasks),
        "answers": len(part),
        "pearson": pearson,
        "spearman": spearman,
        "runs": len(means),
        "pearson_means": pearson_means,
        "spearman_means": spearman_means,
    }


def ratings(documents: pd.DataFrame) -> pd.DataFrame:
    """A language model's ratings of each model's answers, generation sets and seeds pooled."""
    import pandas as pd

    part = documents[documents.task.isin(AVERAGES["generation"])]
    found = part.groupby(part.run.str.rpartition("/")[0], sort=False)
    rows = [_ratings_row(Cell(*str(key).split("/")), rows) for key, rows in found]
    rows.sort(key=lambda row: sort_key(tuple(row[key] for key in KEYS)))
    return pd.DataFrame(rows)


def _ratings_row(cell: Cell, found: pd.DataFrame) -> dict[str, Any]:
    rated = found[found.metric == JUDGE]
    lead = rated.numerator - rated.denominator
    score = 100 * rated.numerator.sum() / rated.denominator.sum() if len(rated) else None
    return {
        **cell._asdict(),
        "answers": len(rated),
        "score": score,
        "mean_difference": lead.mean(),
        "wins": (lead > 0).sum(),
        "ties": (lead == 0).sum(),
        "losses": (lead < 0).sum(),
        "order_effect": found.value[found.metric == ORDER].mean(),
        "unparsable": found.value[found.metric == UNREAD].mean(),
    }


def shown(value: float | None, digits: int, none: str = "-") -> str:
    """A number, or a dash where there is none."""
    return none if value is None or value != value else f"{value:.{digits}f}"


def rated_part(documents: pd.DataFrame) -> str:
    """What the judge rated: documents per task, and the number of seeds."""
    rated = documents[documents.metric == JUDGE]
    counts = rated.groupby("task").document.nunique()
    known = [task for task in AVERAGES["generation"] if task in counts]
    known += sorted(set(counts.index) - set(known))
    seeds = rated.run.str.rpartition("/")[2].nunique()
    return f"{counted((task, int(counts[task])) for task in known)}; seeds: {seeds}."


@registry.table(
    "judge_agreement",
    category="Judge",
    applies=judged,
    caption=(
        "The judge beside ROUGE-L: correlation over single answers and over the models' means; "
        "and, where a language model judged, its ratings of the answers against those of the "
        "references."
    ),
)
def agreement_table(run: Run) -> Table | None:
    """The judge's correlation with every other rating of the same answers."""
    import pandas as pd

    documents = run.documents
    others = [name for name in OTHERS if (documents.metric == name).any()]
    if not others or not (documents.metric == JUDGE).any():
        return None
    frame = pd.concat([agreement(documents, name) for name in others])
    rows: Rows = [
        [
            task_label(row.task, run.world, row.tasks),
            METRICS[row.against].words,
            str(row.answers),
            shown(row.pearson, 2),
            shown(row.spearman, 2),
            str(row.runs),
            shown(row.pearson_means, 2),
            shown(row.spearman_means, 2),
        ]
        for row in frame.itertuples()
    ]
    means = ["Models", "Pearson of means", "Spearman of means"]
    return Table(
        f"Agreement of the judge ({run.title})",
        ["Task", "Judge against", "Answers", "Pearson", "Spearman", *means],
        rows,
        [
            "Correlation over single answers, all models and seeds pooled, and over the models' "
            f"means (each seed its own model). A dash: fewer than {LEAST} points, or all the same.",
            rated_part(documents),
            *wordless_note(wordless(documents), run.world),
        ],
        frame,
    )


@registry.table(
    "judge_ratings",
    category="Judge",
    applies=lambda record: record.judge and judged(record),
    caption=(
        "The judge beside ROUGE-L: correlation over single answers and over the models' means; "
        "and, where a language model judged, its ratings of the answers against those of the "
        "references."
    ),
)
def ratings_table(run: Run) -> Table | None:
    """A language model's ratings of every model's answers."""
    rated = run.documents[run.documents.metric == JUDGE]
    if not rated.numerator.notna().any():
        return None
    frame = ratings(run.documents)
    rows: Rows = [
        [
            arrow((row.family, row.student, row.teacher)),
            title_of(row.method),
            str(row.answers),
            shown(row.score, 2),
            shown(row.mean_difference, 2),
            *(str(count) for count in (row.wins, row.ties, row.losses)),
            shown(row.order_effect, 2),
            shown(row.unparsable, 1),
        ]
        for row in frame.itertuples()
    ]
    heads = ["Answers", "Score", "Mean difference", "Wins", "Ties", "Losses", "Order effect"]
    return Table(
        f"Ratings by a language model ({run.title})",
        ["Model", "Method", *heads, "Unreadable %"],
        rows,
        [
            "Ratings from 1 to 10 of the answer and of the reference, all generation sets pooled. "
            "Score: 100 x sum of the answers' / sum of the references'. Mean difference and wins: "
            "the answer against the reference. Order effect: points that standing first is worth "
            "(dash: one order asked). Answers with a reply that could not be read are left out.",
            rated_part(run.documents[run.documents.task.isin(AVERAGES["generation"])]),
        ],
        frame,
    )


# Secondary metrics: what a score does not say about a model.


class Secondary(NamedTuple):
    """A column: its head, the tasks it is averaged over (others are not shown), and its digits."""

    head: str
    tasks: tuple[str, ...]
    digits: int


EASY, HARD = "bits_per_byte_easy", "bits_per_byte_hard"
SECONDARY = {
    "bits_per_byte": Secondary("Bits/byte", AVERAGES["average"], 3),
    EASY: Secondary("easy", AVERAGES["average"], 3),
    HARD: Secondary("hard", AVERAGES["average"], 3),
    "option_accuracy": Secondary("MMLU by likelihood", ("mmlu",), 1),
    "calibration_error": Secondary("Calibration error", ("mmlu",), 1),
    "distinct_1": Secondary("Distinct-1", AVERAGES["generation"], 1),
    "distinct_2": Secondary("Distinct-2", AVERAGES["generation"], 1),
    "entropy": Secondary("Entropy", AVERAGES["generation"], 2),
}
ABOUT_SECONDARY = [
    "Bits per byte of the reference, split by easy and hard tokens (they add up): easy where the "
    "row's teacher gives the token more than its median probability of the task's tokens. Lower is "
    "better, but this is what ATKD gives up on easy tokens by construction.",
    "MMLU by likelihood: percent of questions whose likeliest letter is right; calibration error "
    "of the softmax over the letters, ten bins, percent.",
    "Distinct-n: percent of n-grams that are new to a task's answers. Entropy: bits per token of "
    "the model's distributions along its own greedy answers.",
]


def means(scores: pd.DataFrame) -> dict[Cell, dict[str, float]]:
    """Cell -> metric -> mean over the metric's tasks and seeds; `@teacher` stays in the name."""
    plain = scores.metric.str.partition("@")[0]
    wanted = {(task, name) for name, column in SECONDARY.items() for task in column.tasks}
    kept = [pair in wanted for pair in zip(scores.task, plain, strict=True)]
    parts = scores[kept].groupby([*KEYS, "metric", "task"]).value.mean()
    found: dict[Cell, dict[str, float]] = {}
    for (*cell, metric), value in parts.groupby([*KEYS, "metric"]).mean().items():
        found.setdefault(Cell(*cell), {})[metric] = value
    return found


def members(cells: list[Cell], family: str, teacher: str) -> list[Cell]:
    """A teacher, the students it taught, and the same students without a teacher."""
    taught = [c for c in cells if (c.family, c.teacher) == (family, teacher)]
    students = {c.student for c in taught}
    alone = [c for c in cells if (c.family, c.teacher) == (family, "-") and c.student in students]
    return sorted([*taught, *alone], key=sort_key)


@registry.table(
    "secondary",
    category="Secondary metrics",
    caption=(
        "Secondary metrics: bits per byte on easy and on hard tokens, accuracy and calibration by "
        "likelihood, diversity and entropy of answers. Descriptive: means over tasks and seeds, no "
        "intervals."
    ),
)
def secondary(run: Run) -> Table | None:
    """A block of rows per teacher; none where there is no secondary metric but bits per byte."""
    import pandas as pd

    scores = run.score_rows
    if not set(scores.metric) & (set(SECONDARY) - {"bits_per_byte"}):
        return None
    found = means(scores)
    rows: Rows = []
    data: list[dict[str, Any]] = []
    for lead in (cell for cell in sorted(found, key=sort_key) if cell.method == "teacher"):
        rows += [None] if rows else []
        for cell in members(list(found), lead.family, lead.teacher):
            values = _secondary_values(found[cell], cell, lead.teacher)
            rows += [] if Name.of(cell.method).settings else [_secondary_row(cell, lead, values)]
            data.append({"split_by": lead.teacher, **cell._asdict(), **values})
    counts = f"{_documents(scores)} Plain means over tasks and seeds, without intervals."
    analogues = "(world): generated analogues of the paper's tasks."
    return Table(
        f"Secondary metrics ({run.title})",
        ["Teacher", "Model", *(column.head for column in SECONDARY.values())],
        rows,
        [*ABOUT_SECONDARY, counts, *studied_note(found), *([analogues] if run.world else [])],
        pd.DataFrame(data),
    )


def _secondary_values(known: dict[str, float], cell: Cell, teacher: str) -> dict[str, float | None]:
    """A student without a teacher has a split of easy and hard tokens by each of its pairs'."""
    split = f"@{teacher}" if cell.teacher == "-" else ""
    return {name: known.get(name + split if name in (EASY, HARD) else name) for name in SECONDARY}


def _secondary_row(cell: Cell, lead: Cell, values: dict[str, float | None]) -> list[str]:
    model = cell.teacher if cell.student == "-" else cell.student
    numbers = [shown(value, SECONDARY[name].digits, "") for name, value in values.items()]
    teacher = f"{family_title(lead.family)} {lead.teacher.upper()}"
    return [teacher, f"{model.upper()} {title_of(cell.method)}", *numbers]


def _documents(scores: pd.DataFrame) -> str:
    """Documents per task (those that any metric shown has), and the number of seeds."""
    part = scores[scores.metric.str.partition("@")[0].isin(SECONDARY)]
    counts = part.groupby("task").n.max()
    sizes = [(task, int(counts[task])) for task in AVERAGES["average"] if task in counts]
    return f"{counted(sizes)}; seeds: {scores.seed.nunique()}."


# What each of the released code's departures from the paper is worth: variant minus plain.

TOGETHER = "all of them together"


def variants(cells: list[Cell]) -> list[Contrast]:
    """Variant against plain, of every switch of which both were run."""
    found = []
    for cell in cells:
        name = Name.of(cell.method)
        plain = cell._replace(method=name.row)
        if name.switches and not name.settings and plain in cells:
            found.append(Contrast((cell,), (plain,), "+".join(name.switches)))
    return found


@registry.table(
    "deviations",
    category="Deviations",
    applies=lambda record: bool(variants(record.cells)),
    caption=(
        "What each departure of the released code from the paper moves, in points: variant minus "
        "plain method, single comparisons, uncorrected."
    ),
)
def deviations(run: Run) -> Table:
    """A row per switch and method: differences in points with intervals, least seeds below."""
    data = _variant_rows(run.scores)
    order = [*SWITCHES, "released"]
    rows: Rows = []
    for switch, part in sorted(data.groupby("switch"), key=lambda item: _place(order, item[0])):
        rows.append(None)
        for key, cell in part.groupby(["family", "teacher", "method"], sort=False):
            by_task = {row.task: row for row in cell.itertuples()}
            meaning = SWITCHES[switch].meaning if switch in SWITCHES else TOGETHER
            values = [_marked(by_task[t]) if t in by_task else "" for t in AVERAGE_TITLES]
            whole = by_task.get("average")
            least = "" if whole is None else number(whole.detectable)
            rows.append([meaning, title_of(key[2]), *values, least])
    return Table(
        "What each departure of the released code from the paper moves, in points",
        ["Departure of the released code", "Method", *AVERAGE_TITLES.values(), "Detectable"],
        rows[1:],
        _about_variants(data, run.title),
        data,
    )


def _variant_rows(scores: Scores) -> pd.DataFrame:
    import pandas as pd

    wanted = variants(sorted(scores.rows, key=sort_key))
    found = estimates(scores, wanted, ("score",))
    if not found:
        raise InputError("no variant was run; set the config key deviations to true")
    return pd.DataFrame([row | _plain(row) for row in found if row["task"] in AVERAGE_TITLES])


def _plain(row: dict[str, Any]) -> dict[str, str]:
    name = Name.of(row["method"])
    return {"method": name.row, "switch": "+".join(name.switches), "label": title_of(name.row)}


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _marked(row: Any) -> str:
    mark = "*" if row.low > 0 or row.high < 0 else ""
    text = f"{row.value:+.2f}{mark} [{row.low:+.2f}, {row.high:+.2f}]"
    return text.replace("-", MINUS)


def _about_variants(data: pd.DataFrame, title: str) -> list[str]:
    seeds, documents = data.seeds.min(), data[data.task == "average"].documents.min()
    outside = int(((data.low > 0) | (data.high < 0)).sum())
    return [
        "Variant minus plain method, same seeds and documents; positive: the departure helps.",
        f"{seeds} seed(s), {documents} documents; 95 % intervals over {data.over.iloc[0]}, one by "
        f"one and uncorrected: of {len(data)}, {outside} exclude 0 (*), and about "
        f"{0.05 * len(data):.0f} would by chance.",
        f"Configuration {title}. Teachers are the same on both sides. {detectable_note(data)}",
    ]
