"""Gains, pooled and single; the primary family; what one seed may not say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import drawn, register_mine, write_run

from atkd.runtime.files import InputError, read_json, write_json
from atkd.statistics import comparisons, estimates, intervals

METHODS = ("supervised_kd", "supervised_kd_atkd", "gkd", "gkd_atkd", "mine", "mine_atkd")


def loaded(folder: Path) -> estimates.Scores:
    """The score files of a run."""
    return estimates.load(folder / "scores.csv", folder / "documents.csv.gz")


@pytest.fixture(scope="module", autouse=True)
def mine() -> Iterator[None]:
    """A baseline that is not the paper's, with and without ATKD."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_mine(monkeypatch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, three baselines of which two are the paper's, two pairs."""
    options = {"families": ("llama",), "methods": METHODS, "seeds": 3, "documents": 8}
    return write_run(tmp_path_factory.mktemp("run"), tasks=("koala", "bbh", "mmlu"), **options)


@pytest.fixture(scope="module")
def rows(run: Path) -> pd.DataFrame:
    """Its differences."""
    return pd.DataFrame(comparisons.differences(loaded(run)))


def test_the_pooled_gain_is_the_mean_of_its_pairs(rows: pd.DataFrame) -> None:
    for (method, metric, task), part in rows.groupby(["method", "metric", "task"]):
        pooled, single = (part[part.kind == k] for k in (comparisons.POOLED, comparisons.GAIN))
        if method.endswith("_atkd"):
            assert pooled.value.item() == pytest.approx(single.value.mean()), (metric, task)
            assert pooled.improvement.item() == pytest.approx(single.improvement.mean())
            assert (pooled.pairs.item(), len(single)) == (2, 2)


def test_the_pooled_interval_is_that_of_the_averaged_documents(run: Path) -> None:
    """Documents of one task, averaged over pairs by hand, through the plain two-way model."""
    scores = loaded(run)
    wanted = next(c for c in comparisons.gains(scores) if c.kind == comparisons.POOLED)
    ours, theirs = wanted.ours, wanted.theirs
    assert {cell.method for cell in ours} == {"supervised_kd_atkd"}
    picked = [[scores.values["koala", "score"][[*scores.rows[cell].values()]] for cell in side]
              for side in (ours, theirs)]  # fmt: skip
    gain_SD = np.mean(picked[0], axis=0) - np.mean(picked[1], axis=0)
    found = next(r for r in estimates.estimates(scores, [wanted]) if r["task"] == "koala")
    assert found["error"] == pytest.approx(
        intervals.estimate([intervals.components(gain_SD)]).error
    )


def test_holm_runs_over_the_papers_baselines_alone(rows: pd.DataFrame) -> None:
    where = (rows.metric == "score") & (rows.task == "average")
    pooled = rows[(rows.kind == comparisons.POOLED) & where].set_index("method")
    assert list(pooled.index) == ["supervised_kd_atkd", "gkd_atkd", "mine_atkd"]
    family = pooled.drop("mine_atkd")
    assert list(family.p_holm) == pytest.approx(intervals.holm(list(family.p)))
    assert math.isnan(pooled.p_holm["mine_atkd"])
    assert pooled.verdict["mine_atkd"] == comparisons.EXPLORATORY
    rest = rows.drop(rows[(rows.kind == comparisons.POOLED) & where].index)
    assert rest.p_holm.isna().all()
    assert set(rest.verdict) == {"", comparisons.EXPLORATORY}
    assert rows.detectable.gt(0).all()


@pytest.mark.parametrize(
    ("value", "p", "word"),
    [(2.0, 0.01, "ATKD helps"), (-2.0, 0.01, "ATKD hurts"), (2.0, 0.06, "undecided"),
     (2.0, math.nan, "undecided")],
)  # fmt: skip
def test_verdicts(value: float, p: float, word: str) -> None:
    family = [{"value": value, "p": p}]
    comparisons.decide(family)
    assert family[0]["verdict"] == word


def test_improvement_knows_which_way_is_up(rows: pd.DataFrame) -> None:
    part = rows[(rows.kind == comparisons.POOLED) & (rows.task == "average")]
    part = part[part.method == "gkd_atkd"].set_index("metric")
    assert part.value["score"] > 0 > part.value["bits_per_byte"]
    assert part.improvement.min() > 0.5


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing(tmp_path: Path, seeds: int) -> None:
    """The gain is large and its interval far from zero, yet there is no p-value and no verdict."""
    options = {"families": ("llama",), "tasks": ("koala",), "documents": 40, "seeds": seeds}
    table = drawn(write_run(tmp_path, **options), tmp_path)["gains"]
    assert set(table.data.verdict) == {comparisons.UNDECIDED, comparisons.EXPLORATORY}
    assert table.data[["p", "p_holm"]].isna().all(axis=None)
    text = table.markdown()
    assert "UNDECIDED: a verdict and a p-value need 3 seeds" in text
    assert ("documents only" in text) == (seeds == 1)
    assert ("covers 92 to 97 %" in text) == (seeds == 2)
    if seeds == 1:
        assert table.data.low.max() > 0


def test_the_table_says_effect_first_and_what_was_tested(run: Path, tmp_path: Path) -> None:
    table = drawn(run, tmp_path)["gains"]
    named = ("ATKD's gain [interval]", "P(improvement)", "Detectable", "p", "p (Holm)", "Verdict")
    order = [table.heads.index(name) for name in named]
    assert order == sorted(order)
    text = table.markdown()
    for words in ("Documents: 24; seeds: 3", "over seeds and documents", "2 of the paper's 5"):
        assert words in text
    assert text.count("mean of 2 pairs") == 3
    assert text.count("exploratory") >= 7


def test_a_run_without_atkd_has_an_empty_table(tmp_path: Path) -> None:
    options = {"families": ("opt",), "methods": ("gkd",), "tasks": ("koala",), "documents": 3}
    table = drawn(write_run(tmp_path, **options), tmp_path)["gains"]
    assert not table.rows
    assert "No method was run with ATKD and without." in table.markdown()


def test_other_metrics_leave_the_score_alone(tmp_path: Path) -> None:
    """A new metric by value, and one by sums, are read under their own names."""
    folder = write_run(tmp_path, families=("opt",), tasks=("koala",), documents=3)
    before = loaded(folder)
    frame = pd.read_csv(folder / "documents.csv.gz")
    own = frame[frame.metric == "judge"]
    share = own.assign(metric="distinct", value=np.nan, numerator=2.0, denominator=4.0)
    frame = pd.concat([frame, own.assign(metric="oddity", value=7.0), share])
    frame.to_csv(folder / "documents.csv.gz", index=False)
    after = loaded(folder)
    assert np.array_equal(after.values["koala", "score"], before.values["koala", "score"])
    assert np.all(after.values["koala", "oddity"] == 7)
    assert ("koala", "distinct") in after.denominators
    contrast = estimates.Contrast((next(iter(after.rows)),))
    found = estimates.parts(after, "distinct", contrast)["koala"]
    assert found.seed_means == pytest.approx([0.5])


@pytest.mark.case(
    "judge",
    "Score files whose record says that a judge rates, while the documents hold ROUGE-L alone",
    "run.json: a judge is to rate the answers to koala, and the documents hold no rating; expected "
    "its ratings or another record",
)
def test_a_score_is_never_read_as_another_kind(says: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, families=("opt",), tasks=("koala",), documents=3)
    frame = pd.read_csv(folder / "documents.csv.gz").replace({"metric": {"judge": "rouge_l"}})
    frame.to_csv(folder / "documents.csv.gz", index=False)
    with pytest.raises(InputError) as caught:
        loaded(folder)
    assert str(caught.value) == says


def share_models(folder: Path) -> None:
    """Makes the untrained students and the teachers of seed 1 those of all seeds."""
    runs = read_json(folder / "run.json")["runs"]
    alone = {run: f"{run[:-1]}0" for run in runs if "/teacher/" in run or "/none/" in run}
    kept = [run for run in runs if run not in alone or run.endswith("/1")]
    write_json(
        folder / "run.json",
        read_json(folder / "run.json") | {"runs": [alone.get(run, run) for run in kept]},
    )
    documents = pd.read_csv(folder / "documents.csv.gz")
    documents = documents[documents.run.isin(kept)]
    documents = documents.assign(run=[alone.get(run, run) for run in documents.run])
    documents.to_csv(folder / "documents.csv.gz", index=False)
    scores = pd.read_csv(folder / "scores.csv")
    shared = scores.method.isin(["teacher", "none"])
    scores = scores[~shared | (scores.seed == 1)]
    scores.loc[scores.method.isin(["teacher", "none"]), "seed"] = 0
    scores.to_csv(folder / "scores.csv", index=False)


def test_a_model_that_all_seeds_share_is_compared_with_each(tmp_path: Path) -> None:
    folder = write_run(tmp_path, families=("llama",), seeds=3)
    share_models(folder)
    tables = drawn(folder, tmp_path / "tables")
    controls = tables["controls"].data.set_index("kind")
    assert sorted(controls.seeds) == [1, 3, 3, 3]
    scores = pd.read_csv(folder / "scores.csv")
    scores = scores[(scores.metric == "score") & (scores.task == "average")]
    teacher = scores[(scores.method == "teacher") & (scores.teacher == "7b")].value.item()
    sft = scores[scores.method == "sft"].value.mean()
    found = controls.loc["7b teacher > 68m SFT", "value"]
    assert found == pytest.approx(teacher - sft, abs=1e-4)
    assert controls.loc["7b teacher > 1.1b teacher", "seeds"] == 1
