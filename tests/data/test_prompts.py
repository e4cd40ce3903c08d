"""Prompt files: exact text, shots dropped to fit, cuts counted, draws seeded."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from atkd.data import prepare, prompts
from atkd.data.template import template
from atkd.models import tokenizers
from atkd.runtime.files import InputError, read_json, read_jsonl, sha256, write_json, write_jsonl
from atkd.tasks import AVERAGES, TASKS, Task
from atkd.world import builder

GOLDEN = ROOT / "tests/golden"
CORPUS = ["Human: what is the answer to this question? Assistant: it is A B C D 1 2 3."] * 9


def mmlu_rows() -> list[dict[str, Any]]:
    def row(index: int, split: str, subject: str) -> dict[str, Any]:
        fields = {"id": f"m{index}", "split": split, "subject": subject, "answer": index % 4}
        return fields | {"question": f"Question {index}?", "choices": ["w", "x", "y", "z"]}

    splits = [("dev", 2), ("test", 2)]
    subjects = ("the_sea", "birds")
    order = [(split, subject) for split, n in splits for subject in subjects for _ in range(n)]
    return [row(index, *place) for index, place in enumerate(order)]


def drop_rows() -> list[dict[str, Any]]:
    rows = [
        {
            "id": f"d{n}",
            "passage": f" Text {n // 2}. ",
            "question": f"How many {n}?",
            "answers": [f"{n}"],
        }
        for n in range(8)
    ]
    rows[0]["answers"] = ["0", "0"]  # one distinct answer
    rows[1]["answers"] = ["1", "one"]  # two: left out
    return rows


def bbh_rows() -> list[dict[str, Any]]:
    tasks = ["sort"] * 4 + ["logic"] * 3
    return [
        {"id": f"b{n}", "task": t, "input": f"In {n}", "target": f"T{n}"}
        for n, t in enumerate(tasks)
    ]


def open_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": "g0",
            "instruction": "Name a town.",
            "input": "",
            "output": "Oslo.",
            "skill": "name",
        },
        {"id": "g1", "instruction": "Sort:", "input": "b a\n", "output": "a b", "skill": "sort"},
    ]


ROWS = {"mmlu": mmlu_rows, "drop": drop_rows, "bbh": bbh_rows, "dolly": open_rows}
SHOTS = {"mmlu": 2, "drop": 1, "bbh": 2}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.train_tokenizer("opt", CORPUS, 290)


def built(task: str, rows: list, tokenizer: Any, settings: dict[str, Any]) -> Any:
    """Prompt rows and counts."""
    return prompts.build(task, rows, tokenizer, prompts.PromptSettings.of(settings))


@pytest.mark.parametrize("task", ROWS)
def test_golden(task: str, tokenizer: Any, tmp_path: Path) -> None:
    made, _ = built(task, ROWS[task](), tokenizer, {"shots": SHOTS, "context": 2048})
    path = GOLDEN / f"prompts_{task}.jsonl"
    if os.environ.get("ATKD_UPDATE_GOLDEN"):
        write_jsonl(path, made)
    assert made == list(read_jsonl(path)), "set ATKD_UPDATE_GOLDEN=1 if the change is meant"


def test_golden_of_the_world(tokenizer: Any) -> None:
    """The first prompts of each of the eight tasks, with the default shots, of a small world."""
    sizes = {"pretrain": 1, "train": 1, "items": 2, "understanding_items": 6, "subtask_items": 1}
    found = builder.generate(sizes, seed=1).tasks
    made = [{"task": task} | row for task in AVERAGES["average"]
            for row in built(task, found[task], tokenizer, {})[0][:2]]  # fmt: skip
    path = GOLDEN / "prompts_world.jsonl"
    if os.environ.get("ATKD_UPDATE_GOLDEN"):
        write_jsonl(path, made)
    assert made == list(read_jsonl(path)), "set ATKD_UPDATE_GOLDEN=1 if the change is meant"


def test_shots_are_dropped_to_fit(tokenizer: Any) -> None:
    whole, _ = built("mmlu", mmlu_rows(), tokenizer, {"shots": SHOTS})
    context = whole[0]["tokens"] + 2  # its longest answer is 2 tokens
    settings = {"shots": SHOTS, "context": context}
    fits, counts = built("mmlu", mmlu_rows(), tokenizer, settings)
    assert fits[0]["shots"] == 2 and fits[0]["prompt"] == whole[0]["prompt"]
    tight, counts = built("mmlu", mmlu_rows(), tokenizer, settings | {"context": context - 1})
    assert tight[0]["shots"] == 1 and tight[0]["tokens"] <= context - 3
    assert tight[0]["prompt"] == whole[0]["prompt"].replace(
        "Question 1?\nA. w\nB. x\nC. y\nD. z\nAnswer: B\n\n", ""
    )
    assert counts["shots_dropped"] >= 1 and counts["prompts_cut"] == 0
    assert all(
        row["tokens"] == len(tokenizers.encode_prompt(tokenizer, row["prompt"])) for row in tight
    )


def test_long_prompts_keep_their_cue(tokenizer: Any) -> None:
    row = open_rows()[0] | {"instruction": "word " * 300, "output": "yes " * 200}
    settings = {"context": 120, "max_new_tokens": {"generation": 40}}
    made, counts = built("dolly", [row], tokenizer, settings)
    assert counts["prompts_cut"] == counts["references_cut"] == 1
    prompt = made[0]["prompt"]
    assert prompt.startswith("Human:\nword word") and prompt.endswith("\n\nAssistant:\n")
    assert 75 < made[0]["tokens"] <= 80
    assert row["output"].startswith(made[0]["response"]) and made[0]["target"] == row["output"]
    ids = tokenizers.encode_response(tokenizer, made[0]["response"], eos=False)
    assert made[0]["tokens"] + len(ids) <= 120 and made[0]["bytes"] == len(made[0]["response"])
    drop = [r | {"passage": f"{r['id']} begins " + "long " * 200} for r in drop_rows()]
    made, counts = built("drop", drop, tokenizer, settings | {"shots": {"drop": 1}})
    assert counts["prompts_cut"] == len(made) and made[0]["shots"] == 0
    assert made[0]["prompt"].endswith("?\nAnswer:") and made[0]["tokens"] <= 112


def test_draws_are_seeded_and_even(tokenizer: Any) -> None:
    rows = [
        {"id": f"b{n}", "task": f"t{n // 20}", "input": f"In {n}", "target": "T"}
        for n in range(100)
    ]

    def draw(limit: int, seed: int) -> list[dict[str, Any]]:
        return built("bbh", rows, tokenizer, {"limit": {"bbh": limit}, "seed": seed})[0]

    first = draw(12, 1)
    assert first == draw(12, 1) != draw(12, 2)
    groups = [row["group"] for row in first]
    assert sorted(groups.count(name) for name in set(groups)) == [2, 2, 2, 3, 3]
    numbers = [int(row["id"][1:]) for row in first]
    assert numbers == sorted(numbers) and {row["id"] for row in first} < {
        r["id"] for r in draw(40, 1)
    }
    assert len(draw(500, 1)) == 85


@pytest.mark.parametrize(
    ("task", "rows", "settings", "message"),
    [
        ("dolly", open_rows() * 2, {}, "dolly: id 'g0' occurs twice"),
        (
            "dolly",
            open_rows(),
            {"limit": {"dolly": 0}},
            "limit.dolly: found 0, expected at least 1",
        ),
        ("dolly", open_rows(), {"context": 200}, "context: found 200, expected more than"),
        ("bbh", bbh_rows()[:3], {}, "bbh: no items left after the shots"),
        (
            "drop",
            drop_rows()[:2],
            {},
            "drop: 1 rows have one distinct answer, expected more than 3",
        ),
    ],
)
def test_bad_input(task: str, rows: list, settings: dict, message: str, tokenizer: Any) -> None:
    with pytest.raises(InputError, match=message):
        built(task, rows, tokenizer, settings)


def test_settings_take_the_tasks_rows_where_they_say_nothing() -> None:
    bare = prompts.PromptSettings()
    for task, row in TASKS.items():
        assert (bare.shots_of(task), bare.new_tokens_of(task)) == (row.shots, row.new_tokens)
    given = prompts.PromptSettings.of({"max_new_tokens": {"generation": 9, "koala": 5, "bbh": 7}})
    found = {task: given.new_tokens_of(task) for task in TASKS}
    assert found == dict.fromkeys(TASKS, 9) | {"koala": 5, "mmlu": 2, "drop": 8, "bbh": 7}
    with pytest.raises(InputError, match="settings: found 'contxt', expected tasks, template, "):
        prompts.PromptSettings.of({"contxt": 3})


def test_a_new_open_ended_task_is_a_row(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "riddles", Task("Riddles", "rouge_l", "", new_tokens=20))
    made, _ = built("riddles", open_rows(), tokenizer, {})
    assert [row["max_new_tokens"] for row in made] == [20, 20]
    assert made[0]["prompt"] == template("Name a town.")
    with pytest.raises(InputError, match="unknown task 'ridles'; expected one of dolly, "):
        built("ridles", open_rows(), tokenizer, {})


def test_command_line(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers.save(tokenizer, tmp_path / "opt")
    for task, rows in ROWS.items():
        write_jsonl(tmp_path / "data/tasks" / f"{task}.jsonl", rows())
    settings = json.dumps({"shots": SHOTS, "context": 300})
    flags = {"data": tmp_path / "data", "tokenizer": tmp_path / "opt", "settings": settings}
    argv = ["prompts", "--output", str(tmp_path / "out")]
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    monkeypatch.setattr("sys.argv", argv)
    prompts.main()
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary) == set(ROWS) and summary["mmlu"]["documents"] == 4
    made = list(read_jsonl(tmp_path / "out/mmlu.jsonl"))
    wanted = built("mmlu", mmlu_rows(), tokenizer, json.loads(settings))[0]
    assert made == wanted


PUBLISHED = {"dolly": 500, "selfinst": 242, "vicuna": 80, "koala": 180, "wizardlm": 218}
PUBLISHED |= {"mmlu": 14_042, "drop": 5_928, "bbh": 6_430}


def test_the_configurations_page_states_the_pinned_counts() -> None:
    pins = read_json(GOLDEN / "real_prompts.json")["all shots"]
    assert {task: pin["documents"] for task, pin in pins.items()} == PUBLISHED
    page = (GOLDEN.parents[1] / "config/README.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("Whole, they give")]
    for task, count in PUBLISHED.items():
        assert f"{task} {count:,}" in line.lower()


@pytest.fixture(scope="module")
def real_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The real tasks' rows from the data root."""
    if not os.environ.get("ATKD_DATA"):
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    folder = tmp_path_factory.mktemp("real")
    prepare.prepare("local", {"limits": {"train": 10}}, 1, folder)
    return {task: list(read_jsonl(folder / f"tasks/{task}.jsonl")) for task in AVERAGES["average"]}


def pinned(name: str, found: dict[str, Any]) -> None:
    """Compares with a part of the golden file of counts and hashes, or rewrites it."""
    path = GOLDEN / "real_prompts.json"
    pins = read_json(path) if path.is_file() else {}
    if os.environ.get("ATKD_UPDATE_GOLDEN"):
        write_json(path, dict(sorted((pins | {name: found}).items())))
    else:
        assert found == pins[name], "set ATKD_UPDATE_GOLDEN=1 if the change is meant"


def test_real_counts_and_texts(real_rows: dict[str, Any]) -> None:
    """With all shots, whatever the tokenizer: the published counts, and every prompt's text."""
    found = {}
    for task, rows in real_rows.items():
        items = prompts.items_of(task, rows, prompts.PromptSettings())
        shots = TASKS[task].shots
        lines = (json.dumps([i.id, i.group, i.prompt(shots), i.target]) + "\n" for i in items)
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        found[task] = {"documents": len(items), "sha256": digest}
    assert {task: counts["documents"] for task, counts in found.items()} == PUBLISHED
    pinned("all shots", found)


@pytest.mark.parametrize("family", ["opt", "pythia", "llama"])
@pytest.mark.parametrize(
    "tasks",
    [
        ("dolly", "selfinst", "vicuna", "koala", "wizardlm"),
        pytest.param(("mmlu", "drop", "bbh"), marks=pytest.mark.slow),
    ],
    ids=["generation", "understanding"],
)
def test_real_prompt_files(
    tasks: tuple[str, ...], family: str, real_rows: dict[str, Any], tmp_path: Path
) -> None:
    """The very bytes a family's models are asked at the paper's context, by its real tokenizer."""
    source = {"files": f"{os.environ['ATKD_DATA']}/tokenizers/{family}"}
    real = tokenizers.open_tokenizer(source, family)
    found = {}
    for task in tasks:
        made, counts = built(task, real_rows[task], real, {})
        write_jsonl(tmp_path / f"{task}.jsonl", made)
        found[task] = counts | {"sha256": sha256(tmp_path / f"{task}.jsonl")}
    pinned(f"{family} {'generation' if 'dolly' in tasks else 'understanding'}", found)
