"""Tables' numbers -> figures: scaling plots, ATKD's gain per task, and with its intervals.

Reads `estimates.csv`, `differences.csv`; writes .svg (the same bytes every time), .png, a caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.reporting.scaling import FAMILIES, scaling, style
from atkd.runtime.files import InputError, atomic_path, write_text
from atkd.statistics.comparisons import GAIN, POOLED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def forest(part: pd.DataFrame) -> Figure:
    """Average gains with intervals: per baseline the mean over pairs, and each pair below it."""
    import matplotlib.pyplot as plt

    found = [part[part.method == method] for method in dict.fromkeys(part.method)]
    rows = [row for group in found for row in group.itertuples()]
    height = 0.23 * len(rows) + 0.2 * len(found)
    figure, axes = plt.subplots(figsize=(5.2, 0.7 + height))
    y = 0.0
    for row in rows:
        y += 1.8 if row.kind == POOLED else 1.0
        _forest_row(axes, y, row)
    axes.axvline(0, color="#222222", linewidth=0.8, zorder=1)
    axes.set_yticks([])
    axes.set_ylim(y + 0.9, 0.9)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Gain in average score (points): with ATKD less without")
    return figure


def _forest_row(axes: Axes, y: float, row: Any) -> None:
    pooled, look = row.kind == POOLED, style(row.method)
    colour = look["color"]
    axes.plot([row.low, row.high], [y, y], color=colour, lw=2.6 if pooled else 1.1, zorder=3)
    mark = {"marker": "D" if pooled else "o", "markersize": 6.5 if pooled else 4}
    axes.plot([row.value], [y], color=colour, markeredgecolor="white", zorder=4, **mark)
    if pooled:
        bounds = [-row.detectable, 2 * row.detectable]
        axes.broken_barh([bounds], (y - 0.42, 0.84), color="#ECECEC", zorder=0)
    name = f"{FAMILIES.get(row.family, row.family)} {row.student.upper()} ← {row.teacher.upper()}"
    name = row.label.removesuffix(" + ATKD") if pooled else name
    text = f"{row.value:+.1f} [{row.low:.1f}, {row.high:.1f}]".replace("-", "\N{MINUS SIGN}")
    weight = {"va": "center", "weight": "bold" if pooled else "normal", "fontsize": 8}
    where = axes.get_yaxis_transform()
    axes.text(-0.01, y, name, ha="right", transform=where, **weight)
    word = f"  {row.verdict}" if pooled else ""
    axes.text(1.01, y, text + word, ha="left", transform=where, **weight)


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
    gain = changes[(changes.kind == GAIN) & (changes.metric == "score")]
    average = changes[(changes.metric == "score") & (changes.task == "average")]
    average = average[average.kind.isin([POOLED, GAIN])]
    with plt.rc_context(SETTINGS):
        for name, shown in drawn.items() if families else ():
            rows = part[part.family.isin(shown)]
            save(scaling(rows, shown), name, caption(rows, SCALING), Path(output))
        if len(gain):
            save(gains(gain), "gains", caption(gain, GAINS), Path(output))
        if len(average):
            save(forest(average), "forest", caption(average, FOREST), Path(output))
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
FOREST = (
    "ATKD's gain on the average score, with 95 % intervals. Diamond: the mean over pairs, one test "
    "per baseline, and its verdict (Holm-corrected; undecided below three seeds). Grey: gains too "
    "small for it to find (two-sided 5 %, uncorrected, power 80 %). Thin: single pairs, "
    "exploratory."
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd figures", description=__doc__)
    parser.add_argument("--tables", required=True, help="folder written by atkd.tables")
    parser.add_argument("--output", required=True, help="folder for the figures")
    draw(**vars(parser.parse_args()))
