"""Score files -> tables: every number with its interval (CSV), and the tables people read.

`python -m atkd tables --scores scores.csv --documents documents.csv.gz --costs costs.csv
--published results/published.csv --output tables` writes `estimates.csv` and `differences.csv` (all
cells and all differences, what figures are drawn from) and each table as .md, .tex and .csv.
`gains` is the one that decides: the primary family of `atkd.comparisons`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.reporting.agreement import judge_tables
from atkd.reporting.costs import cost_table
from atkd.reporting.table import Table, arrow, detectable_note, notes, number, probability, signed
from atkd.statistics.comparisons import BASELINES, EXPLORATORY, EXTRAS, GAIN, POOLED, differences
from atkd.statistics.estimates import (
    AVERAGES,
    COST_COLUMNS,
    FAMILIES,
    KEYS,
    TASKS,
    Scores,
    estimates,
    label,
    load,
    read_csv,
    save_csv,
    sort_key,
)
from atkd.statistics.intervals import RELIABLE_SEEDS

if TYPE_CHECKING:
    import pandas as pd

IQM = "IQM: interquartile mean over tasks and seeds."


def grid(
    name: str, frame: pd.DataFrame, changes: pd.DataFrame, columns: list[str], config: str
) -> Table:
    """One family's table for one metric: a row per teacher and method, a column per task."""
    family, metric = frame.family.iloc[0], frame.metric.iloc[0]
    about, columns = METRICS[metric], [c for c in columns if c in set(frame.task)]
    wide = frame.pivot(index=KEYS, columns="task", values="value").reindex(columns=columns)
    last, named = columns[-1], dict(zip(frame.task, frame.task_label, strict=True))
    middle = frame[frame.task == last].set_index(KEYS).iqm.rename("IQM").dropna()
    wide = wide.join(middle) if len(middle) else wide
    gains = changes[changes.task == last].set_index(KEYS)
    rows: list[list[str] | None] = []
    previous = None
    for cell in sorted(wide.index, key=sort_key):
        if previous not in (None, cell[2]):
            rows.append(None)
        previous = cell[2]
        values = [number(value, about.digits) for value in wide.loc[cell]]
        found = gains.loc[cell] if cell in gains.index else None
        texts = (signed, lambda row, digits: number(row.detectable, digits))
        values += ["" if found is None else text(found, about.digits) for text in texts]
        rows.append([arrow(cell), label(cell[3]), *values])
    heads = ["Model", "Method", *(named.get(c, c) for c in wide), "ATKD's gain", "Detectable"]
    what = about.title if about.title.isupper() else about.title.lower()
    title = f"{FAMILIES.get(family, family)}: {what} ({config})"
    text = f"ATKD's gain: {named[last]} with ATKD minus without, in {about.unit}. "
    text += detectable_note(gains if len(gains) else frame)
    kept = ["value", "low", "high", "detectable", "seeds", "documents"]
    data = wide.reset_index().merge(gains[kept].add_prefix("gain_"), "left", KEYS)
    text += f" {IQM}" * bool(len(middle))
    return Table(name, title, heads, rows, [*notes(frame, metric, config), text], data)


def gain_table(changes: pd.DataFrame, config: str) -> Table:
    """ATKD's gain on the average score: pooled over pairs, which decides, and pair by pair."""
    part = changes[(changes.metric == "score") & (changes.task == "average")]
    part = part[part.kind.isin([POOLED, GAIN])]
    rows: list[list[str] | None] = []
    for row in part.itertuples():
        if row.kind == GAIN and None not in rows:
            rows.append(None)
        cell = (row.family, row.student, row.teacher, row.method)
        pair = f"{FAMILIES.get(row.family, row.family)} {arrow(cell)}"
        about = f"mean of {row.pairs} pair{'s' * (row.pairs > 1)}" if row.kind == POOLED else pair
        values = [signed(row), number(row.iqm, 2, "+"), number(row.improvement)]
        values += [number(row.detectable), probability(row.p), probability(row.p_holm)]
        rows.append([label(row.method.removesuffix("_atkd")), about, *values, row.verdict])
    heads = ["Baseline", "Pair", "ATKD's gain [interval]", "IQM", "P(improvement)", "Detectable"]
    heads += ["p", "p (Holm)", "Verdict"]
    title = f"ATKD's gain ({config}), average score"
    return Table("gains", title, heads, rows, _about_gains(part, config), part)


def _about_gains(part: pd.DataFrame, config: str) -> list[str]:
    if part.empty:
        return ["No method was run with ATKD and without."]
    tested = (part.verdict[part.kind == POOLED] != EXPLORATORY).sum()
    lines = notes(part, "score", config)
    if part.seeds.min() < RELIABLE_SEEDS:
        lines.insert(0, f"UNDECIDED: a verdict and a p-value need {RELIABLE_SEEDS} seeds.")
    return [
        *lines,
        "Gain: with ATKD less without, same documents and seeds, in points. Top rows average "
        "pairs, which are taken as given, document by document and seed by seed. "
        f"{detectable_note(part)} {IQM}",
        "P(improvement): that a run with ATKD beats one without, every seed against every seed, "
        "ties half, averaged over tasks and pairs (Agarwal et al. 2021).",
        f"Primary family: the pooled gain of {tested} of the paper's {len(BASELINES)} baselines; "
        "p (Holm) is corrected over it. Single pairs are exploratory, their p uncorrected, and so "
        "are all intervals.",
    ]


def controls(changes: pd.DataFrame, config: str) -> Table:
    """Teacher > SFT > untrained student, larger teachers > smaller: differences and a mark."""
    part = changes[~changes.kind.isin([POOLED, GAIN]) & (changes.task == "average")]
    part = part[part.metric == "score"].drop(columns="label")
    part = part.assign(mark=["ORDER OK" if v > 0 else "OUT OF ORDER" for v in part.value])
    heads = ["Family", "Expected", "Difference [interval]", "Detectable", "Mark"]
    rows: list[list[str] | None] = []
    for row in part.itertuples():
        family = FAMILIES.get(row.family, row.family)
        if rows and rows[-1] and rows[-1][0] != family:
            rows.append(None)
        unsure = " (interval includes 0)" if row.low <= 0 <= row.high else ""
        numbers = [signed(row), number(row.detectable)]
        rows.append([family, row.kind, *numbers, row.mark + unsure])
    text = [*notes(part, "score", config), detectable_note(part)] if len(part) else []
    title = f"Controls ({config}), average score"
    return Table("controls", title, heads, rows, [verdict(part), *text], part)


def verdict(part: pd.DataFrame) -> str:
    """The controls in one sentence."""
    wrong = part.kind[part.mark == "OUT OF ORDER"]
    if not len(part):
        return "CONTROLS NOT RUN: nothing shows that this run can tell better from worse."
    if not len(wrong):
        return f"Controls in order: all {len(part)} comparisons."
    names = "; ".join(f"{f}: {k}" for f, k in zip(part.family[wrong.index], wrong, strict=True))
    return f"CONTROLS OUT OF ORDER: {len(wrong)} of {len(part)} comparisons fail ({names})."


def published_table(path: str | Path, changes: pd.DataFrame, config: str) -> Table:
    """What the paper is known to report, beside this run's largest average gain."""
    import pandas as pd

    frame = read_csv(path, ["table", "family", "metric", "value", "source", "confidence"])
    gains = changes[(changes.kind == GAIN) & (changes.task == "average")]
    gains = gains[gains.metric == "score"]
    ours = []
    for row in frame.itertuples():
        part = gains[[row.family == "all" or f in str(row.family).split("+") for f in gains.family]]
        asked = row.metric == "max_average_gain" and len(part)
        best = part.loc[part.value.idxmax()] if asked else None
        ours.append(f"{signed(best)}, detectable {number(best.detectable)}" if asked else "")
    frame["this_run"] = ours
    heads = ["Item", "Family", "Quantity", "Paper", "This run", "Source"]
    shown = frame[["table", "family", "metric", "value", "this_run", "source"]]
    rows: list[list[str] | None] = [[str(v) for v in row] for row in shown.itertuples(index=False)]
    text = ["Largest of several gains: its interval is not corrected for having been picked."]
    if config != "paper":
        text.append(f"The run ({config}) is not at the paper's scale: do not compare the sizes.")
    text += [*notes(gains, "score", config), detectable_note(gains)] if len(gains) else []
    return Table("published", "Known numbers of the paper", heads, rows, text, pd.DataFrame(frame))


def _grids(scores: Scores) -> list[tuple[str, str, list[str]]]:
    """Name, metric and columns of the tables that each family has."""
    main = [c for c in scores.columns() if c in TASKS or c in AVERAGES]
    answered = [c for c in main if c in AVERAGES["generation"] or c == "generation"]
    shown = {"rouge_l": answered}
    names = [("main" if m == "score" else m, m, shown.get(m, main)) for m in scores.metrics()]
    return [*names, ("extra", "score", [c for c in scores.columns() if c not in main])]


def build(scores: Scores) -> tuple[pd.DataFrame, pd.DataFrame, list[Table]]:
    """All cells, all differences, and the tables made of them (controls first)."""
    import pandas as pd

    cells = sorted(scores.rows, key=sort_key)
    frame = pd.DataFrame(estimates(scores, [(((cell,), ()), "cell") for cell in cells]))
    changes = pd.DataFrame(differences(scores), columns=[*frame, "detectable", *EXTRAS])
    config = scores.config
    found = [controls(changes, config), gain_table(changes, config)]
    for name, metric, tasks in _grids(scores):
        part = frame[(frame.metric == metric) & frame.task.isin(tasks)]
        for family, rows in part.groupby("family", sort=False):
            same = changes[(changes.kind == GAIN) & (changes.metric == metric)]
            same = same[same.family == family]
            found.append(grid(f"{name}_{family}", rows, same, tasks, config))
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
    parser = argparse.ArgumentParser(prog="python -m atkd tables", description=__doc__)
    parser.add_argument("--scores", required=True, help="scores.csv")
    parser.add_argument("--documents", required=True, help="documents.csv.gz")
    parser.add_argument("--costs", help="costs.csv; without it there is no cost table")
    parser.add_argument("--published", help="results/published.csv")
    parser.add_argument("--output", required=True, help="folder for the tables")
    parser.add_argument("--title", help="name shown for the configuration (default: scores.csv's)")
    draw(**vars(parser.parse_args()))
