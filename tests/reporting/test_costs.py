"""Where the time went: every job's wall time counts once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_runs import write_run

from atkd.reporting import costs


def test_costs_add_up(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("llama",), documents=2, tasks=("koala",))
    spent = pd.read_csv(run / "costs.csv")
    split = costs.time_split(costs.phases(spent))
    assert sum(split.values()) == pytest.approx(spent.wall_s.sum())
    assert split["start-up"] == pytest.approx(2.3 * len(spent))


def test_the_table_names_every_stage(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("llama",), documents=2, tasks=("koala",))
    table = costs.cost_table(pd.read_csv(run / "costs.csv"), "lab")
    assert {row[1] for row in table.rows if row} == {"teacher", "student", "evaluate", ""}
    assert table.rows[-1][2] == str(len(pd.read_csv(run / "costs.csv")))
    assert table.notes[-1] == "Models scored: 8; seeds: 1."
