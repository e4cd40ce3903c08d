"""How every figure looks, and how it is saved with a caption that says what its numbers are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.methods import METHODS
from atkd.reporting import registry
from atkd.reporting.table import either
from atkd.runtime.files import atomic_path, write_text
from atkd.statistics.comparisons import base_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    Drawing = tuple[Figure, pd.DataFrame]  # and the rows it shows

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "atkd",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelcolor": "#333333",
    "text.color": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}
OTHER = ("#7A5195", "h")  # a method that no row knows


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib with `SETTINGS` over its own defaults, whatever the user's settings say.

    It reads a backend and a `matplotlibrc` (of the working folder, MATPLOTLIBRC, the user's
    configuration) when it is imported, and a bad one ends that: they are out of sight meanwhile.
    """
    hidden = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        with contextlib.chdir(Path(__file__).parent):
            import matplotlib
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ |= {name: value for name, value in hidden.items() if value is not None}
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    with matplotlib.rc_context(defaults | SETTINGS):
        yield


MARGIN = 0.1  # inches around a figure


def panels(
    rows: int = 1, columns: int = 1, figsize: tuple[float, float] | None = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, without pyplot, whose backends may want a screen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def style(method: str) -> dict[str, Any]:
    """ATKD solid and filled, its baseline dashed and hollow in the same hue."""
    ours = bool(base_of(method))
    colour, marker = METHODS[method].look if method in METHODS else OTHER
    return {
        "color": colour,
        "marker": marker,
        "markersize": 5.2,
        "markeredgewidth": 1.2,
        "markerfacecolor": colour if ours else "white",
        "zorder": 4 if ours else 3,
        "linestyle": "-" if ours else (0, (4, 2)),
        "linewidth": 1.9 if ours else 1.3,
    }


def caption(part: pd.DataFrame, text: str, world: bool) -> str:
    """A caption that ends with metric, direction, documents, seeds and what intervals cover."""
    metrics = " ".join(_told(part, metric) for metric in dict.fromkeys(part.metric))
    unit = part.unit.iloc[0] if "unit" in part else "documents"
    count = f"At most {part.documents.max()} {unit} a point"
    over = either(part.over)
    intervals = f" Intervals are 95 % over {over}." if over else ""
    told = f"{text} Metric: {metrics} {count}; seeds: {either(part.seeds)}.{intervals}"
    return told + (f" {registry.WORLD}" if world else "")


def _told(part: pd.DataFrame, metric: str) -> str:
    if "about" in part:
        return str(part.about.iloc[0])
    if metric != "score":
        return METRICS[metric].about
    about = max(part.scored[part.metric == metric], key=len)
    return f"the task's own score in percent ({about}); higher is better."


def save(figure: Figure, name: str, text: str, output: Path) -> None:
    """Writes <name>.svg, .png and .txt; no date and a fixed salt keep the SVG's bytes fixed.

    What surrounds a figure tightly is found once for both, since finding it takes a drawing.
    """
    bounds = figure.get_tightbbox().padded(MARGIN)
    options: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 180}}
    for kind, extra in options.items():
        with atomic_path(output / f"{name}.{kind}") as part:
            figure.savefig(part, format=kind, bbox_inches=bounds, **extra)
    write_text(output / f"{name}.txt", text + "\n")
