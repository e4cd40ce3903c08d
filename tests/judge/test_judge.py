"""Judges: the exact one's ratings, a language model's replies, and whole runs of both."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import Reply, Server, completion, ratings, serving, until

from atkd.evaluation import scores
from atkd.judge import judge
from atkd.judge.verdicts import Question, Verdict, percent, questions, summarise
from atkd.reporting import diagnostics
from atkd.runtime.cli import run as cli
from atkd.runtime.files import InputError, read_json, read_jsonl, write_csv, write_jsonl
from atkd.tasks import AVERAGES
from atkd.world import builder, grader

WORLD = builder.generate({"pretrain": 1, "train": 1}, seed=2)
OPEN = [(task, row) for task in builder.open_tasks() for row in WORLD.tasks[task]]
FACTS = [["Mia", "job", "baker"], ["Mia", "town", "Rome"], ["Mia", "pet", "cat"]]
GRAMMAR = "Mia is a <job=baker> in <town=Rome> { with a <pet=cat>|} ."
RUN = "opt/125m/-/sft/1"


def rate(answer: str, facts: list[list[str]] = FACTS, task: str = "dolly") -> float:
    item = {"id": "x", "facts": facts, "grammar": GRAMMAR, "output": "", "instruction": "Who?"}
    found = judge.exact(Question("", task, "", item, answer))
    assert found.reference == 10 and found.model is not None
    return found.model


def test_every_reference_of_the_world_has_ten() -> None:
    assert len(OPEN) == 600 and {task for task, _ in OPEN} == {*AVERAGES["generation"], "unseen"}
    for task, row in OPEN:
        assert judge.exact(Question("", task, "", row, row["output"])).model == 10, row


def test_the_scale_by_hand() -> None:
    assert rate("Mia is a baker in Rome with a cat.") == 10
    assert rate("Mia: baker, Rome, cat") == 1 + 9 * 0.75  # right, but no wording of the grammar
    assert rate("Mia is a baker in Rome.") == pytest.approx(1 + 9 * 4 / 5)  # one omitted
    assert rate("Mia is a baker in Rome with a dog.") == pytest.approx(1 + 9 * 2 / 3)  # one wrong
    assert rate("Mia is a singer in Oslo.") == rate("") == rate("no idea") == 1


@pytest.mark.parametrize(("rating", "score"), [(1, 0), (4, 100 / 3), (5.5, 50), (10, 100)])
def test_a_score_goes_from_0_for_nothing_right_to_100(rating: float, score: float) -> None:
    assert percent(rating) == pytest.approx(score)
    (row,) = rated(rating, 10).documents()
    assert (row["metric"], row["value"]) == ("judge", f"{score:.6f}")
    assert "numerator" not in row


SAID = st.lists(st.sampled_from(["right", "wrong", "omitted"]), min_size=1, max_size=6)


def rating_of(said: list[str], well_formed: bool = True) -> float:
    """The rating where the grader finds this of the facts."""
    facts = [("s", str(place), "v") for place in range(len(said))]
    parts = {name: tuple(f for f, s in zip(facts, said, strict=True) if s == name)
             for name in ("right", "wrong", "omitted")}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "grade", lambda *_: grader.Grade(**parts, well_formed=well_formed))
        return rate("", [list(fact) for fact in facts])


@settings(max_examples=200, deadline=None)
@given(SAID, st.data())
def test_right_raises_wrong_costs_more_than_omitted_and_form_counts(
    said: list[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(said) - 1))
    ranked = []
    for kind in ("wrong", "omitted", "right"):
        changed = [*said[:place], kind, *said[place + 1 :]]
        ranked.append(rating_of(changed))
        good, bad = rating_of(changed), rating_of(changed, well_formed=False)
        assert 1 <= bad <= good <= 10
        assert (good == bad == 1) == ("right" not in changed) and (good == 10) == (
            set(changed) == {"right"}
        )
        assert bad < good or good == 1
    wrong, omitted, right = ranked
    others = [kind for at, kind in enumerate(said) if at != place]
    assert right > omitted and (wrong < omitted or "right" not in others)


def test_an_item_without_facts_is_refused() -> None:
    with pytest.raises(InputError, match="koala: item 'x' has no facts, expected an item of the"):
        rate("", [], "koala")


READ = {
    "Ratings: 7 9": (7, 9),
    "Rating: 7, 9.": (7, 9),
    "**Ratings:** 7.5 and 10": (7.5, 10),
    "ratings: A: 7, B: 9": (7, 9),
    "Ratings: A: 7\nB: 9": (7, 9),
    "Ratings: 7/10 9/10": (7, 9),
    "Ratings: 7 / 10, 9 / 10": (7, 9),
    "Ratings: 7 | 9": (7, 9),
    "Ratings: **7** _9_": (7, 9),
    "Ratings:\n7 9": (7, 9),
    "Ratings: 7\u00a09": (7, 9),
    "A is short.\nRatings: 2 3\nI correct myself.\nRatings: 4 5\n": (4, 5),
    "<think>Ratings: 1 1</think>\nRatings: 2 10.0": (2, 10),
    "Ratings: 1 1</think>Ratings: 7 9": (7, 9),
    "[THINK]Ratings: 1 1[/THINK]Ratings: 7 9": (7, 9),
    "<|channel|>analysis<|message|>Ratings: 1 1<|channel|>final<|message|>Ratings: 7 9": (7, 9),
    "  8\n3 ": (8, 3),
    "8, 3": (8, 3),
    "A: 8\nB: 3": (8, 3),
    "`8 3`": (8, 3),
}
REFUSED = [
    "Ratings: 11 9",
    "Ratings: 0 9",
    "Ratings: 100 9",
    "Ratings: 10.5 9",
    "Ratings: -7 9",
    "Ratings: 7 -9",
    "Ratings: 7",
    "Ratings: 7 9 8",
    "Ratings: 7,9",  # seven, and nine tenths?
    "Rating: 7,5",
    "Ratings: 07 09",
    "Ratings: +7 +9",
    "Ratings: 7e0 9",
    "Ratings: 7/100 9/100",
    "Ratings: 7/5 9/5",
    "8/10",
    "8 / 10",
    "8 out of 10",
    "Ratings: 7 out of 10 and 9 out of 10",
    "Ratings: 7%, 9%",
    "Ratings: 7-8 9",
    "Ratings: B: 9, A: 7",
    "Ratings: \uff17 \uff19",  # fullwidth digits
    "Ratings: 1\u2070 9",  # a superscript zero
    "Ratings: 7.\u0665 9",  # an Arabic five
    "Ratings: 1*0 9",
    "Ratings: 1_0 9",
    "Ratings: 1**0 9",
    "Ratings: 1*`_0 9",
    "Ratings: seven nine",
    "Rating: 7\n\n1.\nIt is clear.",
    "Rating: 7\n9 facts are right.",
    "Assistant 1: 8 / Assistant 2: 7",
    "Assistant A: 8, Assistant B: 7",
    '{"A": 8, "B": 7}',
    '{"ratings": [8, 7]}',
    "| A | B |\n|---|---|\n| 8 | 7 |",
    "$8$ $7$",
    "\\boxed{8 7}",
    "<think>Ratings: 1 1",
    "<thinking>Ratings: 1 1",
    "<|channel|>analysis<|message|>Ratings: 1 1",
    "Ratings: 7 9 <think>",
    "A has 3 facts and B 4.",
    "Both are a 7. 9 would be perfect.",
    "",
    None,
]


@pytest.mark.case(
    "judge",
    "Ratings: 7 9; Ratings: 7/10, 9/10; A: 7, B: 9; two numbers alone; in Markdown; after thinking",
    "Read as 7 and 9; the last line with the word Ratings counts.",
)
@pytest.mark.parametrize("reply", READ)
def test_what_is_read(reply: str) -> None:
    assert judge.parse(reply) == READ[reply]


@pytest.mark.case(
    "judge",
    "0, 11, 10.5, -7, 7%, 8/10 alone, 8 out of 10, 7,5, fullwidth digits, three ratings, B before "
    "A, JSON, tables, unfinished thinking",
    "Not read: the reply counts as unreadable.",
)
@pytest.mark.parametrize("reply", REFUSED)
def test_what_is_refused(reply: str | None) -> None:
    assert judge.parse(reply) is None


def test_a_reply_cut_off_by_its_limit_is_not_read() -> None:
    asked = Question(RUN, "dolly", "", {"id": "d"}, "")
    row = {"text": "Ratings: 7 1", "raw": json.loads(completion("Ratings: 7 1")[1])}
    assert judge.verdict(asked, [row]).reference == 1
    row["raw"]["choices"][0]["finish_reason"] = "length"  # of "Ratings: 7 10"
    found = judge.verdict(asked, [row])
    assert (found.model, found.reference, found.unparsable) == (None, None, 1)
    assert "reply_tokens" in found.orders[0]["error"]
    for reason in ("content_filter", "max_tokens", "MAX_TOKENS"):
        row["raw"]["choices"][0]["finish_reason"] = reason
        assert judge.verdict(asked, [row]).model is None


NUMBER = re.compile(
    r"(?<![^\W_])(?<![.,+/-])(?<![^\W_][*_`])(?:10(?:\.0+)?|[1-9](?:\.[0-9]+)?)(?![^\W_])(?![*_`]+[^\W_])"
)
PIECES = [
    "Ratings:", "rating ", "A:", "B: ", "Assistant 1:", " ", "\n", ",", ", ", " and ", "/10",
    " / 10", "/", ".", "-", "7", "9", "10", "1", "0", "11", "7.5", "8 9", "7 9", " 3", "*", "**",
    "_", "`", "<think>", "</think>", "|", "\uff17", "\u0665", "{", '"', "out of 10", "%",
]  # fmt: skip


@pytest.mark.case(
    "judge",
    "Any text as a judge's reply (thousands, from pieces of replies and at random)",
    "Two ratings from 1 to 10 that stand in it as numbers of their own, in this order; or none.",
)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join) | st.text(max_size=80))
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_no_reply_fails_or_gives_what_it_does_not_state(reply: str) -> None:
    for text in (reply, f"Ratings: {reply}"):
        pair = judge.parse(text)
        if pair is None:
            continue
        assert all(1 <= rating <= 10 for rating in pair), text
        stated = [float(number) for number in NUMBER.findall(text)]
        assert pair in itertools.combinations(stated, 2), text


@pytest.mark.parametrize("piece", [" ", "\n", "*", "_", "7 ", "rating ", "A: 7\n", "<think>", "."])
def test_long_replies_are_read_at_once(piece: str) -> None:
    start = time.process_time()
    for text in (piece, f"7{piece}", f"Ratings: 7{piece}", f"Ratings: 7 9{piece}", f"a{piece}"):
        judge.parse(text.replace(piece, piece * 20000) + "x")
    assert time.process_time() - start < 2


WRITTEN = [
    "Ratings: {} {}", "Ratings: {}, {}", "{} {}", "A: {}\nB: {}", "ratings: A={} B={}.",
    "Well.\n**Ratings:** **{}/10** {}/10\n", "<think>1 1</think>{};{}",
]  # fmt: skip
TEN = st.integers(1, 10) | st.decimals(1, 10, places=1)


@given(TEN, TEN, st.sampled_from(WRITTEN))
@settings(max_examples=250, deadline=None, derandomize=True)
def test_what_is_stated_plainly_is_read(first: Any, second: Any, form: str) -> None:
    assert judge.parse(form.format(first, second)) == (float(first), float(second))


def test_the_prompt_shows_each_part_once_and_fills_in_no_part_of_another(tmp_path: Path) -> None:
    item = {"id": "d", "instruction": "Say {first}.", "input": "{second}", "output": "theirs"}
    asked = Question("r", "t", "", item, "{question} ours")
    first, second = (judge.call(asked, order, judge.template(None)) for order in (1, 2))
    assert first.name == ("r", "t", "d", "1") and second.name[3] == "2"
    for text in ("Say {first}. {second}", "theirs", "{question} ours"):
        assert first.prompt.count(f"\n{text}\n") == second.prompt.count(f"\n{text}\n") == 1
    assert first.prompt.index("ours") < first.prompt.index("theirs")
    assert second.prompt.index("theirs") < second.prompt.index("ours")
    path = tmp_path / "own.txt"
    path.write_text("{question}|{first}|{second}", encoding="utf-8")
    own = judge.call(asked, 1, judge.template(str(path))).prompt
    assert own == "Say {first}. {second}|{question} ours|theirs"
    path.write_text("{question} {first}", encoding="utf-8")
    with pytest.raises(InputError, match=r"own.txt: \{second\} is missing; a judge's prompt needs"):
        judge.template(str(path))
    with pytest.raises(InputError, match=r"judge\.prompt: .*nowhere.txt cannot be read"):
        judge.template(str(tmp_path / "nowhere.txt"))


def rated(model: float | None, reference: float | None, *orders: tuple[float, float]) -> Verdict:
    rows = [{"order": n, "model": a, "reference": b} for n, (a, b) in enumerate(orders, 1)]
    return Verdict(Question(RUN, "dolly", "", {"id": "d"}, ""), model, reference, rows)


def test_a_summary_by_hand() -> None:
    verdicts = [rated(4, 8, (5, 8), (3, 8)), rated(9, 7, (9, 6), (9, 8)), rated(5, 5, (5, 5))]
    verdicts.append(rated(None, None, (None, None), (3, 4)))
    assert summarise(verdicts) == {
        "documents": 3, "score": 90.0, "mean_difference": pytest.approx(-2 / 3), "wins": 1,
        "ties": 1, "losses": 1, "order_effect": 1.0, "replies": 7, "unparsable": 1,
    }  # fmt: skip
    assert summarise([verdicts[-1]])["score"] is None
    own = [row for found in verdicts for row in found.documents() if row["metric"] == "judge"]
    parts = [(row["numerator"], row["denominator"]) for row in own]  # as rated, from 1 to 10
    assert parts[:2] == [("4.000000", "8.000000"), ("9.000000", "7.000000")] and len(parts) == 3


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs' answers to six items of two tasks; brackets hold what a text deserves."""
    items = [
        {"id": f"i{n}", "instruction": f"Ask {n}", "input": "", "output": "reference [8]"}
        for n in range(6)
    ]
    for task in ("dolly", "koala"):
        write_jsonl(tmp_path / f"data/tasks/{task}.jsonl", items)
        for run, worth in ((RUN, 2), ("opt/125m/-/none/1", 1)):
            rows = [sample(item["id"], f"{task} answer [{worth + n}]", "reference [8]")
                    for n, item in enumerate(items)]  # fmt: skip
            write_jsonl(tmp_path / f"runs/{run}/samples/{task}.jsonl", rows)
    return tmp_path


def sample(name: str, answer: str, target: str) -> dict[str, Any]:
    row = {"id": name, "group": "g", "prompt": "P", "target": target, "answer": answer}
    return row | {"bits": 1.0, "bytes": 9}


def command(results: Path, server: Server, **changes: Any) -> list[str]:
    given = {"endpoint": server.endpoint, "model": "m", "backoff_s": 0.01} | changes
    arguments = ["llm", "--results", str(results), "--settings", json.dumps(given)]
    return [sys.executable, "-m", "atkd", "judge", *arguments]


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command here; returns what it printed, which must not hold the key."""

    def call(results: Path, server: Server, *flags: str, **changes: Any) -> str:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setattr("sys.argv", ["judge", *command(results, server, **changes)[4:], *flags])
        with contextlib.suppress(SystemExit):
            cli(judge.main)
        said = "\n".join(capfd.readouterr())
        assert KEY not in said and not leaks(results)
        return said

    return call


KEY = "sk-another-secret-9876543210"


def leaks(results: Path) -> list[Path]:
    def text(path: Path) -> bytes:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data

    return [path for path in results.rglob("*") if path.is_file() and KEY.encode() in text(path)]


def test_a_language_model_rates_every_answer_in_both_orders(results: Path, run: Run) -> None:
    with serving(ratings(bias=1)) as server:
        said = run(results, server, "--dry-run", orders=2)
        assert "48 calls, 48 of them not answered yet" in said and not server.seen
        said = run(results, server, orders=2)
        again = run(results, server, orders=2)
    assert len(server.seen) == 48 and server.keys == {f"Bearer {KEY}"}
    assert "48 calls, 0 of them not answered yet" in again
    assert again.split("\n48 calls")[0] == said.split("\n48 calls")[0]
    found = read_json(results / "judge/summary.json")
    assert found["order_effect"] == 1 and found["unparsable"] == 0 and found["replies"] == 48
    # a bias of one point adds half a point to each text: [2]..[7] against [8]
    assert found["runs"][RUN]["score"] == pytest.approx(100 * (2 + 7 + 1) / (8.5 * 2))
    assert found["runs"][RUN]["tasks"]["koala"]["losses"] == 6
    rows = list(read_jsonl(results / "judge/judge.jsonl"))
    assert len(rows) == 24 and rows[-1]["run"] == RUN and rows[-1]["task"] == "koala"
    assert [order["reply"] for order in rows[-1]["orders"]] == ["Ratings: 8 8", "Ratings: 9 7"]
    assert read_json(results / "judge/provenance.json")["calls"] == 48


def test_ratings_become_scores_and_tables(results: Path, run: Run) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        lost = "koala answer [7]" in prompt
        return completion("I would rather not") if lost else ratings()(server, prompt, attempt)

    with serving(script) as server:
        said = run(results, server)
    assert "warning: 1 of 24 replies could not be read; their documents are left out" in said
    assert len(list(read_jsonl(results / "judge/judge.jsonl"))) == 24
    paths = score(results)
    assert collect(results, paths) == 2
    lines = (results / "scores.csv").read_text().splitlines()
    mine = f"lab,{RUN.replace('/', ',')}"
    assert f"{mine},dolly,score,{100 * 4.5 / 8:.6f},6" in lines
    assert f"{mine},koala,judge,{100 * 4 / 8:.6f},5" in lines
    assert f"{mine},koala,judge_unparsable,{100 / 6:.6f},6" in lines
    table = diagnostics.ratings(pd.read_csv(results / "documents.csv.gz"))
    found = read_json(results / "judge/summary.json")["runs"][RUN]
    row = table[table.method == "sft"].iloc[0]
    for name in ("score", "mean_difference", "wins", "ties", "losses"):
        assert row[name] == pytest.approx(found[name])
    assert row.answers == found["documents"] == 11 and row.unparsable == pytest.approx(100 / 12)


def test_a_question_without_an_answer_is_left_out(results: Path, run: Run) -> None:
    def script(server: Server, prompt: str, attempt: int) -> Reply:
        if "koala answer [7]" in prompt:
            return 200, b'{"choices": 1}'
        return (400, b"no") if "dolly answer [7]" in prompt else ratings()(server, prompt, attempt)

    with serving(script) as server:
        said = run(results, server, retries=1)
        assert run(results, server, retries=1).count("24 calls, 1 of them not answered yet") == 1
    assert "warning: 2 of 24 replies could not be read" in said
    errors = [order["error"] for row in read_jsonl(results / "judge/judge.jsonl")
              for order in row["orders"] if "error" in order]  # fmt: skip
    assert errors == ["HTTP 400: no", "not a chat completion: '{\"choices\": 1}'"]
    assert collect(results, score(results)) == 2


@pytest.mark.case(
    "judge",
    "A judge that rates no answer of one run and task",
    "run opt/125m/-/none/1, task koala: the judge rated none of 6 answers, expected one at least "
    "for a score; the last: no ratings in 'I would rather not'; mend evaluation.judge",
)
def test_a_task_of_a_run_without_a_rating_is_an_error(says: str, results: Path, run: Run) -> None:
    """Its score does not become another metric; what was paid is kept."""
    lost = tuple(f"koala answer [{n}]" for n in range(1, 7))

    def script(server: Server, prompt: str, attempt: int) -> Reply:
        mute = any(text in prompt for text in lost) and server.deaf
        return completion("I would rather not") if mute else ratings()(server, prompt, attempt)

    rows = list(read_jsonl(results / "runs/opt/125m/-/sft/1/samples/koala.jsonl"))
    changed = [row | {"answer": f"other answer [{n + 2}]"} for n, row in enumerate(rows)]
    write_jsonl(results / "runs/opt/125m/-/sft/1/samples/koala.jsonl", changed)
    with serving(script) as server:
        server.deaf = True
        for _ in range(2):  # the second time nothing is asked
            said = run(results, server, concurrency=1)
            assert says in said and "warning" not in said
        assert len(server.seen) == 24 and not any(path.exists() for path in outputs(results))
        (results / "judge/replies.jsonl").unlink()
        server.deaf = False
        run(results, server)
    assert all(path.exists() for path in outputs(results))


@pytest.mark.case(
    "judge",
    "A judge that only says what it thinks, cut off by reply_tokens",
    "none of the first 5 replies is of use, the last: cut off (length, evaluation.judge."
    "reply_tokens); 5 of 24 calls are answered and kept in",
)
def test_a_judge_that_is_cut_off_is_stopped_early(says: str, results: Path, run: Run) -> None:
    cut = completion("<think>Let me")[1].replace(b'"stop"', b'"length"')
    with serving(lambda *_: (200, cut)) as server:
        assert says in run(results, server, concurrency=1)
        assert len(server.seen) == 5


def collect(results: Path, paths: list[Path]) -> int:
    """Score files of all runs with the language model's ratings."""
    record = {"config": "lab", "source": "world", "judge": True, "runs": []}
    return scores.collect(record, results, paths, judge=results / "judge/documents.csv.gz")


def score(results: Path) -> list[Path]:
    """Documents of every run, without a judge."""
    made = []
    for folder in sorted(results.glob("runs/*/*/*/*/*/samples")):
        made.append(folder.parent / "documents.csv.gz")
        write_csv(made[-1], scores.DOCUMENT_COLUMNS, scores.score_samples(folder))
    return made


@pytest.mark.case(
    "judge",
    "A language model that was let rate one run of two",
    "run opt/125m/-/none/1, task dolly: the language model rated no answer, expected one at least: "
    "it has no score",
)
def test_a_run_rated_in_part_is_refused(says: str, results: Path, run: Run) -> None:
    with serving(ratings()) as server:
        run(results, server, "--runs", RUN)
    with pytest.raises(InputError) as caught:
        collect(results, score(results))
    assert says in str(caught.value)


def test_a_killed_run_pays_for_nothing_twice(results: Path, run: Run) -> None:
    def slowly(server: Server, prompt: str, attempt: int) -> Reply:
        time.sleep(0.02)
        return ratings()(server, prompt, attempt)

    replies = results / "judge/replies.jsonl"
    with serving(slowly) as server:
        process = subprocess.Popen(command(results, server, orders=2, concurrency=2))
        until(lambda: len(server.seen) >= 20)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: server.open == 0)
        kept, asked = replies.read_bytes().count(b"\n"), len(server.seen)
        assert 15 < kept <= asked <= kept + 2 < 48  # open calls are all that can be lost
        server.seen.clear()
        run(results, server, orders=2, concurrency=2)
        assert len(server.seen) == 48 - kept
    whole = {path.name: path.read_bytes() for path in outputs(results)}
    replies.unlink()
    with serving(ratings()) as server:
        run(results, server, orders=2)
    assert whole == {path.name: path.read_bytes() for path in outputs(results)}


def outputs(results: Path) -> Iterator[Path]:
    yield from (results / "judge" / n for n in ("documents.csv.gz", "judge.jsonl", "summary.json"))


def test_a_stop_is_one_clear_line_and_leaves_no_half_result(results: Path, run: Run) -> None:
    with serving(ratings()) as server:
        said = run(results, server, max_calls=10)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and len(server.seen) == 10
    assert "judge stopped: the budget evaluation.judge.max_calls, 10, is spent" in errors[0]
    assert "10 of 24 calls are answered and kept in" in errors[0]
    assert not any(path.exists() for path in outputs(results))


def test_the_exact_judge_writes_files_of_its_own(tmp_path: Path) -> None:
    rows = WORLD.tasks["vicuna"][:3]
    write_jsonl(tmp_path / "data/tasks/vicuna.jsonl", rows)
    answers = [rows[0]["output"], "nothing", rows[2]["output"]]
    made = [sample(r["id"], a, r["output"]) for r, a in zip(rows, answers, strict=True)]
    samples = tmp_path / f"runs/{RUN}/samples"
    write_jsonl(samples / "vicuna.jsonl", made)
    write_jsonl(samples / "mmlu.jsonl", [sample("m", "A", "A")])
    (path,) = score(tmp_path)
    own, rated = path.read_bytes(), path.with_name("judge_documents.csv.gz")
    arguments = ["--samples", samples, "--data", tmp_path / "data", "--documents", rated]
    arguments += ["--run", RUN, "--output", tmp_path / "judge.jsonl"]
    command = [sys.executable, "-m", "atkd", "judge", "exact", *map(str, arguments)]
    texts = []
    for _ in range(2):  # twice: the same bytes
        subprocess.run(command, check=True, capture_output=True)
        texts.append(rated.read_bytes())
    assert texts[0] == texts[1] and path.read_bytes() == own
    assert {row["metric"] for row in scores.read_documents(rated)} == {"judge"}
    both = [*scores.read_documents(path), *scores.read_documents(rated)]
    found = {(row["task"], row["metric"]): row for row in scores.scores_of(both, "exact")}
    assert found["vicuna", "judge"]["value"] == pytest.approx(200 / 3)
    assert found["vicuna", "score"]["value"] == found["vicuna", "judge"]["value"]
    assert found["vicuna", "rouge_l"]["value"] < 70 and ("mmlu", "judge") not in found
    assert found["mmlu", "score"]["value"] == 100
    verdicts = list(read_jsonl(tmp_path / "judge.jsonl"))
    assert [row["model"] for row in verdicts] == [10, 1, 10]
    assert len(verdicts[1]["omitted"]) == 3 and not verdicts[1]["well_formed"]
    write_jsonl(samples / "viccuna.jsonl", made)
    with pytest.raises(InputError, match=r"viccuna.jsonl: unknown task 'viccuna'; expected one of"):
        list(questions(RUN, samples, tmp_path / "data"))


def test_a_language_model_beside_the_exact_judge() -> None:
    row = {"task": "dolly", "document": "d", "metric": "judge", "value": "70", "numerator": ""}
    other = row | {"metric": "judge", "value": "", "numerator": "4", "denominator": "8"}
    made = scores.judged([row, row | {"task": "koala"}, row | {"metric": "rouge_l"}], [other])
    assert [r["metric"] for r in made] == ["judge_exact", "judge", "rouge_l", "judge"]


def test_help_tells_what_settings_mean(run: Run, results: Path) -> None:
    with serving(ratings()) as server:
        said = run(results, server, "--help")
    assert "Environment variable that holds the key; leave it unset for a server" in said
    assert '["OPENAI_API_KEY"]' in said
    assert "  orders " in said and "Longest wait for a reply [60]" in said


def test_command_line_loads_nothing_heavy() -> None:
    code = "import sys, atkd.judge.judge; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "numpy", "pandas", "openai", "tqdm", "httpx", "httpx2"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


@pytest.mark.case(
    "judge",
    "A folder without answers to judge (nothing was judged, exit 0)",
    "no answers to open-ended tasks found, expected some to judge",
)
def test_nothing_to_judge_is_named(says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: {says}"):
        judge.answered(judge.questions("r", tmp_path, tmp_path), tmp_path)
