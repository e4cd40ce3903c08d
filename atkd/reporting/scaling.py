"""The scaling plot: students' average score against the size of their teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; a marker each for print in grey.
STYLES = {"supervised_kd": ("#0072B2", "o"), "reverse_kd": ("#D55E00", "s")}
STYLES |= {"imitkd": ("#009E73", "^"), "f_distill": ("#CC79A7", "D"), "gkd": ("#B8860B", "v")}
STYLES |= {"seqkd": ("#4D4D4D", "P"), "dkd": ("#56B4E9", "X")}
FAMILIES = {"opt": "OPT", "pythia": "Pythia", "llama": "LLaMA"}


def style(method: str) -> dict[str, Any]:
    """ATKD solid and filled, its baseline dashed and hollow in the same hue."""
    colour, marker = STYLES.get(method.removesuffix("_atkd"), ("#7A5195", "h"))
    ours = method.endswith("_atkd")
    face = {"markerfacecolor": colour if ours else "white", "zorder": 4 if ours else 3}
    line = {"linestyle": "-" if ours else (0, (4, 2)), "linewidth": 1.9 if ours else 1.3}
    mark = {"color": colour, "marker": marker, "markersize": 5.2, "markeredgewidth": 1.2}
    return mark | face | line


def scaling_panel(axes: Axes, part: pd.DataFrame) -> None:
    """One family's average against teacher size."""
    part = part.rename(columns={"teacher_size": "x"})
    students = part[~part.method.isin(["teacher", "none", "sft"])]
    methods = list(dict.fromkeys(students.method))
    sizes = {s: t.upper() for s, t in zip(part.x, part.teacher, strict=True) if s}
    step = (max(sizes) / min(sizes)) ** 0.012 if sizes else 1.0
    for place, method in enumerate(methods):
        rows = students[students.method == method].sort_values("x")
        x = rows.x * step ** (place - (len(methods) - 1) / 2)  # apart, so that bars can be read
        bars = [rows.value - rows.low, rows.high - rows.value]
        look = style(method)
        axes.errorbar(x, rows.value, bars, fmt="none", ecolor=look["color"], alpha=0.45, lw=1)
        axes.plot(x, rows.value, label=rows.label.iloc[0], **look)
    inside = part if students.empty else students
    sft = part[part.method == "sft"]
    low = min([*inside.low.fillna(inside.value), *sft.value])
    high = max([*inside.high.fillna(inside.value), *sft.value])
    margin = 0.12 * ((high - low) or 1.0)
    axes.set_ylim(low - margin, high + 1.4 * margin)
    _size_axis(axes, sizes)
    _level(axes, sft, "#222222", (0, (1, 1.5)))
    _level(axes, part[part.method == "none"], "#777777", (0, (1, 1.5)))
    _teachers(axes, part[part.method == "teacher"])


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


def _level(axes: Axes, rows: pd.DataFrame, colour: str, dashes: Any) -> None:
    """A horizontal line for a student without a teacher, or a note where it lies off the panel."""
    if rows.empty:
        return
    name, value = rows.label.iloc[0], rows.value.mean()
    low, high = axes.get_ylim()
    spot = {"color": colour, "fontsize": 7.5, "va": "center", "clip_on": False}
    if low <= value <= high:
        axes.axhline(value, color=colour, linestyle=dashes, linewidth=1.2, zorder=2)
        text = f"{name}\n{value:.1f}"
        axes.text(1.02, _free(axes, value), text, transform=axes.get_yaxis_transform(), **spot)
    else:
        below = value < low
        spot["va"] = "top" if below else "bottom"
        text = f"{name}\n{value:.1f} {'↓' if below else '↑'}"
        axes.text(1.02, 0.01 if below else 1.0, text, transform=axes.transAxes, **spot)


def _free(axes: Axes, value: float) -> float:
    """A height for a label beside the panel at `value`, above the labels that are there already."""
    low, high = axes.get_ylim()
    placed = (text for text in axes.texts if text.get_transform() != axes.transAxes)
    taken = [text.get_position()[1] for text in placed]
    while any(abs(value - height) < 0.11 * (high - low) for height in taken):
        value += 0.02 * (high - low)
    return value


def _teachers(axes: Axes, rows: pd.DataFrame) -> None:
    """Grey teacher markers; at the panel's upper edge, with the value, where they lie above it."""
    low, high = axes.get_ylim()
    if len(rows):
        spot = {"textcoords": "offset points", "fontsize": 7.5, "color": "#777777"}
        top = rows.value.max() > high
        axes.annotate(
            "Teacher" if top else "", (1.02, 1.0), (0, 6), xycoords="axes fraction", **spot
        )
    for row in rows.itertuples():
        inside = low <= row.value <= high
        y = min(max(row.value, low), high)
        look = {"marker": "*" if inside else "^", "markersize": 8 if inside else 5.5}
        axes.plot([row.x], [y], color="#999999", linestyle="", clip_on=False, zorder=5, **look)
        offset = (0, 6) if row.value >= low else (0, -12)
        text = {"ha": "center", "fontsize": 7.5, "color": "#777777"}
        word = f"{row.value:.1f}"
        axes.annotate(word, (row.x, y), offset, textcoords="offset points", **text)


def scaling(part: pd.DataFrame, families: list[str]) -> Figure:
    """Student's average score against the teacher's size, a panel per family."""
    import matplotlib.pyplot as plt

    width = 4.6 if len(families) == 1 else 1.0 + 3.1 * len(families)
    figure, grid = plt.subplots(1, len(families), figsize=(width, 3.4), squeeze=False)
    named: dict[str, Any] = {}
    for axes, family in zip(grid[0], families, strict=True):
        rows = part[part.family == family]
        scaling_panel(axes, rows)
        students = [s.upper() for s in dict.fromkeys(rows.student) if s != "-"]
        title = f"{FAMILIES.get(family, family)}, student {', '.join(students)}"
        axes.set_title(title, pad=20, loc="left")
        axes.set_xlabel("Teacher size (log scale)")
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    world = "world " if part.world.any() else ""
    grid[0][0].set_ylabel(f"Average score over {part.tasks.max()} {world}tasks (%)")
    _legend(figure, named, wide=len(families) > 1)
    return figure


def _legend(figure: Figure, named: dict[str, Any], wide: bool) -> None:
    """One legend under the panels, each baseline next to its ATKD version."""
    from matplotlib.lines import Line2D

    bases = list(dict.fromkeys(name.removesuffix(" + ATKD") for name in named))
    names = [[base, f"{base} + ATKD"] for base in bases]
    cells = [n for pair in (names if wide else zip(*names, strict=True)) for n in pair]
    blank = Line2D([], [], linestyle="")
    handles = [named.get(name, blank) for name in cells]
    rows, columns = (2, len(bases)) if wide else (len(bases), 2)
    extra = 0.158 * rows + 0.02
    figure.set_figheight(figure.get_figheight() + extra)
    figure.tight_layout(rect=(0, extra / figure.get_figheight(), 1, 1), w_pad=1.5)
    look = {"frameon": False, "handlelength": 2.6, "columnspacing": 1.4, "fontsize": 7.5}
    if cells:
        labels = [name if name in named else "" for name in cells]
        where = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.0}
        figure.legend(handles, labels, ncols=columns, **where, **look)
