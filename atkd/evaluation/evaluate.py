"""One model over all tasks through lm-eval: prompt files -> samples, a file per task."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch

from atkd.evaluation.lm_eval_tasks import metrics
from atkd.evaluation.metrics import METRICS
from atkd.evaluation.settings import EvaluationSettings
from atkd.models import checkpoints, served, tokenizers
from atkd.models.generation import NotFiniteError, decode, likeliest, padded
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import (
    InputError,
    folder_lock,
    naming,
    read_jsonl,
    write_json,
    write_jsonl,
)
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

Row = dict[str, Any]
TASK_FILES = Path(__file__).parent / "lm_eval_tasks"
ANSWER, BITS, OPTIONS = "answer", "bits_per_byte", "options"


class Likelihood(NamedTuple):
    """A text's log-likelihood in nats, whether it is the greedy choice, and bits per token."""

    nats: float
    greedy: bool
    bits: list[float]


class Answer(str):
    """A greedy answer; `entropy` sums the bits of its `steps` next-token distributions."""

    entropy: float
    steps: int


Serving = Callable[[], AbstractContextManager[str]]  # starts a server; its address


class OurModel:
    """How lm-eval asks a loaded model: likelihoods, greedy answers. Mixed in before lm-eval's LM.

    Ids are those of training (prompt and response apart, never re-split); embedding rows beyond the
    tokenizer get no probability; an answer ends at EOS alone; nothing is cut to fit.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        context: int,
        batch_size: int,
        server: Serving | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.context, self.batch_size, self.server = context, batch_size, server

    def encode(self, requests: list[Any]) -> list[list[int]]:
        """Prompt ids of requests, with the tokenizer's own BOS; equal prompts are split once."""
        unique = list(dict.fromkeys(request.args[0] for request in requests))
        ids = dict(zip(unique, tokenizers.encode_prompts(self.tokenizer, unique), strict=True))
        return [ids[request.args[0]] for request in requests]

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[Likelihood]:
        """Likelihoods of responses (EOS excluded); what several requests share is computed once."""
        tails = tokenizers.encode_responses(
            self.tokenizer, [request.args[1] for request in requests]
        )
        pairs = [(head, tail[:-1]) for head, tail in zip(self.encode(requests), tails, strict=True)]
        rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (head, tail) in enumerate(pairs):
            rows[(*head, *tail[:-1])].append(index)
        found: dict[int, Likelihood] = {}
        with Progress("likelihoods", len(rows), "texts") as progress:
            for batch in batches(sorted(rows, key=len, reverse=True), self.batch_size):
                members = [index for row in batch for index in rows[row]]
                parts = [pairs[index] for index in members]
                with about([requests[index] for index in members]):
                    scored = log_likelihoods(self.model, parts, self.tokenizer, self.context)
                found |= zip(members, scored, strict=True)
                progress.add(len(batch), tokens=sum(map(len, batch)))
        return [found[index] for index in range(len(requests))]

    def generate_until(self, requests: list[Any], **_: Any) -> list[Answer]:
        """Greedy answers of at most each request's `max_gen_toks` tokens."""
        prompts = self.encode(requests)
        if self.server is not None:
            return self.served(prompts, [each.args[1]["max_gen_toks"] for each in requests])
        lengths: dict[int, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            lengths[request.args[1]["max_gen_toks"]].append(index)
        found: dict[int, Answer] = {}
        with Progress("answers", len(requests), "answers") as progress:
            for new_tokens, members in lengths.items():
                order = sorted(members, key=lambda index: -len(prompts[index]))
                for batch in batches(order, self.batch_size):
                    with about([requests[index] for index in batch]):
                        made = self.answer([prompts[index] for index in batch], new_tokens)
                    found |= zip(batch, made, strict=True)
                    progress.add(len(batch), tokens=sum(answer.steps for answer in made))
        return [found[index] for index in range(len(requests))]

    def served(self, prompts: list[list[int]], rooms: list[int]) -> list[Answer]:
        """Greedy answers by a server, to which the device is left meanwhile; without entropies."""
        device = self.model.device
        self.model.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        with (
            self.server() as address,
            Progress("answers", len(prompts), "answers") as progress,
        ):
            keys = [""] * len(prompts)
            found = served.answers(address, prompts, keys, rooms, self.tokenizer, 0.0, progress)
        self.model.to(device)
        made = []
        for ids in found:
            answer = Answer(self.tokenizer.decode(ids, skip_special_tokens=True))
            answer.entropy, answer.steps = math.nan, len(ids)
            made.append(answer)
        return made

    def answer(self, prompts: list[list[int]], new_tokens: int) -> list[Answer]:
        """Greedy answers to one batch of prompts."""
        longest, room = max(map(len, prompts)), self.context - new_tokens
        if longest > room:
            raise InputError(
                f"a prompt has {longest} tokens, expected at most {room}: "
                "were the prompt files written for another context or tokenizer?"
            )
        ids_BT, mask_BT = padded(prompts, self.tokenizer.pad_token_id, left=True)
        entropy_B, steps_B = torch.zeros(2, len(prompts), device=self.model.device)

        def choose(logits_bV: torch.Tensor, rows_b: torch.Tensor, step: int) -> torch.Tensor:
            log_p_bV = logits_bV.float().log_softmax(-1)
            plogp_bV = (log_p_bV.exp() * log_p_bV).masked_fill_(log_p_bV == -math.inf, 0.0)
            entropy_B[rows_b] -= plogp_bV.sum(-1) / math.log(2)
            steps_B[rows_b] += 1
            return likeliest(logits_bV, rows_b, step)

        rooms = [new_tokens] * len(prompts)
        ids = decode(self.model, ids_BT, mask_BT, rooms, self.tokenizer, choose)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        made = [Answer(text) for text in texts]
        for answer, entropy, steps in zip(made, entropy_B.tolist(), steps_B.tolist(), strict=True):
            answer.entropy, answer.steps = entropy, int(steps)
        return made

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """No task asks for it."""
        raise NotImplementedError


@contextlib.contextmanager
def about(requests: list[Any]) -> Iterator[None]:
    """Says which document an error of one of the requests is about."""
    try:
        yield
    except NotFiniteError as error:
        asked = requests[error.row]
        raise InputError(f"{asked.task_name}, document {asked.doc['id']!r}: {error}") from None


def batches(order: list[Any], size: int) -> Iterator[list[Any]]:
    """`order` in pieces of `size`."""
    return (order[start : start + size] for start in range(0, len(order), size))


def log_likelihoods(
    model: Any, pairs: list[tuple[list[int], list[int]]], tokenizer: Any, context: int
) -> list[Likelihood]:
    """Of each (prompt, response) ids; only positions that predict a response are projected.

    Pairs that read the same ids (options of one letter each) share a row of the batch.
    NotFiniteError if one is no finite number, of a banned token too.
    """
    longest = max(len(prompt) + len(response) for prompt, response in pairs)
    if longest > context:
        raise InputError(f"prompt and reference have {longest} tokens, expected at most {context}")
    read = [(*prompt, *response[:-1]) for prompt, response in pairs]
    rows = {ids: row for row, ids in enumerate(dict.fromkeys(read))}
    ids_BT, mask_BT = (
        part.to(model.device)
        for part in padded([list(ids) for ids in rows], tokenizer.pad_token_id, left=False)
    )
    places = [
        (rows[ids], len(prompt) - 1 + step)
        for ids, (prompt, response) in zip(read, pairs, strict=True)
        for step in range(len(response))
    ]
    with torch.inference_mode():
        hidden_BTd = checkpoints.hidden_states(model, ids_BT, mask_BT)
        at_N, step_N = torch.tensor(places, device=model.device).T
        vocabulary = tokenizers.vocabulary_size(tokenizer)
        logits_NV = checkpoints.project(model, hidden_BTd[at_N, step_N], vocabulary).float()
        wanted_N = torch.tensor([i for _, response in pairs for i in response], device=model.device)
        log_p_N = logits_NV.log_softmax(-1).gather(1, wanted_N[:, None])[:, 0].cpu().double()
        greedy_N = (logits_NV.argmax(-1) == wanted_N).cpu()
    sizes = [len(response) for _, response in pairs]
    for place in (~log_p_N.isfinite()).nonzero()[:, 0].tolist():
        row = next(row for row, end in enumerate(accumulate(sizes)) if place < end)
        raise NotFiniteError(row, log_p_N[place].item())
    parts = zip(log_p_N.split(sizes), greedy_N.split(sizes), strict=True)
    return [
        Likelihood(float(log_p.sum()), bool(best.all()), (log_p / -math.log(2)).tolist())
        for log_p, best in parts
    ]


def language_model(
    model: Any, tokenizer: Any, context: int, batch_size: int, server: Serving | None = None
) -> Any:
    """lm-eval's view of a loaded model; `context` bounds prompt and answer together.

    `server`: starts what generates its answers in its place.
    """
    from lm_eval.api.model import LM

    kind = type("EvaluatedModel", (OurModel, LM), {})
    return kind(model, tokenizer, context, batch_size, server)


def build_tasks(prompts: Path, names: list[str], eos: str) -> dict[str, Any]:
    """lm-eval tasks per prompt file: the task's own metric, `<task>_bits`, `<task>_options`.

    The last one only where the prompts have options.
    """
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    made = {}
    for name in names:
        path = prompts / f"{name}.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: prompt file not found, expected one per task")
        first = next(read_jsonl(path))
        files = {name: ANSWER, f"{name}_bits": BITS}
        if "options" in first:
            files[f"{name}_options"] = OPTIONS
        generation = {"until": [eos], "max_gen_toks": first["max_new_tokens"], "do_sample": False}
        own = metrics.own(name) | {"generation_kwargs": generation}
        for task, file in files.items():
            config = load_yaml(TASK_FILES / f"{file}.yaml") | (own if task == name else {})
            measures = [
                one | {"higher_is_better": METRICS[one["metric"]].higher}
                for one in config["metric_list"]
            ]
            named = {"task": task, "metadata": {"version": 1, "path": str(path)}}
            made[task] = ConfigurableTask(config=config | named | {"metric_list": measures})
    return made


def samples_of(name: str, samples: dict[str, list[Row]]) -> Iterator[Row]:
    """Sample rows of one task from lm-eval's logged samples, in the prompt file's order."""
    bits, options = (
        {row["doc_id"]: row["filtered_resps"] for row in samples.get(task, ())}
        for task in (f"{name}_bits", f"{name}_options")
    )
    for row in sorted(samples[name], key=lambda row: row["doc_id"]):
        doc, answer, reference = row["doc"], row["filtered_resps"][0], bits[row["doc_id"]][0]
        made = {
            **{key: doc[key] for key in ("id", "group", "prompt", "target")},
            "answer": str(answer),
            **({} if math.isnan(answer.entropy) else {"entropy": round(answer.entropy, 6)}),
            "steps": answer.steps,
            "bits": sum(reference.bits),
            "bytes": doc["bytes"],
            "tokens": len(reference.bits),
            "token_bits": [round(bits, 6) for bits in reference.bits],
        }
        if options:
            made["options"] = doc["options"]
            made["likelihoods"] = [round(one.nats, 6) for one in options[row["doc_id"]]]
        yield made


def run_tasks(lm: Any, prompts: Path, names: list[str]) -> tuple[dict[str, list[Row]], Row]:
    """Sample rows per task, and lm-eval's own aggregated numbers."""
    from lm_eval.evaluator import evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it explains data sets of our own
    found = evaluate(lm=lm, task_dict=build_tasks(prompts, names, lm.tokenizer.eos_token))
    rows = {name: list(samples_of(name, found["samples"])) for name in names}
    numbers = {
        task: {key.split(",")[0]: value for key, value in sorted(metrics.items()) if "," in key}
        for task, metrics in found["results"].items()
    }
    return rows, {"results": numbers, "versions": found["versions"]}


def evaluate_folder(
    folder: Path, prompts: Path, settings: EvaluationSettings, output: Path, stage: Stage
) -> None:
    """Evaluates the model in `folder`; writes samples per task, then lm_eval.json."""
    names = settings.tasks or sorted(path.stem for path in prompts.glob("*.jsonl"))
    if not names:
        raise InputError(f"{prompts}: no prompt files found, expected <task>.jsonl")
    with start_up():
        device = checkpoints.pick_device(settings.device)
        model = checkpoints.load(folder, device, settings.dtype)
        tokenizer = models_tokenizer(folder)
        server = None
        if settings.engine == "vllm":
            server = partial(served.serving, folder, settings.dtype, settings.context)
        lm = language_model(model, tokenizer, settings.context, settings.batch_size, server)
        import_module("lm_eval.evaluator")
    stage.ready()
    rows, numbers = run_tasks(lm, prompts, names)
    for old in output.glob("*.jsonl"):  # of an earlier list of tasks
        old.unlink()
    for name in names:
        write_jsonl(output / f"{name}.jsonl", rows[name])
    kept = {"lm_eval": version("lm_eval"), "settings": asdict(settings)}
    write_json(output / "lm_eval.json", numbers | kept)
    scored = sum(row["tokens"] for task in rows.values() for row in task)
    facts = {"device": device, "dtype": settings.dtype, "batch_size": settings.batch_size}
    stage.write(output / "provenance.json", tokens=scored, **facts)


def models_tokenizer(folder: Path) -> Any:
    """The tokenizer saved beside a model, as the tokenizer stage wrote it."""
    return tokenizers.open_saved(folder)


def main() -> None:
    """Runs every task on one model and writes its samples."""
    parser = argparse.ArgumentParser(prog="python -m atkd evaluate", description=main.__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model folder with its tokenizer")
    parser.add_argument("--prompts", required=True, type=Path, help="folder of prompt files")
    parser.add_argument("--run", required=True, help="family/student/teacher/method/seed")
    parser.add_argument("--settings", default="{}", help=EvaluationSettings.about())
    parser.add_argument("--output", required=True, type=Path, help="folder for the samples")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    given = arithmetic.chosen(json_object("--settings", args.settings))
    settings, stage = EvaluationSettings.of(given), Stage("evaluate", args.run, given)
    with folder_lock(args.output), naming(args.run):
        evaluate_folder(args.model, args.prompts, settings, args.output, stage)
    print(f"{args.output}: samples of {args.run}")
