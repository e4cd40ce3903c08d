"""The two pages: escaped whatever data say, usable without script; what a document measured."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from made_runs import change_record, write_record, write_samples

from atkd.reporting import pages, report
from atkd.reporting.pages import is_rated, measured, primary
from atkd.reporting.table import Table
from atkd.runtime.files import InputError, write_jsonl, write_text
from atkd.statistics.estimates import read_record

HOSTILE = (
    '</p><script>alert("x")</script><img src=x onerror=alert(1)>&lt;b&gt;"\'><!-- ]]> '
    "\x00\x1b[31m \ud800 \u202e {{7*7}} ${x} </textarea></style>"
)
PAIR = ("opt/-/1.3b/teacher/1", "opt/125m/-/none/1", "opt/125m/-/sft/1")
PAIR += ("opt/125m/1.3b/supervised_kd/1", "opt/125m/1.3b/supervised_kd_atkd/1")
OTHERS = ("opt/125m/1.3b/gkd/1", "opt/125m/2.7b/supervised_kd/1", "llama/68m/-/sft/1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with five models of the first pair, and others."""
    folder = tmp_path / "lab"
    for key in (*OTHERS, *PAIR):
        write_samples(folder, key, [f"{key} says {i}" for i in range(3)])
    return folder


class Seen(HTMLParser):
    """What a browser would make of a page: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_first_pairs_models_side_by_side(run: Path) -> None:
    seen = Seen(pages.samples(run).read_text())
    assert (run / "samples.html").is_file()
    places = [seen.words.index(f"{key} says 1") for key in PAIR]
    assert places == sorted(places)
    assert not any(f"{key} says" in seen.words for key in OTHERS)
    assert seen.words.index("ask 1") < seen.words.index("ref 1") < places[0]
    assert "ROUGE-L 10 · bits per byte 1.5" in seen.words
    assert "3 of 3 documents" in seen.words
    assert "Supervised KD + ATKD 125M ← 1.3B, seed 1: 10.0" in seen.words


def test_a_language_models_ratings_are_shown(run: Path) -> None:
    head = "run,task,document,group,metric,value,numerator,denominator"
    mine = f"{PAIR[4]},koala,d"
    lines = [f"{mine}0,,judge,,10,1", f"{mine}1,,judge,,6,8", f"{mine}2,,judge_unparsable,100,,"]
    lines += [f"{mine}1,,judge_exact,46,,", f"{mine}1,,rouge_l,10,,", f"{mine}2,,rouge_l,20,,"]
    write_text(run / "documents.csv.gz", "\n".join([head, *lines]) + "\n")
    seen = Seen(pages.samples(run).read_text())
    assert "judge 1000" in seen.words and "judge 75 · ROUGE-L 10 · exact judge 46" in seen.words
    assert "ROUGE-L 20 · % of replies unreadable 100" in seen.words
    assert "Supervised KD + ATKD 125M ← 1.3B, seed 1: 537.5" in seen.words  # of two documents


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """In prompts, references, answers, groups, ids and the configuration's name."""
    folder, key = tmp_path / "<b onclick=x>&", PAIR[3]
    row = dict.fromkeys(("id", "group", "prompt", "target", "answer"), HOSTILE)
    path = folder / "runs" / key / "samples" / "koala.jsonl"
    write_samples(folder, key, [""])
    plain = Seen(pages.samples(folder, limit=9).read_text())
    text = [json.dumps(row), '{"id":"2","prompt":"p","target":"t","answer":""}']
    write_text(path, "\n".join(text) + "\n")
    page = pages.samples(folder, limit=9).read_text()
    seen = Seen(page)
    assert set(seen.tags) <= set(plain.tags)
    assert seen.attributes <= plain.attributes
    assert not {"onerror", "onclick", "src", "href=x"} & seen.attributes
    assert page.count("<script") == page.count("</script") == 1
    assert page.count("<style") == page.count("</style") == 1
    assert "\x00" not in page and "\x1b" not in page
    shown = pages.UNFIT.sub("\ufffd", HOSTILE)
    assert seen.words.count(shown) == 5


def test_only_its_own_script_may_run(run: Path) -> None:
    page = pages.samples(run).read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and f"script-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "http:" not in page and "https:" not in page


def test_chosen_runs_tasks_and_documents(run: Path, tmp_path: Path) -> None:
    write_samples(run, OTHERS[2], ["one", "two"], task="mmlu")
    output = tmp_path / "some.html"
    keys = [OTHERS[2], PAIR[0]]
    assert pages.samples(run, ["mmlu"], keys, 1, output) == output
    seen = Seen(output.read_text())
    assert "1 of 2 documents" in seen.words
    assert "one" in seen.words and "two" not in seen.words
    assert "not asked" in seen.words
    assert "says" not in seen.words


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tasks": ["nothing"]}, "task 'nothing': no samples found; expected one of koala"),
     ({"keys": ["a/b"]}, "run 'a/b': no samples found; expected one of .*opt/-/1.3b/teacher/1"),
     ({"limit": 0}, "--limit: found 0")],
)  # fmt: skip
def test_wrong_choices_are_named(run: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pages.samples(run, **options)
    assert not (run / "samples.html").exists()


def test_missing_and_broken_files_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="runs: no samples found"):
        pages.samples(tmp_path)
    path = run / "runs" / PAIR[1] / "documents.csv.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(InputError, match=r"none/1/documents\.csv\.gz: damaged or no gzip"):
        pages.samples(run)
    path.unlink()
    with pytest.raises(InputError, match=r"none/1/documents\.csv\.gz: file not found"):
        pages.samples(run)


def test_command_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--task", "koala", "--runs", *PAIR[3:], "--limit", "2"]
    monkeypatch.setattr("sys.argv", ["report", "samples", "--run", str(run), *options])
    report.main()
    assert str(run / "samples.html") in capsys.readouterr().out
    assert "2 of 3 documents" in (run / "samples.html").read_text()


def test_a_long_prompt_shows_its_end_and_folds_the_rest(run: Path) -> None:
    prompt = "first example. " * 60 + "the question"
    path = run / "runs" / PAIR[0] / "samples" / "koala.jsonl"
    write_jsonl(path, [{"id": "d0", "prompt": prompt, "target": "t", "answer": "a"}])
    seen = Seen(pages.samples(run, keys=[PAIR[0]]).read_text())
    assert seen.words.count("the question") == 2
    assert f"all {len(prompt)} characters" in seen.words
    assert seen.words.count("first example. " * 60) == 1
    assert "details" in seen.tags


def test_metrics_are_spoken_of_in_words() -> None:
    assert pages.spoken("rouge_l") == "ROUGE-L"
    assert pages.spoken("bits_per_byte_easy@1.3b") == "bits per byte easy for 1.3b"


RUN = "opt/125m/-/sft/1"
HEAD = "task,document,group,metric,value,numerator,denominator"
OWN = ["koala,a,,judge,70,,", "koala,a,,rouge_l,20,,", "koala,b,,judge,0.000000,,"]
OWN += ["koala,b,,rouge_l,30,,", "mmlu,c,,prefix_match,100,,", "koala,a,,bits_per_byte,,6,4"]
RATED = ["koala,a,,judge,,6,8", "koala,a,,judge_unparsable,0,,", "koala,b,,judge_unparsable,100,,"]


def write(path: Path, rows: list[str], run: str = "") -> None:
    lines = [f"run,{HEAD}", *(f"{run},{row}" for row in rows)] if run else [HEAD, *rows]
    write_text(path, "\n".join(lines) + "\n")


def expect_both(folder: Path) -> None:
    """The language model's ratings lead, the exact judge's have another name."""
    found = measured(folder, [RUN])[RUN]
    assert found["koala"]["a"] == {
        "judge": 75, "judge_exact": 70, "judge_unparsable": 0, "rouge_l": 20, "bits_per_byte": 1.5
    }  # fmt: skip
    assert [primary("koala", found["koala"][name], True) for name in "ab"] == [75, None]
    assert found["koala"]["b"]["judge_exact"] == 0 and is_rated([found["koala"]])
    assert primary("mmlu", found["mmlu"]["c"], False) == 100 and not is_rated([found["mmlu"]])


def test_the_runs_own_file(tmp_path: Path) -> None:
    write(tmp_path / "runs" / RUN / "documents.csv.gz", OWN)
    found = measured(tmp_path, [RUN])[RUN]
    assert found["koala"]["a"] == {"judge": 70, "rouge_l": 20, "bits_per_byte": 1.5}
    assert primary("koala", found["koala"]["b"], True) == 0
    assert primary("koala", found["koala"]["b"], False) == 30
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
    with pytest.raises(InputError, match=r"sft/1/documents\.csv\.gz: file not found"):
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
        with pytest.raises(InputError, match=r"/documents\.csv\.gz: damaged or no gzip file"):
            measured(tmp_path, [RUN])


def test_the_exact_judges_own_file(tmp_path: Path) -> None:
    kept = [row for row in OWN if ",judge," not in row]
    write(tmp_path / "runs" / RUN / "documents.csv.gz", kept)
    judged = [row for row in OWN if ",judge," in row]
    write(tmp_path / "runs" / RUN / "judge_documents.csv.gz", judged)
    found = measured(tmp_path, [RUN])[RUN]
    assert found["koala"]["a"] == {"judge": 70, "rouge_l": 20, "bits_per_byte": 1.5}
    write(tmp_path / "judge" / "documents.csv.gz", RATED, RUN)
    expect_both(tmp_path)


def test_tasks_say_that_they_are_the_worlds(run: Path) -> None:
    assert "Koala (world)" not in pages.samples(run).read_text()
    write_record(run, [("opt", "125m", "-", "sft")], config="lab")
    assert "Koala (world)" in pages.samples(run).read_text()
    change_record(run, source="local", config="world_lab")
    assert "Koala (world)" not in pages.samples(run).read_text()


def table_page(folder: Path, table: Table) -> str:
    """The page of a run that has one table, its controls."""
    write_record(folder, [("opt", "125m", "-", "sft")])
    table.name, table.data = "controls", pd.DataFrame()
    table.save(folder / "tables")
    return pages.index(read_record(folder / "run.json"), folder, {"jobs": 0})


def test_tables_are_escaped(tmp_path: Path) -> None:
    table = Table("<b>", ["<i>", "&"], [["<script>", "a|b"], None, ["\x1b", "'"]], ["<u>", "n"])
    page = table_page(tmp_path, table)
    assert "<script" not in page and "<u>" not in page and "<b>" not in page
    assert "&lt;script&gt;" in page and "\x1b" not in page and page.count("<br>") == 1
    assert page.count('<tr class="rule">') == 1
    assert r"a\|b" in table.markdown()


def test_provenance_is_escaped(tmp_path: Path) -> None:
    write_record(tmp_path, [("opt", "125m", "-", "sft")])
    Table("t", ["a"], [], ["said"], pd.DataFrame(), "controls").save(tmp_path / "tables")
    provenance = {"jobs": 1, "commits": [HOSTILE], "versions": {"<b>": ["1", HOSTILE]}}
    page = pages.index(read_record(tmp_path / "run.json"), tmp_path, provenance)
    assert "<script" not in page and "<img" not in page and "\x1b" not in page


def test_out_of_order_controls_lead_the_page(tmp_path: Path) -> None:
    said = "CONTROLS OUT OF ORDER: 1 of 15 comparisons fail (x)."
    page = table_page(tmp_path, Table("Controls", ["a"], [], [said]))
    assert f'<p class="verdict bad">{said}</p>' in page
    assert page.index(said) < page.index("<h2")


def test_a_page_without_tables_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, [("opt", "125m", "-", "sft")])
    with pytest.raises(InputError, match=r"tables/controls\.json: file not found"):
        report.html(tmp_path)
    assert not (tmp_path / "index.html").exists()
