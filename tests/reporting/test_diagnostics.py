"""Tables beside the scores: judges, secondary metrics, costs, deviations, analyses.

Correlations and ratings are compared with hand and scipy-free formulas.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import change_record, drawn, judge_of, write_record, write_run

from atkd.evaluation import scores
from atkd.evaluation.scores import DOCUMENT_COLUMNS
from atkd.reporting import diagnostics, score_tables
from atkd.reporting.inputs import run_in
from atkd.reporting.table import Table, number
from atkd.runtime.files import InputError, write_csv
from atkd.statistics import estimates

JUDGED = [f"opt/125m/-/{method}/{seed}" for method in ("none", "sft") for seed in (1, 2)]


def documents(judge: bool = True, llm: bool = False) -> pd.DataFrame:
    """Two methods, two seeds, two tasks and one outside the average, five answers each."""
    rng, rows = np.random.default_rng(3), []
    for run in JUDGED:
        for task in ("dolly", "koala", "unseen"):
            for name in "abcde":
                row = {"run": run, "task": task, "document": name, "group": ""}
                rouge = float(rng.uniform(20, 80))
                rows.append(row | {"metric": "rouge_l", "value": rouge})
                rated = rouge / 10 + rng.normal() / 3
                if judge and llm:
                    ratings = {"numerator": rated, "denominator": float(rng.uniform(5, 10))}
                    rows.append(row | {"metric": "judge"} | ratings)
                    rows.append(row | {"metric": "judge_order", "value": 0.5})
                    rows.append(row | {"metric": "judge_unparsable", "value": 0.0})
                elif judge:
                    rows.append(row | {"metric": "judge", "value": 100 * (rated - 1) / 9})
    return pd.DataFrame(rows, columns=["run", *DOCUMENT_COLUMNS])


def judge_tables(frame: pd.DataFrame, folder: Path, judge: bool = False) -> dict[str, Table]:
    """The tables of judges, of a run that has these documents."""
    frame.to_csv(folder / "documents.csv.gz", index=False)
    cells = [tuple(run.split("/")[:4]) for run in JUDGED]
    write_record(folder, cells, tasks=("dolly", "koala", "unseen"))
    change_record(folder, judge=judge)
    names = ("judge_agreement", "judge_ratings")
    return {made.name: made for made in score_tables.tables(run_in(folder), names)}


@pytest.mark.parametrize("llm", [False, True])
def test_correlations_are_those_of_the_pairs(llm: bool) -> None:
    frame = documents(llm=llm)
    found = diagnostics.agreement(frame, "rouge_l").set_index("task")
    assert list(found.index) == ["dolly", "koala", "unseen", "generation"]
    frame["value"] = frame.value.fillna(100 * frame.numerator / frame.denominator)
    for task in ("dolly", "unseen"):
        part = frame[frame.task == task].pivot_table(
            index=["run", "document"], columns="metric", values="value"
        )
        judge, rouge = part.judge.to_numpy(), part.rouge_l.to_numpy()
        ranks = [np.argsort(np.argsort(x)) for x in (judge, rouge)]
        row = found.loc[task]
        assert row.answers == 20 and row.runs == 4
        assert row.pearson == pytest.approx(np.corrcoef(judge, rouge)[0, 1])
        assert row.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1]) != row.pearson
        means = part.groupby("run").mean()
        if llm:
            sums = frame[(frame.task == task) & (frame.metric == "judge")].groupby("run")
            means["judge"] = sums.numerator.sum() / sums.denominator.sum()
        assert row.pearson_means == pytest.approx(np.corrcoef(means.judge, means.rouge_l)[0, 1])
    assert found.loc["generation"].answers == 40


def test_known_answers() -> None:
    first = pd.Series([1.0, 2.0, 3.0, 10.0])
    assert diagnostics.correlation(first, first**3)[1] == pytest.approx(1)
    assert diagnostics.correlation(first, -first) == pytest.approx((-1, -1))
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert diagnostics.correlation(first, pd.Series([0.0, 7, 5, 9]))[1] == pytest.approx(0.8)
    for short in (first[:2], first * 0):
        assert all(map(math.isnan, diagnostics.correlation(short, short)))


def test_tables_appear_where_a_judge_ran(tmp_path: Path) -> None:
    assert judge_tables(documents(judge=False), tmp_path) == {}
    found = judge_tables(documents(), tmp_path)
    assert list(found) == ["judge_agreement"]
    assert found["judge_agreement"].rows[0][:3] == ["DollyEval (world)", "ROUGE-L", "20"]
    found = judge_tables(documents(llm=True), tmp_path, judge=True)
    assert list(found) == ["judge_agreement", "judge_ratings"]


def test_tables_say_how_many_documents_and_seeds(tmp_path: Path) -> None:
    frame = documents(llm=True)
    frame = frame[(frame.task != "koala") | (frame.document < "d")]
    both, ratings = (made.notes[-1] for made in judge_tables(frame, tmp_path, True).values())
    assert both == "Documents: 13 (dolly 5, koala 3, unseen 5); seeds: 2."
    assert ratings == "Documents: 8 (dolly 5, koala 3); seeds: 2."


def test_ratings_by_hand() -> None:
    frame = documents(llm=True)
    found = diagnostics.ratings(frame)
    assert list(found.method) == ["none", "sft"] and set(found.answers) == {20}
    part = frame[frame.run.str.contains("sft") & (frame.task != "unseen")]
    part = part[part.metric == "judge"]
    row = found.iloc[1]
    assert row.score == pytest.approx(100 * part.numerator.mean() / part.denominator.mean())
    assert row.mean_difference == pytest.approx((part.numerator - part.denominator).mean())
    assert row.wins == (part.numerator > part.denominator).sum() > 0
    assert row.wins + row.ties + row.losses == 20
    assert (row.order_effect, row.unparsable) == (0.5, 0)


def judged_run(folder: Path, llm: bool) -> Path:
    """A run of one family in which a judge rated koala."""
    write_run(folder, families=("opt",), documents=6, tasks=("koala", "bbh"))
    judge_of(folder, llm).to_csv(folder / "documents.csv.gz", index=False)
    return folder


@pytest.mark.parametrize("llm", [False, True])
def test_scores_are_the_judges_where_one_ran_and_tables_say_so(llm: bool, tmp_path: Path) -> None:
    run = judged_run(tmp_path, llm)
    found = drawn(run, tmp_path / "t")
    cells = pd.read_csv(tmp_path / "t/estimates.csv", keep_default_na=False, na_values=[""])
    plain = pd.read_csv(run / "scores.csv", keep_default_na=False)
    both = cells.merge(plain, on=[*estimates.KEYS, "task", "metric"], suffixes=("", "_rouge"))
    koala = both[(both.task == "koala") & (both.metric == "score")]
    assert len(koala) == 11 and np.allclose(koala.value, 100 - koala.value_rouge, atol=1e-5)
    others = both[(both.task == "bbh") | (both.metric == "bits_per_byte")]
    assert np.allclose(others.value, others.value_rouge, atol=1e-5)
    notes = " ".join(found["main_opt"].notes)
    said = "a language model's rating (100 x" if llm else "the exact judge's rating (1 is 0 %"
    assert said in notes and "ROUGE-L" not in notes and "prefix match for MMLU" in notes
    assert koala.low.lt(koala.value).all() and ("judge_ratings" in found) == llm


@pytest.mark.parametrize("llm", [False, True])
def test_rouge_l_is_told_beside_a_judge_with_gains_and_intervals(llm: bool, tmp_path: Path) -> None:
    write_run(tmp_path, families=("opt",), documents=6, tasks=("koala", "bbh", "unseen"))
    plain = drawn(tmp_path, tmp_path / "plain")
    assert not any("rouge_l" in name for name in plain)  # it is the score itself
    frame, rouge = judge_of(tmp_path, llm), pd.read_csv(tmp_path / "plain/estimates.csv")
    frame.to_csv(tmp_path / "documents.csv.gz", index=False)
    table = drawn(tmp_path, tmp_path / "t")["rouge_l_opt"]
    assert table.title == "OPT: ROUGE-L (world)"
    assert table.heads[2:4] == ["Koala (world)", "Generation (1 of 5 tasks)"]
    assert table.heads[4:] == ["ATKD's gain", "Detectable"]
    assert "ROUGE-L F in percent" in table.notes[0] and "koala 6" in table.notes[1]
    keys = [*estimates.KEYS, "task"]
    cells = pd.read_csv(tmp_path / "t/estimates.csv").query("metric == 'rouge_l'")
    both = cells.merge(rouge[rouge.metric == "score"], on=keys, suffixes=("", "_score"))
    shown = both[both.task == "koala"]
    assert len(shown) == 11 and np.allclose(shown.value, shown.value_score)
    assert np.allclose(shown.low, shown.low_score) and set(shown.high - shown.low > 0) == {True}
    gains = pd.read_csv(tmp_path / "t/rouge_l_opt.csv").dropna(subset="gain_value")
    assert len(gains) == 3 and (gains.gain_low < gains.gain_high).all()
    assert sum("[" in cell for row in table.rows for cell in row or ()) == 3


def test_costs_add_up(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("llama",), documents=2, tasks=("koala",))
    spent = pd.read_csv(run / "costs.csv")
    split = diagnostics.time_split(diagnostics.phases(spent))
    assert sum(split.values()) == pytest.approx(spent.wall_s.sum())
    assert split["start-up"] == pytest.approx(2.3 * len(spent))


def test_the_table_of_costs_names_every_stage(tmp_path: Path) -> None:
    run = write_run(tmp_path, families=("llama",), documents=2, tasks=("koala",))
    table = diagnostics.cost_table(run_in(run))
    assert {row[1] for row in table.rows if row} == {"teacher", "student", "evaluate", ""}
    assert table.rows[-1][2] == str(len(pd.read_csv(run / "costs.csv")))
    assert table.notes[-1] == "Models scored: 8; seeds: 1."


def test_a_row_per_switch_and_method(tmp_path: Path) -> None:
    methods = ("supervised_kd", "supervised_kd+eos_untaught", "gkd", "gkd+test_template")
    tasks = ("koala", "mmlu", "bbh")
    folder = write_run(tmp_path, ("llama",), methods, seeds=3, documents=6, tasks=tasks)
    table = drawn(folder, tmp_path / "tables")["deviations"]
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
    assert "deviations" not in drawn(folder, tmp_path / "tables")
    with pytest.raises(InputError, match="no variant was run"):
        diagnostics.deviations(run_in(folder))


SCORED = (
    ("-", "1.3b", "teacher"),
    ("1m", "-", "sft"),
    ("1m", "1.3b", "gkd"),
    ("-", "6b", "teacher"),
    ("1m", "6b", "gkd_atkd"),
    ("9m", "-", "sft"),
)


def scored(folder: Path) -> Path:
    rows = []
    for place, run in enumerate(SCORED):
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
    write_csv(folder / "scores.csv", scores.SCORE_COLUMNS, rows)
    cells = [("opt", *run) for run in SCORED]
    write_record(folder, cells, seeds=2, config="lab", source="local", tasks=("dolly", "mmlu"))
    return folder


def test_secondary_metrics_have_a_block_per_teacher(tmp_path: Path) -> None:
    (table,) = score_tables.draw(run_in(scored(tmp_path)), tmp_path / "tables", ["secondary"])
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


def test_scores_without_secondary_metrics_have_no_table(tmp_path: Path) -> None:
    run = run_in(scored(tmp_path))
    path = run.scores_path
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(head + "".join(line for line in lines if ",bits_per_byte," in line))
    assert score_tables.draw(run, tmp_path / "tables", ["secondary"]) == []
    assert not (tmp_path / "tables").exists()
    path.write_text(head + "".join(line for line in lines if ",distinct_1," in line))
    table = diagnostics.secondary(run_in(tmp_path))
    assert table.rows[0][2:] == ["", "", "", "", "", "41.5", "", ""]


def test_the_command_line_draws_a_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(scored(tmp_path))
    argv = ["tables", "--scores", str(run.scores_path), "--documents", str(run.documents_path)]
    argv += ["--output", str(tmp_path / "t"), "--only", "secondary"]
    monkeypatch.setattr("sys.argv", argv)
    score_tables.main()
    assert (tmp_path / "t/secondary.md").is_file()
