"""Score files -> tables: every number with its interval (CSV), and the tables people read.

`python -m atkd tables --scores scores.csv --documents documents.csv.gz --costs costs.csv
--published results/published.csv --output tables` writes `estimates.csv` and `differences.csv` (all
cells and all differences, what figures are drawn from) and every registered table as .md, .tex,
.csv and .json. `gains` is the one that decides: the primary family of `statistics.comparisons`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.evaluation.metrics import METRICS
from atkd.methods import BASELINES, title_of
from atkd.models.families import family_title
from atkd.reporting import registry
from atkd.reporting.inputs import Run
from atkd.reporting.table import (
    Table,
    arrow,
    detectable_note,
    notes,
    number,
    probability,
    signed,
)
from atkd.statistics.comparisons import EXPLORATORY, GAIN, POOLED, base_of
from atkd.statistics.estimates import (
    KEYS,
    RunRecord,
    Scores,
    as_configured,
    read_csv,
    save_csv,
    sort_key,
)
from atkd.statistics.intervals import RELIABLE_SEEDS
from atkd.tasks import AVERAGES, open_ended

if TYPE_CHECKING:
    import pandas as pd

IQM = "IQM: interquartile mean over tasks and seeds."
PUBLISHED = ("table", "family", "metric", "value", "source", "confidence")
WITH_GAIN = "ATKD's gain in points with its 95 % interval."


@registry.table(
    "controls",
    category="Controls",
    section="controls",
    caption=(
        "Teacher above fine-tuned student above untrained student; larger teachers above smaller "
        "ones. A row marked OUT OF ORDER puts the whole run in doubt."
    ),
)
def controls(run: Run) -> Table:
    """Teacher > SFT > untrained student, larger teachers > smaller: differences and a mark."""
    part = run.changes
    part = part[~part.kind.isin([POOLED, GAIN]) & (part.task == "average")]
    part = part[part.metric == "score"].drop(columns="label")
    part = part.assign(mark=["ORDER OK" if v > 0 else "OUT OF ORDER" for v in part.value])
    rows: list[list[str] | None] = []
    for row in part.itertuples():
        family = family_title(row.family)
        if rows and rows[-1] and rows[-1][0] != family:
            rows.append(None)
        unsure = " (interval includes 0)" if row.low <= 0 <= row.high else ""
        numbers = [signed(row), number(row.detectable)]
        rows.append([family, row.kind, *numbers, row.mark + unsure])
    text = [*notes(part, "score", run.scores), detectable_note(part)] if len(part) else []
    return Table(
        f"Controls ({run.title}), average score",
        ["Family", "Expected", "Difference [interval]", "Detectable", "Mark"],
        rows,
        [verdict(part), *text],
        part,
    )


def verdict(part: pd.DataFrame) -> str:
    """The controls in one sentence."""
    wrong = part.kind[part.mark == "OUT OF ORDER"]
    if not len(part):
        return "CONTROLS NOT RUN: nothing shows that this run can tell better from worse."
    if not len(wrong):
        return f"Controls in order: all {len(part)} comparisons."
    names = "; ".join(f"{f}: {k}" for f, k in zip(part.family[wrong.index], wrong, strict=True))
    return f"CONTROLS OUT OF ORDER: {len(wrong)} of {len(part)} comparisons fail ({names})."


@registry.table(
    "gains",
    category="Gains",
    section="gains",
    caption=(
        "ATKD's gain in average score (points) over the same method without it. Top rows: the mean "
        "over pairs, one test per baseline, p-values corrected over them (Holm). Rows below: "
        "single pairs, exploratory, uncorrected. With fewer than three seeds nothing is decided."
    ),
)
def gains(run: Run) -> Table:
    """ATKD's gain on the average score: pooled over pairs, which decides, and pair by pair."""
    part = average_gains(run.changes)
    pooled = [_gain_row(row) for row in part.itertuples() if row.kind == POOLED]
    single = [_gain_row(row) for row in part.itertuples() if row.kind == GAIN]
    numbers = ["ATKD's gain [interval]", "IQM", "P(improvement)", "Detectable", "p", "p (Holm)"]
    return Table(
        f"ATKD's gain ({run.title}), average score",
        ["Baseline", "Pair", *numbers, "Verdict"],
        [*pooled, None, *single] if single else pooled,
        _about_gains(part, run.scores),
        part,
    )


def average_gains(changes: pd.DataFrame) -> pd.DataFrame:
    """The rows of gains on the average score, pooled and single."""
    part = changes[(changes.metric == "score") & (changes.task == "average")]
    return part[part.kind.isin([POOLED, GAIN])]


def _gain_row(row: Any) -> list[str]:
    pair = f"{family_title(row.family)} {arrow((row.family, row.student, row.teacher))}"
    many = "s" if row.pairs > 1 else ""
    return [
        title_of(base_of(row.method)),
        f"mean of {row.pairs} pair{many}" if row.kind == POOLED else pair,
        signed(row),
        number(row.iqm, 2, "+"),
        number(row.improvement),
        number(row.detectable),
        probability(row.p),
        probability(row.p_holm),
        row.verdict,
    ]


def _about_gains(part: pd.DataFrame, scores: Scores) -> list[str]:
    if part.empty:
        return ["No method was run with ATKD and without."]
    tested = (part.verdict[part.kind == POOLED] != EXPLORATORY).sum()
    few = f"UNDECIDED: a verdict and a p-value need {RELIABLE_SEEDS} seeds."
    return [
        *([few] if part.seeds.min() < RELIABLE_SEEDS else []),
        *notes(part, "score", scores),
        "Gain: with ATKD less without, same documents and seeds, in points. Top rows average "
        "pairs, which are taken as given, document by document and seed by seed. "
        f"{detectable_note(part)} {IQM}",
        "P(improvement): that a run with ATKD beats one without, every seed against every seed, "
        "ties half, averaged over tasks and pairs (Agarwal et al. 2021).",
        f"Primary family: the pooled gain of {tested} of the paper's {len(BASELINES)} baselines; "
        "p (Holm) is corrected over it. Single pairs are exploratory, their p uncorrected, and so "
        "are all intervals.",
    ]


def grid(run: Run, family: str, metric: str, columns: list[str]) -> Table | None:
    """One family's table for one metric: a row per teacher and method, a column per task."""
    cells, changes = (
        frame[(frame.metric == metric) & (frame.family == family) & frame.task.isin(columns)]
        for frame in (as_configured(run.cells), run.changes[run.changes.kind == GAIN])
    )
    if cells.empty:
        return None
    columns = [column for column in columns if column in set(cells.task)]
    wide = cells.pivot(index=KEYS, columns="task", values="value").reindex(columns=columns)
    middle = cells[cells.task == columns[-1]].set_index(KEYS).iqm.rename("IQM").dropna()
    wide = wide.join(middle) if len(middle) else wide
    found = changes[changes.task == columns[-1]].set_index(KEYS)
    heads = dict(zip(cells.task, cells.task_label, strict=True))
    about = METRICS[metric]
    kept = ["value", "low", "high", "detectable", "seeds", "documents"]
    text = (
        f"ATKD's gain: {heads[columns[-1]]} with ATKD minus without, in {about.unit}; * where the "
        "interval, of one comparison among many, leaves 0 out. "
        f"{detectable_note(found if len(found) else cells)}"
    )
    title = about.words
    return Table(
        f"{family_title(family)}: {title} ({run.title})",
        ["Model", "Method", *(heads.get(c, c) for c in wide), "ATKD's gain", "Detectable"],
        _grid_rows(wide, found, about.digits),
        [*notes(cells, metric, run.scores), f"{text} {IQM}" if len(middle) else text],
        wide.reset_index().merge(found[kept].add_prefix("gain_"), "left", KEYS),
    )


def _grid_rows(wide: pd.DataFrame, found: pd.DataFrame, digits: int) -> list[list[str] | None]:
    """Rows in the tables' order, a rule before every teacher."""
    rows: list[list[str] | None] = []
    previous = None
    for cell in sorted(wide.index, key=sort_key):
        _, _, teacher, method = cell
        if previous not in (None, teacher):
            rows.append(None)
        previous = teacher
        gain = found.loc[cell] if cell in found.index else None
        last = (
            ["", ""] if gain is None else [_marked(gain, digits), number(gain.detectable, digits)]
        )
        values = [number(value, digits) for value in wide.loc[cell]]
        rows.append([arrow(cell), title_of(method), *values, *last])
    return rows


def _marked(gain: Any, digits: int) -> str:
    """A gain, with a star where its interval leaves zero out."""
    return signed(gain, digits) + (" *" if gain.low > 0 or gain.high < 0 else "")


def averaged(run: Run) -> list[str]:
    """The columns that are in an average, and the averages."""
    return [c for c in run.scores.columns() if c in AVERAGES or c in AVERAGES["average"]]


@registry.table(
    "main_{family}",
    category="Scores",
    section="scores",
    caption=(
        "Each task's own score in percent (the judge's rating where one ran and else ROUGE-L F for "
        "generation, prefix match for MMLU, DROP and BBH; higher is better) for teachers, controls "
        f"and methods; {WITH_GAIN}"
    ),
)
def main_grid(run: Run, family: str) -> Table | None:
    """The scores of the averaged tasks."""
    return grid(run, family, "score", averaged(run))


def beside_a_judge(record: RunRecord) -> bool:
    """Whether a judge's rating is the score of some generation task of the averages."""
    return judged(record) and not set(AVERAGES["generation"]).isdisjoint(record.tasks)


def judged(record: RunRecord) -> bool:
    """Whether a judge rates answers: the world's own, or a language model."""
    return bool(record.rater) and any(map(open_ended, record.all_tasks))


@registry.table(
    "rouge_l_{family}",
    category="ROUGE-L",
    section="scores",
    applies=beside_a_judge,
    caption=(
        "ROUGE-L F in percent (no stemmer; higher is better) of the generation tasks, beside the "
        f"judge's rating that is their score; {WITH_GAIN}"
    ),
)
def rouge_grid(run: Run, family: str) -> Table | None:
    """ROUGE-L where a judge's rating is the score."""
    names = (*AVERAGES["generation"], "generation")
    return grid(run, family, "rouge_l", [c for c in averaged(run) if c in names])


@registry.table(
    "bits_per_byte_{family}",
    category="Bits per byte",
    caption=(
        "Bits per byte of the reference answer (lower is better). Secondary: it penalises by "
        "definition what ATKD gives up on easy tokens."
    ),
)
def bits_grid(run: Run, family: str) -> Table | None:
    """Bits per byte of the averaged tasks."""
    return grid(run, family, "bits_per_byte", averaged(run))


@registry.table(
    "extra_{family}",
    category="Generalisation",
    applies=lambda record: bool(record.extra_tasks),
    caption=(
        "Score in percent on tasks outside the average: skill families that no model was trained "
        "on."
    ),
)
def extra_grid(run: Run, family: str) -> Table | None:
    """The scores of tasks outside the averages."""
    known = averaged(run)
    return grid(run, family, "score", [c for c in run.scores.columns() if c not in known])


@registry.table(
    "published",
    category="Paper",
    caption=(
        "What the paper is known to report, with the source of each number, beside this run's "
        "largest average gain."
    ),
)
def published(run: Run) -> Table | None:
    """What the paper is known to report, beside this run's largest average gain."""
    if run.published_path is None:
        return None
    frame = read_csv(run.published_path, PUBLISHED)
    found = average_gains(run.changes)
    found = found[found.kind == GAIN]
    frame["this_run"] = [_largest(row, found) for row in frame.itertuples()]
    shown = frame[["table", "family", "metric", "value", "this_run", "source"]]
    scale = f"The run ({run.title}) is not at the paper's scale: do not compare the sizes."
    text = [
        "Largest of several gains: its interval is not corrected for having been picked.",
        *([scale] if run.title != "paper" else []),
        *([*notes(found, "score", run.scores), detectable_note(found)] if len(found) else []),
    ]
    return Table(
        "Known numbers of the paper",
        ["Item", "Family", "Quantity", "Paper", "This run", "Source"],
        [[str(value) for value in row] for row in shown.itertuples(index=False)],
        text,
        frame,
    )


def _largest(row: Any, found: pd.DataFrame) -> str:
    """This run's largest gain in a row's families, if that is what the row is about."""
    families = str(row.family).split("+")
    part = found[[row.family == "all" or name in families for name in found.family]]
    if row.metric != "max_average_gain" or part.empty:
        return ""
    best = part.loc[part.value.idxmax()]
    return f"{signed(best)}, detectable {number(best.detectable)}"


def tables(run: Run, only: Iterable[str] = ()) -> list[Table]:
    """Every registered table that applies to the run, or those whose entries are named."""
    made = []
    for entry in registry.chosen(registry.tables(), only):
        for name, arguments in entry.families(run.record).items():
            found = entry.make(run, *arguments) if entry.applies(run.record) else None
            if found is not None:
                found.name = name
                made.append(found)
    return made


def draw(run: Run, output: Path, only: Iterable[str] = ()) -> list[Table]:
    """Writes `tables` into the folder `output`; all of them with every number beside them."""
    made = tables(run, only)
    if not only:
        save_csv(run.cells, output / "estimates.csv")
        save_csv(run.changes, output / "differences.csv")
    for table in made:
        table.save(output)
    return made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd tables", description=__doc__)
    parser.add_argument("--scores", required=True, type=Path, help="scores.csv")
    parser.add_argument("--documents", required=True, type=Path, help="documents.csv.gz")
    parser.add_argument("--record", type=Path, help="run.json (default: beside the scores)")
    parser.add_argument("--costs", type=Path, help="costs.csv; without it there is no cost table")
    parser.add_argument("--published", type=Path, help="results/published.csv")
    parser.add_argument("--analyses", type=Path, help="folder with fidelity.csv, crosscheck.csv")
    parser.add_argument("--output", required=True, type=Path, help="folder for the tables")
    parser.add_argument("--title", help="name shown for the configuration (default: run.json's)")
    parser.add_argument("--only", nargs="+", default=(), metavar="TABLE", help="just these tables")
    args = parser.parse_args()
    run = Run(
        args.scores,
        args.documents,
        args.costs,
        args.published,
        args.record,
        args.analyses,
        args.title,
    )
    names = [table.name for table in draw(run, args.output, args.only)]
    print(f"{args.output}: {', '.join(names) or 'nothing to show'}")
