"""What lm-eval calls: rows of a prompt file, and scores by the functions that score samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from atkd.evaluation.metrics import (
    METRICS,
    Ratio,
    aggregate,
    option_accuracy,
    ratio_of_sums,
    shares,
)
from atkd.evaluation.metrics import calibration_error as error_of
from atkd.runtime.files import InputError, read_jsonl
from atkd.tasks import row_of

Row = dict[str, Any]
FIELDS = ("id", "prompt", "target", "group", "max_new_tokens", "response", "bytes")


class Documents(list):
    """Rows of a prompt file with the one attribute of a data set that lm-eval reads."""

    @property
    def features(self) -> dict[str, None]:
        """Names of the fields."""
        return dict.fromkeys(self[0])


def documents(path: str, **_: Any) -> dict[str, Documents]:
    """The one split of a task; `choices`: options as they follow the prompt, `gold`: the right."""
    rows = Documents(read_jsonl(path, FIELDS))
    for row in rows:
        if "options" in row:
            lead = row["response"].removesuffix(row["target"])
            row["choices"] = [lead + option for option in row["options"]]
            row["gold"] = row["options"].index(row["target"])
    return {"test": rows}


def own(task: str) -> Row:
    """The keys of a task file that say how its answers are scored: by the task's own metric.

    A mean over documents is left to lm-eval, which also knows its standard error.
    """
    row = row_of(task)
    metric = METRICS[row.metric]
    if metric.of is None:
        raise InputError(f"task {task}: metric {row.metric} cannot score a single answer")
    whole = partial(aggregate, task, row.metric)
    plain = not row.over_groups and metric.scale is None
    return {
        "process_results": answer(row.metric, metric.of, grouped=not plain),
        "metric_list": [{"metric": row.metric, "aggregation": "mean" if plain else whole}],
    }


def answer(metric: str, of: Callable[[Row], Any], grouped: bool) -> Callable[[Row, Any], Row]:
    """lm-eval's scoring of one answer: its value, beside its group if `grouped`."""

    def process(doc: Row, results: list[str]) -> Row:
        value = of(doc | {"answer": results[0]})
        return {metric: (doc["group"], value) if grouped else value}

    return process


def bits(doc: Row, results: list[Any]) -> Row:
    """(bits, bytes) of one reference; lm-eval's likelihoods are natural logarithms."""
    return {"bits_per_byte": Ratio(-results[0][0] / math.log(2), doc["bytes"])}


bits_per_byte = ratio_of_sums


def options(doc: Row, results: list[Any]) -> Row:
    """100 or 0 for the likeliest option, and (its share, whether it is right)."""
    likelihoods = [nats for nats, *_ in results]
    right = option_accuracy(doc | {"likelihoods": likelihoods})
    return {
        "option_accuracy": right,
        "calibration_error": (max(shares(likelihoods)), right / 100),
    }


def calibration_error(pairs: list[tuple[float, float]]) -> float:
    """Expected calibration error in percent."""
    return 100.0 * error_of(pairs)
