"""How often the harness's intervals hold the truth, and its tests cry wolf.

`python benchmarks/coverage.py` simulates comparisons (`simulation`) and writes coverage.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from simulation import METHODS, ROOT, Setting, Tasks, coverage, family, observed, spread, variance

from atkd.runtime.cli import run as cli
from atkd.runtime.files import write_text
from atkd.statistics import intervals

SEED_RATIOS = (0.0, 0.5, 2.0, 8.0, 32.0)
RESIDUALS = (0.25, 0.6, 0.95)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["--:"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    """A share as a percentage."""
    return "" if value != value else f"{100 * value:.1f}"


def main_table(tasks: Tasks, count: int, rng: np.random.Generator) -> tuple[str, str]:
    """Coverage and width of all methods over the grid of variances, and the harness's range."""
    rows, ranges = [], []
    for seeds in (2, 3, 5):
        held = []
        for residual in RESIDUALS:
            for ratio in SEED_RATIOS:
                setting = Setting(seeds, residual, ratio)
                found = coverage(tasks, setting, count, rng)
                held.append(found["harness"][0])
                cells = [f"{percent(c)} ({w:.2f})" for c, w in found.values()]
                about = [str(seeds), f"{residual:.2f}", f"{ratio:g}", f"{setting.share:.2f}"]
                rows.append([*about, *cells, percent(1 - held[-1])])
        inside = min(held) >= 0.93 and max(held) <= 0.97
        word = "within 93 to 97 %" if inside else "not within 93 to 97 %"
        ranges.append(f"{seeds} seeds: {percent(min(held))} to {percent(max(held))} %, {word}")
    heads = [
        "seeds",
        "residual",
        "seed ratio",
        "seeds' share",
        *METHODS,
        "harness: false positives",
    ]
    return table(heads, rows), "; ".join(ranges)


def other_table(cases: dict[str, Tasks], count: int, rng: np.random.Generator) -> str:
    """The harness where documents are few or odd."""
    rows = []
    picked = {name: METHODS[name] for name in ("harness", "Satterthwaite")}
    few = [(f"{next(iter(cases))}, {n} documents a task", next(iter(cases.values())), n)
           for n in (10, 3)]  # fmt: skip
    for name, tasks, limit in [*((n, t, None) for n, t in cases.items()), *few]:
        for seeds in (3, 5):
            for residual, ratio in ((0.25, 0.5), (0.6, 2.0), (0.95, 2.0)):
                setting = Setting(seeds, residual, ratio)
                found = coverage(tasks, setting, count, rng, picked, limit)
                cells = [f"{percent(c)} ({w:.2f})" for c, w in found.values()]
                rows.append([name, str(seeds), f"{residual:.2f}", f"{ratio:g}", *cells])
    return table(["gain", "seeds", "residual", "seed ratio", *picked], rows)


def holm_table(tasks: Tasks, count: int, rng: np.random.Generator) -> str:
    """False positives of five tests, without and with Holm's correction."""
    rows = []
    for seeds in (3, 5):
        for residual, ratio in ((0.25, 0.5), (0.95, 2.0)):
            for shared, real in ((0.0, 0), (0.5, 0), (0.5, 2)):
                setting = Setting(seeds, residual, ratio)
                found = family(tasks, setting, count, rng, shared, real)
                about = [str(seeds), f"{residual:.2f}", f"{ratio:g}", f"{shared:g}", str(real)]
                rows.append([*about, *map(percent, found)])
    heads = ["seeds", "residual", "seed ratio", "correlation", "real gains"]
    heads += ["any false, uncorrected", "any false, Holm", "real found, Holm"]
    return table(heads, rows)


TEXT = """# Coverage of the intervals, and false positives of the tests

Written by `python benchmarks/coverage.py{options}`. {count} simulations a row, {few} in
the last table: Monte-Carlo error {error:.1f} points at 95 %, {rare:.1f} at 5 % in the last table.

Drawn are comparisons whose true difference is zero (in the last table some are not), over the
documents of `{run}`: {documents} documents of {tasks} tasks, ATKD's gain over
supervised KD, {pooled}. Document effects and residuals are drawn from the observed gains
per document, seed effects from a normal distribution. Variances are in units of the variance of
one seed's mean over documents (standard error {unit:.2f} points):

- *residual*: the part of it that is new with every seed; the rest is the documents' own.
- *seed ratio*: the variance between seeds, half common to all tasks and half each task's own.
- *seeds' share*: what these two make up of the variance of the mean over seeds and documents.

One frozen seed cannot tell these apart, hence the grid. Three can: in `{seen}` (one
pair) the same gain has residual {residual:.2f}, and the seeds' share is {share:.2f}. Gains on the
same document hardly agree between seeds, so an interval over documents from one seed says little
about another seed.

## Nominal 95 % intervals

Coverage in percent; in brackets the mean width, 1.00 being that of the interval that knows the
variances.

**Harness: {ranges}.**

With two seeds the tables say that an interval may cover less than it claims; below {reliable} seeds
there is no p-value and no verdict.

{main}

- *harness*: `atkd.statistics`: two-way components; value / error against a mixture of two
  Student's t, seeds' and documents', weighted with their shares of the variance.
- *Satterthwaite*: the same components, textbook degrees of freedom, a negative seed component set
  to zero. Too narrow at three seeds where seeds carry most of the variance: a seed variance that is
  small by luck narrows the interval by its size, and again by the degrees of freedom that it then
  seems to have.
- *nested bootstrap*: seeds, then each seed's documents apart (percentiles of 400 resamples, the
  documents' in their normal limit). Too narrow with so few seeds to draw from.
- *seeds only*: t over the seeds' means; forgets that all seeds answered the same documents.
- *documents only*: t over documents of the seeds' average; forgets that other seeds would differ.

## Other gains

With three documents a task the harness errs on the safe side.

{other}

## Five baselines, one family

Each gain is tested at 5 %. *Any false*: how often some gain that is zero is called real. Real gains
have the size that one uncorrected test finds about 80 % of the time. *Correlation*: between two
baselines' gains.

{holm}
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks/coverage.py", description=__doc__)
    run = Path("results/reference/world")
    parser.add_argument("--run", type=Path, default=run, help="folder with score files")
    seen = Path("results/reference/deviations")
    parser.add_argument("--seen", type=Path, default=seen, help="one with several seeds")
    parser.add_argument("--simulations", type=int, default=8000, help="a row (default: 8000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (default: 1)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/coverage.md")
    options = parser.parse_args()
    count, few, rng = (
        options.simulations,
        options.simulations // 2,
        np.random.default_rng(options.seed),
    )
    cases = observed(options.run)
    tasks = next(iter(cases.values()))
    main_rows, ranges = main_table(tasks, count, rng)
    other_rows = other_table(cases, count, rng)
    residual, share = spread(options.seen)
    text = TEXT.format(
        options="".join(f" {argument}" for argument in sys.argv[1:]),
        run=options.run,
        count=count,
        few=few,
        error=100 * (0.95 * 0.05 / count) ** 0.5,
        rare=100 * (0.95 * 0.05 / few) ** 0.5,
        documents=sum(map(len, tasks)),
        tasks=len(tasks),
        unit=variance(tasks) ** 0.5,
        pooled=next(iter(cases)),
        seen=options.seen,
        residual=residual,
        share=share,
        reliable=intervals.RELIABLE_SEEDS,
        ranges=ranges,
        main=main_rows,
        other=other_rows,
        holm=holm_table(tasks, few, rng),
    )
    write_text(options.output, text)
    print(ranges)


if __name__ == "__main__":
    cli(main)
