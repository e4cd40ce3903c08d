"""A table as text, and how numbers and their footnotes are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.methods import Name
from atkd.runtime.files import read_json, write_json, write_text
from atkd.statistics.estimates import Scores, save_csv, task_label
from atkd.statistics.intervals import RELIABLE_SEEDS

if TYPE_CHECKING:
    import pandas as pd

MINUS = "\N{MINUS SIGN}"
KINDS = ("csv", "md", "tex", "json")  # of file, the first being what Snakemake's report shows
TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "←": r"$\leftarrow$",
    MINUS: "$-$",
    ">": "$>$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
FEW_SEEDS = " With two seeds such an interval covers 92 to 97 %."
ANALOGUES = "(world): generated analogues of the paper's tasks, not the real sets."


def tex(text: str) -> str:
    """Text escaped for LaTeX."""
    return "".join(TEX.get(character, character) for character in text)


@dataclass
class Table:
    """A table as text: rows are lists of cells, None draws a rule; `data` is its CSV.

    Its two first columns are names, the others numbers. `name` is that of its files.
    """

    title: str
    heads: list[str]
    rows: list[list[str] | None]
    notes: list[str]
    data: pd.DataFrame | None = field(default=None, repr=False)
    name: str = ""

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
        lines = [
            r"\begin{table*}[t]",
            r"\centering\small\setlength{\tabcolsep}{3.5pt}",
            rf"\caption{{{tex(self.title)}. {tex(' '.join(self.notes))}}}",
            rf"\label{{tab:{self.name}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{ll{'r' * (len(self.heads) - 2)}}}",
            r"\toprule",
            " & ".join(map(tex, self.heads)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
        ]
        return "\n".join(lines) + "\n"

    def save(self, folder: str | Path) -> None:
        """Writes <name>.md, .tex, .csv, and .json, which `read` takes."""
        base = Path(folder)
        write_text(base / f"{self.name}.md", self.markdown())
        write_text(base / f"{self.name}.tex", self.latex())
        save_csv(self.data, base / f"{self.name}.csv")
        shown = {key: getattr(self, key) for key in ("name", "title", "heads", "rows", "notes")}
        write_json(base / f"{self.name}.json", shown)


def studied_note(cells: Iterable[Sequence[str]]) -> list[str]:
    """Where the models of studies are that a table of all models leaves out."""
    own = sum(bool(Name.of(cell[3]).settings) for cell in cells)
    told = f"{own} models under settings of their own, which studies trained, are in its CSV file."
    return [told] if own else []


def read(path: str | Path) -> Table:
    """A table that was saved, without its data."""
    return Table(**read_json(path))


def arrow(cell: tuple[str, ...]) -> str:
    """The model a row is about: `125M ← 1.3B`, or the one model where there is no pair."""
    return " ← ".join(part.upper() for part in cell[1:3] if part != "-")


def number(value: float | None, digits: int = 2, sign: str = "", none: str = "") -> str:
    """A number with true minus signs; `none` where there is no number."""
    if value is None or value != value:
        return none
    return f"{value:{sign}.{digits}f}".replace("-", MINUS)


def signed(row: Any, digits: int = 2) -> str:
    """A difference and its interval; empty brackets say that the interval is unknown."""
    low, high = (number(bound, digits) for bound in (row.low, row.high))
    return f"{number(row.value, digits, '+')} [{low}, {high}]" if low else number(row.value, digits)


def probability(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else number(value, 3)


def notes(part: pd.DataFrame, metric: str, scores: Scores) -> list[str]:
    """What every table must say: metric, direction, documents, seeds, what intervals cover."""
    counts = part[part.tasks == 1].groupby("task", sort=False).documents.max()
    total = counted(counts.items()) or f"Documents: {part.documents.max()}"
    few = part.seeds.between(2, RELIABLE_SEEDS - 1).any()
    about = f"{total}; seeds: {either(part.seeds)}. Intervals: 95 %, over {either(part.over)}."
    text = METRICS[metric].about
    if metric == "score":
        kinds = dict.fromkeys(part.scored[part.tasks == 1]) or dict.fromkeys(part.scored)
        text += f": {', '.join(kinds)}."
    return [
        f"{text} Averages give every task equal weight.",
        about + (FEW_SEEDS if few else ""),
        *([ANALOGUES] if scores.record.world else []),
        *wordless_note(scores.wordless_in(metric, part.task), scores.record.world),
    ]


def wordless_note(found: Mapping[str, tuple[int, int]], world: bool) -> list[str]:
    """How many of each task's references ROUGE-L cannot compare, if there are any."""
    counts = [
        f"{lack} of {total} references of {task_label(task, world)}"
        for task, (lack, total) in found.items()
    ]
    text = (
        "ROUGE-L compares words of letters a-z and digits alone; it is 0, whatever the answer, for"
    )
    return [f"{text} {', '.join(counts)}, which have none."] if counts else []


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
