"""Tables' numbers -> figures: scaling plots, ATKD's gain per task, and with its intervals.

Reads `estimates.csv`, `differences.csv`; writes .svg (the same bytes every time), .png, a caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.methods import title_of
from atkd.models.families import family_title
from atkd.reporting import registry
from atkd.reporting.inputs import Numbers
from atkd.reporting.plotting import caption, own_settings, panels, save, style
from atkd.reporting.score_tables import average_gains
from atkd.reporting.table import MINUS, arrow
from atkd.runtime.files import InputError
from atkd.statistics.comparisons import GAIN, POOLED, base_of, has_gains
from atkd.statistics.estimates import RECORD, as_configured, read_record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from atkd.reporting.plotting import Drawing

ALONE = ("teacher", "none", "sft")  # methods that are no line of a scaling plot
SCALING = (
    "Student's average score against its teacher's size. Below, students: solid with ATKD, dashed "
    "the same method without, dotted the student fine-tuned without a teacher (SFT). Above, on a "
    "wider scale: stars are the teachers themselves, dotted lines students without one, and grey "
    "is what the panel below shows."
)


@registry.figure("scaling", caption=SCALING)
def scaling(numbers: Numbers) -> Drawing | None:
    """Student's average score against the teacher's size, a panel per family."""
    part = average_scores(numbers)
    families = list(dict.fromkeys(part.family))
    return (scaling_panels(part, families, numbers.record.world), part) if families else None


@registry.figure("scaling_{family}", caption=SCALING, section="")
def scaling_of(numbers: Numbers, family: str) -> Drawing | None:
    """The panel of one family alone."""
    part = average_scores(numbers)
    part = part[part.family == family]
    return (scaling_panels(part, [family], numbers.record.world), part) if len(part) else None


def average_scores(numbers: Numbers) -> pd.DataFrame:
    """The average score of every cell that has no settings of its own."""
    cells = as_configured(numbers.cells)
    return cells[(cells.metric == "score") & (cells.task == "average")]


def scaling_panels(part: pd.DataFrame, families: list[str], world: bool) -> Figure:
    """Two panels per family, all levels above and students alone below; one legend under them."""
    width = 4.6 if len(families) == 1 else 1.0 + 3.1 * len(families)
    shape = {"figsize": (width, 5.0), "height_ratios": (1, 2), "sharex": "col", "squeeze": False}
    figure, grid = panels(2, len(families), **shape)
    named: dict[str, Any] = {}
    for (levels, axes), family in zip(grid.T, families, strict=True):
        rows = part[part.family == family].rename(columns={"teacher_size": "x"})
        named |= student_panel(axes, rows)
        level_panel(levels, rows, axes.get_ylim())
        students = [s.upper() for s in dict.fromkeys(rows.student) if s != "-"]
        title = f"{family_title(family)}, student {', '.join(students)}"
        levels.set_title(title, loc="left")
        axes.set_xlabel("Teacher size (log scale)")
    tasks = f"{part.tasks.max()} world tasks" if world else f"{part.tasks.max()} tasks"
    grid[1][0].set_ylabel(f"Average score over {tasks} (%)")
    _legend(figure, named, wide=len(families) > 1)
    return figure


def student_panel(axes: Axes, part: pd.DataFrame) -> dict[str, Any]:
    """One family's students against teacher size; returns the line of every method."""
    students = part[~part.method.isin(ALONE)]
    methods = list(dict.fromkeys(students.method))
    sizes = {s: t.upper() for s, t in zip(part.x, part.teacher, strict=True) if s}
    step = (max(sizes) / min(sizes)) ** 0.012 if sizes else 1.0
    lines = {}
    for place, method in enumerate(methods):
        rows = students[students.method == method].sort_values("x")
        x = rows.x * step ** (place - (len(methods) - 1) / 2)  # apart, so that bars can be read
        bars = [rows.value - rows.low, rows.high - rows.value]
        look = style(method)
        axes.errorbar(x, rows.value, bars, fmt="none", ecolor=look["color"], alpha=0.45, lw=1)
        lines[method] = axes.plot(x, rows.value, **look)[0]
    sft = part[part.method == "sft"]
    inside = part if students.empty else students
    low = min([*inside.low.fillna(inside.value), *sft.value])
    high = max([*inside.high.fillna(inside.value), *sft.value])
    margin = 0.06 * ((high - low) or 1.0)
    axes.set_ylim(low - margin, high + margin)
    _size_axis(axes, sizes)
    _level(axes, sft)
    return lines


def level_panel(axes: Axes, part: pd.DataFrame, shown: tuple[float, float]) -> None:
    """Teachers and students without one on their common scale; grey: what the panel below shows."""
    axes.axhspan(*shown, color="#EEEEEE", zorder=0)
    for row in part[part.method == "teacher"].itertuples():
        axes.plot([row.x], [row.value], color="#666666", marker="*", markersize=8, linestyle="")
        spot = {"textcoords": "offset points", "fontsize": 7.5, "color": "#666666", "ha": "center"}
        axes.annotate(f"{row.value:.1f}", (row.x, row.value), (0, 6), **spot)
    alone = part[part.method.isin(ALONE)]
    if len(alone):
        low, high = min(alone.value.min(), shown[0]), max(alone.value.max(), shown[1])
        axes.set_ylim(low - 0.12 * (high - low), high + 0.25 * (high - low))
    for method in ("sft", "none"):
        _level(axes, part[part.method == method])
    axes.tick_params(length=0)


def _size_axis(axes: Axes, sizes: dict[float, str]) -> None:
    import numpy as np

    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(list(sizes), list(sizes.values()))
    if sizes:
        logs = np.log(list(sizes))
        pad = 0.14 * (logs.max() - logs.min()) or 0.5
        axes.set_xlim(np.exp(logs.min() - pad), np.exp(logs.max() + pad))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _level(axes: Axes, rows: pd.DataFrame) -> None:
    """A horizontal line for a student without a teacher, named beside the panel."""
    if rows.empty:
        return
    value, spot = rows.value.mean(), {"fontsize": 7.5, "va": "center", "clip_on": False}
    axes.axhline(value, color="#444444", linestyle=(0, (1, 1.5)), linewidth=1.2, zorder=2)
    text = f"{rows.label.iloc[0]} {value:.1f}"
    where = axes.get_yaxis_transform()
    axes.text(1.02, _free(axes, value), text, transform=where, color="#444444", **spot)


def _free(axes: Axes, value: float) -> float:
    """A height for a label at `value`, away from those that are beside the panel already."""
    low, high = axes.get_ylim()
    inch = (high - low) / (axes.get_position().height * axes.figure.get_figheight())
    room = 0.14 * inch  # a line of text
    for text in axes.texts:
        _, other = text.get_position()
        if text.get_text() and not text.get_clip_on() and abs(value - other) < room:
            value = other + room if value >= other else other - room
    return value


def _legend(figure: Figure, named: dict[str, Any], wide: bool) -> None:
    """One legend under the panels, each baseline next to its ATKD version."""
    from matplotlib.lines import Line2D

    with_atkd = {base_of(method): method for method in named if base_of(method)}
    bases = list(dict.fromkeys(base_of(method) or method for method in named))
    pairs = [(base, with_atkd.get(base, "")) for base in bases]
    columns_first = [*(base for base, _ in pairs), *(ours for _, ours in pairs)]
    cells = [name for pair in pairs for name in pair] if wide else columns_first
    rows, columns = (2, len(bases)) if wide else (len(bases), 2)
    extra = 0.158 * rows + 0.02
    figure.set_figheight(figure.get_figheight() + extra)
    figure.tight_layout(rect=(0, extra / figure.get_figheight(), 1, 1), w_pad=1.5)
    if not cells:
        return
    blank = Line2D([], [], linestyle="")
    figure.legend(
        [named.get(name, blank) for name in cells],
        [title_of(name) if name in named else "" for name in cells],
        ncols=columns,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.0,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.4,
        fontsize=7.5,
    )


@registry.figure(
    "forest",
    applies=has_gains,
    caption=(
        "ATKD's gain on the average score, with 95 % intervals. Diamond: the mean over pairs, one "
        "test per baseline, and its verdict (Holm-corrected; undecided below three seeds). Grey: "
        "gains too small for it to find (two-sided 5 %, uncorrected, power 80 %). Thin: single "
        "pairs, exploratory."
    ),
)
def forest(numbers: Numbers) -> Drawing | None:
    """Average gains with intervals: per baseline the mean over pairs, and each pair below it."""
    part = average_gains(numbers.changes)
    if part.empty:
        return None

    found = [part[part.method == method] for method in dict.fromkeys(part.method)]
    rows = [row for group in found for row in group.itertuples()]
    height = 0.23 * len(rows) + 0.2 * len(found)
    figure, axes = panels(figsize=(5.2, 0.7 + height))
    y = 0.0
    for row in rows:
        y += 1.8 if row.kind == POOLED else 1.0
        _forest_row(axes, y, row)
    axes.axvline(0, color="#222222", linewidth=0.8, zorder=1)
    axes.set_yticks([])
    axes.set_ylim(y + 0.9, 0.9)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Gain in average score (points): with ATKD less without")
    return figure, part


def _forest_row(axes: Axes, y: float, row: Any) -> None:
    pooled, look = row.kind == POOLED, style(row.method)
    colour = look["color"]
    axes.plot([row.low, row.high], [y, y], color=colour, lw=2.6 if pooled else 1.1, zorder=3)
    mark = {"marker": "D" if pooled else "o", "markersize": 6.5 if pooled else 4}
    axes.plot([row.value], [y], color=colour, markeredgecolor="white", zorder=4, **mark)
    if pooled:
        bounds = [-row.detectable, 2 * row.detectable]
        axes.broken_barh([bounds], (y - 0.42, 0.84), color="#ECECEC", zorder=0)
    pair = f"{family_title(row.family)} {arrow((row.family, row.student, row.teacher))}"
    name = title_of(base_of(row.method)) if pooled else pair
    text = f"{row.value:+.1f} [{row.low:.1f}, {row.high:.1f}]".replace("-", MINUS)
    weight = {"va": "center", "weight": "bold" if pooled else "normal", "fontsize": 8}
    where = axes.get_yaxis_transform()
    axes.text(-0.01, y, name, ha="right", transform=where, **weight)
    word = f"  {row.verdict}" if pooled else ""
    axes.text(1.01, y, text + word, ha="left", transform=where, **weight)


@registry.figure(
    "gains",
    applies=has_gains,
    caption=(
        "ATKD's gain in points: the score with ATKD minus the same method without, per pair and "
        "task. Bold: the 95 % interval leaves zero out (not corrected for the number of cells)."
    ),
)
def gains(numbers: Numbers) -> Drawing | None:
    """Heatmap of ATKD minus its baseline: a block per baseline, a row per pair."""
    part = numbers.changes
    part = part[(part.kind == GAIN) & (part.metric == "score")]
    if part.empty:
        return None

    methods = list(dict.fromkeys(part.method))
    columns = list(dict.fromkeys(part.task))
    heads = dict(zip(part.task, part.task_label, strict=True))
    pairs = part[["family", "student", "teacher", "method"]].drop_duplicates()
    counts = [int((pairs.method == method).sum()) for method in methods]
    height = 1.5 + 0.29 * sum(counts) + 0.42 * len(methods)
    shape = {"figsize": (2.5 + 0.62 * len(columns), height), "squeeze": False}
    figure, grid = panels(len(methods), 1, height_ratios=counts, sharex=True, **shape)
    bound = max(float(part.value.abs().max()), 0.1)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        gain_block(axes, part[part.method == method], columns, bound)
    grid[0][0].set_xticks(range(len(columns)), [heads[c].replace(" (", "\n(") for c in columns])
    for axes in grid[:, 0]:
        axes.tick_params(labelbottom=False)
    grid[0][0].xaxis.set_tick_params(labeltop=True, labelrotation=40)
    for text in grid[0][0].get_xticklabels():
        text.set(ha="left", rotation_mode="anchor", fontsize=7.5)
    figure.tight_layout(h_pad=1.1)
    return figure, part


def gain_block(axes: Axes, part: pd.DataFrame, columns: list[str], bound: float) -> None:
    """One baseline's rows: colour is the gain, bold where the interval leaves zero out."""
    keys = ["family", "student", "teacher"]
    names = list(dict.fromkeys(part[keys].itertuples(index=False, name=None)))
    wide = part.pivot(index=keys, columns="task", values="value").reindex(names, columns=columns)
    axes.imshow(wide, cmap="PuOr_r", vmin=-bound, vmax=bound, aspect="auto")
    for row in part.itertuples():
        y, x = names.index((row.family, row.student, row.teacher)), columns.index(row.task)
        sure = row.low > 0 or row.high < 0
        look = {"ha": "center", "va": "center", "weight": "bold" if sure else "normal"}
        look["color"] = "white" if abs(row.value) > 0.72 * bound else "#222222"
        axes.text(x, y, f"{row.value:+.1f}".replace("-", MINUS), fontsize=7.5, **look)
    rows = [f"{family_title(cell[0])} {arrow(cell)}" for cell in names]
    axes.set_yticks(range(len(names)), rows, fontsize=8)
    axes.set_title(part.label.iloc[0], loc="left", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for at in range(1, len(columns)):
        apart = "average" in (columns[at], columns[at - 1]) or columns[at] == "generation"
        axes.axvline(at - 0.5, color="white", linewidth=3.5 if apart else 1.2)
    for at in range(1, len(names)):
        thick = 3.0 if names[at][0] != names[at - 1][0] else 1.2
        axes.axhline(at - 0.5, color="white", linewidth=thick)


def draw(tables: Path, output: Path, record: Path | None = None) -> list[str]:
    """Draws every registered figure that the tables folder has numbers for; returns their names.

    `record` is run.json beside the tables' folder where none is given.
    """
    if not tables.is_dir():
        raise InputError(f"{tables}: folder not found; expected what the stage tables wrote")
    numbers = Numbers(read_record(record or tables.parent / RECORD), tables)
    drawn = []
    with own_settings():
        for entry in registry.figures():
            for name, arguments in entry.families(numbers.record).items():
                found = entry.make(numbers, *arguments) if entry.applies(numbers.record) else None
                if found is not None:
                    figure, rows = found
                    text = caption(rows, entry.caption, numbers.record.world)
                    save(figure, name, text, output)
                    drawn.append(name)
    return sorted(drawn)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd figures", description=__doc__)
    parser.add_argument("--tables", required=True, type=Path, help="folder of the stage tables")
    parser.add_argument("--record", type=Path, help="run.json (default: beside that folder)")
    parser.add_argument("--output", required=True, type=Path, help="folder for the figures")
    args = parser.parse_args()
    print(f"{args.output}: {', '.join(draw(args.tables, args.output, args.record))}")
