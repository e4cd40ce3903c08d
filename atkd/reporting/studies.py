"""Tables and figures of the studies: methods under settings of their own, at some pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from atkd.analyses import ANALYSES, Analysis, is_study
from atkd.methods import title_of
from atkd.models.families import family_title, size
from atkd.reporting import registry
from atkd.reporting.inputs import Numbers, Run
from atkd.reporting.plotting import panels, style
from atkd.reporting.table import Table, arrow, detectable_note, notes, number, signed
from atkd.statistics.estimates import Cell, Contrast, RunRecord, average

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from atkd.reporting.plotting import Drawing

POOLED = "all"  # stands for family, student and teacher of a mean over pairs
CHANGES = ("value", "low", "high", "detectable", "seeds")


def has(name: str) -> Callable[[RunRecord], bool]:
    """Whether a run has a study."""
    return lambda record: name in record.analyses


def pairs_of(row: Analysis, run: Run) -> list[Cell]:
    """The pairs at which all of a study's models were scored, in the run's order."""
    cells = set(run.scores.rows)
    found = (Cell(**pair, method="") for pair in run.record.pairs)
    return [pair for pair in found if all(_at(pair, name) in cells for name in row.methods)]


def _at(pair: Cell, method: str) -> Cell:
    alone = method.partition("+")[0] in ("sft", "none")
    return pair._replace(method=method, teacher="-" if alone else pair.teacher)


def study_table(name: str, run: Run) -> Table | None:
    """A block for the mean over pairs, where there are several, and one for each pair."""
    import pandas as pd

    row = ANALYSES[name]
    pairs = pairs_of(row, run)
    if not pairs:
        return None
    blocks = [pairs] if len(pairs) > 1 else []
    blocks += [[pair] for pair in pairs]
    shown: list[list[str] | None] = []
    kept: list[dict[str, Any]] = []
    for block in blocks:
        shown.append(None)
        for group, label, method in arms_of(row):
            found = measured(run, block, method, row.against) | {"group": group, "arm": label}
            shown.append(_shown(found))
            kept.append(found)
    data = pd.DataFrame(kept)
    against = title_of(row.against)
    return Table(
        f"{row.title} ({run.title}), average score",
        ["Pairs", "Students of", "Score [interval]", f"Less {against} [interval]", "Detectable"],
        shown[1:],
        [row.asks, *notes(data, "score", run.scores), detectable_note(data)],
        data,
    )


def arms_of(row: Analysis) -> Iterator[tuple[str, str, str]]:
    """Group, label and method of each arm, behind the method all are held against."""
    if all(row.against not in arm.values() for arm in row.arms.values()):
        yield "", title_of(row.against), row.against
    for group, arm in row.arms.items():
        for label, method in arm.items():
            yield group, label, method


def measured(run: Run, pairs: list[Cell], method: str, against: str) -> dict[str, Any]:
    """A method's average score over pairs, and its difference to another's."""
    ours, theirs = (tuple(_at(pair, name) for pair in pairs) for name in (method, against))
    level = average(run.scores, Contrast(tuple(dict.fromkeys(ours)), (), "study"))
    named = pairs[0] if len(pairs) == 1 else Cell(POOLED, POOLED, POOLED, "")
    found = level | {"family": named.family, "student": named.student, "teacher": named.teacher}
    found |= {"pairs": len(pairs), "teacher_size": size(named.teacher), "method": method}
    if method == against:
        return found
    change = average(run.scores, Contrast(ours, theirs, "study"))
    return found | {f"change_{key}": change[key] for key in CHANGES}


def _shown(row: dict[str, Any]) -> list[str]:
    pair = f"{family_title(row['family'])} {arrow((row['family'], row['student'], row['teacher']))}"
    where = f"mean of {row['pairs']} pairs" if row["family"] == POOLED else pair
    name = f"{row['group']}: {row['arm']}" if row["group"] else row["arm"]
    level = f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"
    if "change_value" not in row:
        return [where, name, level, "", ""]
    change = SimpleNamespace(**{key: row[f"change_{key}"] for key in CHANGES})
    return [where, name, level, signed(change), number(change.detectable)]


# Figures


def shown_arms(numbers: Numbers, name: str) -> pd.DataFrame | None:
    """The rows of a study's table, groups without a name being empty text."""
    data = numbers.table(name)
    if data is None:
        return None
    return data.assign(group=[text if isinstance(text, str) else "" for text in data.group])


def arm_figure(name: str, numbers: Numbers) -> Drawing | None:
    """Every arm's score with its interval, a row each; a colour for each pair."""
    data, row = shown_arms(numbers, name), ANALYSES[name]
    if data is None:
        return None
    arms = list(dict.fromkeys(zip(data.group, data.arm, strict=True)))
    pairs = [block for _, block in data.groupby(["family", "student", "teacher"], sort=False)]
    figure, axes = panels(
        figsize=(5.6, 0.9 + (0.2 + 0.05 * len(pairs)) * len(arms) + 0.15 * len(row.arms))
    )
    places = _places(arms)
    for at, block in enumerate(pairs):
        _arm_dots(axes, block, places, at - (len(pairs) - 1) / 2, PAIR_COLOURS[at % 5])
    _arm_labels(axes, places)
    axes.set_xlabel("Average score (%)")
    _pair_legend(axes, pairs)
    return figure, data


PAIR_COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7")


def _places(arms: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Heights of the arms, groups apart."""
    found, y = {}, 0.0
    for before, arm in zip([arms[0], *arms], arms, strict=False):
        y += 1.6 if before[0] != arm[0] else 1.0
        found[arm] = y
    return found


def _arm_dots(
    axes: Axes, block: pd.DataFrame, places: dict[tuple[str, str], float], off: float, colour: str
) -> None:
    pooled = block.family.iloc[0] == POOLED
    for row in block.itertuples():
        y = places[row.group, row.arm] + 0.2 * off
        axes.plot([row.low, row.high], [y, y], color=colour, lw=1.8 if pooled else 1.2, alpha=0.7)
        mark = {"marker": "D" if pooled else "o", "markersize": 5}
        axes.plot([row.value], [y], color=colour, markeredgecolor="white", zorder=4, **mark)
    reference = block[block.change_value.isna()]
    axes.axvline(reference.value.iloc[0], color=colour, lw=0.8, ls=(0, (3, 2)), alpha=0.8, zorder=1)


def _arm_labels(axes: Axes, places: dict[tuple[str, str], float]) -> None:
    told = ""
    for (group, arm), y in places.items():
        axes.text(-0.02, y, arm, ha="right", va="center", transform=axes.get_yaxis_transform())
        if group and group != told:
            spot = {"transform": axes.get_yaxis_transform(), "weight": "bold", "fontsize": 7.5}
            axes.text(-0.02, y - 0.72, group, ha="right", va="center", **spot)
            told = group
    axes.set_yticks([])
    axes.set_ylim(max(places.values()) + 0.7, min(places.values()) - 0.9)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _pair_legend(axes: Axes, pairs: list[pd.DataFrame]) -> None:
    from matplotlib.lines import Line2D

    names = [pair_name(block.iloc[0]) for block in pairs]
    marks = [
        Line2D([], [], color=PAIR_COLOURS[at % 5], marker="o", linestyle="")
        for at in range(len(pairs))
    ]
    spot = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    axes.legend(marks, names, frameon=False, ncols=min(3, len(names)), fontsize=7.5, **spot)


def pair_name(row: Any) -> str:
    """How a block's pair is written, or that it is a mean."""
    if row.family == POOLED:
        return f"mean of {row.pairs} pairs"
    return f"{family_title(row.family)} {arrow((row.family, row.student, row.teacher))}"


def axis_figure(name: str, numbers: Numbers) -> Drawing | None:
    """Score against a setting's value: a line per pair of a single method, or per method."""
    data, row = shown_arms(numbers, name), ANALYSES[name]
    if data is None:
        return None
    values = data[data.arm.map(is_number)]
    one = len(row.arms) == 1
    shown = values if one else values[values.family == values.family.iloc[0]]
    figure, axes = panels(figsize=(5.2 if one else 6.4, 3.2))
    keys = ["family", "teacher"] if one else ["group"]
    alone = [] if POOLED in set(shown.family) else list(shown.family)
    for at, (_, line) in enumerate(shown.groupby(keys, sort=False)):
        look = line_look(line, at) if one else style(line.method.iloc[0].partition("+")[0])
        name = pair_name(line.iloc[0]) if one else line.group.iloc[0]
        _line(axes, line, look, name, one and line.family.iloc[0] in (POOLED, *alone))
    levels = data[~data.arm.map(is_number)]
    for at, level in enumerate(levels.itertuples()):
        axes.axhline(level.value, color=PAIR_COLOURS[at % 5], lw=1, ls=(0, (3, 2)), alpha=0.8)
    if row.paper:
        axes.axvline(float(row.paper), color="#BBBBBB", lw=5, alpha=0.4, zorder=0)
    axes.set_xlabel(row.axis)
    axes.set_ylabel("Average score (%)")
    axes.set_xticks(sorted({float(label) for label in shown.arm}))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure, data


def is_number(label: object) -> bool:
    """Whether a label is a value on an axis."""
    try:
        float(str(label))
    except ValueError:
        return False
    return True


def line_look(line: pd.DataFrame, at: int) -> dict[str, Any]:
    """A pair's line; the mean over pairs is thick."""
    pooled = line.family.iloc[0] == POOLED
    colour = PAIR_COLOURS[at % 5]
    return {
        "color": colour,
        "marker": "D" if pooled else "o",
        "markersize": 5,
        "linewidth": 2.2 if pooled else 1.1,
        "zorder": 4 if pooled else 3,
    }


def _line(axes: Axes, line: pd.DataFrame, look: dict[str, Any], name: str, banded: bool) -> None:
    line = line.assign(x=line.arm.astype(float)).sort_values("x")
    axes.plot(line.x, line.value, label=name, **look)
    if banded:
        axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.12, lw=0)


def _register(name: str) -> None:
    row = ANALYSES[name]
    shown = {"category": "Studies", "applies": has(name)}
    registry.table(name, caption=f"{row.title}. {row.asks}", section="studies", **shown)(
        partial(study_table, name)
    )
    kind = axis_figure if row.axis else arm_figure
    registry.figure(name, caption=_caption(row), section="studies", **shown)(partial(kind, name))


def _caption(row: Analysis) -> str:
    """What a figure shows, and how to read it."""
    dashed = f"Dashed: {title_of(row.against)} as it is."
    if not row.axis:
        return f"{row.title}. {row.asks} Bars: 95 % intervals. {dashed}"
    band = "Band: 95 % interval, of the mean where there are several pairs."
    paper = f" Grey: the paper's choice, {row.paper}." if row.paper else ""
    return f"{row.title}. {row.asks} {band} {dashed if len(row.arms) == 1 else ''}{paper}"


for _name in filter(is_study, ANALYSES):
    _register(_name)
