"""Fidelity of students to their teachers and, in the world, of all models to the truth.

At every response position of held-out references (the end included), a student's next-token
distribution is compared with its teacher's and, where a row of data carries the grammar of all its
answers (the world), with the true one: KL divergence in bits per token, reference first, and how
often both have the same likeliest token. `entropy_bits` of the reference tells what is little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atkd.evaluation.probe import Given, Probe, Row
from atkd.evaluation.references import Text, View, read_texts, tiles, view
from atkd.evaluation.settings import FidelitySettings
from atkd.models import tokenizers
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

RUN = ("family", "student", "teacher", "method", "seed")
MEANS = ("kl_bits", "agreement", "entropy_bits")
COLUMNS = (*RUN, "reference", "task", *MEANS, "tokens", "documents", "left_out")
TRUTH = "truth"


def compare(reference: View, other: View) -> tuple[Tensor, Tensor, Tensor]:
    """KL(reference, other) in bits, do both agree on the top token, the reference's entropy [N]."""
    parts = []
    with torch.inference_mode():
        for rows in tiles(len(reference.hidden_Nd), len(reference.weight_Vd)):
            log_p, log_q = reference.log_p(rows), other.log_p(rows)
            p = log_p.exp()
            same = (log_p.argmax(-1) == log_q.argmax(-1)).float()
            terms = [(p * each).masked_fill(p == 0, 0.0) for each in (log_p - log_q, log_p)]
            bits = torch.stack([terms[0].sum(-1), -terms[1].sum(-1)]) / math.log(2)
            parts.append(torch.stack([bits[0], same, bits[1]]).cpu())
    return tuple(torch.cat(parts, dim=1).double())


def compare_truth(truth: Sequence[dict[int, float]], other: View) -> tuple[Tensor, Tensor, Tensor]:
    """The same against true distributions; a tie for the likeliest token counts for either."""
    place_K = torch.tensor([n for n, chances in enumerate(truth) for _ in chances])
    id_K = torch.tensor([token for chances in truth for token in chances])
    p_K = torch.tensor([p for chances in truth for p in chances.values()], dtype=torch.float64)
    q_K, tops = torch.zeros_like(p_K), []
    with torch.inference_mode():
        for rows in tiles(len(truth), len(other.weight_Vd)):
            log_q = other.log_p(rows).cpu()
            inside = (place_K >= rows.start) & (place_K < rows.stop)
            q_K[inside] = log_q[place_K[inside] - rows.start, id_K[inside]].double()
            tops += log_q.argmax(-1).tolist()
    zeros_N = torch.zeros(len(truth), dtype=torch.float64)
    entropy_N = zeros_N.index_add(0, place_K, -p_K * p_K.log())
    cross_N = zeros_N.index_add(0, place_K, -p_K * q_K)
    same = [
        chances.get(top, 0.0) > max(chances.values()) - 1e-12
        for chances, top in zip(truth, tops, strict=True)
    ]
    same_N = torch.tensor(same, dtype=torch.float64)
    return (cross_N - entropy_N) / math.log(2), same_N, entropy_N / math.log(2)


def rows_of(names: Row, values: Sequence[Tensor], texts: Sequence[Text]) -> Iterator[Row]:
    """One row per task: means over its positions."""
    kl_N, same_N, entropy_N = values
    place = 0
    spans: dict[str, list[int]] = {}
    for text in texts:
        spans.setdefault(text.task, []).extend(range(place, place + len(text.response)))
        place += len(text.response)
    for task, at in spans.items():
        means = [float(part[at].mean()) for part in (kl_N, 100 * same_N, entropy_N)]
        shown = dict(zip(MEANS, (f"{mean:.6f}" for mean in means), strict=True))
        count = sum(text.task == task for text in texts)
        sizes = {"tokens": len(at), "documents": count, "left_out": 0}
        yield names | {"task": task} | sizes | shown


def truth_rows(names: Row, seen: View, texts: Sequence[Text]) -> Iterator[Row]:
    """One row per task against the truth; a reference outside its grammar is left out, counted."""
    kept = [text for text in texts if text.truth]
    inside_N = torch.tensor([bool(text.truth) for text in texts for _ in text.response])
    part = replace(seen, hidden_Nd=seen.hidden_Nd[inside_N])
    values = compare_truth([chances for text in kept for chances in text.truth], part)
    for row in rows_of(names | {"reference": TRUTH}, values, kept):
        outside = sum(text.task == row["task"] and not text.truth for text in texts)
        yield row | {"left_out": outside}


def fidelity(given: Given, settings: FidelitySettings, stage: Stage) -> list[Row]:
    """Rows for every model against its teacher (all teachers if it has none), and the truth.

    Runs of method `teacher` are the teachers.
    """
    tokenizer = given.tokenizer(stage)
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    texts = read_texts(given.tasks, given.prompts, tokenizer, settings)
    teachers: dict[str, View] = {}
    made: list[Row] = []
    with Progress("fidelity", len(given.folders), "models") as progress:
        for run in sorted(given.folders, key=lambda key: (key.split("/")[3] != "teacher", key)):
            names = dict(zip(RUN, run.split("/"), strict=True))
            seen = view(given.folders[run], texts, vocabulary, settings)
            if names["method"] == "teacher":
                teachers[names["teacher"]] = seen
            else:
                for name in teachers if names["teacher"] == "-" else [names["teacher"]]:
                    values = compare(teachers[name], seen)
                    made += rows_of(names | {"reference": name}, values, texts)
            if any(text.truth for text in texts):
                made += truth_rows(names, seen, texts)
            progress.add()
    return made


PROBE = Probe("fidelity", "models of one student and seed", FidelitySettings, COLUMNS, fidelity)
main = PROBE.main
