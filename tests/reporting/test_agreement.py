"""The judge beside ROUGE-L: correlations and ratings against hand and scipy-free formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import judge_of, write_run

from atkd.reporting import agreement, score_tables
from atkd.statistics import estimates

RUNS = [f"opt/125m/-/{method}/{seed}" for method in ("none", "sft") for seed in (1, 2)]


def documents(judge: bool = True, llm: bool = False) -> pd.DataFrame:
    """Two methods, two seeds, two tasks and one outside the average, five answers each."""
    rng, rows = np.random.default_rng(3), []
    for run in RUNS:
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
                    rows.append(row | {"metric": "judge", "value": 10 * rated})
    return pd.DataFrame(rows, columns=estimates.DOCUMENT_COLUMNS)


def table(frame: pd.DataFrame, folder: Path) -> list[tuple[Any, ...]]:
    frame.to_csv(folder / "documents.csv.gz", index=False)
    return agreement.judge_tables(folder / "documents.csv.gz", "world")


@pytest.mark.parametrize("llm", [False, True])
def test_correlations_are_those_of_the_pairs(llm: bool) -> None:
    frame = documents(llm=llm)
    found = agreement.agreement(frame, "rouge_l").set_index("task")
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
    assert agreement.correlation(first, first**3)[1] == pytest.approx(1)
    assert agreement.correlation(first, -first) == pytest.approx((-1, -1))
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert agreement.correlation(first, pd.Series([0.0, 7, 5, 9]))[1] == pytest.approx(0.8)
    for short in (first[:2], first * 0):
        assert all(map(math.isnan, agreement.correlation(short, short)))


def test_tables_appear_where_a_judge_ran(tmp_path: Path) -> None:
    assert table(documents(judge=False), tmp_path) == []
    (made,) = table(documents(), tmp_path)
    assert made[0] == "judge_agreement" and made[3][0][:3] == ["DollyEval (world)", "ROUGE-L", "20"]
    names = [parts[0] for parts in table(documents(llm=True), tmp_path)]
    assert names == ["judge_agreement", "judge_ratings"]


def test_tables_say_how_many_documents_and_seeds(tmp_path: Path) -> None:
    frame = documents(llm=True)
    frame = frame[(frame.task != "koala") | (frame.document < "d")]
    both, ratings = (parts[4][-1] for parts in table(frame, tmp_path))
    assert both == "Documents: 13 (dolly 5, koala 3, unseen 5); seeds: 2."
    assert ratings == "Documents: 8 (dolly 5, koala 3); seeds: 2."


def test_ratings_by_hand() -> None:
    frame = documents(llm=True)
    found = agreement.ratings(frame)
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
    found = {t.name: t for t in score_tables.draw(tmp_path / "t", scores=run / "scores.csv",
                                            documents=run / "documents.csv.gz")}  # fmt: skip
    cells = pd.read_csv(tmp_path / "t/estimates.csv", keep_default_na=False, na_values=[""])
    plain = pd.read_csv(run / "scores.csv", keep_default_na=False)
    both = cells.merge(plain, on=[*estimates.KEYS, "task", "metric"], suffixes=("", "_rouge"))
    koala = both[(both.task == "koala") & (both.metric == "score")]
    assert len(koala) == 11 and np.allclose(koala.value, 100 - koala.value_rouge, atol=1e-5)
    others = both[(both.task == "bbh") | (both.metric == "bits_per_byte")]
    assert np.allclose(others.value, others.value_rouge, atol=1e-5)
    notes = " ".join(found["main_opt"].notes)
    said = "a language model's rating (100 x" if llm else "the exact judge's rating (percent of 10"
    assert said in notes and "ROUGE-L" not in notes and "prefix match for MMLU" in notes
    assert koala.low.lt(koala.value).all() and ("judge_ratings" in found) == llm


@pytest.mark.parametrize("llm", [False, True])
def test_rouge_l_is_told_beside_a_judge_with_gains_and_intervals(llm: bool, tmp_path: Path) -> None:
    write_run(tmp_path, families=("opt",), documents=6, tasks=("koala", "bbh", "unseen"))
    plain = score_tables.draw(tmp_path / "plain", scores=tmp_path / "scores.csv",
                        documents=tmp_path / "documents.csv.gz")  # fmt: skip
    assert not any("rouge_l" in table.name for table in plain)  # it is the score itself
    frame, rouge = judge_of(tmp_path, llm), pd.read_csv(tmp_path / "plain/estimates.csv")
    frame.to_csv(tmp_path / "documents.csv.gz", index=False)
    found = {t.name: t for t in score_tables.draw(tmp_path / "t", scores=tmp_path / "scores.csv",
                                            documents=tmp_path / "documents.csv.gz")}  # fmt: skip
    table = found["rouge_l_opt"]
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
