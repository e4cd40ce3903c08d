"""Where a run's time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atkd.reporting.table import Table

if TYPE_CHECKING:
    import pandas as pd


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
    scored = costs.run[costs.stage == "evaluate"]
    text = f"Seconds summed over jobs (several may run at once): {text}."
    models = f"Models scored: {len(scored)}; seeds: {scored.str.split('/').str[-1].nunique()}."
    return Table("costs", f"Where the time went ({config})", heads, rows, [text, models], table)
