"""The metrics: a row each, which everything else that knows a metric reads."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is told to people; `about` ends in its direction."""

    title: str
    unit: str
    digits: int
    higher: bool
    about: str


METRICS = {
    "score": Metric(
        "Score",
        "points",
        2,
        True,
        "Score in percent, higher is better",
    ),
    "rouge_l": Metric(
        "ROUGE-L", "points", 2, True, "ROUGE-L F in percent (no stemmer), higher is better."
    ),
    "bits_per_byte": Metric(
        "Bits per byte", "bits", 3, False, "Bits per byte of the reference, lower is better."
    ),
}
