"""The metrics: a row each, which everything else that knows a metric reads.

A metric of single documents is one row with an `of`; it then stands in every file of documents and
scores. Needs the standard library alone.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from atkd.runtime.files import InputError
from atkd.tasks import open_ended, row_of

Sample = Mapping[str, Any]  # a row that evaluation wrote about one document
Bits = Mapping[str, Sequence[float]]  # document -> bits per token of its reference
EASY, HARD, WHOLE = "bits_per_byte_easy", "bits_per_byte_hard", "bits_per_byte"
WORDLESS = "wordless_references"
JUDGE, UNREAD = "judge", "judge_unparsable"
Rater = Literal["model", "exact", ""]
BINS = 10  # of calibration error


class Ratio(NamedTuple):
    """A document's part of a metric that is a ratio of sums: both are summed over documents."""

    numerator: float
    denominator: float


Value = float | Ratio


@dataclass(frozen=True)
class Metric:
    """One row.

    `title`, `unit`, `digits`, `about`: how people are told of it. `higher`: whether higher is
    better (None: neither is), with which `about` ends.

    A document's value is made by one of `of` (from its sample), `of_all` (from all samples of the
    task, a value each, None for a document without one) and `of_teacher` (the same with a teacher's
    bits). `needs`: fields without which a sample has no value. `tasks`: all, those whose own metric
    it is, or the open-ended ones. `scale`: what a ratio of sums is multiplied by; a metric whose
    values are a `Ratio` has one, any other is a mean. A metric made of nothing here comes from a
    judge or from scores.

    `decimals`: of a real number in document rows. `part`: neighbours of one part are written there
    document by document, others metric by metric. `estimated`: whether it has tables of its own.
    `score`: what a task's score is where it is this metric (the title where nothing is said).
    """

    title: str
    unit: str
    digits: int
    higher: bool | None
    about: str
    of: Callable[[Sample], Value] | None = None
    of_all: Callable[[Sequence[Sample]], Iterable[Value | None]] | None = None
    of_teacher: Callable[[Sequence[Sample], Bits], Iterable[Value]] | None = None
    needs: tuple[str, ...] = ()
    tasks: Literal["all", "own", "open"] = "all"
    scale: float | None = None
    decimals: int = 6
    part: str = ""
    estimated: bool = False
    score: str = ""

    @property
    def words(self) -> str:
        """The title inside a sentence."""
        return self.title if self.title.isupper() else self.title[0].lower() + self.title[1:]


def words(text: str) -> list[str]:
    """The words ROUGE compares: runs of ASCII letters and digits, lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())


def common_length(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence (bit-parallel: one step per word of `second`)."""
    places: dict[str, int] = defaultdict(int)
    for index, word in enumerate(first):
        places[word] |= 1 << index
    row = full = (1 << len(first)) - 1
    for word in second:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()


def rouge_l(answer: str, target: str) -> float:
    """ROUGE-L F in percent, equal to `rouge-score`'s rougeL without stemmer."""
    found, wanted = words(answer), words(target)
    common = common_length(wanted, found)
    if common == 0:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 100.0 * (2 * precision * recall / (precision + recall))


def prefix_match(answer: str, target: str) -> float:
    """100 if the stripped answer starts with the target, else 0 (instruct-eval's rule)."""
    return 100.0 if answer.strip().startswith(target) else 0.0


def new_ngrams(answers: Iterable[Sequence[str]], n: int) -> Iterator[tuple[int, int]]:
    """Per answer (words): how many of its distinct n-grams are new to the set, and its n-grams.

    Their sums give distinct-n of the whole set.
    """
    seen: set[tuple[str, ...]] = set()
    for found_words in answers:
        found = [tuple(found_words[i : i + n]) for i in range(len(found_words) - n + 1)]
        before = len(seen)
        seen.update(found)
        yield len(seen) - before, len(found)


def _distinct(n: int) -> Callable[[Sequence[Sample]], Iterator[Ratio | None]]:
    def of_all(samples: Sequence[Sample]) -> Iterator[Ratio | None]:
        for new, count in new_ngrams((words(row["answer"]) for row in samples), n):
            yield Ratio(new, count) if count else None

    return of_all


def wordless(samples: Sequence[Sample]) -> list[Value | None]:
    """100 for a reference without a word that ROUGE compares, else 0; no values if all have one."""
    found = [not words(row["target"]) for row in samples]
    return [100.0 * lacks if any(found) else None for lacks in found]


def shares(likelihoods: Sequence[float]) -> list[float]:
    """Softmax of log-likelihoods."""
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    return [weight / sum(weights) for weight in weights]


def option_accuracy(sample: Sample) -> int:
    """100 if the likeliest option is right, else 0."""
    parts = shares(sample["likelihoods"])
    return 100 * (sample["options"][parts.index(max(parts))] == sample["target"])


def option_confidence(sample: Sample) -> float:
    """Percent that the likeliest option has of the softmax over the options' log-likelihoods."""
    return 100.0 * max(shares(sample["likelihoods"]))


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


def easy_bits(samples: Sequence[Sample], teacher: Bits) -> Iterator[Ratio]:
    """Bits of each reference's easy tokens: those below the threshold of the teacher's bits.

    A token is easy where the teacher's 1 - p of it lies below the lower median over the task's
    reference tokens. A reference may be cut later after a shorter prompt: what the teacher lacks is
    hard.
    """
    limit = threshold(teacher)
    for row in samples:
        pairs = zip(row["token_bits"], teacher[row["id"]], strict=False)
        yield Ratio(math.fsum(spent for spent, by in pairs if by < limit), row["bytes"])


METRICS = {
    "score": Metric(
        "Score", "points", 2, True, "Score in percent, higher is better", estimated=True
    ),
    "rouge_l": Metric(
        "ROUGE-L", "points", 2, True, "ROUGE-L F in percent (no stemmer), higher is better.",
        of=lambda row: rouge_l(row["answer"], row["target"]),
        tasks="own", part="task", estimated=True, score="ROUGE-L F (no stemmer)",
    ),
    "prefix_match": Metric(
        "Prefix match", "points", 2, True,
        "Percent of answers that start with the target, higher is better.",
        of=lambda row: prefix_match(row["answer"], row["target"]), tasks="own", part="task",
    ),
    "bits_per_byte": Metric(
        "Bits per byte", "bits", 3, False, "Bits per byte of the reference, lower is better.",
        of=lambda row: Ratio(float(row["bits"]), row["bytes"]),
        scale=1.0, part="task", estimated=True,
    ),
    "entropy": Metric(
        "Entropy", "bits", 2, None,
        "Bits per token of the model's next-token distributions along its own greedy answer (the "
        "one that ends it included); neither direction is better.",
        of=lambda row: Ratio(float(row["entropy"]), row["steps"]),
        needs=("entropy",), tasks="open", scale=1.0, decimals=4,
    ),
    "distinct_1": Metric(
        "Distinct-1", "%", 1, True,
        "Percent of the answers' words that are new to the task's answers, higher is better.",
        of_all=_distinct(1), tasks="open", scale=100.0,
    ),
    "distinct_2": Metric(
        "Distinct-2", "%", 1, True,
        "Percent of the answers' word pairs that are new to the task's answers, higher is better.",
        of_all=_distinct(2), tasks="open", scale=100.0,
    ),
    WORDLESS: Metric(
        "References without a word", "%", 1, None,
        "Percent of references without a letter a-z or a digit: ROUGE-L is 0 whatever the answer. "
        "A task that has none of them has no such row.",
        of_all=wordless, tasks="open",
    ),
    "option_accuracy": Metric(
        "Option accuracy", "%", 1, True,
        "Percent of questions whose likeliest option is right, higher is better.",
        of=option_accuracy, needs=("likelihoods",), part="options",
    ),
    "option_confidence": Metric(
        "Option confidence", "%", 1, None,
        "Mean share of the likeliest option, percent; best where it equals option accuracy.",
        of=option_confidence, needs=("likelihoods",), decimals=4, part="options",
    ),
    "calibration_error": Metric(
        "Calibration error", "%", 1, False,
        "Distance of accuracy and confidence of the likeliest option, ten bins of equal width "
        "weighted by size, percent; lower is better.",
    ),
    EASY: Metric(
        "Bits per byte easy", "bits", 3, False,
        "Bits of the reference's easy tokens per byte of the whole reference; easy where the "
        "teacher gives a token more than its median probability. Lower is better.",
        of_teacher=easy_bits, scale=1.0, decimals=4,
    ),
    HARD: Metric(
        "Bits per byte hard", "bits", 3, False,
        "Bits per byte less those of the easy tokens, lower is better.",
    ),
    JUDGE: Metric(
        "Judge", "points", 2, True,
        "A judge's rating: the exact one's 1 to 10 as 0 to 100 %, a language model's as 100 x the "
        "answers' sum / the references'; higher is better.",
        scale=100.0, score="the exact judge's rating (1 is 0 %, 10 is 100 %)",
    ),
    "judge_exact": Metric(
        "Exact judge", "points", 2, True,
        "The exact judge's rating, 1 to 10 as 0 to 100 %, beside a language model's; higher is "
        "better.",
    ),
    "judge_order": Metric(
        "Judge's order effect", "points", 2, None,
        "Points of ten that standing first is worth to a language model; best near 0.",
    ),
    UNREAD: Metric(
        "% of replies unreadable", "%", 1, False,
        "Percent of a language model's replies that could not be read, lower is better.",
    ),
}  # fmt: skip


def metric_row(name: str) -> Metric:
    """The row of a metric as files name it: `@teacher` may follow its name."""
    plain = name.partition("@")[0]
    if plain not in METRICS:
        raise InputError(f"found metric {name!r}; expected one of {', '.join(METRICS)}")
    return METRICS[plain]


def rater(source: str, judge: bool) -> Rater:
    """Who rates open-ended answers, by a run's record: its `source` of data, its `judge`.

    A language model if there is to be one (`model`), else the world's own judge (`exact`), else
    nobody (""). This alone decides what kind a score is, never what ratings happen to be there.
    """
    return "model" if judge else "exact" if source == "world" else ""


def score_metric(task: str, by: Rater) -> str:
    """The metric that is a task's score: where someone rates its answers, their rating."""
    return JUDGE if by and open_ended(task) else row_of(task).metric


def ratio_of_sums(pairs: Iterable[tuple[float, float]]) -> float:
    """Sum of the numerators over sum of the denominators."""
    above, below = (sum(values) for values in zip(*pairs, strict=True))
    return above / below


def mean_score(task: str, values: Iterable[tuple[str, float]]) -> float:
    """Mean over documents of pairs (group, value); for some tasks over the means of its groups."""
    over_groups = row_of(task).over_groups
    groups: dict[str, list[float]] = defaultdict(list)
    for group, value in values:
        groups[group if over_groups else ""].append(value)
    means = [sum(members) / len(members) for members in groups.values()]
    return sum(means) / len(means)


def aggregate(task: str, metric: str, values: Sequence[tuple[str, Any]]) -> float:
    """A task's value of a metric from (group, value) of its documents: a ratio of sums, or a mean.

    A judge's metric has values of either kind.
    """
    if isinstance(values[0][1], Ratio):
        return (metric_row(metric).scale or 1.0) * ratio_of_sums(value for _, value in values)
    return mean_score(task, values)
