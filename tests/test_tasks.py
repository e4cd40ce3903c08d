"""The tasks' rows: names that other tables must know, and averages that follow from them."""

from __future__ import annotations

import pytest

from atkd import tasks
from atkd.data import prompts
from atkd.runtime.files import InputError


@pytest.mark.parametrize("row", tasks.TASKS.values(), ids=tasks.TASKS)
def test_rows_name_what_exists(row: tasks.Task) -> None:
    assert row.items == "template" or row.items in prompts.FEW_SHOT
    assert set(row.asks) <= set(row.fields)
    assert row.average in ("", *tasks.AVERAGES) and row.new_tokens > 0
    assert row.files or not row.average, "the paper's tasks all have files"
    assert row.skills or row.items != "template", "an open-ended task has an analogue in the world"


def test_titles_are_told_apart_and_unknown_names_are_named() -> None:
    assert len({row.title for row in tasks.TASKS.values()}) == len(tasks.TASKS)
    with pytest.raises(InputError, match="tasks: unknown task 'doly'; expected one of dolly"):
        tasks.row_of("doly")
    with pytest.raises(InputError, match="unknown task 'doly'"):
        tasks.open_ended("doly")


def test_averages_are_the_papers() -> None:
    assert tasks.AVERAGES["generation"] == ("dolly", "selfinst", "vicuna", "koala", "wizardlm")
    assert tasks.AVERAGES["understanding"] == ("mmlu", "drop", "bbh")
    assert tasks.AVERAGES["average"] == (
        *tasks.AVERAGES["generation"],
        *tasks.AVERAGES["understanding"],
    )
