"""Tables and figures of the probes: what was found by looking at models and answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from atkd.analyses import LANDSCAPES
from atkd.methods import Name, title_of
from atkd.models.families import family_title, size
from atkd.reporting import registry
from atkd.reporting.inputs import Numbers, Run
from atkd.reporting.plotting import panels, style
from atkd.reporting.table import Table, arrow, counted, either, number, studied_note
from atkd.statistics.estimates import KEYS, as_configured, sort_key
from atkd.statistics.intervals import over_seeds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from atkd.reporting.plotting import Drawing

Rows = list[list[str] | None]


def _families(numbers: Numbers, part: pd.DataFrame) -> list[str]:
    """The families of some rows, in the run's order."""
    return [name for name in numbers.record.families if (part.family == name).any()]


# Fidelity, and lm-eval's own MMLU.

MEASURES = {"kl_bits": 3, "agreement": 1, "entropy_bits": 3}  # and their digits
FIDELITY = (*KEYS, "seed", "reference", "task", *MEASURES, "documents", "left_out")
ACCURACIES = ("prefix_match", "option_accuracy", "builtin")
CROSSCHECK = ("run", "documents", *ACCURACIES, "shots", "cut", "lm_eval")


@registry.table(
    "fidelity",
    category="Analyses",
    analysis=True,
    caption=(
        "How close each model's next-token distributions are to its teacher's and, in the world, "
        "to the truth, at the response positions of held-out references."
    ),
)
def fidelity(run: Run) -> Table | None:
    """A row per model and what it is compared with."""
    found = run.analysis("fidelity", FIDELITY)
    if found is None:
        return None
    keys = [*KEYS, "reference"]
    averaged = found.groupby(keys, sort=False)[list(MEASURES)].mean().reset_index()
    order = sorted(averaged.index, key=lambda at: sort_key(tuple(averaged.loc[at, KEYS])))
    averaged = averaged.loc[order]
    counts = found.groupby("task", sort=False).documents.max()
    left_out = int(found.groupby(["task"]).left_out.max().sum())
    return Table(
        f"Fidelity ({run.title})",
        ["Model", "Method", "Against", "KL bits", "Same top %", "Entropy bits"],
        [_fidelity_row(row) for row in as_configured(averaged).itertuples()],
        [
            *studied_note(averaged[KEYS].drop_duplicates().itertuples(index=False)),
            "At every response position of held-out references: KL(reference, model) in bits per "
            "token (lower is closer), percent of positions with the same likeliest token (higher "
            "is closer), and the reference's own entropy, which tells what is little.",
            f"{counted((task, int(n)) for task, n in counts.items())}; seeds: "
            f"{found.seed.nunique()}. Plain means over tasks and seeds, without intervals. "
            f"References outside the world's grammar, left out of the truth: {left_out}.",
        ],
        averaged,
    )


def _fidelity_row(row: Any) -> list[str]:
    model = f"{family_title(row.family)} {arrow((row.family, row.student, row.teacher))}"
    against = row.reference if row.reference == "truth" else row.reference.upper()
    numbers = [number(getattr(row, name), digits) for name, digits in MEASURES.items()]
    return [model, title_of(row.method), against, *numbers]


@registry.table(
    "crosscheck",
    category="Analyses",
    analysis=True,
    applies=lambda record: "mmlu" in record.tasks,
    caption="MMLU by the paper's protocol and by lm-eval's own task, on the same questions.",
)
def crosscheck(run: Run) -> Table | None:
    """A row per model: accuracy by both protocols."""
    found = run.analysis("crosscheck", CROSSCHECK)
    if found is None:
        return None
    found[[*KEYS, "seed"]] = found.run.str.split("/", expand=True).to_numpy()
    averaged = found.groupby(KEYS, sort=False)[[*ACCURACIES, "cut"]].mean().reset_index()
    order = sorted(averaged.index, key=lambda at: sort_key(tuple(averaged.loc[at, KEYS])))
    averaged = averaged.loc[order]
    rows: Rows = [
        [
            f"{family_title(row.family)} {arrow((row.family, row.student, row.teacher))}",
            title_of(row.method),
            *(number(getattr(row, name)) for name in ACCURACIES),
            number(row.cut, 0),
        ]
        for row in averaged.itertuples()
    ]
    return Table(
        f"MMLU by two protocols ({run.title})",
        ["Model", "Method", "Prefix match", "Likeliest letter", "lm-eval's own", "Prompts cut"],
        rows,
        [
            "Accuracy in percent, higher is better, on the same questions: the paper's protocol "
            "drops shots until the prompt fits and wants an answer that starts with the letter, or "
            "takes the likeliest letter; lm-eval's own gives all shots, cuts from the left what "
            "does not fit, and takes the likeliest of the letters.",
            f"Documents: {either(found.documents)}; seeds: {len(set(found.seed))}; "
            f"shots: {either(found.shots)}; lm-eval {either(found.lm_eval)}. Means over seeds, "
            "without intervals.",
        ],
        averaged,
    )


# Uncertainty.

UNCERTAINTY = (
    "family",
    "seed",
    "texts",
    "model",
    "role",
    "student",
    "statistic",
    "value",
    "tokens",
)
CERTAIN = "A token's uncertainty (UNC) is 1 - p of it under the model, in percent"


@registry.table(
    "uncertainty",
    category="Probes",
    section="probes",
    analysis=True,
    caption=(
        "How certain models are of the tokens they are to predict, teachers by size; how well the "
        "untrained student knows the teacher's easy half; and whether what the teacher is "
        "uncertain of is what a student without it finds hard."
    ),
)
def uncertainty(run: Run) -> Table | None:
    """A row per model and kind of texts."""
    found = run.analysis("uncertainty", UNCERTAINTY)
    if found is None:
        return None
    found = found.assign(student=found.student.fillna(""))
    keys = ["texts", "family", "role", "model"]
    blocks = sorted(
        found.groupby(keys, sort=False),
        key=lambda item: (item[0][0], sort_key((item[0][1], "-", item[0][3], item[0][2]))),
    )
    rows: Rows = []
    previous = None
    for key, block in blocks:
        if previous not in (None, key[:2]):
            rows.append(None)
        previous = key[:2]
        rows.append(_uncertainty_row(key, block))
    return Table(
        f"Uncertainty ({run.title})",
        [
            "Texts", "Model", "Mean UNC % [interval]", "Median UNC %",
            "Untrained student's p, easy half", "Rank correlation with a student's loss",
        ],
        rows,
        [
            f"{CERTAIN}: lower is more certain. Training rows are those that teachers were trained "
            "on, wrong outputs among them; no model was trained on the references.",
            "Easy half: the tokens of which the teacher is least uncertain; the untrained "
            "student's probability of them is the median. Rank correlation (Spearman): the "
            "teacher's uncertainty and the loss of a student fine-tuned without it.",
            f"Tokens: at most {found.tokens.max()}; seeds: {found.seed.nunique()}. Intervals: "
            "95 %, over seeds.",
        ],
        _uncertainty_data(found),
    )  # fmt: skip


def _uncertainty_row(key: tuple[str, ...], block: pd.DataFrame) -> list[str]:
    texts, family, role, model = key
    names = {"teacher": "teacher", "base": "untrained", "sft": "SFT"}

    def told(statistic: str, digits: int, scale: float = 1) -> str:
        part = block[block.statistic == statistic]
        return number(scale * part.value.mean(), digits) if len(part) else ""

    means = over_seeds([100 * value for value in block[block.statistic == "mean"].value])
    low, high = number(means.low, 1), number(means.high, 1)
    level = number(means.value, 1) + (f" [{low}, {high}]" if low else "")
    return [
        texts,
        f"{family_title(family)} {model.upper()} {names.get(role, role)}",
        level,
        told("decile_50", 1, 100),
        told("p_easy_median", 2),
        told("rank_correlation", 2),
    ]


def _uncertainty_data(found: pd.DataFrame) -> pd.DataFrame:
    """Every statistic's mean over seeds."""
    keys = ["family", "texts", "model", "role", "student", "statistic"]
    data = found.groupby(keys, sort=False).agg(value=("value", "mean"), tokens=("tokens", "max"))
    return data.reset_index().assign(seeds=found.seed.nunique())


@registry.figure(
    "uncertainty",
    section="probes",
    applies=lambda record: "uncertainty" in record.analyses,
    caption=(
        "Density of teachers' uncertainty, 1 - p of the token, over the answers' tokens of "
        "references that no model was trained on; a line per teacher, darker for larger ones, "
        "dashed at its median. The scale of shares is logarithmic."
    ),
)
def uncertainty_density(numbers: Numbers) -> Drawing | None:
    """A panel per family, a line per teacher."""
    data = numbers.table("uncertainty")
    if data is None:
        return None
    part = data[(data.role == "teacher") & (data.texts == "references")]
    families = _families(numbers, part)
    figure, grid = panels(1, len(families), figsize=(1 + 2.6 * len(families), 2.9), squeeze=False)
    for axes, family in zip(grid[0], families, strict=True):
        rows = part[part.family == family]
        for place, model in enumerate(sorted(dict.fromkeys(rows.model), key=size)):
            _density(axes, rows[rows.model == model], place / max(1, rows.model.nunique() - 1))
        axes.set_title(family_title(family), loc="left")
        axes.set_yscale("log")
        axes.set_xlabel("Uncertainty, 1 - p")
        axes.legend(frameon=False, fontsize=7.5, loc="upper center")
    grid[0][0].set_ylabel("Share of tokens in a bin (%)")
    figure.tight_layout()
    about = f"{CERTAIN}; bins of {100 / _bins(part):.1f} %."
    facts = {"metric": "uncertainty", "about": about, "unit": "tokens", "over": ""}
    return figure, part.assign(documents=part.tokens, **facts)


def _bins(rows: pd.DataFrame) -> int:
    return int(rows[rows.statistic.str.startswith("bin_")].statistic.nunique())


def _density(axes: Axes, rows: pd.DataFrame, shade: float) -> None:
    bins = rows[rows.statistic.str.startswith("bin_")].sort_values("statistic")
    colour = (0.55 - 0.55 * shade, 0.72 - 0.5 * shade, 0.9 - 0.4 * shade)
    edges = [at / len(bins) for at in range(len(bins) + 1)]
    axes.stairs(100 * bins.value, edges, color=colour, lw=1.6, label=rows.model.iloc[0].upper())
    median = rows[rows.statistic == "decile_50"].value.iloc[0]
    axes.axvline(median, color=colour, ls=(0, (3, 2)), lw=1)


HALVES = ("none", "sft", *LANDSCAPES)  # methods, in the table's order
WHAT = ("missed", "nats")


def half_statistics(found: pd.DataFrame) -> pd.DataFrame:
    """What students lose and miss of their teacher's halves, a row per value."""
    known = [f"{half}_{what}_{m}" for half in ("easy", "hard") for what in WHAT for m in HALVES]
    part = found[found.statistic.isin(known)]
    if part.empty:
        return part
    names = part.statistic.str.split("_", n=2, expand=True)
    return part.assign(half=names[0], what=names[1], method=names[2])


@registry.table(
    "halves",
    category="Probes",
    section="probes",
    applies=lambda record: "uncertainty" in record.analyses,
    caption=(
        "What students know of the half of the tokens that their teacher finds easy, and of the "
        "other half: the share of tokens that they give less than half of the probability, and "
        "the mean loss. Lower is better."
    ),
)
def halves(run: Run) -> Table | None:
    """A row per kind of texts and method: means over pairs of a teacher and a student."""
    found = run.analysis("uncertainty", UNCERTAINTY)
    part = None if found is None else half_statistics(found)
    if part is None or part.empty:
        return None
    keys = ["texts", "method", "half", "what"]
    data = part.groupby([*keys, "seed"]).value.mean().groupby(keys).apply(list)
    rows: Rows = []
    for texts in sorted(set(part.texts)):
        rows += [None] if rows else []
        for method in (name for name in HALVES if name in set(part.method)):
            cells = [(half, what) for half in ("easy", "hard") for what in WHAT]
            rows.append([texts, title_of(method), *(_half(data, texts, method, *c) for c in cells)])
    pairs = part[["family", "model", "student"]].drop_duplicates()
    return Table(
        f"The teacher's easy and hard half ({run.title})",
        ["Texts", "Student", "Easy: missed %", "Easy: nats", "Hard: missed %", "Hard: nats"],
        rows,
        [
            "Halves by the teacher's uncertainty, as ATKD splits tokens. Missed: tokens to which "
            "the student gives less than half of the probability. Nats: its loss on a token. Means "
            f"over {len(pairs)} pairs of a teacher and a student; lower is better.",
            f"Tokens: at most {part.tokens.max()}; seeds: {part.seed.nunique()}. ± half of a 95 % "
            "interval over seeds. A look at why, not a test: it was added when the scores were "
            "known.",
        ],
        part.groupby([*keys, "family", "model", "student"]).value.mean().reset_index(),
    )


def _half(data: pd.Series, texts: str, method: str, half: str, what: str) -> str:
    scale, digits = (100, 1) if what == "missed" else (1, 3)
    return _spread([scale * value for value in data[texts, method, half, what]], digits)


# Loss landscape.

LANDSCAPE = ("run", "kind", "direction", "x", "y", "loss", "tokens")


@registry.table(
    "landscape",
    category="Probes",
    section="probes",
    analysis=True,
    caption="How much the loss rises around students' weights: lower is flatter.",
)
def landscape(run: Run) -> Table | None:
    """A row per model: its loss, and the rise at each length of a step."""
    found = run.analysis("landscape", LANDSCAPE)
    if found is None:
        return None
    found[[*KEYS, "seed"]] = found.run.str.split("/", expand=True).to_numpy()
    centre = found[found.kind == "centre"].set_index("run").loss
    steps = found[found.kind == "step"].assign(length=found.x.abs())
    rise = steps.groupby(["run", "length"]).loss.mean().unstack().sub(centre, axis=0)
    rows: Rows = []
    cells = found.drop_duplicates("run").groupby(KEYS, sort=False).run.apply(list)
    for cell in sorted(cells.index, key=sort_key):
        runs = cells[cell]
        shown = [_spread(centre[runs].tolist(), 3)]
        shown += [_spread(rise.loc[runs, length].tolist(), 3) for length in rise]
        rows.append([f"{family_title(cell[0])} {arrow(cell)}", title_of(cell[3]), *shown])
    return Table(
        f"Loss around the weights ({run.title})",
        ["Model", "Method", "Loss", *(f"Rise at {length:g}" for length in rise)],
        rows,
        [
            "Cross-entropy in nats a token on references that no model was trained on, and what it "
            "rises by, on average over random directions, at steps of these lengths relative to "
            "each filter's: lower is flatter.",
            f"Tokens: {found.tokens.max()}; directions: {steps.direction.nunique()}, forth and "
            f"back; seeds: {found.seed.nunique()}. ± half of a 95 % interval over seeds.",
        ],
        found.drop(columns="run"),
    )


def _spread(values: list[float], digits: int) -> str:
    """A mean over seeds, and half of its interval where there is one."""
    one = over_seeds(values)
    half = one.value - one.low
    return number(one.value, digits) + (f" ± {number(half, digits)}" if half == half else "")


@registry.figure(
    "landscape",
    section="probes",
    applies=lambda record: "landscape" in record.analyses,
    caption=(
        "Loss on held-out references around the weights of students of the largest teacher, with "
        "ATKD (below) and without, on the plane of two random directions scaled filter by filter; "
        "one seed, one colour scale for each family. Numbers: the loss at the weights, in the "
        "middle."
    ),
)
def landscapes(numbers: Numbers) -> Drawing | None:
    """A column per family, a row per method, of the first seed."""
    data = numbers.table("landscape")
    if data is None:
        return None
    part = data[(data.kind == "plane") & (data.seed == data.seed.min())]
    families, methods = _families(numbers, part), list(dict.fromkeys(part.method))
    shape = (0.7 + 1.9 * len(families), 0.6 + 1.9 * len(methods))
    figure, grid = panels(len(methods), len(families), figsize=shape, squeeze=False)
    for column, family in zip(grid.T, families, strict=True):
        rows = part[part.family == family]
        top = rows.loss.quantile(0.9)
        for axes, method in zip(column, methods, strict=True):
            _plane(axes, rows[rows.method == method], (rows.loss.min(), top))
            if family == families[0]:
                axes.set_ylabel(title_of(method), fontsize=7.5)
        column[0].set_title(family_title(family), loc="left")
    figure.tight_layout()
    about = "cross-entropy in nats a token; lower is better."
    facts = {"metric": "loss", "about": about, "unit": "tokens", "seeds": 1, "over": ""}
    return figure, part.assign(documents=part.tokens, **facts)


def _plane(axes: Axes, rows: pd.DataFrame, bounds: tuple[float, float]) -> None:
    wide = rows.pivot(index="y", columns="x", values="loss")
    low, high = bounds
    levels = [low + (high - low) * at / 12 for at in range(13)]
    axes.contourf(wide.columns, wide.index, wide, levels, cmap="cividis", extend="max")
    middle = wide.loc[abs(wide.index) < 1e-9, abs(wide.columns) < 1e-9].iloc[0, 0]
    spot = {"ha": "center", "va": "center", "color": "white", "fontsize": 7.5}
    axes.text(0, 0, f"{middle:.2f}", **spot)
    axes.set_aspect("equal")
    axes.tick_params(length=0, labelsize=6)


# Diversity.

DIVERSITY = ("run", "statistic", "value", "answers")


@registry.table(
    "diversity",
    category="Probes",
    section="probes",
    analysis=True,
    caption="How alike each model's answers to the open-ended tasks are: distinct words and pairs.",
)
def diversity(run: Run) -> Table | None:
    """A row per model: distinct-1, distinct-2, words an answer."""
    found = run.analysis("diversity", DIVERSITY)
    if found is None:
        return None
    found[[*KEYS, "seed"]] = found.run.str.split("/", expand=True).to_numpy()
    data = found.groupby([*KEYS, "statistic"], sort=False).value.apply(list).unstack()
    rows: Rows = []
    for cell in sorted(data.index, key=sort_key):
        if Name.of(cell[3]).settings:
            continue
        shown = [_spread(data.loc[cell, name], 2) for name in ("distinct_1", "distinct_2", "words")]
        rows.append([f"{family_title(cell[0])} {arrow(cell)}", title_of(cell[3]), *shown])
    return Table(
        f"Diversity ({run.title})",
        ["Model", "Method", "distinct-1 %", "distinct-2 %", "Words an answer"],
        rows,
        [
            "distinct-n: different n-grams of words over all of them, all answers of a model "
            "together; higher is more diverse, and longer answers lower it.",
            f"Answers: {either(found.answers)} a model; seeds: {found.seed.nunique()}. ± half of a "
            "95 % interval over seeds.",
            *studied_note(data.index),
        ],
        found.drop(columns="run"),
    )


# Training curves.

CURVES = ("run", "stage", "step", "share", "loss", "tokens")
QUARTERS = (0.25, 0.5, 0.75, 1.0)
WIDE = 8  # how far losses must lie apart for a logarithmic scale


def trainings(found: pd.DataFrame) -> pd.DataFrame:
    """The curves with what was trained: family and, of students, the method."""
    parts = found.run.str.split("/")
    student = found.stage == "student"
    family = [names[0] if own else names[1] for names, own in zip(parts, student, strict=True)]
    method = [names[3] if own else "" for names, own in zip(parts, student, strict=True)]
    return found.assign(family=family, method=method)


@registry.table(
    "curves",
    category="Probes",
    section="probes",
    analysis=True,
    caption="Training losses at each quarter of a training, and how much the last quarter changed.",
)
def curves(run: Run) -> Table | None:
    """A row per stage and method: mean losses, and what the last quarter of the steps moved."""
    found = run.analysis("curves", CURVES)
    if found is None:
        return None
    found = trainings(found)
    rows: Rows = []
    for stage in ("base", "teacher", "student"):
        part = found[found.stage == stage]
        for method in sorted(set(part.method), key=lambda name: sort_key(("", "", "", name))):
            if not Name.of(method).settings:
                rows.append(_curve_row(stage, method, part[part.method == method]))
    return Table(
        f"Training losses ({run.title})",
        ["Stage", "Method", "Trainings", *(f"{at:.0%}" for at in QUARTERS), "Last quarter"],
        rows,
        [
            "Training loss in nats a token, each method's own, so that methods do not compare: the "
            "mean over all trainings in windows that end at these shares of the steps; lower is "
            "better.",
            "Last quarter: its mean loss against that of the quarter before; near 0 the loss had "
            "flattened. Single windows move by more than that, since their samples differ.",
        ],
        found,
    )


def _curve_row(stage: str, method: str, part: pd.DataFrame) -> list[str]:
    by_share = part.groupby(part.share.round(2)).loss.mean()

    def at(share: float) -> float:
        return float(by_share.iloc[(abs(by_share.index.to_numpy() - share)).argmin()])

    quarter = part.groupby((part.share * 4 - 1e-6).astype(int)).loss.mean()
    change = 100 * (quarter[3] / quarter[2] - 1) if {2, 3} <= {*quarter.index} else math.nan
    numbers = [number(at(share), 3) for share in QUARTERS]
    count = str(part.run.nunique())
    return [
        stage,
        title_of(method) if method else "",
        count,
        *numbers,
        f"{number(change, 1, '+')} %",
    ]


@registry.figure(
    "curves",
    section="probes",
    applies=lambda record: "curves" in record.analyses,
    caption=(
        "Training loss over the share of the steps: bases and teachers by family, students by "
        "method, each a mean over models. Losses of methods differ in kind: what counts is whether "
        "they flatten."
    ),
)
def curve_panels(numbers: Numbers) -> Drawing | None:
    """A panel per stage."""
    data = numbers.table("curves")
    if data is None:
        return None
    data = data.assign(method=data.method.fillna(""))
    stages = [name for name in ("base", "teacher", "student") if (data.stage == name).any()]
    figure, grid = panels(1, len(stages), figsize=(2 + 2.7 * len(stages), 3.0), squeeze=False)
    for axes, stage in zip(grid[0], stages, strict=True):
        part = data[data.stage == stage]
        key = "method" if stage == "student" else "family"
        for place, (name, rows) in enumerate(part.groupby(key, sort=False)):
            if "=" not in str(name):
                _curve(axes, stage, str(name), rows, place)
        axes.set_title(
            {"base": "Bases", "teacher": "Teachers", "student": "Students"}[stage], loc="left"
        )
        axes.set_xlabel("Share of the steps")
        if part.loss.max() > WIDE * part.loss.min():
            axes.set_yscale("log")
        axes.grid(axis="y", which="both", color="#EEEEEE", linewidth=0.6)
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if stage == "student" else {}
        axes.legend(frameon=False, fontsize=6.5, **beside)
    grid[0][0].set_ylabel("Training loss (nats a token)")
    figure.tight_layout()
    about = "training loss in nats a token; lower is better."
    seeds = data.run.str.extract(r"seed(\d+)|/(\d+)$").bfill(axis=1)[0].nunique()
    facts = {"metric": "loss", "about": about, "unit": "trainings", "seeds": seeds, "over": ""}
    return figure, data.assign(documents=data.run.nunique(), **facts)


def _curve(axes: Axes, stage: str, name: str, rows: pd.DataFrame, place: int) -> None:
    means = rows.groupby(rows.share.round(2)).loss.mean()
    look: dict[str, Any] = {"color": f"C{place}", "linewidth": 1.5}
    if stage == "student":
        look = style(name) | {"marker": "", "linewidth": 1.3}
    label = title_of(name) if stage == "student" else family_title(name)
    axes.plot(means.index, means, label=label, **look)
