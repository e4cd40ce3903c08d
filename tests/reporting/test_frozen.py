"""Every number of the frozen run's tables, computed again from its score files by other means.

Nothing of the statistics or of the tables' code is used here: documents are averaged with plain
arithmetic, and what the committed tables hold is held against it.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT

FOLDER = Path(os.environ.get("ATKD_FROZEN", ROOT / "results/reference/world"))
OPEN = ("dolly", "selfinst", "vicuna", "koala", "wizardlm")
EXAMS = ("mmlu", "drop", "bbh")
MEANS = {"generation": OPEN, "understanding": EXAMS, "average": OPEN + EXAMS}
CELL = ["family", "student", "teacher", "method"]
MINUS = "\u2212"
Cell = tuple[str, ...]
CLOSE = {"rel": 1e-5, "abs": 2e-5}  # files hold six decimals, of which means are made


class Frozen:
    """The frozen files, read once; values of a run (a model of one seed) by task and metric."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = json.loads((folder / "run.json").read_text("utf-8"))

    @cached_property
    def documents(self) -> pd.DataFrame:
        """A row per answer and metric."""
        kinds = dict.fromkeys(["run", "task", "metric"], "category")
        path = self.folder / "documents.csv.gz"
        return pd.read_csv(path, dtype={**kinds, "document": str, "group": str})

    @cached_property
    def costs(self) -> pd.DataFrame:
        """A row per job."""
        return pd.read_csv(self.folder / "costs.csv", dtype={"run": str})

    @cached_property
    def values(self) -> dict[tuple[str, str, str], float]:
        """(run, task, metric) -> the mean over documents, or the ratio of two sums.

        Each group of MMLU's and BBH's questions counts once.
        """
        frame, found = self.documents, dict[tuple[str, str, str], float]()
        keys = ["run", "task", "metric"]
        ratio = frame[frame.numerator.notna()].groupby(keys, observed=True)
        sums = ratio[["numerator", "denominator"]].sum()
        found.update((sums.numerator / sums.denominator).items())
        plain = frame[frame.numerator.isna()]
        whole = plain.groupby(keys, observed=True).value.mean()
        grouped = plain[plain.task.isin(["mmlu", "bbh"])]
        by_group = grouped.groupby([*keys, "group"], observed=True).value.mean()
        found.update(whole.items())
        found.update(by_group.groupby(level=[0, 1, 2], observed=True).mean().items())
        return found

    def score(self, run: str, task: str) -> float:
        """A model's score in percent on a task, or on the mean of several."""
        if task in MEANS:
            return fmean(self.score(run, one) for one in MEANS[task])
        return self.values[run, task, "prefix_match" if task in EXAMS else "judge"]

    def value(self, run: str, task: str, metric: str) -> float:
        """Any metric; NaN where a task of the mean has none."""
        if metric == "score":
            return self.score(run, task)
        if task in MEANS:
            return fmean(self.value(run, one, metric) for one in MEANS[task])
        return self.values.get((run, task, metric), math.nan)

    @cached_property
    def seeds(self) -> dict[Cell, list[str]]:
        """Seeds of each cell."""
        found: dict[Cell, list[str]] = defaultdict(list)
        for key in self.record["runs"]:
            *cell, seed = key.split("/")
            found[tuple(cell)].append(seed)
        return found

    def mean(self, cells: Iterable[Cell], task: str = "average", metric: str = "score") -> float:
        """A mean over cells, of each over the seeds that all of them have."""
        cells = list(cells)
        shared = set.intersection(*(set(self.seeds[cell]) for cell in cells))
        return fmean(
            fmean(self.value("/".join([*cell, seed]), task, metric) for seed in shared)
            for cell in cells
        )

    def less(
        self, ours: list[Cell], theirs: list[Cell], task: str = "average", metric: str = "score"
    ) -> float:
        """The difference of two such means, over the seeds that all cells have."""
        shared = set.intersection(*(set(self.seeds[cell]) for cell in (*ours, *theirs)))
        return fmean(
            fmean(self.value("/".join([*cell, seed]), task, metric) for cell in ours)
            - fmean(self.value("/".join([*cell, seed]), task, metric) for cell in theirs)
            for seed in shared
        )

    def pairs(self, method: str) -> list[Cell]:
        """The cells of a method, one for each pair (or student) that has it."""
        return [cell for cell in self.seeds if cell[3] == method]

    def table(self, name: str) -> pd.DataFrame:
        """A committed table's data, names as text."""
        path = self.folder / f"tables/{name}.csv"
        if not path.is_file():
            pytest.skip(f"{path}: this run has no such table")
        return pd.read_csv(path, dtype=dict.fromkeys([*CELL, "versus", "task", "kind"], str),
                           keep_default_na=False, na_values=[""])  # fmt: skip


@pytest.fixture(scope="module")
def frozen() -> Frozen:
    return Frozen(FOLDER)


def cell_of(row: pd.Series) -> Cell:
    return tuple(row[name] for name in CELL)


def theirs_of(row: pd.Series) -> list[Cell]:
    """The cells that a difference's other side is the mean of."""
    return [tuple(each.split("/")) for each in row.versus.split("; ")]


def ours_of(row: pd.Series) -> list[Cell]:
    """The cells of a difference's own side: one, or the other side's by its own method."""
    if "all" not in cell_of(row):
        return [cell_of(row)]
    return [(*cell[:3], row.method) for cell in theirs_of(row)]


def rows_of(frame: pd.DataFrame) -> Iterator[pd.Series]:
    return (row for _, row in frame.iterrows())


def test_scores_are_the_means_of_their_documents(frozen: Frozen) -> None:
    rows = pd.read_csv(frozen.folder / "scores.csv", dtype=dict.fromkeys([*CELL, "seed"], str))
    own = rows[rows.metric == "score"]
    assert len(own) == len(frozen.record["runs"]) * (
        len(frozen.record["tasks"]) + len(frozen.record["extra_tasks"]) + len(MEANS)
    )
    for row in rows_of(own):
        run = "/".join([*cell_of(row), row.seed])
        assert row.value == pytest.approx(frozen.score(run, row.task), **CLOSE), row


def test_estimates_are_means_over_seeds(frozen: Frozen) -> None:
    frame = frozen.table("estimates")
    assert set(frame[frame.metric == "score"][CELL].itertuples(index=False, name=None)) == set(
        frozen.seeds
    )
    for row in rows_of(frame[frame.kind == "cell"]):
        found = frozen.mean([cell_of(row)], row.task, row.metric)
        assert row["value"] == pytest.approx(found, **CLOSE), row
        assert row.seeds == len(frozen.seeds[cell_of(row)])


def test_differences_are_those_of_means_and_intervals_are_theirs(frozen: Frozen) -> None:
    frame = frozen.table("differences")
    assert len(frame) > 100
    for row in rows_of(frame):
        found = frozen.less(ours_of(row), theirs_of(row), row.task, row.metric)
        assert row["value"] == pytest.approx(found, **CLOSE), row
        assert row.low < row["value"] < row.high or row.error == 0
        assert row.high - row["value"] == pytest.approx(row["value"] - row.low, abs=3e-6)


@pytest.mark.parametrize("family", ["opt", "pythia", "llama"])
@pytest.mark.parametrize("kind", ["main", "rouge_l", "bits_per_byte", "extra"])
def test_score_tables_hold_the_means_and_atkds_gain(frozen: Frozen, kind: str, family: str) -> None:
    metric = "score" if kind in ("main", "extra") else kind
    frame = frozen.table(f"{kind}_{family}")
    columns = [name for name in frame if name in (*MEANS, *OPEN, *EXAMS, "unseen")]
    assert columns and len(frame) == sum(
        cell[0] == family and "+" not in cell[3] for cell in frozen.seeds
    )
    for row in rows_of(frame):
        cell = cell_of(row)
        for task in columns:
            found = frozen.mean([cell], task, metric)
            assert row[task] == pytest.approx(found, **CLOSE), (row, task)
        if row.method.endswith("_atkd"):
            base = (*cell[:3], row.method.removesuffix("_atkd"))
            found = frozen.less([cell], [base], columns[-1], metric)
            assert row.gain_value == pytest.approx(found, **CLOSE), row
        else:
            assert math.isnan(row.gain_value)


def test_gains_are_atkds_over_all_pairs_and_at_each(frozen: Frozen) -> None:
    frame = frozen.table("gains")
    pooled = frame[frame.kind == "pooled gain"]
    wrapped = {cell[3] for cell in frozen.seeds if cell[3].endswith("_atkd")}
    assert set(pooled.method) == wrapped and len(frame) == len(pooled) + sum(
        len(frozen.pairs(method)) for method in wrapped
    )
    for row in rows_of(pooled):
        ours = frozen.pairs(row.method)
        theirs = [(*cell[:3], row.method.removesuffix("_atkd")) for cell in ours]
        assert row["value"] == pytest.approx(frozen.less(ours, theirs), **CLOSE)
    for row in rows_of(frame[frame.kind != "pooled gain"]):
        base = (*cell_of(row)[:3], row.method.removesuffix("_atkd"))
        assert row["value"] == pytest.approx(frozen.less([cell_of(row)], [base]), **CLOSE)


def test_runs_with_atkd_that_beat_those_without_are_counted(frozen: Frozen) -> None:
    for row in rows_of(frozen.table("gains")):
        shares = []
        for cell, base in zip(ours_of(row), theirs_of(row), strict=True):
            for task in MEANS["average"]:
                ours, theirs = (
                    np.array([frozen.score("/".join([*c, s]), task) for s in frozen.seeds[c]])
                    for c in (cell, base)
                )
                gaps = np.round(ours[:, None] - theirs[None], 6)
                shares.append(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
        assert row.improvement == pytest.approx(fmean(shares), abs=1e-4), row


def test_controls_are_marked_by_the_sign_of_their_difference(frozen: Frozen) -> None:
    frame = frozen.table("controls")
    for row in rows_of(frame):
        found = frozen.less([cell_of(row)], theirs_of(row))
        assert row["value"] == pytest.approx(found, **CLOSE)
        assert row.mark == ("ORDER OK" if found > 0 else "OUT OF ORDER")
    teachers = defaultdict(set)
    for family, _, teacher, method in frozen.seeds:
        if method == "teacher":
            teachers[family].add(teacher)
    many = [len(found) for found in teachers.values()]
    assert len(frame) == sum(1 + n + n * (n - 1) // 2 for n in many)


def test_improved_cells_are_those_with_a_gain_above_nothing(frozen: Frozen) -> None:
    frame = frozen.table("improved")
    text = (frozen.folder / "tables/improved.md").read_text("utf-8")
    gains = [frozen.less([cell_of(row)], theirs_of(row)) for row in rows_of(frame)]
    assert [row["value"] for row in rows_of(frame)] == pytest.approx(gains, **CLOSE)
    assert f"| all |  | {len(gains)} | {sum(gain > 0 for gain in gains)} (" in text


def test_noise_is_the_scores_seed_by_seed(frozen: Frozen) -> None:
    frame = frozen.table("noise")
    seeds = [name for name in frame if name.isdigit()]
    for row in rows_of(frame):
        for seed in seeds:
            if seed in frozen.seeds[cell_of(row)]:
                run = "/".join([*cell_of(row), seed])
                assert row[seed] == pytest.approx(frozen.score(run, "average"), **CLOSE)


def test_skills_are_means_over_their_items(frozen: Frozen) -> None:
    documents = frozen.documents
    own = documents[
        ((documents.metric == "judge") & ~documents.task.isin(EXAMS))
        | ((documents.metric == "prefix_match") & documents.task.isin(EXAMS))
    ]
    names = {"none": "No training", "sft": "SFT", "supervised_kd": "Supervised KD",
             "supervised_kd_atkd": "Supervised KD + ATKD"}  # fmt: skip
    parts = own.run.astype(str).str.split("/", expand=True)
    own = own.assign(family=parts[0], size=parts[2], method=parts[3])
    titles = {"mmlu": "MMLU", "bbh": "BBH"}
    for family in frozen.record["families"]:
        frame = frozen.table(f"skills_{family}")
        part = own[own.family == family]
        for row in rows_of(frame):
            exam = "" if isinstance(row.exam, float) else row.exam
            asked = part[part.group == row.group]
            asked = asked[asked.task.astype(str).map(lambda task: titles.get(task, "")) == exam]
            for column in frame.columns[2:-1]:
                if column.startswith("Teacher"):
                    size = column.split()[-1].lower()
                    wanted = asked[(asked.method == "teacher") & (asked["size"] == size)]
                else:
                    method = next(name for name, title in names.items() if title == column)
                    wanted = asked[asked.method == method]
                assert row[column] == pytest.approx(wanted["value"].mean(), **CLOSE), (row, column)
            items = asked[["task", "document"]].drop_duplicates()
            assert row["items"] == len(items)


def test_secondary_metrics_are_means_over_the_tasks_that_have_them(frozen: Frozen) -> None:
    frame = frozen.table("secondary")
    found = defaultdict(set)
    for _, task, metric in frozen.values:
        found[metric].add(task)
    checked = 0
    for row in rows_of(frame):
        for metric in ("bits_per_byte", "distinct_1", "distinct_2", "entropy"):
            tasks = [task for task in MEANS["average"] if task in found[metric]]
            wanted = fmean(frozen.mean([cell_of(row)], task, metric) for task in tasks)
            wanted *= 100 if metric.startswith("distinct") else 1  # percent
            assert row[metric] == pytest.approx(wanted, rel=1e-4), (row, metric)
            checked += 1
        assert row.option_accuracy == pytest.approx(
            frozen.mean([cell_of(row)], "mmlu", "option_accuracy"), **CLOSE
        )
    assert checked > 50


def test_costs_are_sums_over_jobs(frozen: Frozen) -> None:
    frame, costs = frozen.table("costs"), frozen.costs
    for row in rows_of(frame):
        jobs = costs[costs.stage == row.stage]
        assert row.jobs == len(jobs)
        for name in ("wall_s", "cpu_s"):
            assert row[name] == pytest.approx(math.fsum(jobs[name]), rel=1e-6)
        assert row.peak_memory_mb == jobs.peak_memory_mb.max()
    assert frame.jobs.sum() == len(costs)


def test_efficiency_is_a_mean_over_students(frozen: Frozen) -> None:
    jobs = frozen.costs[frozen.costs.stage == "student"]
    for row in rows_of(frozen.table("efficiency")):
        own = jobs[jobs.run.str.split("/").str[3] == row.method]
        assert row.cpu_s == pytest.approx(fmean(own.cpu_s), rel=1e-6)
        assert row["value"] == pytest.approx(frozen.mean(frozen.pairs(row.method)), **CLOSE)
        assert row.total_s == pytest.approx(row.cpu_s + row.outputs_s, abs=2e-6)


def test_the_judge_is_correlated_with_rouge(frozen: Frozen) -> None:
    frame, documents = frozen.table("judge_agreement"), frozen.documents
    for row in rows_of(frame[frame.task.isin(OPEN)]):
        part = documents[(documents.task == row.task) & documents.metric.isin(["judge", "rouge_l"])]
        part = part.assign(metric=part.metric.astype(str), run=part.run.astype(str))
        wide = part.pivot(index=["run", "document"], columns="metric", values="value").dropna()
        assert row.answers == len(wide)
        assert row.pearson == pytest.approx(np.corrcoef(wide.judge, wide.rouge_l)[0, 1], abs=2e-6)
        ranks = wide.rank()
        found = np.corrcoef(ranks.judge, ranks.rouge_l)[0, 1]
        assert row.spearman == pytest.approx(found, abs=2e-6)


STUDIES = ("token_study", "hard_fraction_sweep", "easy_weight_sweep", "remedies",
           "learning_rates", "lengths", "temperatures", "scopes", "starts")  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_studies_are_means_over_their_pairs(frozen: Frozen, name: str) -> None:
    frame = frozen.table(name)
    against = [row for row in rows_of(frame) if math.isnan(row.change_value)]
    pairs = {cell_of(row)[:3] for row in rows_of(frame) if row.family != "all"}

    def cells(row: pd.Series, method: str) -> list[Cell]:
        alone = method.partition("+")[0] in ("sft", "none")
        chosen = sorted(pairs) if row.family == "all" else [cell_of(row)[:3]]
        return [(f, s, "-" if alone else t, method) for f, s, t in chosen]

    for row in rows_of(frame):
        ours = cells(row, row.method)
        assert row["value"] == pytest.approx(frozen.mean(dict.fromkeys(ours)), **CLOSE), row
        if not math.isnan(row.change_value):
            theirs = cells(row, against[0].method)
            assert row.change_value == pytest.approx(frozen.less(ours, theirs), **CLOSE), row
    assert len({row.method for row in against}) == 1 and len(frame) > len(against)


def analysis(frozen: Frozen, name: str) -> pd.DataFrame:
    """A probe's frozen rows, with the cell of a run where there is one."""
    path = frozen.folder / f"analyses/{name}.csv"
    if not path.is_file():
        pytest.skip(f"{path}: this run has no such analysis")
    frame = pd.read_csv(path, keep_default_na=False, na_values=["nan", ""],
                        dtype=dict.fromkeys([*CELL, "run", "model", "role"], str))  # fmt: skip
    return frame


def shown(frozen: Frozen, name: str) -> list[list[str]]:
    """The cells of a committed table in Markdown, below its head."""
    text = (frozen.folder / f"tables/{name}.md").read_text("utf-8")
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:] if any(map(str.strip, line))]


def plain(text: str) -> float:
    """The first number of a cell."""
    return float(text.split()[0].replace(MINUS, "-").replace(",", "").rstrip("%"))


def test_uncertainty_is_a_mean_over_seeds(frozen: Frozen) -> None:
    raw, told = analysis(frozen, "uncertainty"), frozen.table("uncertainty")
    keys = ["family", "texts", "model", "role", "student", "statistic"]
    values = defaultdict(list)
    for row in rows_of(raw):
        key = tuple("" if isinstance(row[k], float) else row[k] for k in keys)
        values[key].append(row["value"])
    assert len(told) == len(values)
    for row in rows_of(told):
        key = tuple("" if isinstance(row[k], float) else row[k] for k in keys)
        assert row["value"] == pytest.approx(fmean(values[key]), **CLOSE), key
    for family, texts in {(k[0], k[1]) for k in values}:
        own = [fmean(v) for k, v in values.items()
               if k[:2] == (family, texts) and k[3] == "teacher" and k[5] == "mean"]  # fmt: skip
        lines = [line for line in shown(frozen, "uncertainty") if line[0] == texts]
        means = [plain(line[2]) for line in lines if "teacher" in line[1]]
        for value in own:
            assert any(abs(100 * value - mean) < 0.051 for mean in means), (family, texts, value)


def test_halves_are_means_over_pairs_and_seeds(frozen: Frozen) -> None:
    raw, lines = analysis(frozen, "uncertainty"), shown(frozen, "halves")
    titles = {"No training": "none", "SFT": "sft", "Supervised KD": "supervised_kd",
              "Supervised KD + ATKD": "supervised_kd_atkd"}  # fmt: skip
    assert len(lines) == 2 * len(titles)
    for texts, title, *cells in lines:
        for name, cell, scale in zip(
            ("easy_missed", "easy_nats", "hard_missed", "hard_nats"), cells, (100, 1, 100, 1),
            strict=True,
        ):  # fmt: skip
            own = raw[(raw.texts == texts) & (raw.statistic == f"{name}_{titles[title]}")]
            wanted = scale * fmean(fmean(rows["value"]) for _, rows in own.groupby("seed"))
            assert plain(cell) == pytest.approx(wanted, abs=0.051 if scale > 1 else 6e-4), title


def test_landscapes_rise_by_the_mean_over_directions(frozen: Frozen) -> None:
    raw = analysis(frozen, "landscape")
    found: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    for run in dict.fromkeys(raw.run):
        own = raw[raw.run == run]
        centre = own[own.kind == "centre"].loss.item()
        steps = own[own.kind == "step"]
        rises = [
            fmean(row.loss for row in steps.itertuples() if abs(row.x) == length) - centre
            for length in sorted({abs(x) for x in steps.x})
        ]
        found[tuple(run.split("/")[:4])].append([centre, *rises])
    wanted = [[fmean(column) for column in zip(*rows, strict=True)] for rows in found.values()]
    lines = [[plain(cell) for cell in line[2:]] for line in shown(frozen, "landscape")]
    assert len(lines) == len(wanted)
    for row in wanted:
        assert any(line == pytest.approx(row, abs=6e-4) for line in lines), row


def test_diversity_and_fidelity_are_means_over_seeds(frozen: Frozen) -> None:
    raw = analysis(frozen, "diversity")
    found = defaultdict(list)
    for row in rows_of(raw):
        cell = tuple(row.run.split("/")[:4])
        found[cell, row.statistic].append(row["value"])
    lines = shown(frozen, "diversity")
    cells = {cell for cell, _ in found if "+" not in cell[3]}
    assert len(lines) == len(cells)
    for cell in cells:
        wanted = [fmean(found[cell, name]) for name in ("distinct_1", "distinct_2", "words")]
        assert any(
            [plain(part) for part in line[2:]] == pytest.approx(wanted, abs=6e-3) for line in lines
        ), cell
    raw, told = analysis(frozen, "fidelity"), frozen.table("fidelity")
    for row in rows_of(told):
        own = raw[(raw[CELL] == list(cell_of(row))).all(axis=1) & (raw.reference == row.reference)]
        for name in ("kl_bits", "agreement", "entropy_bits"):
            assert row[name] == pytest.approx(own[name].mean(), rel=1e-5), row


def test_curves_are_means_over_trainings(frozen: Frozen) -> None:
    raw = analysis(frozen, "curves")
    last = raw[raw.share == 1.0]
    for line in shown(frozen, "curves"):
        part = last[last.stage == line[0]]
        if line[0] != "student":
            assert plain(line[6]) == pytest.approx(part.loss.mean(), abs=6e-4), line
            assert int(line[2]) == part.run.nunique()
    assert len({row.stage for row in raw.itertuples()}) == 3


CHECKED = {
    "scaling", "scaling_{family}", "forest", "gains", "gap", "noise", "efficiency", *STUDIES,
    "uncertainty", "landscape", "curves",
}  # fmt: skip


def test_figures_show_the_numbers_of_the_tables(frozen: Frozen) -> None:
    from atkd.reporting import registry
    from atkd.reporting.inputs import Numbers
    from atkd.reporting.plotting import own_settings
    from atkd.statistics.estimates import read_record

    numbers = Numbers(read_record(frozen.folder / "run.json"), frozen.folder / "tables")
    assert {entry.name for entry in registry.figures()} == CHECKED
    with own_settings():
        for entry in registry.figures():
            for name, arguments in entry.families(numbers.record).items():
                made = entry.make(numbers, *arguments) if entry.applies(numbers.record) else None
                if made is not None:
                    check_figure(frozen, name, made[1])


def check_figure(frozen: Frozen, name: str, rows: pd.DataFrame) -> None:
    """Every row that a figure shows is what the documents or the probe's table give."""
    import matplotlib.pyplot as plt

    plt.close("all")
    checked = 0
    for row in rows_of(rows):
        if name in ("uncertainty", "landscape", "curves") or row.get("metric") != "score":
            continue  # the same rows as the table's of that name, or secondary metrics
        if isinstance(row.get("versus"), str) and row.versus:
            found = frozen.less(ours_of(row), theirs_of(row), row.task)
        elif "all" in cell_of(row):  # means over pairs: the table of that name is checked
            assert round(row["value"], 6) in set(frozen.table(name)["value"].round(6)), name
            checked += 1
            continue
        elif cell_of(row) in frozen.seeds:
            found = frozen.mean([cell_of(row)], row.task)
        else:
            continue
        assert row["value"] == pytest.approx(found, **CLOSE), (name, row)
        checked += 1
    if name in ("uncertainty", "landscape", "curves"):
        table = frozen.table(name)
        shared = [column for column in ("value", "loss") if column in rows]
        for column in shared:
            known = set(table[column].round(6))
            assert set(rows[column].round(6)) <= known, name
        checked = len(rows)
    assert checked, f"{name}: nothing of it was checked"
