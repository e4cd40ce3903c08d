"""What a departure is worth: variant minus plain, with what the comparison could find."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import write_run

from atkd.reporting import deviations
from atkd.reporting.table import number
from atkd.runtime.files import InputError
from atkd.statistics import estimates


def test_a_row_per_switch_and_method(tmp_path: Path) -> None:
    methods = ("supervised_kd", "supervised_kd+eos_untaught", "gkd", "gkd+test_template")
    tasks = ("koala", "mmlu", "bbh")
    folder = write_run(tmp_path, ("llama",), methods, seeds=3, documents=6, tasks=tasks)
    scores = estimates.load(folder / "scores.csv", folder / "documents.csv.gz")
    table = deviations.table(scores)
    rows = [row for row in table.rows if row is not None]
    assert [row[1] for row in rows] == ["Supervised KD"] * 2 + ["GKD"] * 2
    assert rows[0][0].startswith("padding equals EOS")
    assert all(float(row[-1]) > 0 for row in rows)
    part = table.data[table.data.task == "average"]
    first = part[part.switch == "eos_untaught"].iloc[0]
    shown = number(first.value, 2, "+")
    assert rows[0][4].startswith(shown)
    assert "80 %" in table.markdown()


def test_a_run_without_variants_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, families=("opt",), documents=2, tasks=("koala",))
    scores = estimates.load(folder / "scores.csv", folder / "documents.csv.gz")
    with pytest.raises(InputError, match="no variant was run"):
        deviations.table(scores)
