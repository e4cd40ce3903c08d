"""The table of secondary metrics from a scored file: blocks per teacher, means, old files."""

from __future__ import annotations

from pathlib import Path

import pytest

from atkd.evaluation import scores
from atkd.reporting import secondary_table

RUNS = (("-", "1.3b", "teacher"), ("1m", "-", "sft"), ("1m", "1.3b", "gkd"), ("-", "6b", "teacher"))
RUNS += (("1m", "6b", "gkd_atkd"), ("9m", "-", "sft"))


def scored(folder: Path) -> Path:
    rows = []
    for place, run in enumerate(RUNS):
        names = dict(zip(("student", "teacher", "method"), run, strict=True))
        names |= {"config": "lab", "family": "opt", "n": 3}
        by = ["@1.3b", "@6b"] if run[1] == "-" else [""]
        for seed in (1, 2):
            found = {("mmlu", "option_accuracy"): 10 * place, ("mmlu", "calibration_error"): 5}
            for task, more in (("dolly", 0), ("mmlu", 2), ("unseen", 90)):
                found[task, "bits_per_byte"] = place + more + seed
                for other in by:
                    found[task, f"bits_per_byte_easy{other}"] = 0.25 + len(other)
                    found[task, f"bits_per_byte_hard{other}"] = place + more + seed - 0.25
            for name, task in (("distinct_1", "dolly"), ("distinct_2", "koala")):
                found[task, name] = 40 + seed
            rows += [
                names | {"seed": seed, "task": task, "metric": metric, "value": f"{value:.6f}"}
                for (task, metric), value in found.items()
            ]
    scores.write_csv(folder / "scores.csv", scores.SCORE_COLUMNS, rows)
    return folder / "scores.csv"


def test_a_block_per_teacher(tmp_path: Path) -> None:
    (table,) = secondary_table.draw(scored(tmp_path), tmp_path / "tables")
    first, second = table.rows[:3], table.rows[4:]
    assert table.rows[3] is None
    assert [row[:2] for row in first if row] == [
        ["OPT 1.3B", "1M SFT"],
        ["OPT 1.3B", "1.3B Teacher"],
        ["OPT 1.3B", "1M GKD"],
    ]
    assert [row[1] for row in second if row] == ["1M SFT", "6B Teacher", "1M GKD + ATKD"]
    by_name = {row[1]: row for row in first if row}
    # bits: tasks dolly and mmlu of seeds 1 and 2; the extra task is left out
    assert by_name["1M GKD"][2:5] == ["4.500", "0.250", "4.250"]
    assert by_name["1M SFT"][2:4] == ["3.500", "5.250"] and second[0][3] == "3.250"
    assert by_name["1M GKD"][5:] == ["20.0", "5.0", "41.5", "41.5", ""]
    text = (tmp_path / "tables/secondary.md").read_text(encoding="utf-8")
    assert "| OPT 6B | 1M GKD + ATKD | 6.500 |" in text
    assert "Documents: 9 (dolly 3, koala 3, mmlu 3); seeds: 2." in text  # not the extra task's
    assert "(world)" not in text and (tmp_path / "tables/secondary.tex").is_file()
    lines = (tmp_path / "tables/secondary.csv").read_text().splitlines()
    assert lines[0].startswith("split_by,family,student,teacher,method,bits_per_byte,")
    assert len(lines) == 7 and not any("9m" in line for line in lines)


def test_scores_without_them_have_no_table(tmp_path: Path) -> None:
    path = scored(tmp_path)
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(head + "".join(line for line in lines if ",bits_per_byte," in line))
    assert secondary_table.draw(path, tmp_path / "tables") == []
    assert not (tmp_path / "tables").exists()
    path.write_text(head + "".join(line for line in lines if ",distinct_1," in line))
    (table,) = secondary_table.build(path)
    assert table.rows[0][2:] == ["", "", "", "", "", "41.5", "", ""]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["secondary_table", "--scores", str(scored(tmp_path)), "--output", str(tmp_path / "t")]
    monkeypatch.setattr("sys.argv", argv)
    secondary_table.main()
    assert (tmp_path / "t/secondary.md").is_file()
