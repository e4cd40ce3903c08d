"""Tables and figures of probes: values and intervals of their files, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import change_record, drawn, write_run

from atkd.reporting import figures
from atkd.runtime.files import InputError, write_text

FIDELITY = """\
family,student,teacher,method,seed,reference,task,kl_bits,agreement,entropy_bits,tokens,documents,left_out
opt,125m,1.3b,gkd,1,1.3b,dolly,1.0,50.0,2.0,9,4,0
opt,125m,1.3b,gkd,1,1.3b,koala,2.0,70.0,3.0,9,3,0
opt,125m,1.3b,gkd,1,truth,dolly,4.0,10.0,0.5,9,4,1
opt,-,1.3b,teacher,1,truth,dolly,3.0,20.0,0.5,9,4,1
"""
CROSSCHECK = """\
run,documents,prefix_match,option_accuracy,builtin,shots,cut,lm_eval
opt/125m/1.3b/gkd/1,8,10,20,30,5,2,0.4.13
opt/125m/1.3b/gkd/2,8,20,30,50,5,4,0.4.13
"""


def test_analyses_have_tables_where_they_were_made(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    assert not {"fidelity", "crosscheck"} & set(drawn(run, tmp_path / "tables"))
    write_text(run / "analyses/fidelity.csv", FIDELITY)
    write_text(run / "analyses/crosscheck.csv", CROSSCHECK)
    found = drawn(run, tmp_path / "tables")
    assert found["fidelity"].rows == [
        ["OPT 1.3B", "Teacher", "truth", "3.000", "20.0", "0.500"],
        ["OPT 125M ← 1.3B", "GKD", "1.3B", "1.500", "60.0", "2.500"],
        ["OPT 125M ← 1.3B", "GKD", "truth", "4.000", "10.0", "0.500"],
    ]
    notes = " ".join(found["fidelity"].notes)
    assert "Documents: 7 (dolly 4, koala 3); seeds: 1." in notes and "truth: 1." in notes
    assert found["crosscheck"].rows == [["OPT 125M ← 1.3B", "GKD", "15.00", "25.00", "40.00", "3"]]
    notes = " ".join(found["crosscheck"].notes)
    assert "Documents: 8; seeds: 2; shots: 5; lm-eval 0.4.13." in notes
    write_text(run / "analyses/crosscheck.csv", "run,documents\n")
    with pytest.raises(InputError, match=r"crosscheck\.csv: column 'prefix_match' is missing"):
        drawn(run, tmp_path / "tables")


def uncertainty_rows() -> str:
    """Two teachers of a family, three seeds: means of 30 and 20 percent and one per seed."""
    lines = ["family,seed,texts,model,role,student,statistic,value,tokens"]
    for texts in ("references", "training rows"):
        for model, level in (("1.3b", 0.3), ("6.7b", 0.2)):
            for seed in (1, 2, 3):
                start = f"opt,{seed},{texts},{model},teacher"
                lines.append(f"{start},,mean,{level + 0.01 * seed},700")
                lines.append(f"{start},,decile_50,{level / 2},700")
                lines += [f"{start},,bin_{at:02d},{0.25},700" for at in range(4)]
                lines.append(f"{start},125m,p_easy_median,0.9,700")
                lines.append(f"{start},125m,rank_correlation,0.{seed},700")
                for at, method in enumerate(("none", "supervised_kd", "supervised_kd_atkd")):
                    lines.append(f"{start},125m,easy_missed_{method},0.{at}{seed},700")
                    lines += [
                        f"{start},125m,{half}_nats_{method},{at}.5,700" for half in ("easy", "hard")
                    ]
                    lines.append(f"{start},125m,hard_missed_{method},0.5,700")
    return "\n".join(lines) + "\n"


def test_uncertainty_by_teacher_and_its_density(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    change_record(run, analyses=["uncertainty"])
    write_text(run / "analyses/uncertainty.csv", uncertainty_rows())
    table = drawn(run, run / "tables")["uncertainty"]
    assert table.rows[0] == [
        "references", "OPT 1.3B teacher", "32.0 [29.5, 34.5]", "15.0", "0.90", "0.20",
    ]  # fmt: skip
    assert [row and row[1] for row in table.rows][1:3] == ["OPT 6.7B teacher", None]
    halves = drawn(run, run / "tables")["halves"]
    assert halves.rows[:2] == [
        ["references", "No training", "2.0 ± 2.5", "0.500 ± 0.000", "50.0 ± 0.0", "0.500 ± 0.000"],
        ["references", "Supervised KD", "12.0 ± 2.5", "1.500 ± 0.000", "50.0 ± 0.0",
         "1.500 ± 0.000"],
    ]  # fmt: skip
    assert halves.rows[3] is None and "over 2 pairs" in " ".join(halves.notes)
    assert "uncertainty" in figures.draw(run / "tables", tmp_path / "f", run / "run.json")
    text = (tmp_path / "f/uncertainty.txt").read_text(encoding="utf-8")
    assert "At most 700 tokens a point; seeds: 3." in text and "bins of 25.0 %" in text


def test_a_landscape_by_length_of_the_steps_and_on_a_plane(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    change_record(run, analyses=["landscape"])
    lines = ["run,kind,direction,x,y,loss,tokens"]
    for method, rise in (("supervised_kd", 0.4), ("supervised_kd_atkd", 0.2)):
        key = f"opt/125m/6.7b/{method}/1"
        lines.append(f"{key},centre,,,,2.0,300")
        for x in (-0.1, 0.1, -0.2, 0.2):
            lines.append(f"{key},step,0,{x},,{2 + rise * abs(x)},300")
        lines += [
            f"{key},plane,,{x},{y},{2 + rise * (x * x + y * y)},300"
            for x in (-0.4, 0.0, 0.4)
            for y in (-0.4, 0.0, 0.4)
        ]
    write_text(run / "analyses/landscape.csv", "\n".join(lines) + "\n")
    table = drawn(run, run / "tables")["landscape"]
    assert table.heads[3:] == ["Rise at 0.1", "Rise at 0.2"]
    assert table.rows[0] and table.rows[0][1:] == ["Supervised KD", "2.000", "0.040", "0.080"]
    assert "landscape" in figures.draw(run / "tables", tmp_path / "f", run / "run.json")
    text = (tmp_path / "f/landscape.txt").read_text(encoding="utf-8")
    assert "At most 300 tokens a point; seeds: 1." in text


def test_diversity_is_a_mean_over_seeds(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    lines = ["run,statistic,value,answers"]
    for seed, value in ((1, 10.0), (2, 12.0), (3, 14.0)):
        for name in ("distinct_1", "distinct_2", "words"):
            lines.append(f"opt/125m/-/sft/{seed},{name},{value},500")
    write_text(run / "analyses/diversity.csv", "\n".join(lines) + "\n")
    table = drawn(run, run / "tables")["diversity"]
    assert table.rows == [["OPT 125M", "SFT", *["12.00 ± 4.97"] * 3]]
    assert "Answers: 500 a model; seeds: 3." in table.notes[1]


def test_curves_say_what_the_last_quarter_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    change_record(run, analyses=["curves"])
    lines = ["run,stage,step,share,loss,tokens"]
    runs = {"models/opt/125m/seed1/base": "base", "opt/125m/1.3b/gkd/1": "student"}
    for name, stage in runs.items():
        for at in range(1, 21):
            lines.append(f"{name},{stage},{at},{at / 20:.4f},{2 - at / 20:.6f},{at}")
    write_text(run / "analyses/curves.csv", "\n".join(lines) + "\n")
    table = drawn(run, run / "tables")["curves"]
    numbers = ["1.750", "1.500", "1.250", "1.000", "\N{MINUS SIGN}18.5 %"]
    assert table.rows == [["base", "", "1", *numbers], ["student", "GKD", "1", *numbers]]
    assert "curves" in figures.draw(run / "tables", tmp_path / "f", run / "run.json")
    assert "seeds: 1." in (tmp_path / "f/curves.txt").read_text(encoding="utf-8")


def test_a_damaged_probe_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("opt",), documents=2, tasks=("dolly", "mmlu"))
    write_text(run / "analyses/curves.csv", "run,stage\n")
    with pytest.raises(InputError, match=r"curves\.csv: column 'step' is missing"):
        drawn(run, tmp_path / "tables")
