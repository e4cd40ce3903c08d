"""The embedded world. `ATKD_REGENERATE=1 pytest tests/world` rewrites the golden text."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from helpers import ROOT

from atkd.config import schema
from atkd.runtime.files import InputError
from atkd.tasks import TASKS, Task
from atkd.world import builder, exams, skills
from atkd.world.grader import grade

GOLDEN = ROOT / "tests/golden/world.txt"
SMALL = {"pretrain": 300, "train": 400, "items": 20, "understanding_items": 21}
WORLD = builder.generate(SMALL, seed=3)
OPEN = [row for task in builder.open_tasks() for row in WORLD.tasks[task]]


def test_same_seed_same_world_across_processes() -> None:
    code = (
        "import json, hashlib; from atkd.world import builder;"
        f"w = builder.generate({SMALL!r}, 3);"
        "print(hashlib.sha256(json.dumps([w.pretrain, w.train, w.tasks]).encode()).hexdigest())"
    )
    found = set()
    for hashing in ("0", "12345"):
        env = os.environ | {"PYTHONHASHSEED": hashing}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_seed_changes_the_world() -> None:
    assert builder.generate(SMALL, seed=4).train != WORLD.train


def test_counts_and_fields() -> None:
    assert len(WORLD.pretrain) == 300 and len(WORLD.train) == 400
    assert {len(WORLD.tasks[task]) for task in builder.open_tasks()} == {20}
    assert len(WORLD.tasks["drop"]) == 24
    for row in [*WORLD.train, *OPEN]:
        assert {"id", "instruction", "input", "output", "skill", "facts"} <= set(row)
        assert row["output"] and row["instruction"]
    for row in WORLD.tasks["drop"]:
        assert list(row) == ["id", "passage", "question", "answers"]
    ids = [row["id"] for rows in WORLD.tasks.values() for row in rows]
    assert len(ids) == len(set(ids))
    json.dumps(WORLD.tasks)


def test_mmlu_has_five_dev_rows_a_subject_and_valid_answers() -> None:
    rows = WORLD.tasks["mmlu"]
    dev = Counter(row["subject"] for row in rows if row["split"] == "dev")
    assert set(dev.values()) == {5} and set(dev) == set(builder.SUBJECTS)
    for row in rows:
        assert len(set(row["choices"])) == 4 and row["answer"] in range(4)


def test_bbh_keeps_source_order_with_three_shots_first() -> None:
    counts = Counter(row["task"] for row in WORLD.tasks["bbh"])
    assert set(counts.values()) == {25} and tuple(counts) == tuple(builder.SUBTASKS)


def test_a_dozen_trained_skills_and_unseen_families() -> None:
    trained = {row["skill"] for row in WORLD.train}
    assert len(trained) >= 12
    assert not trained & {row["skill"] for row in WORLD.tasks["unseen"]}
    assert len({row["skill"] for row in WORLD.tasks["unseen"]}) >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peple": 3}, r"data\.settings: unknown key 'peple' \(did you mean 'people'\?\)"),
        ({"people": 1}, r"people: found 1; expected a number of at least 4"),
        ({"items": 8.5}, r"items: found 8\.5; expected integer"),
        ({"train": True}, r"train: found true; expected integer"),
        ({"held_out": "half"}, r"held_out: found \"half\"; expected number"),
        ({"exam_share": math.nan}, r"exam_share: found nan; expected a finite number"),
        ({"items": 5000}, r"items: found only \d+ different \w+ rows of 5000; expected fewer"),
        ({"subtask_items": 900}, r"subtask_items: found only \d+ different exam rows of 903"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        builder.generate(SMALL | settings)


@pytest.mark.parametrize(("people", "towns", "things"), [(4, 2, 2), (32, 8, 10)])
@pytest.mark.parametrize("held_out", [0, 0.5])
def test_extreme_sizes_work(people: int, towns: int, things: int, held_out: float) -> None:
    size = {"people": people, "towns": towns, "things": things, "held_out": held_out}
    made = builder.generate({"pretrain": 50, "train": 50, "items": 8} | size)
    assert len(made.universe.people) == people and len(made.train) == 50


def test_command_shows_items(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["world", "--show", "1"])
    builder.main()
    shown = capsys.readouterr().out
    assert all(f"== {task}\n" in shown for task in WORLD.tasks)
    assert " 0 wrong, 0 omitted: " in shown and "p=0, " in shown


def golden_text() -> str:
    """A few rows of each part, as JSON lines."""
    rows = [*WORLD.pretrain[:4], *WORLD.train[:4]]
    rows += [row for task in WORLD.tasks.values() for row in task[:2]]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_golden_rows() -> None:
    if os.environ.get("ATKD_REGENERATE"):
        GOLDEN.write_text(golden_text(), encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == golden_text()


def test_ranges_and_defaults_are_the_schemas() -> None:
    rows = schema()["$defs"]["world"]["properties"]
    assert builder.checked({}) == {name: row["default"] for name, row in rows.items()}
    for name, row in rows.items():
        if name == "skills":
            continue
        for edge in (row["minimum"], row["maximum"]):
            assert builder.checked({name: edge})[name] == edge
        with pytest.raises(InputError, match=rf"data\.settings\.{name}: found "):
            builder.checked({name: row["maximum"] + 1})


def test_a_new_open_ended_task_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "riddles", Task("Riddles", "rouge_l", "", skills=("fact", "hop")))
    made = builder.generate(SMALL, seed=3)
    assert {row["skill"] for row in made.tasks["riddles"]} == {"fact", "hop"}
    assert len(made.tasks["riddles"]) == SMALL["items"]
    assert {name: made.tasks[name] for name in WORLD.tasks} == WORLD.tasks


def test_a_new_choice_task_is_a_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "quiz", replace(TASKS["mmlu"], title="Quiz", average=""))
    made = builder.generate(SMALL, seed=3).tasks
    asked = [{exams.exam_key(row) for row in made[name]} for name in ("mmlu", "quiz")]
    assert made["quiz"][0]["id"] == "quiz-0" and not asked[0] & asked[1]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_stated_share_of_training_rows_is_wrong(share: float) -> None:
    rows = builder.generate(SMALL | {"wrong_share": share}, seed=3).train
    clean = builder.generate(SMALL | {"wrong_share": 0.0}, seed=3).train
    wrong = [bool(grade(row, row["output"]).wrong) for row in rows]
    assert sum(wrong) / len(rows) == pytest.approx(share, abs=0.06)
    for row, twin, lapse in zip(rows, clean, wrong, strict=True):
        assert (row["output"] != twin["output"]) == lapse
        assert {**row, "output": ""} == {**twin, "output": ""}


def test_wrong_outputs_are_other_items_answers_or_have_one_value_wrong() -> None:
    rows = builder.generate(SMALL | {"wrong_share": 1.0}, seed=3).train
    several = [grade(row, row["output"]) for row in rows if len(row["facts"]) > 2]
    counts = Counter(min(2, len(found.wrong) + len(found.omitted)) for found in several)
    assert counts[1] > 20 and counts[2] > 20
    assert sum(grade(row, row["output"]).well_formed for row in rows) > 0.7 * len(rows)


def test_bare_answers_have_their_share() -> None:
    rows = builder.generate(SMALL | {"short_share": 0.5, "wrong_share": 0.0}, seed=3).train
    bare = [row for row in rows if row["skill"] in builder.SHORT]
    assert len(bare) / len(rows) == pytest.approx(0.5, abs=0.08)
    assert all(len(row["output"].split()) == 1 for row in bare)


def test_the_instruction_format_is_a_trace_of_the_pretraining_text() -> None:
    assert sum("Human:" in row["text"] for row in WORLD.pretrain) < 0.02 * len(WORLD.pretrain)
    made = builder.generate(SMALL | {"human_share": 1.0, "dialogue_share": 0.5}, seed=3)
    named = ["Human:" in row["text"] for row in made.pretrain]
    assert 0.4 < sum(named) / len(named) < 0.6


@pytest.mark.parametrize("task", builder.open_tasks())
def test_every_task_is_made_of_known_skills(task: str) -> None:
    assert set(builder.skills_of(task)) <= set(skills.SKILLS)
