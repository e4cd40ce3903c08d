"""What teachers are certain of: their uncertainty on tokens, and what students know of those.

The uncertainty of a token is 1 - p(token) under the teacher (UNC; Zhong et al., ACL 2024, section
2). It is measured at every response position of training rows, by which tokens are ranked in
training, and of references that no model was trained on. Shapes: N positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atkd.data import sequences
from atkd.evaluation.probe import Given, Probe, Row
from atkd.evaluation.references import Text, log_probabilities, read_texts, targets_of, view
from atkd.evaluation.settings import UncertaintySettings
from atkd.losses.weighting import easy_tokens
from atkd.models import tokenizers
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

COLUMNS = ("family", "seed", "texts", "model", "role", "student", "statistic", "value", "tokens")
BINS = 40  # of the uncertainty, equal ones
DECILES = range(10, 100, 10)
TRAINING, REFERENCES = "training rows", "references"


def training_texts(path: Path, tokenizer: Any, length: int, rows: int) -> list[Text]:
    """The first training rows that fit, as texts of known answers."""
    found = sequences.instructions(str(path), tokenizer, length)
    return [
        Text(TRAINING, each.ids[: each.prompt], each.ids[each.prompt :], [])
        for each in found.samples[:rows]
    ]


def spread(uncertainty_N: Tensor) -> dict[str, float]:
    """Mean, deciles (the median among them) and the share of tokens in each bin."""
    deciles = torch.tensor([at / 100 for at in DECILES], dtype=torch.float64)
    found = {"mean": uncertainty_N.mean().item()}
    values = uncertainty_N.quantile(deciles).tolist()
    found |= {f"decile_{at}": value for at, value in zip(DECILES, values, strict=True)}
    place_N = (uncertainty_N * BINS).long().clamp(max=BINS - 1)
    shares = place_N.bincount(minlength=BINS) / len(uncertainty_N)
    return found | {f"bin_{at:02d}": share for at, share in enumerate(shares.tolist())}


def ranks(values_N: Tensor) -> Tensor:
    """Ranks from 0; ties share the mean of theirs."""
    _, inverse_N, count_K = values_N.unique(return_inverse=True, return_counts=True)
    last_K = count_K.cumsum(0)
    return (last_K - 0.5 * (count_K + 1)).double()[inverse_N]


def rank_correlation(one_N: Tensor, other_N: Tensor) -> float:
    """Spearman's coefficient; 0 where one of them is constant."""
    both = torch.stack((ranks(one_N), ranks(other_N)))
    return torch.corrcoef(both)[0, 1].nan_to_num(0.0).item()


def known_beforehand(uncertainty_N: Tensor, log_q_N: Tensor) -> dict[str, float]:
    """A student's median probability of the targets on the teacher's easy half, and the other."""
    easy_N = easy_tokens(uncertainty_N)
    halves = {"easy": log_q_N[easy_N], "hard": log_q_N[~easy_N]}
    return {
        f"p_{name}_median": part.exp().median().item() for name, part in halves.items() if len(part)
    }


def halves(uncertainty_N: Tensor, log_q_N: Tensor) -> dict[str, float]:
    """Of the teacher's easy and hard half: a student's mean loss, and the share that it misses.

    Missed is a token that the student gives less than half: a median near one says nothing of
    these, and they may be many.
    """
    easy_N = easy_tokens(uncertainty_N)
    found = {}
    for name, part in (("easy", log_q_N[easy_N]), ("hard", log_q_N[~easy_N])):
        if len(part):
            missed = (part.exp() < 0.5).double().mean().item()
            found |= {f"{name}_missed": missed, f"{name}_nats": -part.mean().item()}
    return found


class Seen(NamedTuple):
    """A model that was looked at: what trained it, its size, and its teacher's where it has one."""

    method: str
    size: str
    teacher: str = ""


def rows_of(names: Row, statistics: Mapping[str, float], tokens: int) -> Iterator[Row]:
    """A row for each statistic."""
    for statistic, value in statistics.items():
        yield names | {"statistic": statistic, "value": f"{value:.6f}", "tokens": tokens}


def family_rows(names: Row, models: Mapping[Seen, Tensor]) -> Iterator[Row]:
    """Every model's uncertainty, and every teacher's against the students.

    `models`: log-probability of every target [N] under each.
    """
    for seen, log_p_N in models.items():
        if seen.teacher:
            continue
        role = {"none": "base"}.get(seen.method, seen.method)
        own = names | {"model": seen.size, "role": role, "student": ""}
        yield from rows_of(own, spread(-log_p_N.expm1()), len(log_p_N))
        if role == "teacher":
            for student, log_q_N in models.items():
                found = against(seen, log_p_N, student, log_q_N)
                yield from rows_of(own | {"student": student.size}, found, len(log_p_N))


def against(teacher: Seen, log_p_N: Tensor, student: Seen, log_q_N: Tensor) -> dict[str, float]:
    """What a teacher's uncertainty says of a student: without it, or taught by it alone."""
    if student.method == "teacher" or student.teacher not in ("", teacher.size):
        return {}
    uncertainty_N, found = -log_p_N.expm1(), dict[str, float]()
    if student.method == "none":
        found |= known_beforehand(uncertainty_N, log_q_N)
    if student.method == "sft":
        found["rank_correlation"] = rank_correlation(-log_p_N, -log_q_N)
    known = halves(uncertainty_N, log_q_N)
    return found | {f"{name}_{student.method}": value for name, value in known.items()}


def measure(given: Given, settings: UncertaintySettings, stage: Stage) -> list[Row]:
    """Rows of one family and seed."""
    tokenizer = given.tokenizer(stage)
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    kinds = {
        TRAINING: training_texts(given.data, tokenizer, settings.max_length, settings.rows),
        REFERENCES: read_texts(given.tasks, given.prompts, tokenizer, settings),
    }
    texts = [text for part in kinds.values() for text in part]
    targets_N = targets_of(texts)
    seen: dict[Seen, Tensor] = {}
    with Progress("uncertainty", len(given.folders), "models") as progress:
        for run, folder in given.folders.items():
            _, student, teacher, method, seed = run.split("/")
            found = view(folder, texts, vocabulary, settings)
            model = Seen(method, student, teacher.strip("-"))
            if method == "teacher":
                model = Seen(method, teacher)
            seen[model] = log_probabilities(found, targets_N)
            progress.add()
    names = {"family": given.family, "seed": seed}
    return [row for kind in kinds for row in _of_kind(kind, kinds, seen, names)]


def _of_kind(
    kind: str,
    kinds: Mapping[str, Sequence[Text]],
    seen: Mapping[Seen, Tensor],
    names: Row,
) -> Iterator[Row]:
    sizes = {name: sum(len(text.response) for text in part) for name, part in kinds.items()}
    first = 0 if kind == TRAINING else sizes[TRAINING]
    part = {key: log_p_N[first : first + sizes[kind]] for key, log_p_N in seen.items()}
    yield from family_rows(names | {"texts": kind}, part)


PROBE = Probe(
    "uncertainty", "models of one family and seed", UncertaintySettings, COLUMNS, measure, True
)
main = PROBE.main
