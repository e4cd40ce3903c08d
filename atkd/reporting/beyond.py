"""Beyond the paper: what scores cost, where gains are, and how much seeds move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atkd.methods import BASELINES, METHODS, Name, title_of
from atkd.models.families import family_title
from atkd.reporting import registry
from atkd.reporting.inputs import Numbers, Run
from atkd.reporting.plotting import panels, style
from atkd.reporting.table import Table, arrow, notes, number
from atkd.statistics.comparisons import GAIN, WRAPPER, base_of, has_gains
from atkd.statistics.contrasts import WRAPPED
from atkd.statistics.estimates import KEYS, Cell, Contrast, as_configured, average, sort_key

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from atkd.reporting.plotting import Drawing

Rows = list[list[str] | None]


# What methods cost.


def spent(run: Run) -> pd.DataFrame:
    """A row per trained student: its CPU seconds, those of its teacher's outputs, peak memory."""
    assert run.costs is not None
    costs = run.costs
    student = costs[costs.stage == "student"].copy()
    student[[*KEYS, "seed"]] = student.run.str.split("/", expand=True).to_numpy()
    outputs = costs[costs.stage.isin(["cache", "text"])].groupby(["stage", "run"]).cpu_s.sum()
    found = dict(outputs.items())
    student["outputs_s"] = [_outputs(row, found) for row in student.itertuples()]
    student["total_s"] = student.cpu_s + student.outputs_s
    return student


def _outputs(row: Any, found: dict[tuple[str, str], float]) -> float:
    """CPU seconds of the teacher's cache or text that a student's method reads."""
    method = METHODS.get(Name.of(row.method).row)
    if method is None:
        return 0.0
    place = f"{row.family}/{row.teacher}/seed{row.seed}"
    kinds = [("text", f"text/{place}")] if method.sequences == "teacher" else []
    if method.distils and method.settings.get("student_fraction", 0) < 1:
        kinds.append(("cache", f"cache/{place}/{method.sequences}"))
    return sum(found.get(kind, 0.0) for kind in kinds)


@registry.table(
    "efficiency",
    category="Costs",
    section="costs",
    caption="What each method costs and what its students score, mean over pairs.",
)
def efficiency(run: Run) -> Table | None:
    """A row per method: score, CPU seconds, peak memory."""
    import pandas as pd

    if run.costs is None or not (run.costs.stage == "student").any():
        return None
    costs, kept = spent(run), list[dict[str, Any]]()
    for method in sorted(set(as_configured(costs).method), key=_by_method):
        part = costs[costs.method == method]
        named = part[KEYS].drop_duplicates().itertuples(index=False, name=None)
        cells = [cell for cell in map(Cell._make, named) if cell in run.scores.rows]
        if cells:
            kept.append(
                average(run.scores, Contrast(tuple(cells), (), "cost"))
                | _cost(part)
                | {"method": method}
            )
    if not kept:
        return None
    rows: Rows = [
        [
            title_of(row["method"]),
            str(row["pairs"]),
            f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]",
            *(number(row[name], 1) for name in ("cpu_s", "outputs_s", "total_s")),
            number(row["peak_memory_mb"], 0),
        ]
        for row in kept
    ]
    data = pd.DataFrame(kept)
    return Table(
        f"Quality and cost ({run.title})",
        ["Method", "Pairs", "Score [interval]", "Training s", "Outputs s", "Together s", "Peak MB"],
        rows,
        [
            "CPU seconds of training a student, mean over pairs and seeds, and of the teacher's "
            "outputs that its method reads (cache, answers), which methods share; without bases "
            "and teachers. Peak memory of the training.",
            *notes(data, "score", run.scores),
        ],
        data,
    )


def _by_method(method: str) -> tuple[Any, ...]:
    return sort_key(("", "", "", method))


def _cost(part: pd.DataFrame) -> dict[str, float]:
    names = ["cpu_s", "outputs_s", "total_s", "peak_memory_mb"]
    return {name: float(part[name].mean()) for name in names}


@registry.figure(
    "efficiency",
    section="costs",
    caption=(
        "Average score against what a student costs: CPU seconds of its training and of the "
        "teacher's outputs that its method reads, mean over pairs. Filled: with ATKD; line: what "
        "no other method beats at its cost. Bars: 95 % intervals."
    ),
)
def efficiency_plot(numbers: Numbers) -> Drawing | None:
    """A point per method, and the Pareto front."""
    data = numbers.table("efficiency")
    if data is None or data.empty:
        return None
    figure, axes = panels(figsize=(6.2, 3.4))
    for row in data.itertuples():
        look = style(row.method)
        axes.plot([row.total_s] * 2, [row.low, row.high], color=look["color"], alpha=0.4, lw=1)
        axes.plot(
            [row.total_s], [row.value], label=title_of(row.method), **look | {"linestyle": ""}
        )
    front = data.sort_values(["total_s", "value"], ascending=[True, False])
    front = front[front.value >= front.value.cummax()]
    axes.step(front.total_s, front.value, where="post", color="#BBBBBB", lw=1.2, zorder=1)
    axes.set_xlim(0, 1.08 * data.total_s.max())
    axes.set_xlabel("CPU seconds for a student")
    axes.set_ylabel("Average score (%)")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.legend(frameon=False, fontsize=6.8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure, data


# Where gains are.


@registry.table(
    "improved",
    category="Gains",
    applies=has_gains,
    caption="In how many cells (pair and baseline) ATKD's gain is above 0, by baseline and family.",
)
def improved(run: Run) -> Table:
    """A row per baseline, then per family: cells above 0, and intervals that leave 0 out."""
    part = run.changes
    part = part[(part.kind == GAIN) & (part.metric == "score") & (part.task == "average")]
    part = part[part.method.isin([f"{base}_{WRAPPER}" for base in BASELINES])]
    groups = [(title_of(base_of(name)), rows) for name, rows in part.groupby("method", sort=False)]
    families = [
        (family_title(str(name)), rows) for name, rows in part.groupby("family", sort=False)
    ]
    shown: Rows = [_improved_row(name, rows) for name, rows in groups]
    shown += [None, *(_improved_row(name, rows) for name, rows in families)]
    shown += [None, _improved_row("all", part)] if len(part) else []
    return Table(
        f"Cells that ATKD improves ({run.title})",
        ["Cells of", "", "Cells", "Gain above 0", "Interval above 0", "Interval below 0"],
        shown,
        [
            "A cell is a baseline at a pair; gains as in the table of gains. A method without any "
            "effect has half of its gains above 0, and one interval in forty on either side by "
            "chance.",
            *notes(part, "score", run.scores),
        ]
        if len(part)
        else ["No baseline was run with ATKD and without."],
        part,
    )


def _improved_row(name: str, rows: pd.DataFrame) -> list[str]:
    above = int((rows.value > 0).sum())
    sure = int((rows.low > 0).sum()), int((rows.high < 0).sum())
    share = f"{above} ({100 * above / max(len(rows), 1):.0f} %)"
    return [name, "", str(len(rows)), share, *map(str, sure)]


@registry.figure(
    "gap",
    applies=has_gains,
    section="gains",
    caption=(
        "ATKD's gain at each pair against how much better its teacher is than the student "
        "fine-tuned without one. Bars: 95 % intervals; zero is no gain."
    ),
)
def gap(numbers: Numbers) -> Drawing | None:
    """A point per pair and baseline."""
    part = numbers.changes
    part = part[(part.kind == GAIN) & (part.metric == "score") & (part.task == "average")]
    gaps = _gaps(numbers)
    part = part[[(row.family, row.student, row.teacher) in gaps for row in part.itertuples()]]
    if part.empty:
        return None
    figure, axes = panels(figsize=(6.2, 3.2))
    for place, (method, rows) in enumerate(part.groupby("method", sort=False)):
        look = style(str(method)) | {"linestyle": ""}
        x = [gaps[row.family, row.student, row.teacher] + 0.25 * place for row in rows.itertuples()]
        bars = [rows.value - rows.low, rows.high - rows.value]
        axes.errorbar(x, rows.value, bars, fmt="none", ecolor=look["color"], alpha=0.4, lw=1)
        axes.plot(x, rows.value, label=title_of(base_of(str(method))), **look)
    axes.axhline(0, color="#222222", lw=0.8)
    axes.set_xlabel("Teacher less SFT student (points of the average)")
    axes.set_ylabel("ATKD's gain (points)")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure, part


def _gaps(numbers: Numbers) -> dict[tuple[str, str, str], float]:
    """Pair -> its teacher's average score less its SFT student's."""
    cells = numbers.cells
    cells = cells[(cells.metric == "score") & (cells.task == "average")]
    level = {Cell(*(getattr(row, key) for key in KEYS)): row.value for row in cells.itertuples()}
    found = {}
    for pair in numbers.record.pairs:
        teacher = Cell(pair["family"], "-", pair["teacher"], "teacher")
        student = Cell(pair["family"], pair["student"], "-", "sft")
        if teacher in level and student in level:
            found[pair["family"], pair["student"], pair["teacher"]] = (
                level[teacher] - level[student]
            )
    return found


# How much seeds move.


@registry.table(
    "noise",
    category="Controls",
    section="controls",
    applies=lambda record: len(record.seeds) > 1,
    caption="How much the average score moves from seed to seed, by method.",
)
def noise(run: Run) -> Table:
    """A row per method: standard deviation over seeds within a cell, and of ATKD's gain."""
    import pandas as pd

    scores = as_configured(run.score_rows)
    scores = scores[(scores.metric == "score") & (scores.task == "average")]
    wide = scores.pivot(index=KEYS, columns="seed", values="value")
    rows: Rows = []
    for method in sorted(set(wide.index.get_level_values("method")), key=_by_method):
        part = wide.xs(method, level="method")
        adaptive = WRAPPED.get(method)
        known = adaptive in set(scores.method)
        gains = wide.xs(adaptive, level="method").sub(part) if known else None
        rows.append(
            [
                title_of(method),
                str(len(part)),
                number(_deviation(part)),
                number((part.max(axis=1) - part.min(axis=1)).max()),
                "" if gains is None else number(_deviation(gains)),
            ]
        )
    return Table(
        f"Seeds ({run.title}), average score",
        ["Method", "Cells", "Standard deviation", "Largest range", "Deviation of ATKD's gain"],
        rows,
        [
            "Over seeds within a cell, pooled over cells, in points of the average score: a seed "
            "changes bases, teachers and students. Of ATKD's gain: the difference to the same seed "
            "without it.",
            f"Seeds: {scores.seed.nunique()}.",
        ],
        pd.DataFrame(wide.reset_index()),
    )


def _deviation(cells: pd.DataFrame) -> float:
    """Standard deviation over columns, pooled over rows."""
    return float((cells.var(axis=1, ddof=1).mean()) ** 0.5)


@registry.figure(
    "noise",
    section="controls",
    applies=lambda record: len(record.seeds) > 1,
    caption=(
        "Every seed's average score, a column per cell, in the order of the tables: how far apart "
        "seeds lie against how far apart methods do."
    ),
)
def noise_plot(numbers: Numbers) -> Drawing | None:
    """A strip per family, a point per cell and seed."""
    data = numbers.table("noise")
    if data is None:
        return None
    seeds = [name for name in data.columns if str(name).isdigit()]
    families = [name for name in numbers.record.families if (data.family == name).any()]
    figure, grid = panels(len(families), 1, figsize=(7.4, 0.4 + 2.5 * len(families)), squeeze=False)
    for axes, family in zip(grid[:, 0], families, strict=True):
        _strip(axes, data[(data.family == family) & ~data.method.isin(["teacher", "none"])], seeds)
        axes.set_title(family_title(family), loc="left")
        axes.set_ylabel("Average score (%)")
    figure.tight_layout()
    long = data.melt(KEYS, seeds, "seed").dropna()
    facts = {"metric": "score", "about": "the average score; higher is better.", "unit": "cells"}
    return figure, long.assign(documents=len(data), seeds=len(seeds), over="", **facts)


def _strip(axes: Axes, part: pd.DataFrame, seeds: list[str]) -> None:
    cells = sorted(
        part.itertuples(),
        key=lambda row: sort_key((row.family, row.student, row.teacher, row.method)),
    )
    for place, row in enumerate(cells):
        look = style(Name.of(row.method).row)
        values = [part.loc[row.Index, seed] for seed in seeds]
        spot = {"marker": "o", "markersize": 3.2, "linestyle": "", "alpha": 0.85}
        axes.plot([place] * len(values), values, color=look["color"], **spot)
        middle = sum(values) / len(values)
        axes.plot([place - 0.3, place + 0.3], [middle] * 2, color=look["color"], lw=1.6)
    names = [f"{title_of(row.method)} {arrow((row.family, '-', row.teacher))}" for row in cells]
    axes.set_xticks(range(len(cells)), names, rotation=60, ha="right", fontsize=5.5)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
