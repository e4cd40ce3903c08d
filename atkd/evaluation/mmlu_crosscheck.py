"""lm-eval's own MMLU on the local files, beside the paper's protocol on the same questions.

The two ask differently. The paper's (that of instruct-eval) drops shots until the prompt fits and
wants an answer that starts with the letter; lm-eval's gives all shots, cuts what does not fit from
the left, and takes the likeliest of " A" to " D", by its own splitting into ids.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atkd.evaluation import scores
from atkd.evaluation.settings import CrosscheckSettings
from atkd.models import checkpoints, tokenizers
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import InputError, read_json, read_jsonl, write_csv, write_json, write_jsonl
from atkd.tasks import TASKS

Row = dict[str, Any]
FIELDS = ("id", "split", "subject", "question", "choices", "answer")
OURS = ("prefix_match", "option_accuracy")
COLUMNS = ("run", "documents", *OURS, "builtin", "shots", "cut", "lm_eval")
DESCRIPTION = "The following are multiple choice questions (with answers) about {}.\n\n"


def write_tasks(rows: Iterable[Row], asked: set[str], shots: int, folder: Path) -> None:
    """lm-eval task files: its own YAML of every subject, pointed at JSON files of these rows.

    Of the test rows those whose id is `asked` are kept. A subject lm-eval does not know takes the
    template that all its subjects share.
    """
    import lm_eval

    shipped = Path(lm_eval.__file__).parent / "tasks/mmlu/default"
    subjects: dict[str, dict[str, list[Row]]] = defaultdict(lambda: {"dev": [], "test": []})
    for row in rows:
        if row["split"] == "dev" or row["id"] in asked:
            subjects[row["subject"]][row["split"]].append({name: row[name] for name in FIELDS})
    names = sorted(subject for subject, parts in subjects.items() if parts["test"])
    for subject in names:
        files = {split: str(folder / f"{subject}.{split}.jsonl") for split in ("dev", "test")}
        for split, path in files.items():
            write_jsonl(path, subjects[subject][split])
        own = shipped / f"mmlu_{subject}.yaml"
        task = {
            "include": str(own if own.is_file() else shipped / "_default_template_yaml"),
            "task": f"mmlu_{subject}",
            "dataset_path": "json",
            "dataset_name": None,
            "num_fewshot": shots,
            "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        }
        if not own.is_file():
            task["description"] = DESCRIPTION.format(subject.replace("_", " "))
        write_json(folder / f"mmlu_{subject}.yaml", task)  # JSON is YAML
    group = {
        "group": "mmlu",
        "task": [f"mmlu_{subject}" for subject in names],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    write_json(folder / "mmlu.yaml", group)


def builtin(model: Any, tokenizer: Any, tasks: Path, settings: CrosscheckSettings) -> Row:
    """Accuracy in percent of lm-eval's own MMLU, and how many prompts it had to cut."""
    import datasets
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # a line for every prompt it cuts
    context, size = settings.context, settings.batch_size
    options = {"backend": "causal", "max_length": context, "batch_size": size}
    lm = HFLM(pretrained=model, tokenizer=tokenizer, **options)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = evaluate(lm=lm, task_dict=manager.load(["mmlu"]), bootstrap_iters=0)
    rows = [row for samples in found["samples"].values() for row in samples]
    lengths = [len(lm.tok_encode(row["arguments"][0][0])) for row in rows]
    accuracy = 100 * found["groups"]["mmlu"]["acc,none"]
    cut = sum(length > context for length in lengths)
    return {"builtin": accuracy, "documents": len(rows), "cut": cut}


def compare(
    folder: Path, run: str, data: Path, documents: Path, settings: CrosscheckSettings
) -> Row:
    """One run's accuracies on the questions it was scored on, by both protocols."""
    rows = [row for row in scores.read_documents(documents) if row["task"] == "mmlu"]
    if not rows:
        raise InputError(f"{documents}: no rows of task mmlu, expected a run that was asked it")
    ours = {row["metric"]: row["value"] for row in scores.scores_of(rows)}
    with start_up():
        device = checkpoints.pick_device(settings.device)
        model = checkpoints.load(folder, device, settings.dtype)
        tokenizer = tokenizers.open_tokenizer({"folder": str(folder)}, run.split("/")[0])
    shots = settings.shots.get("mmlu", TASKS["mmlu"].shots)
    with tempfile.TemporaryDirectory() as scratch:
        asked = {row["document"] for row in rows}
        write_tasks(read_jsonl(data, FIELDS), asked, shots, Path(scratch))
        found = builtin(model, tokenizer, Path(scratch), settings)
    return {
        "run": run,
        **{name: ours.get(name) for name in OURS},
        **found,
        "shots": shots,
        "lm_eval": version("lm_eval"),
    }


def collect(paths: Iterable[Path], output: Path) -> None:
    """Writes a CSV with a row per run."""
    rows = sorted((read_json(path) for path in paths), key=lambda row: row["run"])
    for row, name in ((row, name) for row in rows for name in COLUMNS):
        row[name] = f"{row[name]:.6f}" if isinstance(row[name], float) else row[name]
    write_csv(output, COLUMNS, rows)


def main() -> None:
    """Asks one model lm-eval's own MMLU, or collects what was found for all runs."""
    parser = argparse.ArgumentParser(prog="python -m atkd crosscheck", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="one model -> crosscheck.json")
    one.add_argument("--model", required=True, type=Path, help="model folder with its tokenizer")
    one.add_argument("--run", required=True, help="family/student/teacher/method/seed")
    one.add_argument("--data", required=True, type=Path, help="data/tasks/mmlu.jsonl")
    one.add_argument("--documents", required=True, type=Path, help="the run's documents.csv.gz")
    one.add_argument("--settings", default="{}", help=CrosscheckSettings.about())
    one.add_argument("--output", required=True, type=Path, help="crosscheck.json to write")
    gather = commands.add_parser("collect", help="all runs -> one CSV")
    gather.add_argument(
        "--found", required=True, nargs="+", type=Path, help="crosscheck.json files"
    )
    gather.add_argument("--output", required=True, type=Path, help="CSV to write")
    args = parser.parse_args()
    if args.command == "collect":
        collect(args.found, args.output)
    else:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        settings = CrosscheckSettings.of(
            arithmetic.chosen(json_object("--settings", args.settings))
        )
        write_json(args.output, compare(args.model, args.run, args.data, args.documents, settings))
    print(args.output)
