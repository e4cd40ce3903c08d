"""Metrics by hand and against the reference package; what one row more makes appear."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atkd import tasks
from atkd.evaluation import metrics, scores
from atkd.evaluation.metrics import METRICS, Metric, Ratio
from atkd.runtime.files import InputError, write_jsonl

WORDS = ["the", "a", "cat", "dog's", "Sat", "on,", "mat.", "12", "café", "x-y", "\n", "Ünï", "..."]


def test_rouge_l_by_hand() -> None:
    assert metrics.rouge_l("the cat sat", "The cat, sat!") == 100.0
    assert metrics.rouge_l("", "a") == metrics.rouge_l("a", "b") == metrics.rouge_l("!", "?") == 0.0
    # common: "cat mat" of 3 and 4 words: P 2/3, R 2/4
    assert metrics.rouge_l("cat on mat", "a cat the mat") == pytest.approx(100 * 4 / 7)


@pytest.mark.case(
    "data",
    "two of three references in Chinese or of emoji, answered with the very same text",
    "ROUGE-L 0 for both, as rouge-score has it; `wordless_references` is 66.7 % of 3 in scores.csv",
)
def test_references_without_a_word_are_counted(tmp_path: Path) -> None:
    texts = ["\u4f60\u597d\u3002", "\U0001f600!", "4 \u4f60"]
    rows = [sample(str(n), text) | {"target": text} for n, text in enumerate(texts)]
    write_jsonl(tmp_path / "dolly.jsonl", rows)
    found = scored(tmp_path)
    assert found["rouge_l"]["value"] == pytest.approx(100 / 3)
    assert found["wordless_references"]["value"] == pytest.approx(200 / 3)
    assert found["wordless_references"]["n"] == 3
    write_jsonl(tmp_path / "dolly.jsonl", rows[2:])
    assert "wordless_references" not in scored(tmp_path)
    (tmp_path / "dolly.jsonl").unlink()
    write_jsonl(tmp_path / "mmlu.jsonl", rows)
    assert "wordless_references" not in scored(tmp_path)  # its metric reads any text


@pytest.mark.filterwarnings("ignore")
def test_rouge_l_equals_the_package() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer, draw = rouge_scorer.RougeScorer(["rougeL"]), random.Random(0)
    for _ in range(300):
        answer, target = (" ".join(draw.choices(WORDS, k=draw.randrange(90))) for _ in range(2))
        wanted = 100.0 * scorer.score(target, answer)["rougeL"].fmeasure
        assert metrics.rouge_l(answer, target) == pytest.approx(wanted, abs=1e-12)


def test_prefix_match() -> None:
    assert metrics.prefix_match(" B\n", "B") == 100.0
    assert metrics.prefix_match("The B", "B") == metrics.prefix_match("b", "B") == 0.0


def sample(name: str, answer: str = "", bits: tuple[float, ...] = (1.0, 2.0), **more: Any) -> Any:
    row = {"id": name, "group": "", "prompt": "P", "target": "B", "answer": answer}
    row |= {"bits": sum(bits), "bytes": 4, "tokens": len(bits), "token_bits": list(bits)}
    return row | {"entropy": 3.0, "steps": 2} | more


def scored(folder: Path, **teachers: Path) -> dict[str, dict[str, Any]]:
    rows = scores.score_samples(folder, teachers)
    (task,) = {row["task"] for row in rows}
    return {row["metric"]: row for row in scores.scores_of(rows) if row["task"] == task}


def test_distinct_ngrams_are_those_of_the_whole_set() -> None:
    answers = [text.split() for text in ("a b a b", "b a", "", "c")]
    for n, wanted in ((1, [(2, 4), (0, 2), (0, 0), (1, 1)]), (2, [(2, 3), (0, 1), (0, 0), (0, 0)])):
        found = list(metrics.new_ngrams(answers, n))
        assert found == wanted
        whole = {tuple(words[i : i + n]) for words in answers for i in range(len(words) - n + 1)}
        assert sum(new for new, _ in found) == len(whole)


def test_diversity_and_entropy_of_a_task(tmp_path: Path) -> None:
    rows = [sample("0", "a b a", entropy=4.0, steps=4), sample("1", "", entropy=2.0, steps=1)]
    write_jsonl(tmp_path / "dolly.jsonl", rows)
    found = scored(tmp_path)
    assert found["distinct_1"]["value"] == pytest.approx(200 / 3) and found["distinct_1"]["n"] == 1
    assert found["distinct_2"]["value"] == 100.0
    assert found["entropy"]["value"] == pytest.approx(6 / 5) and found["entropy"]["n"] == 2
    write_jsonl(tmp_path / "dolly.jsonl", [sample("0", "")])
    assert "distinct_1" not in scored(tmp_path)  # nothing was said
    (tmp_path / "dolly.jsonl").rename(tmp_path / "drop.jsonl")
    assert not {"entropy", "distinct_1"} & set(scored(tmp_path))


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([(1.0, 1.0)] * 3, 0.0),
        ([(1.0, 0.0)] * 3, 1.0),
        ([(0.55, 1.0), (0.55, 0.0)], 0.05),
        ([(0.31, 0.0), (0.39, 1.0)], 0.15),  # one bin: means 0.35 and 0.5
        ([(0.29, 0.0), (0.31, 1.0)], 0.5 * 0.29 + 0.5 * 0.69),  # two bins
        ([(0.3, 1.0), (0.3, 0.0), (0.3, 0.0), (0.9, 1.0)], 0.75 * abs(0.3 - 1 / 3) + 0.25 * 0.1),
    ],
)
def test_calibration_error(pairs: list[tuple[float, float]], wanted: float) -> None:
    assert metrics.calibration_error(pairs) == pytest.approx(wanted)


def test_choices_by_likelihood(tmp_path: Path) -> None:
    right = {"options": ["A", "B"], "likelihoods": [-9.0, -9.0 + 1.0986122886681098]}  # 1 to 3
    wrong = {"options": ["A", "B"], "likelihoods": [0.0, -1.0986122886681098]}
    rows = [sample(str(n), **(right if n < 3 else wrong)) for n in range(4)]
    write_jsonl(tmp_path / "mmlu.jsonl", rows)
    found = scored(tmp_path)
    assert found["option_accuracy"]["value"] == 75.0
    assert found["option_confidence"]["value"] == pytest.approx(75.0)
    assert found["calibration_error"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert found["calibration_error"]["n"] == 4
    assert found["score"]["value"] == found["prefix_match"]["value"] == 0.0  # as before


def test_easy_and_hard_add_up(tmp_path: Path) -> None:
    student = [sample("0", bits=(1.0, 2.0, 4.0)), sample("1", bits=(8.0,))]
    teacher = [sample("0", bits=(0.1, 0.3, 0.2)), sample("1", bits=(0.2,))]
    write_jsonl(tmp_path / "student/bbh.jsonl", student)
    write_jsonl(tmp_path / "teacher/bbh.jsonl", teacher)
    assert metrics.threshold({"0": [0.1, 0.3, 0.2], "1": [0.2]}) == 0.2  # lower median
    assert metrics.threshold({"0": [4, 1, 3, 2]}) == 2
    found = scored(tmp_path / "student", own=tmp_path / "teacher")
    assert found["bits_per_byte_easy"]["value"] == pytest.approx(1 / 8)  # 0.1 alone is below 0.2
    assert found["bits_per_byte_hard"]["value"] == pytest.approx(14 / 8)
    whole = found["bits_per_byte_easy"]["value"] + found["bits_per_byte_hard"]["value"]
    assert whole == pytest.approx(found["bits_per_byte"]["value"])
    other = scored(tmp_path / "student", small=tmp_path / "teacher", big=tmp_path / "student")
    assert other["bits_per_byte_easy@small"]["value"] == found["bits_per_byte_easy"]["value"]
    assert other["bits_per_byte_hard@big"]["value"] == pytest.approx(14 / 8)  # below 2 bits: one
    assert "bits_per_byte_easy" not in other


def test_a_reference_cut_earlier_for_the_teacher(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "student/bbh.jsonl", [sample("0", bits=(1.0, 2.0, 4.0))])
    write_jsonl(tmp_path / "teacher/bbh.jsonl", [sample("0", bits=(0.1, 0.3))])
    found = scored(tmp_path / "student", own=tmp_path / "teacher")
    assert found["bits_per_byte_easy"]["value"] == 0.0  # nothing below the lower median, 0.1
    assert found["bits_per_byte_hard"]["value"] == pytest.approx(7 / 4)


def test_bad_input(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "student/bbh.jsonl", [sample("0")])
    write_jsonl(tmp_path / "teacher/bbh.jsonl", [sample("1")])
    with pytest.raises(InputError, match="teacher own: no sample '0'; samples of other data"):
        scored(tmp_path / "student", own=tmp_path / "teacher")
    with pytest.raises(InputError, match=r"nowhere/bbh.jsonl: file not found"):
        scored(tmp_path / "student", own=tmp_path / "nowhere")
    old = {name: value for name, value in sample("0").items() if name != "token_bits"}
    write_jsonl(tmp_path / "student/bbh.jsonl", [old])
    with pytest.raises(InputError, match=r"bbh.jsonl:1: field 'token_bits' is missing"):
        scored(tmp_path / "student", own=tmp_path / "teacher")


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "s/bbh.jsonl", [sample("0")])
    output = tmp_path / "documents.csv.gz"
    argv = ["scoring", "score", "--samples", str(tmp_path / "s"), "--output", str(output)]
    monkeypatch.setattr("sys.argv", [*argv, "--teachers", f"1.3b={tmp_path / 's'}"])
    scores.main()
    found = {row["metric"]: row for row in scores.read_documents(output)}
    assert found["bits_per_byte_easy@1.3b"]["numerator"] == "0.0000"
    assert found["bits_per_byte_easy@1.3b"]["denominator"] == "4"


def test_every_row_tells_people_what_it_is() -> None:
    for name, row in METRICS.items():
        assert row.title and row.unit in ("points", "bits", "%") and 0 <= row.digits <= 3, name
        direction = {True: "higher is better", False: "ower is better", None: ""}[row.higher]
        assert direction in row.about, name
        assert sum(made is not None for made in (row.of, row.of_all, row.of_teacher)) <= 1
    assert {row.metric for row in tasks.TASKS.values()} <= METRICS.keys()
    assert METRICS["rouge_l"].title == "ROUGE-L" and METRICS["judge_exact"].title == "Exact judge"
    with pytest.raises(InputError, match="found metric 'ruge'; expected one of score, rouge_l"):
        metrics.metric_row("ruge")
    assert metrics.metric_row("bits_per_byte_easy@1.3b") is METRICS["bits_per_byte_easy"]


def toy(**how: Any) -> Metric:
    return Metric("Toy", "points", 1, True, "A toy, higher is better.", **how)


def test_a_metric_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "dolly.jsonl", [sample("0", "a b"), sample("1", "c")])
    before = scores.score_samples(tmp_path)
    monkeypatch.setitem(METRICS, "length", toy(of=lambda row: len(row["answer"])))
    part = toy(of=lambda row: Ratio(len(row["answer"]), row["bytes"]), scale=100.0)
    monkeypatch.setitem(METRICS, "longer", part)
    monkeypatch.setitem(METRICS, "lost", toy(of=lambda row: row["x"], needs=("x",)))
    rows = scores.score_samples(tmp_path)
    assert rows[: len(before)] == before
    named = {"task": "dolly", "document": "0", "group": ""}
    assert rows[len(before)] == named | {"metric": "length", "value": "3"}
    assert rows[-2] == named | {"metric": "longer", "numerator": "3", "denominator": "4"}
    assert len(rows) == len(before) + 4
    found = scored(tmp_path)
    assert found["length"]["value"] == 2.0 and found["longer"]["value"] == 50.0


def test_a_metric_can_be_a_tasks_own_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = tasks.TASKS["mmlu"]
    monkeypatch.setitem(METRICS, "length", toy(of=lambda row: len(row["answer"]), tasks="own"))
    monkeypatch.setitem(tasks.TASKS, "toy", replace(row, metric="length", average=""))
    write_jsonl(tmp_path / "toy.jsonl", [sample("0", "a b"), sample("1", "c")])
    found = scored(tmp_path)
    assert found["score"]["value"] == found["length"]["value"] == 2.0
    assert not {"prefix_match", "rouge_l"} & set(found)
