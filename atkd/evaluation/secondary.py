"""Secondary metrics: what samples say beside a task's own score. Needs the standard library alone.

Rows of documents carry either a value or a numerator and a denominator to be summed first:

- `distinct_1`, `distinct_2` (generation tasks): n-grams of an answer's words that no earlier answer
  of the task has, over all its n-grams. Their sums give distinct-n of the whole set, in percent.
- `entropy` (generation tasks): bits of the model's next-token distributions along its own greedy
  answer, over their number (the one that ends the answer included).
- `option_accuracy`, `option_confidence` (multiple choice), percent: whether the likeliest option is
  right, and its share of the softmax over the options' log-likelihoods. `calibration_error` is made
  of both: ten bins of equal width, distance of mean accuracy and confidence weighted by size.
- `bits_per_byte_easy`: bits of the reference's easy tokens over the bytes of the whole reference;
  `bits_per_byte_hard` is the rest, so that both add up to `bits_per_byte`. A token is easy where
  the teacher's 1 - p of it lies below the lower median over the task's reference tokens. For a
  student without a teacher the name ends in `@` and the teacher that decided.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from atkd.runtime.files import InputError

Row = dict[str, Any]
Bits = dict[str, list[float]]  # document -> bits per token of its reference
EASY, HARD, WHOLE = "bits_per_byte_easy", "bits_per_byte_hard", "bits_per_byte"
BINS = 10
PERCENT = ("distinct_1", "distinct_2")


def ratio_row(metric: str, numerator: float, denominator: float) -> Row:
    """The columns of a document row whose metric is a ratio of sums; four decimals."""
    shown = f"{numerator:.4f}" if isinstance(numerator, float) else str(numerator)
    return {"metric": metric, "numerator": shown, "denominator": str(denominator)}


def new_ngrams(answers: Iterable[Sequence[str]], n: int) -> Iterator[tuple[int, int]]:
    """Per answer (words): how many of its distinct n-grams are new to the set, and its n-grams."""
    seen: set[tuple[str, ...]] = set()
    for words in answers:
        found = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        before = len(seen)
        seen.update(found)
        yield len(seen) - before, len(found)


def shares(likelihoods: Sequence[float]) -> list[float]:
    """Softmax of log-likelihoods."""
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    return [weight / sum(weights) for weight in weights]


def calibration_error(pairs: Iterable[tuple[float, float]]) -> float:
    """Expected calibration error of pairs (confidence, right) in 0..1; equal-width bins."""
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for confidence, right in pairs:
        bins[min(int(confidence * BINS), BINS - 1)].append((confidence, right))
    total = sum(map(len, bins.values()))
    return sum(abs(sum(c - r for c, r in members)) for members in bins.values()) / total


def threshold(teacher: Bits) -> float:
    """Lower median of a teacher's bits over all reference tokens of a task."""
    found = sorted(bits for document in teacher.values() for bits in document)
    return found[(len(found) - 1) // 2]


def split_rows(samples: Sequence[Row], teachers: Mapping[str, Bits]) -> Iterator[tuple[Row, Row]]:
    """(sample, columns) of the easy tokens' bits, by each teacher; `own` leaves the name plain."""
    for name, bits in teachers.items():
        limit = threshold(bits)
        metric = EASY if name == "own" else f"{EASY}@{name}"
        for row in samples:
            if row["id"] not in bits:
                raise InputError(f"teacher {name}: no sample {row['id']!r}; samples of other data?")
            # a reference may be cut later after a shorter prompt: what the teacher lacks is hard
            pairs = zip(row["token_bits"], bits[row["id"]], strict=False)
            easy = math.fsum(spent for spent, by in pairs if by < limit)
            yield row, ratio_row(metric, easy, row["bytes"])


def choice_rows(row: Row) -> Iterator[Row]:
    """Columns of a multiple-choice sample's accuracy and confidence by likelihood."""
    parts = shares(row["likelihoods"])
    best = parts.index(max(parts))
    right = row["options"][best] == row["target"]
    yield {"metric": "option_accuracy", "value": f"{100 * right}"}
    yield {"metric": "option_confidence", "value": f"{100.0 * parts[best]:.4f}"}


def answer_rows(
    samples: Sequence[Row], answers: Sequence[Sequence[str]]
) -> Iterator[tuple[Row, Row]]:
    """(sample, columns) of a generation task; `answers` are the words of each sample's answer."""
    for row in samples:
        if "entropy" in row:
            yield row, ratio_row("entropy", float(row["entropy"]), row["steps"])
    for n in (1, 2):
        for row, (new, count) in zip(samples, new_ngrams(answers, n), strict=True):
            if count:
                yield row, ratio_row(f"distinct_{n}", new, count)


def derived(
    task: str, rows: Mapping[str, Sequence[Row]], scores: Mapping[str, Row]
) -> Iterator[Row]:
    """Scores of a task made of others: calibration error, and what hard tokens cost."""
    right, sure = (
        [float(row["value"]) / 100 for row in rows.get(name, ())]
        for name in ("option_accuracy", "option_confidence")
    )
    if right:
        value = 100 * calibration_error(zip(sure, right, strict=True))
        yield {"task": task, "metric": "calibration_error", "value": value, "n": len(right)}
    for metric, row in scores.items():
        if metric.startswith(EASY):
            rest = scores[WHOLE]["value"] - row["value"]
            yield row | {"metric": metric.replace(EASY, HARD), "value": rest}
