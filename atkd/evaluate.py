"""One model over all tasks through lm-eval: prompt files -> samples, a file per task."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd import models, scoring, tokens
from atkd.files import InputError, cli, folder_lock, write_json, write_jsonl
from atkd.generation import decode, likeliest, padded
from atkd.provenance import Stage

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]
TASK_FILES = Path(__file__).parent / "tasks"
BITS = "bits_per_byte"


class OurTokens:
    """What lm-eval's Hugging Face model does otherwise: ids, vocabulary, greedy decoding.

    Mixed in before HFLM. Ids are those of training (prompt and response apart, never re-split);
    embedding rows beyond the tokenizer get no probability; an answer ends at EOS alone.
    """

    tokenizer: Any
    model: Any
    max_length: int
    batch_size: int

    def tok_encode(self, string: str, *_: Any, **__: Any) -> list[int]:
        """Ids of a prompt, with the tokenizer's own BOS."""
        return tokens.encode_prompt(self.tokenizer, string)

    def tok_batch_encode(
        self, strings: list[str], left_truncate_len: int, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and mask [batch, longest] of prompts, which must fit."""
        rows = tokens.encode_prompts(self.tokenizer, list(strings))
        longest = max(map(len, rows))
        if longest > left_truncate_len:
            raise InputError(
                f"a prompt has {longest} tokens, expected at most {left_truncate_len}: "
                "were the prompt files written for another context or tokenizer?"
            )
        return padded(rows, self.tokenizer.pad_token_id, left=True)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        response = tokens.encode_response(self.tokenizer, continuation, eos=False)
        return self.tok_encode(context), response

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, is it the greedy choice) of each response given its prompt."""
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1] + requests[i][2]))
        for batch in batches(order, self.batch_size, "likelihoods"):
            pairs = [requests[index][1:] for index in batch]
            scored = log_likelihoods(self.model, pairs, self.tokenizer, self.max_length)
            found |= zip(batch, scored, strict=True)
        return [found[index] for index in range(len(requests))]

    def _model_generate(
        self, context: torch.Tensor, max_length: int, attention_mask: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        import torch

        room = max_length - context.shape[1]
        answers = decode(self.model, context, attention_mask, room, self.tokenizer, likeliest)
        return torch.cat([context, answers], dim=1)


def batches(order: list[int], size: int, name: str) -> Iterator[list[int]]:
    """`order` in pieces of `size`, with a progress bar over its items."""
    from tqdm import tqdm

    with tqdm(total=len(order), desc=name, disable=None) as bar:
        for start in range(0, len(order), size):
            yield order[start : start + size]
            bar.update(len(order[start : start + size]))


def log_likelihoods(
    model: Any, pairs: list[tuple[list[int], list[int]]], tokenizer: Any, context: int
) -> list[tuple[float, bool]]:
    """Of each (prompt, response) ids; only positions that predict the response are projected."""
    import torch

    longest = max(len(prompt) + len(response) for prompt, response in pairs)
    if longest > context:
        raise InputError(f"prompt and reference have {longest} tokens, expected at most {context}")
    rows = [prompt + response[:-1] for prompt, response in pairs]
    ids_BT, mask_BT = (
        part.to(model.device) for part in padded(rows, tokenizer.pad_token_id, left=False)
    )
    places = [
        (row, len(prompt) - 1 + step)
        for row, (prompt, response) in enumerate(pairs)
        for step in range(len(response))
    ]
    with torch.inference_mode():
        hidden_BTd = models.hidden_states(model, ids_BT, mask_BT)
        at_N, step_N = torch.tensor(places, device=model.device).T
        logits_NV = models.project(model, hidden_BTd[at_N, step_N], len(tokenizer)).float()
        wanted_N = torch.tensor([i for _, response in pairs for i in response], device=model.device)
        log_p_N = logits_NV.log_softmax(-1).gather(1, wanted_N[:, None])[:, 0].cpu().double()
        greedy_N = (logits_NV.argmax(-1) == wanted_N).cpu()
    sizes = [len(response) for _, response in pairs]
    parts = zip(log_p_N.split(sizes), greedy_N.split(sizes), strict=True)
    return [(float(log_p.sum()), bool(best.all())) for log_p, best in parts]


def language_model(model: Any, tokenizer: Any, context: int, batch_size: int) -> Any:
    """lm-eval's view of a loaded model; `context` bounds prompt and answer together."""
    from lm_eval.models.huggingface import HFLM

    kind = type("EvaluatedModel", (OurTokens, HFLM), {})
    options = {"backend": "causal", "max_length": context, "batch_size": batch_size}
    return kind(pretrained=model, tokenizer=tokenizer, **options)


def build_tasks(prompts: Path, names: list[str], eos: str) -> dict[str, Any]:
    """Two lm-eval tasks per prompt file: the task's own metric, and `<task>_bits`."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    made = {}
    for name in names:
        path = prompts / f"{name}.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: prompt file not found, expected one per task")
        for task, file in ((name, scoring.primary(name)), (f"{name}_bits", BITS)):
            config = load_yaml(TASK_FILES / f"{file}.yaml")
            config |= {"task": task, "metadata": {"version": 1, "path": str(path)}}
            if file != BITS:
                with open(path, encoding="utf-8") as handle:
                    longest = json.loads(handle.readline())["max_new_tokens"]
                options = {"until": [eos], "max_gen_toks": longest, "do_sample": False}
                config["generation_kwargs"] = options
            made[task] = ConfigurableTask(config=config)
    return made


def samples_of(name: str, samples: dict[str, list[Row]], tokenizer: Any) -> Iterator[Row]:
    """Sample rows of one task from lm-eval's logged samples, in the prompt file's order."""
    bits = {row["doc_id"]: row[BITS][0] for row in samples[f"{name}_bits"]}
    for row in sorted(samples[name], key=lambda row: row["doc_id"]):
        doc = row["doc"]
        made = {key: doc[key] for key in ("id", "group", "prompt", "target")}
        made |= {"answer": row["filtered_resps"][0], "bits": bits[row["doc_id"]]}
        scored = tokens.encode_response(tokenizer, doc["response"], eos=False)
        yield made | {"bytes": doc["bytes"], "tokens": len(scored)}


def run_tasks(lm: Any, prompts: Path, names: list[str]) -> tuple[dict[str, list[Row]], Row]:
    """Sample rows per task, and lm-eval's own aggregated numbers."""
    from lm_eval.evaluator import evaluate

    found = evaluate(lm=lm, task_dict=build_tasks(prompts, names, lm.tokenizer.eos_token))
    rows = {name: list(samples_of(name, found["samples"], lm.tokenizer)) for name in names}
    numbers = {
        task: {key.split(",")[0]: value for key, value in sorted(metrics.items()) if "," in key}
        for task, metrics in found["results"].items()
    }
    return rows, {"results": numbers, "versions": found["versions"]}


def evaluate_folder(folder: Path, prompts: Path, settings: Row, output: Path, stage: Stage) -> None:
    """Evaluates the model in `folder`; writes samples per task, then lm_eval.json."""
    names = settings.get("tasks") or sorted(path.stem for path in prompts.glob("*.jsonl"))
    device = models.pick_device(settings.get("device", "cpu"))
    model = models.load(folder, device, settings.get("dtype", "float32"))
    tokenizer = models_tokenizer(folder)
    context, size = settings.get("context", 2048), settings.get("batch_size", 16)
    lm = language_model(model, tokenizer, context, size)
    import_module("lm_eval.evaluator")  # start-up, not work
    stage.ready()
    rows, numbers = run_tasks(lm, prompts, names)
    for old in output.glob("*.jsonl"):  # of an earlier list of tasks
        old.unlink()
    for name in names:
        write_jsonl(output / f"{name}.jsonl", rows[name])
    numbers |= {"lm_eval": version("lm_eval"), "settings": settings}
    write_json(output / "lm_eval.json", numbers)
    scored = sum(row["tokens"] for task in rows.values() for row in task)
    facts = {"device": device, "dtype": settings.get("dtype", "float32"), "batch_size": size}
    stage.write(output / "provenance.json", tokens=scored, **facts)


def models_tokenizer(folder: Path) -> Any:
    """The tokenizer saved beside a model, as the tokenizer stage wrote it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def main() -> None:
    """Runs every task on one model and writes its samples."""
    parser = argparse.ArgumentParser(prog="python -m atkd.evaluate", description=main.__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model folder with its tokenizer")
    parser.add_argument("--prompts", required=True, type=Path, help="folder of prompt files")
    parser.add_argument("--run", required=True, help="family/student/teacher/method/seed")
    keys = "tasks, context, batch_size, dtype, device"
    parser.add_argument("--settings", default="{}", help=f"JSON with any of {keys}")
    parser.add_argument("--output", required=True, type=Path, help="folder for the samples")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "LMEVAL_LOG_LEVEL": "ERROR"}
    settings = json.loads(args.settings)
    stage = Stage("evaluate", args.run, settings)
    with folder_lock(args.output):
        evaluate_folder(args.model, args.prompts, settings, args.output, stage)
    print(f"{args.output}: samples of {args.run}")


if __name__ == "__main__":
    cli(main)
