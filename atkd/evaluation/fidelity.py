"""Fidelity of students to their teachers and, in the world, of all models to the truth.

At every response position of held-out references (the end included), a student's next-token
distribution is compared with its teacher's and, where a row of data carries the grammar of all its
answers (the world), with the true one: KL divergence in bits per token, reference first, and how
often both have the same likeliest token. `entropy_bits` of the reference tells what is little.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atkd.evaluation.settings import FidelitySettings
from atkd.models import checkpoints, tokenizers
from atkd.models.generation import padded
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import InputError, open_text, read_jsonl, write_csv
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage
from atkd.world.grammar import grammar, next_tokens

Row = dict[str, Any]
RUN = ("family", "student", "teacher", "method", "seed")
MEANS = ("kl_bits", "agreement", "entropy_bits")
COLUMNS = (*RUN, "reference", "task", *MEANS, "tokens", "documents", "left_out")
TRUTH = "truth"
TILE = 2**23  # logits held at once: positions x vocabulary


@dataclass(frozen=True)
class Text:
    """A reference as ids: the prompt's and the response's, and the true distributions if known."""

    task: str
    prompt: list[int]
    response: list[int]
    truth: list[dict[int, float]]


@dataclass(frozen=True)
class View:
    """What a model says at the N response positions of all texts: hidden states, and its head."""

    hidden_Nd: Tensor
    weight_Vd: Tensor
    bias_V: Tensor | None

    def log_p(self, rows: slice) -> Tensor:
        """Log-probabilities in nats of some positions, on the head's device [rows, V]."""
        hidden = self.hidden_Nd[rows].to(self.weight_Vd.device)
        return (
            torch.nn.functional.linear(hidden, self.weight_Vd, self.bias_V).float().log_softmax(-1)
        )


def read_texts(data: Path, prompts: Path, tokenizer: Any, settings: FidelitySettings) -> list[Text]:
    """The first references of each task; EOS ends those that were not cut to fit the context."""
    encode = lru_cache(maxsize=None)(
        lambda text: tuple(tokenizers.encode_response(tokenizer, text, eos=False))
    )
    made = []
    for task in settings.tasks:
        rows = {row["id"]: row for row in read_jsonl(data / f"{task}.jsonl", ("id",))}
        asked = list(read_jsonl(prompts / f"{task}.jsonl", ("id", "prompt", "target", "response")))
        for row in asked[: settings.documents]:
            ids = tokenizers.encode_response(
                tokenizer, row["response"], eos=row["response"] == row["target"]
            )
            known = rows.get(row["id"], {}).get("grammar")
            truth = (
                next_tokens(grammar(known), ids, encode, tokenizer.eos_token_id) if known else []
            )
            made.append(Text(task, tokenizers.encode_prompt(tokenizer, row["prompt"]), ids, truth))
    if not made:
        raise InputError(f"{prompts}: no references found, expected some of {settings.tasks}")
    return made


def view(folder: Path, texts: Sequence[Text], vocabulary: int, settings: FidelitySettings) -> View:
    """Loads a model, reads all texts and keeps only what `View` holds, hidden states on the CPU."""
    device = checkpoints.pick_device(settings.device)
    model = checkpoints.load(folder, device, settings.dtype)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i].prompt + texts[i].response))
    size = settings.batch_size
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(order), size):
            part = [texts[index] for index in order[start : start + size]]
            rows = [text.prompt + text.response[:-1] for text in part]
            ids_BT, mask_BT = padded(rows, 0, left=False)
            hidden_BTd = checkpoints.hidden_states(
                model, ids_BT.to(device), mask_BT.to(device)
            ).cpu()
            for index, text, hidden_Td in zip(order[start:], part, hidden_BTd, strict=False):
                first = len(text.prompt) - 1
                found[index] = hidden_Td[first : first + len(text.response)].clone()
        weight, bias = checkpoints.head_rows(model, vocabulary)
        hidden_Nd = torch.cat([found[index] for index in range(len(texts))])
        if not hidden_Nd.isfinite().all():
            raise InputError(f"model {folder}: its hidden states on references are not finite")
        return View(hidden_Nd, weight.clone(), None if bias is None else bias.clone())


def tiles(count: int, vocabulary: int) -> Iterator[slice]:
    """Slices over `count` positions."""
    size = max(1, TILE // vocabulary)
    return (slice(start, start + size) for start in range(0, count, size))


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


def fidelity(
    folders: Mapping[str, Path],
    data: Path,
    prompts: Path,
    settings: FidelitySettings,
    stage: Stage,
) -> list[Row]:
    """Rows for every model against its teacher (all teachers if it has none), and the truth.

    `folders` maps run keys to models; those of method `teacher` are the teachers.
    """
    run, folder = min(folders.items())
    with start_up():
        import_module("transformers.modeling_utils")
        tokenizer = tokenizers.open_tokenizer({"folder": str(folder)}, run.split("/")[0])
    stage.ready()
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    texts = read_texts(data, prompts, tokenizer, settings)
    teachers: dict[str, View] = {}
    made: list[Row] = []
    with Progress("fidelity", len(folders), "models") as progress:
        for run in sorted(folders, key=lambda key: (key.split("/")[3] != "teacher", key)):
            names = dict(zip(RUN, run.split("/"), strict=True))
            seen = view(folders[run], texts, vocabulary, settings)
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


def collect(paths: Iterable[Path], output: Path) -> int:
    """One CSV of all jobs'; what several found (a student shared by seeds) is kept once."""
    rows: dict[str, Row] = {}
    for path in paths:
        with open_text(path) as handle:
            rows |= {json.dumps(row): row for row in csv.DictReader(handle)}
    write_csv(output, COLUMNS, (rows[key] for key in sorted(rows)))
    return len(rows)


def main() -> None:
    """Compares models with their teachers and the truth, or collects what jobs found."""
    parser = argparse.ArgumentParser(prog="python -m atkd fidelity", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="the models of one student and seed -> CSV")
    one.add_argument(
        "--runs", required=True, nargs="+", metavar="KEY",
        help="family/student/teacher/method/seed of each model, teachers among them",
    )  # fmt: skip
    one.add_argument("--models", required=True, nargs="+", type=Path, help="their model folders")
    one.add_argument("--data", required=True, type=Path, help="folder of <task>.jsonl of the data")
    one.add_argument("--prompts", required=True, type=Path, help="folder of prompt files")
    one.add_argument("--settings", default="{}", help=FidelitySettings.about())
    one.add_argument("--output", required=True, type=Path, help="CSV to write")
    gather = commands.add_parser("collect", help="CSVs of all jobs -> one")
    gather.add_argument("--found", required=True, nargs="+", type=Path, help="jobs' CSVs")
    gather.add_argument("--output", required=True, type=Path, help="CSV to write")
    args = parser.parse_args()
    if args.command == "collect":
        count = collect(args.found, args.output)
    else:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if len(args.runs) != len(args.models):
            found = f"{len(args.models)} for {len(args.runs)} runs"
            raise InputError(f"--models: found {found}; expected a folder for each")
        folders = dict(zip(args.runs, args.models, strict=True))
        given = json_object("--settings", args.settings)
        settings = FidelitySettings.of(given)
        stage = Stage("fidelity", next(iter(folders)), given)
        rows = fidelity(folders, args.data, args.prompts, settings, stage)
        write_csv(args.output, COLUMNS, rows)
        stage.write(args.output.with_suffix(".provenance.json"))
        count = len(rows)
    print(f"{args.output}: {count} rows")
