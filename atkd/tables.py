"""Score files -> tables: every number with its interval (CSV), and the tables people read.

`python -m atkd.tables --scores scores.csv --documents documents.csv.gz --costs costs.csv
--published results/published.csv --output tables` writes `estimates.csv` and `differences.csv` (all
cells and all differences, what figures are drawn from) and each table as .md, .tex and .csv.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.agreement import judge_tables
from atkd.estimates import (
    AVERAGES,
    COST_COLUMNS,
    FAMILIES,
    KEYS,
    METRICS,
    TASKS,
    Cell,
    Scores,
    contrasts,
    estimates,
    is_world,
    label,
    load,
    read_csv,
    save_csv,
    sort_key,
)
from atkd.files import cli, write_text

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


def signed(row: Any, digits: int = 2) -> str:
    """A difference and its interval, with true minus signs."""
    text = f"{row.value:+.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
    return text.replace("-", MINUS)


def notes(part: pd.DataFrame, metric: str, config: str) -> list[str]:
    """What every table must say: metric, direction, documents, seeds, what intervals cover."""
    text = "Bits per byte of the reference, lower is better."
    if metric == "score":
        kinds = dict.fromkeys(part.scored[part.tasks == 1]) or dict.fromkeys(part.scored)
        text = f"Score in percent, higher is better: {', '.join(kinds)}."
    counts = part[part.tasks == 1].groupby("task", sort=False).documents.max()
    seeds = sorted({int(s) for s in part.seeds})
    sizes = ", ".join(f"{task} {n}" for task, n in counts.items())
    total = f"{counts.sum()} ({sizes})" if sizes else str(part.documents.max())
    about = f"Documents: {total}; seeds: {' or '.join(map(str, seeds))}. "
    about += f"Intervals: 95 %, over {' or '.join(sorted(set(part.over)))}."
    lines = [f"{text} Averages give every task equal weight.", about]
    if is_world(config):
        lines += ["(world): generated analogues of the paper's tasks, not the real sets."]
    return lines


def grid(
    name: str, frame: pd.DataFrame, changes: pd.DataFrame, columns: list[str], config: str
) -> Table:
    """One family's table for one metric: a row per teacher and method, a column per task."""
    family, metric = frame.family.iloc[0], frame.metric.iloc[0]
    quantity, unit, digits = METRICS[metric]
    wide = frame.pivot(index=KEYS, columns="task", values="value").reindex(columns=columns)
    last = changes[changes.task == columns[-1]].set_index(KEYS)
    rows: list[list[str] | None] = []
    previous = None
    for cell in sorted(wide.index, key=sort_key):
        if previous not in (None, cell[2]):
            rows.append(None)
        previous = cell[2]
        values = ["" if v != v else f"{v:.{digits}f}" for v in wide.loc[cell]]
        gain = signed(last.loc[cell], digits) if cell in last.index else ""
        rows.append([arrow(cell), label(cell[3]), *values, gain])
    named = dict(zip(frame.task, frame.task_label, strict=True))
    heads = ["Model", "Method", *(named[c] for c in columns), "ATKD's gain"]
    title = f"{FAMILIES.get(family, family)}: {quantity.lower()} ({config})"
    about = f"ATKD's gain: last column's value with ATKD minus without, in {unit}."
    gains = last[["value", "low", "high", "seeds", "documents"]].add_prefix("gain_")
    data = wide.reset_index().merge(gains, "left", KEYS)
    return Table(name, title, heads, rows, [*notes(frame, metric, config), about], data)


def controls(changes: pd.DataFrame, config: str) -> Table:
    """Teacher > SFT > untrained student, larger teachers > smaller: differences and a mark."""
    part = changes[(changes.kind != "gain") & (changes.task == "average")]
    part = part[part.metric == "score"].drop(columns="label")
    part = part.assign(mark=["ORDER OK" if v > 0 else "OUT OF ORDER" for v in part.value])
    heads = ["Family", "Expected", "Difference [interval]", "Mark"]
    rows: list[list[str] | None] = []
    for row in part.itertuples():
        if rows and rows[-1] and rows[-1][0] != FAMILIES.get(row.family, row.family):
            rows.append(None)
        unsure = " (interval includes 0)" if row.low <= 0 <= row.high else ""
        rows.append(
            [FAMILIES.get(row.family, row.family), row.kind, signed(row), row.mark + unsure]
        )
    text = [verdict(part), *notes(part, "score", config)] if len(part) else [verdict(part)]
    return Table("controls", f"Controls ({config}), average score", heads, rows, text, part)


def verdict(part: pd.DataFrame) -> str:
    """The controls in one sentence."""
    wrong = part.kind[part.mark == "OUT OF ORDER"]
    if not len(part):
        return "CONTROLS NOT RUN: nothing shows that this run can tell better from worse."
    if not len(wrong):
        return f"Controls in order: all {len(part)} comparisons."
    names = "; ".join(f"{f}: {k}" for f, k in zip(part.family[wrong.index], wrong, strict=True))
    return f"CONTROLS OUT OF ORDER: {len(wrong)} of {len(part)} comparisons fail ({names})."


def phases(costs: pd.DataFrame) -> pd.DataFrame:
    """Seconds by stage: jobs, start-up, own work, wall, CPU; every job's wall time counts once."""
    kinds = dict.fromkeys(["base", "teacher", "student", "cache", "text"], "training")
    kinds |= {"evaluate": "evaluation", "generate": "evaluation"}
    costs = costs.assign(phase=costs.stage.map(kinds).fillna("rest"))
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


def cost_table(costs: pd.DataFrame, config: str) -> Table:
    """Where the time went."""
    table = phases(costs)
    split = time_split(table)
    total = sum(split.values()) or 1.0
    heads = ["Phase", "Stage", "Jobs", "Start-up s", "Work s", "Wall s", "CPU s", "Peak MB"]
    numbers = table[["startup_s", "work_s", "wall_s", "cpu_s", "peak_memory_mb"]]
    rows: list[list[str] | None] = [
        [row.phase, row.stage, str(row.jobs), *(f"{v:,.1f}" for v in numbers.loc[row.Index])]
        for row in table.itertuples()
    ]
    sums = [*(f"{v:,.1f}" for v in numbers.sum()[:4]), f"{numbers.peak_memory_mb.max():,.1f}"]
    rows += [None, ["all", "", str(table.jobs.sum()), *sums]]
    text = ", ".join(f"{name} {s:,.0f} s ({s / total:.0%})" for name, s in split.items())
    text = f"Seconds summed over jobs (several may run at once): {text}."
    return Table("costs", f"Where the time went ({config})", heads, rows, [text], table)


def published_table(path: str | Path, changes: pd.DataFrame, config: str) -> Table:
    """What the paper is known to report, beside this run's largest average gain."""
    import pandas as pd

    frame = read_csv(path, ["table", "family", "metric", "value", "source", "confidence"])
    gains = changes[(changes.kind == "gain") & (changes.task == "average")]
    gains = gains[gains.metric == "score"]
    ours = []
    for row in frame.itertuples():
        part = gains[[row.family == "all" or f in str(row.family).split("+") for f in gains.family]]
        asked = row.metric == "max_average_gain" and len(part)
        ours.append(signed(part.loc[part.value.idxmax()]) if asked else "")
    frame["this_run"] = ours
    heads = ["Item", "Family", "Quantity", "Paper", "This run", "Source"]
    shown = frame[["table", "family", "metric", "value", "this_run", "source"]]
    rows: list[list[str] | None] = [[str(v) for v in row] for row in shown.itertuples(index=False)]
    text = ["Largest of several gains: its interval is not corrected for having been picked."]
    if config != "paper":
        text.append(f"The run ({config}) is not at the paper's scale: do not compare the sizes.")
    return Table("published", "Known numbers of the paper", heads, rows, text, pd.DataFrame(frame))


def build(scores: Scores) -> tuple[pd.DataFrame, pd.DataFrame, list[Table]]:
    """All cells, all differences, and the tables made of them (controls first)."""
    import pandas as pd

    cells = sorted(scores.rows, key=sort_key)
    frame = pd.DataFrame(estimates(scores, {(cell,): "cell" for cell in cells}))
    changes = pd.DataFrame(estimates(scores, contrasts(scores)), columns=list(frame))
    columns, config = scores.columns(), scores.config
    main = [c for c in columns if c in TASKS or c in AVERAGES]
    extra = [c for c in columns if c not in main]
    found = [controls(changes, config)]
    gains = changes[changes.kind == "gain"]
    for name, metric, shown in (
        ("main", "score", main),
        ("bits_per_byte", "bits_per_byte", main),
        ("extra", "score", extra),
    ):
        part = frame[(frame.metric == metric) & frame.task.isin(shown)]
        for family, rows in part.groupby("family", sort=False):
            same = gains[(gains.family == family) & (gains.metric == metric)]
            found.append(grid(f"{name}_{family}", rows, same, shown, config))
    return frame, changes, found


def collect(
    scores: str | Path,
    documents: str | Path,
    costs: str | Path | None = None,
    published: str | Path | None = None,
    title: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[Table]]:
    """What `build` gives, from files, with the cost table and the paper's known numbers."""
    loaded = load(scores, documents)
    loaded.config = title or loaded.config
    frame, changes, found = build(loaded)
    found += [Table(*parts) for parts in judge_tables(documents, loaded.config)]
    if costs:
        found.append(cost_table(read_csv(costs, COST_COLUMNS), loaded.config))
    if published:
        found.append(published_table(published, changes, loaded.config))
    return frame, changes, found


def draw(output: str | Path, **files: Any) -> list[Table]:
    """Writes everything `collect` finds into the folder `output`."""
    frame, changes, found = collect(**files)
    save_csv(frame, Path(output) / "estimates.csv")
    save_csv(changes, Path(output) / "differences.csv")
    for table in found:
        table.save(output)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd.tables", description=__doc__)
    parser.add_argument("--scores", required=True, help="scores.csv")
    parser.add_argument("--documents", required=True, help="documents.csv.gz")
    parser.add_argument("--costs", help="costs.csv; without it there is no cost table")
    parser.add_argument("--published", help="results/published.csv")
    parser.add_argument("--output", required=True, help="folder for the tables")
    parser.add_argument("--title", help="name shown for the configuration (default: scores.csv's)")
    draw(**vars(parser.parse_args()))


if __name__ == "__main__":
    cli(main)
