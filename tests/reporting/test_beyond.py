"""What methods cost, where gains are, how much seeds move: by hand from a run's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import drawn, write_run

from atkd.reporting import beyond, figures
from atkd.reporting.inputs import run_in
from atkd.runtime.files import write_text

METHODS = ("supervised_kd", "supervised_kd_atkd", "gkd", "gkd_atkd", "f_distill")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, ("opt", "llama"), METHODS, seeds=3, documents=12)
    costs = pd.read_csv(folder / "costs.csv")
    extra = [
        {"run": f"{kind}/opt/1.3b/seed1{end}", "stage": kind, "cpu_s": seconds, "wall_s": 9.0}
        for kind, end, seconds in (("cache", "/ground_truth", 60.0), ("text", "", 30.0))
    ]
    pd.concat([costs, pd.DataFrame(extra)]).to_csv(folder / "costs.csv", index=False)
    drawn(folder, folder / "tables")
    return folder


def test_costs_are_means_with_what_a_method_reads(run: Path) -> None:
    costs = pd.read_csv(run / "costs.csv")
    students = costs[costs.stage == "student"].assign(method=costs.run.str.split("/").str[3])
    data = pd.read_csv(run / "tables/efficiency.csv").set_index("method")
    for method in METHODS:
        part = students[students.method == method]
        assert data.cpu_s[method] == pytest.approx(part.cpu_s.mean(), abs=2e-6)
        outputs = {"gkd": 0, "gkd_atkd": 0, "f_distill": 30}.get(method, 60) / len(part)
        assert data.outputs_s[method] == pytest.approx(outputs, abs=2e-6)
        assert data.total_s[method] == pytest.approx(part.cpu_s.mean() + outputs, abs=4e-6)
    scores = pd.read_csv(run / "scores.csv").query("metric == 'score' and task == 'average'")
    assert data["value"]["gkd"] == pytest.approx(
        scores[scores.method == "gkd"].value.mean(), abs=2e-6
    )


def test_improved_cells_are_counted(run: Path) -> None:
    table = beyond.improved(run_in(run))
    gains = pd.read_csv(run / "tables/differences.csv")
    gains = gains.query("kind == 'gain' and metric == 'score' and task == 'average'")
    rows = {row[0]: row[2:] for row in table.rows if row}
    above, count = int((gains.value > 0).sum()), len(gains)
    sure = [str(int((gains.low > 0).sum())), str(int((gains.high < 0).sum()))]
    assert rows["all"] == [str(count), f"{above} ({100 * above / count:.0f} %)", *sure]
    assert count == 2 * 5 and {"Supervised KD", "GKD", "OPT", "LLaMA"} <= set(rows)


def test_deviations_over_seeds_are_pooled_over_cells(run: Path) -> None:
    table = beyond.noise(run_in(run))
    scores = pd.read_csv(run / "scores.csv").query("metric == 'score' and task == 'average'")
    wide = scores.pivot(index=["family", "teacher", "method"], columns="seed", values="value")
    rows = {row[0]: row for row in table.rows if row}
    kd, adaptive = (wide.xs(name, level="method") for name in METHODS[:2])
    assert rows["Supervised KD"][2] == f"{np.sqrt(kd.var(axis=1, ddof=1).mean()):.2f}"
    gain = adaptive - kd
    assert rows["Supervised KD"][4] == f"{np.sqrt(gain.var(axis=1, ddof=1).mean()):.2f}"
    assert rows["Supervised KD"][3] == f"{(kd.max(axis=1) - kd.min(axis=1)).max():.2f}"
    assert rows["f-distill"][4] == ""


def test_figures_say_what_they_show(run: Path, tmp_path: Path) -> None:
    found = figures.draw(run / "tables", tmp_path, run / "run.json")
    assert {"efficiency", "gap", "noise"} <= {*found}
    text = (tmp_path / "noise.txt").read_text(encoding="utf-8")
    assert "seeds: 3." in text and "higher is better" in text
    assert "Teacher" not in (tmp_path / "noise.svg").read_text(encoding="utf-8")


def test_without_costs_there_is_no_such_table(run: Path, tmp_path: Path) -> None:
    alone = run_in(run)
    alone.costs_path = None
    assert beyond.efficiency(alone) is None
    write_text(tmp_path / "costs.csv", "run,stage,wall_s,cpu_s,startup_s,peak_memory_mb,tokens,"
               "tokens_per_s,steps\nx,data,1,1,0,9,,,\n")  # fmt: skip
    alone = run_in(run)
    alone.costs_path = tmp_path / "costs.csv"
    assert beyond.efficiency(alone) is None
