"""Documents per second of the harness's evaluation, beside a bare `generate` loop.

`python benchmarks/evaluation.py` takes a model of a finished run and its family's prompt files, and
writes evaluation.md. All but the last figure are CPU seconds in one process, the least of several
rounds taken in turns: same model, prompts, batch size, batches by length.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atkd.evaluation import evaluate  # noqa: E402
from atkd.models import checkpoints, tokenizers  # noqa: E402
from atkd.models.generation import padded  # noqa: E402
from atkd.runtime.cli import run as cli  # noqa: E402
from atkd.runtime.files import read_jsonl, write_text  # noqa: E402
from atkd.tasks import AVERAGES  # noqa: E402

PACKAGES = ("torch", "transformers", "lm_eval")


def folders(results: Path, run: str) -> tuple[Path, Path]:
    """Model and prompt files of a run key."""
    family, student, teacher, method, seed = run.split("/")
    model = results / "students" / family / student / teacher / method / f"seed{seed}"
    if method in ("teacher", "none"):
        size, kind = (teacher, "teacher") if method == "teacher" else (student, "base")
        model = results / "models" / family / size / f"seed{seed}" / kind
    return model, results / "prompts" / family


def bare(model: Any, tokenizer: Any, prompts: Path, tasks: list[str], size: int) -> None:
    """The least anyone would write: batches by length, `generate`, decode."""
    import torch

    for task in tasks:
        rows = list(read_jsonl(prompts / f"{task}.jsonl"))
        ids = tokenizers.encode_prompts(tokenizer, [row["prompt"] for row in rows])
        ids.sort(key=len, reverse=True)
        for start in range(0, len(ids), size):
            part, mask = padded(ids[start : start + size], tokenizer.pad_token_id, left=True)
            options = {"do_sample": False, "max_new_tokens": rows[0]["max_new_tokens"]}
            with torch.inference_mode():
                made = model.generate(
                    input_ids=part,
                    attention_mask=mask,
                    pad_token_id=tokenizer.pad_token_id,
                    **options,
                )
            tokenizer.batch_decode(made[:, part.shape[1] :], skip_special_tokens=True)


def answers(lm: Any, prompts: Path, tasks: list[str]) -> None:
    """The tasks through lm-eval, without the bits of the references."""
    from lm_eval.evaluator import evaluate as run

    made = evaluate.build_tasks(prompts, tasks, lm.tokenizer.eos_token)
    run(lm=lm, task_dict={name: task for name, task in made.items() if name in tasks})


def least(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """CPU seconds of each call, the least of `rounds`, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            found[name].append(time.process_time() - begin)
    return {name: min(seconds) for name, seconds in found.items()}


def whole_job(model: Path, prompts: Path, settings: dict[str, Any], rounds: int) -> list[float]:
    """User and system seconds of the evaluation's own command, start-up included."""
    command = [sys.executable, "-m", "atkd", "evaluate", "--model", str(model.resolve())]
    command += ["--prompts", str(prompts.resolve()), "--run", "a/b/c/d/1"]
    command += ["--settings", json.dumps(settings)]
    found = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as output:
            subprocess.run(
                [*command, "--output", output], cwd=ROOT, check=True, capture_output=True
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return found


def machine() -> str:
    """Processor, cores and threads used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores, 1 thread used"


def report(model: Path, prompts: Path, command: str, rounds: int, settings: dict[str, Any]) -> str:
    """The text of evaluation.md."""
    loaded, tokenizer = checkpoints.load(model), evaluate.models_tokenizer(model)
    size, tasks = settings["batch_size"], list(AVERAGES["generation"])
    lm = evaluate.language_model(loaded, tokenizer, settings["context"], size)
    calls: dict[str, Callable[[], Any]] = {
        "bare `generate`": lambda: bare(loaded, tokenizer, prompts, tasks, size),
        "answers, through lm-eval": lambda: answers(lm, prompts, tasks),
        "answers, bits, samples": lambda: evaluate.run_tasks(lm, prompts, tasks),
    }
    checkpoints.set_up(1)
    seconds = least(calls, rounds)
    count = sum(sum(1 for _ in read_jsonl(prompts / f"{task}.jsonl")) for task in tasks)
    floor = seconds["bare `generate`"]
    lines = [
        f"| {name} | {count / spent:,.0f} | {spent:.2f} | {spent / floor - 1:+.0%} |"
        for name, spent in seconds.items()
    ]
    job = whole_job(model, prompts, settings | {"tasks": list(AVERAGES["average"])}, rounds)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    shown = ", ".join(f"{spent:.2f}" for spent in job)
    weights = sum(part.numel() for part in loaded.parameters())
    return f"""# Evaluation speed

Written by `{command}` on {machine()}; Python {platform.python_version()}, {versions}.

{weights:,} parameters, float32, {count} documents of the five generation sets, batch {size};
CPU seconds, the least of {rounds} rounds taken in turns.

| | Documents/s | CPU s | Over bare |
| :-- | --: | --: | --: |
{chr(10).join(lines)}

`generate` keeps every row of a batch until the last one ends; the harness drops a row at its end of
text, and takes the entropy of every step. Bits of the references are one more pass over each text.

**One model over all eight sets, start-up included** (a workflow's job, but one that imports for
itself): least of {rounds}: **{min(job):.2f} CPU s** ({shown}).
"""


def main() -> None:
    """Measures and writes evaluation.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results/world", help="finished run")
    parser.add_argument("--run", default="opt/125m/-/sft/1", help="run key of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--context", type=int, default=192)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    settings = {"batch_size": args.batch_size, "context": args.context}
    command = f"python benchmarks/evaluation.py --run {args.run} --rounds {args.rounds}"
    text = report(*folders(args.results, args.run), command, args.rounds, settings)
    write_text(args.output, text)
    print(text)


if __name__ == "__main__":
    cli(main)
