"""Documents' metrics by run: a language model's ratings are among them wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from atkd.reporting.measured import measured, primary
from atkd.runtime.files import InputError, write_text

RUN = "opt/125m/-/sft/1"
HEAD = "task,document,group,metric,value,numerator,denominator"
OWN = ["koala,a,,judge,70,,", "koala,a,,rouge_l,20,,", "koala,b,,judge,10,,"]
OWN += ["koala,b,,rouge_l,30,,", "mmlu,c,,prefix_match,100,,", "koala,a,,bits_per_byte,,6,4"]
RATED = ["koala,a,,judge,,6,8", "koala,a,,judge_unparsable,0,,", "koala,b,,judge_unparsable,100,,"]


def write(path: Path, rows: list[str], run: str = "") -> None:
    lead = f"{run}," if run else ""
    lines = ["run," * bool(run) + HEAD, *(lead + row for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def expect_both(folder: Path) -> None:
    """The language model's ratings lead, the exact judge's have another name."""
    found = measured(folder, [RUN])[RUN]
    assert found["koala"]["a"] == {
        "judge": 75, "judge_exact": 70, "judge_unparsable": 0, "rouge_l": 20, "bits_per_byte": 1.5
    }  # fmt: skip
    assert [primary(found["koala"][name]) for name in "ab"] == [75, None]
    assert found["koala"]["b"]["judge_exact"] == 10 and primary(found["mmlu"]["c"]) == 100


def test_the_runs_own_file(tmp_path: Path) -> None:
    write(tmp_path / "runs" / RUN / "documents.csv.gz", OWN)
    found = measured(tmp_path, [RUN])[RUN]
    assert found["koala"]["a"] == {"judge": 70, "rouge_l": 20, "bits_per_byte": 1.5}
    assert primary(found["koala"]["b"]) == 10
    write(tmp_path / "judge" / "documents.csv.gz", RATED, RUN.replace("sft", "none"))
    assert measured(tmp_path, [RUN])[RUN] == found


def test_a_language_models_ratings_before_scores_were_collected(tmp_path: Path) -> None:
    write(tmp_path / "runs" / RUN / "documents.csv.gz", OWN)
    write(tmp_path / "judge" / "documents.csv.gz", RATED, RUN)
    expect_both(tmp_path)


def test_all_runs_documents_come_first(tmp_path: Path) -> None:
    moved = [row.replace(",judge,", ",judge_exact,") for row in OWN]
    write(tmp_path / "documents.csv.gz", moved + RATED, RUN)
    expect_both(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sft/1/documents\.csv\.gz: cannot be read"):
        measured(tmp_path, [RUN])
    whole = tmp_path / "documents.csv.gz"
    write(whole, OWN)
    with pytest.raises(InputError, match=r"/documents\.csv\.gz: expected rows with columns run, "):
        measured(tmp_path, [RUN])
    write(whole, ["koala,a,,judge,much,,"], RUN)
    with pytest.raises(InputError, match=r"/documents\.csv\.gz: expected numbers.*'much'"):
        measured(tmp_path, [RUN])
    write(whole, OWN, RUN)
    for damaged in (b"not gzip", whole.read_bytes()[:-9]):
        whole.write_bytes(damaged)
        with pytest.raises(InputError, match=r"/documents\.csv\.gz: cannot be read"):
            measured(tmp_path, [RUN])
