"""A table as text, and how numbers and their footnotes are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.runtime.files import write_text
from atkd.statistics.estimates import Cell, is_world, save_csv
from atkd.statistics.intervals import RELIABLE_SEEDS

if TYPE_CHECKING:
    import pandas as pd

MINUS = "\N{MINUS SIGN}"


def tex(text: str) -> str:
    """Text escaped for LaTeX."""
    swaps = {"\\": r"\textbackslash{}", MINUS: "$-$", ">": "$>$", "←": r"$\leftarrow$"}
    swaps |= {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}"}
    return "".join(swaps.get(c, c) for c in text)


@dataclass
class Table:
    """A table as text: rows are lists of cells, None draws a rule; `data` is its CSV."""

    name: str
    title: str
    heads: list[str]
    rows: list[list[str] | None]
    notes: list[str]
    data: pd.DataFrame

    def markdown(self) -> str:
        """GitHub's Markdown; rules are not drawn."""
        lines = [self.heads, [":--", ":--"] + ["--:"] * (len(self.heads) - 2)]
        lines += [row for row in self.rows if row is not None]
        body = "\n".join(
            "| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in lines
        )
        return f"**{self.title}**\n\n{body}\n\n" + "\n".join(f"{n}  " for n in self.notes) + "\n"

    def latex(self) -> str:
        """A `table*` float that needs booktabs and graphicx."""
        rows = ["\\midrule" if r is None else " & ".join(map(tex, r)) + r" \\" for r in self.rows]
        columns = "ll" + "r" * (len(self.heads) - 2)
        lines = [r"\begin{table*}[t]", r"\centering\small\setlength{\tabcolsep}{3.5pt}"]
        lines += [rf"\caption{{{tex(self.title)}. {tex(' '.join(self.notes))}}}"]
        lines += [rf"\label{{tab:{self.name}}}", r"\resizebox{\linewidth}{!}{%"]
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        lines += [" & ".join(map(tex, self.heads)) + r" \\", r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([*lines, r"\end{tabular}}", r"\end{table*}"]) + "\n"

    def save(self, folder: str | Path) -> None:
        """Writes <name>.md, .tex and .csv."""
        base = Path(folder)
        write_text(base / f"{self.name}.md", self.markdown())
        write_text(base / f"{self.name}.tex", self.latex())
        save_csv(self.data, base / f"{self.name}.csv")


def arrow(cell: Cell) -> str:
    """The model a row is about: `125M ← 1.3B`, or the one model where there is no pair."""
    return " ← ".join(part.upper() for part in cell[1:3] if part != "-")


def number(value: float, digits: int = 2, sign: str = "") -> str:
    """A number with true minus signs; nothing where there is none."""
    text = "" if value != value else f"{value:{sign}.{digits}f}"
    return text.replace("-", MINUS)


def signed(row: Any, digits: int = 2) -> str:
    """A difference and its interval; empty brackets say that the interval is unknown."""
    low, high = (number(bound, digits) for bound in (row.low, row.high))
    return f"{number(row.value, digits, '+')} [{low}, {high}]" if low else number(row.value, digits)


def probability(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else number(value, 3)


def notes(part: pd.DataFrame, metric: str, config: str) -> list[str]:
    """What every table must say: metric, direction, documents, seeds, what intervals cover."""
    counts = part[part.tasks == 1].groupby("task", sort=False).documents.max()
    total = counted(counts.items()) or f"Documents: {part.documents.max()}"
    about = f"{total}; seeds: {either(part.seeds)}. "
    about += f"Intervals: 95 %, over {either(part.over)}."
    if part.seeds.between(2, RELIABLE_SEEDS - 1).any():
        about += " With two seeds such an interval covers 92 to 97 %."
    text = METRICS[metric].about
    if metric == "score":
        kinds = dict.fromkeys(part.scored[part.tasks == 1]) or dict.fromkeys(part.scored)
        text += f": {', '.join(kinds)}."
    lines = [f"{text} Averages give every task equal weight.", about]
    if is_world(config):
        lines += ["(world): generated analogues of the paper's tasks, not the real sets."]
    return lines


def detectable_note(part: pd.DataFrame) -> str:
    """What the column Detectable is, over what, and that it is one comparison's alone."""
    return (
        "Detectable: the smallest true difference that the comparison would find over "
        f"{either(part.over)}, two-sided 5 %, power 80 %; uncorrected, unlike p (Holm), so that a "
        "verdict needs more."
    )


def counted(counts: Iterable[tuple[str, int]]) -> str:
    """Each task's number of documents and their sum; nothing for no tasks."""
    found = dict(counts)
    sizes = ", ".join(f"{task} {n}" for task, n in found.items())
    return f"Documents: {sum(found.values())} ({sizes})" if sizes else ""


def either(values: Any) -> str:
    """The distinct values, joined by `or`."""
    return " or ".join(map(str, sorted(set(values))))
