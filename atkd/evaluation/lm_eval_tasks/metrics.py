"""What the task files call: rows of a prompt file, and scores by the project's own functions."""

from __future__ import annotations

import math
from typing import Any

from atkd.evaluation import scores, secondary
from atkd.runtime.files import read_jsonl

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


def rouge_l(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ROUGE-L F in percent."""
    return {"rouge_l": scores.rouge_l(results[0], doc["target"])}


def prefix_match(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """100 or 0."""
    return {"prefix_match": scores.prefix_match(results[0], doc["target"])}


def grouped_match(doc: dict[str, Any], results: list[str]) -> dict[str, tuple[str, float]]:
    """(group, 100 or 0)."""
    return {"prefix_match": (doc["group"], scores.prefix_match(results[0], doc["target"]))}


def mean_of_groups(pairs: list[tuple[str, float]]) -> float:
    """Plain mean over groups of pairs (group, value)."""
    return scores.mean_score(scores.OVER_GROUPS[0], pairs)


def bits(doc: dict[str, Any], results: list[Any]) -> dict[str, tuple[float, int]]:
    """(bits, bytes) of one reference; lm-eval's likelihoods are natural logarithms."""
    return {"bits_per_byte": (-results[0][0] / math.log(2), doc["bytes"])}


def options(doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    """100 or 0 for the likeliest option, and (its share, whether it is right)."""
    shares = secondary.shares([nats for nats, *_ in results])
    best = shares.index(max(shares))
    right = float(best == doc["gold"])
    return {"option_accuracy": 100.0 * right, "calibration_error": (shares[best], right)}


def calibration_error(pairs: list[tuple[float, float]]) -> float:
    """Expected calibration error in percent."""
    return 100.0 * secondary.calibration_error(pairs)


bits_per_byte = scores.bits_per_byte
