"""Tables' numbers -> figures: scaling plots per family and together, ATKD's gain per task.

Reads `estimates.csv`, `differences.csv`; writes .svg (the same bytes every time), .png, a caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.files import InputError, atomic_path, cli, write_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; a marker each for print in grey.
STYLES = {"supervised_kd": ("#0072B2", "o"), "reverse_kd": ("#D55E00", "s")}
STYLES |= {"imitkd": ("#009E73", "^"), "f_distill": ("#CC79A7", "D"), "gkd": ("#B8860B", "v")}
STYLES |= {"seqkd": ("#4D4D4D", "P"), "dkd": ("#56B4E9", "X")}
FAMILIES = {"opt": "OPT", "pythia": "Pythia", "llama": "LLaMA"}
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "atkd", "font.family": "DejaVu Sans", "font.size": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.labelcolor": "#333333", "text.color": "#222222",
}  # fmt: skip
SETTINGS |= dict.fromkeys(["xtick.color", "ytick.color"], "#555555")


def read(path: Path) -> pd.DataFrame:
    """A CSV that the tables stage wrote."""
    import pandas as pd

    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV written by atkd.tables ({error})") from None


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


def gains(part: pd.DataFrame) -> Figure:
    """Heatmap of ATKD minus its baseline: a block per baseline, a row per pair."""
    import matplotlib.pyplot as plt

    methods = list(dict.fromkeys(part.method))
    columns = list(dict.fromkeys(part.task))
    heads = dict(zip(part.task, part.task_label, strict=True))
    pairs = part[["family", "student", "teacher", "method"]].drop_duplicates()
    counts = [int((pairs.method == method).sum()) for method in methods]
    height = 1.5 + 0.29 * sum(counts) + 0.42 * len(methods)
    shape = {"figsize": (2.5 + 0.62 * len(columns), height), "squeeze": False}
    figure, grid = plt.subplots(len(methods), 1, height_ratios=counts, sharex=True, **shape)
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
    return figure


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
        axes.text(x, y, f"{row.value:+.1f}".replace("-", "\N{MINUS SIGN}"), fontsize=7.5, **look)
    rows = [f"{FAMILIES.get(f, f)} {s.upper()} ← {t.upper()}" for f, s, t in names]
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


def caption(part: pd.DataFrame, text: str) -> str:
    """A caption that ends with metric, direction, documents, seeds and what intervals cover."""
    seeds = " or ".join(map(str, sorted(set(part.seeds))))
    over = " or ".join(sorted(set(part.over)))
    about = max(part.scored, key=len)
    text += f" Metric: the task's own score in percent ({about}); higher is better."
    text += f" At most {part.documents.max()} documents a point; seeds: {seeds}."
    text += f" Intervals are 95 % over {over}."
    if part.world.any():
        text += " The tasks are the embedded world's analogues of the paper's, not the real sets."
    return text


def save(figure: Figure, name: str, text: str, output: Path) -> None:
    """Writes <name>.svg, .png and .txt; no date and a fixed salt keep the SVG's bytes fixed."""
    import matplotlib.pyplot as plt

    for kind, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 180})):
        with atomic_path(output / f"{name}.{kind}") as part:
            figure.savefig(part, format=kind, bbox_inches="tight", **extra)
    write_text(output / f"{name}.txt", text + "\n")
    plt.close(figure)


def draw(tables: str | Path, output: str | Path) -> list[str]:
    """Draws every figure the tables folder has numbers for; returns their names."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    frame, changes = (read(Path(tables) / f"{n}.csv") for n in ("estimates", "differences"))
    frame["world"] = changes["world"] = frame.task_label.str.endswith("(world)").any()
    part = frame[(frame.metric == "score") & (frame.task == "average")]
    families = list(dict.fromkeys(part.family))
    drawn = {"scaling": families} | {f"scaling_{family}": [family] for family in families}
    gain = changes[(changes.kind == "gain") & (changes.metric == "score")]
    with plt.rc_context(SETTINGS):
        for name, shown in drawn.items() if families else ():
            rows = part[part.family.isin(shown)]
            save(scaling(rows, shown), name, caption(rows, SCALING), Path(output))
        if len(gain):
            save(gains(gain), "gains", caption(gain, GAINS), Path(output))
    return sorted(path.stem for path in Path(output).glob("*.svg"))


SCALING = (
    "Student's average score against its teacher's size. Solid: with ATKD; dashed: the same method "
    "without. Dotted lines: the student fine-tuned without a teacher (SFT), and untrained. Grey: "
    "the teachers themselves; values beyond the panel are written at its edge."
)
GAINS = (
    "ATKD's gain in points: the score with ATKD minus the same method without, per pair and task. "
    "Bold: the 95 % interval leaves zero out (not corrected for the number of cells)."
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd.figures", description=__doc__)
    parser.add_argument("--tables", required=True, help="folder written by atkd.tables")
    parser.add_argument("--output", required=True, help="folder for the figures")
    draw(**vars(parser.parse_args()))


if __name__ == "__main__":
    cli(main)
