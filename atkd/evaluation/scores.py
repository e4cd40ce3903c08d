"""Samples -> metrics per document -> scores. Needs the standard library alone."""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from atkd.evaluation.metrics import (
    EASY,
    HARD,
    JUDGE,
    METRICS,
    UNREAD,
    WHOLE,
    Bits,
    Metric,
    Rater,
    Ratio,
    Value,
    aggregate,
    calibration_error,
    metric_row,
    rater,
    score_metric,
)
from atkd.runtime.cli import json_object
from atkd.runtime.files import (
    InputError,
    naming,
    open_text,
    read_json,
    read_jsonl,
    reading,
    write_csv,
    write_json,
)
from atkd.tasks import AVERAGES, TASKS, open_ended, row_of

Row = dict[str, Any]
Column = list[Value | None]  # a metric's value of each sample
DOCUMENT_COLUMNS = ("task", "document", "group", "metric", "value", "numerator", "denominator")
RUN_COLUMNS = ("config", "family", "student", "teacher", "method", "seed")
SCORE_COLUMNS = (*RUN_COLUMNS, "task", "metric", "value", "n")
COSTS = ("wall_s", "cpu_s", "startup_s", "peak_memory_mb")
COST_COLUMNS = ("run", "stage", *COSTS, "tokens", "tokens_per_s", "steps")
EXACT = "judge_exact"  # the exact judge's rating beside a language model's
RATERS = {"model": "the language model", "exact": "the exact judge"}
SAMPLE_FIELDS = ("id", "group", "target", "answer", "bits", "bytes")
RECORD_FIELDS = ("config", "source", "judge", "runs")


def score_samples(folder: Path, teachers: Mapping[str, Path] | None = None) -> list[Row]:
    """Document rows of every `<task>.jsonl` in a samples folder.

    `teachers` are samples folders of teachers, by name (`own`: the run's own), which decide what
    tokens of a reference are easy.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise InputError(f"{folder}: no samples found, expected <task>.jsonl files")
    fields = (*SAMPLE_FIELDS, "token_bits") if teachers else SAMPLE_FIELDS
    made: list[Row] = []
    for path in paths:
        row_of(path.stem, path)
        samples = list(read_jsonl(path, fields))
        bits = {
            name: teacher_bits(name, other / path.name, samples)
            for name, other in (teachers or {}).items()
        }
        made += documents_of(path.stem, samples, bits)
    return made


def teacher_bits(name: str, path: Path, samples: Iterable[Row]) -> Bits:
    """Bits per token of a teacher's references; InputError if it lacks one of the samples."""
    bits = {row["id"]: row["token_bits"] for row in read_jsonl(path, ("id", "token_bits"))}
    for row in samples:
        if row["id"] not in bits:
            raise InputError(f"teacher {name}: no sample {row['id']!r}; samples of other data?")
    return bits


def documents_of(task: str, samples: Sequence[Row], teachers: Mapping[str, Bits]) -> Iterator[Row]:
    """Document rows of one task's samples: every metric that `METRICS` has of them."""
    columns = columns_of(task, samples, teachers)
    for _, part in groupby(columns, key=lambda column: column[0]):
        members = list(part)
        for place, sample in enumerate(samples):
            names = {"task": task, "document": sample["id"], "group": sample["group"]}
            for _, metric, column in members:
                value = column[place]
                if value is not None:
                    yield names | {"metric": metric} | texts(metric, value)


def columns_of(
    task: str, samples: Sequence[Row], teachers: Mapping[str, Bits]
) -> Iterator[tuple[str, str, Column]]:
    """(part, metric, values) of every metric that a task's samples have."""
    for name, row in METRICS.items():
        if not has(task, name, row):
            continue
        if row.of is not None:
            column = [row.of(s) if all(f in s for f in row.needs) else None for s in samples]
            yield row.part or name, name, column
        if row.of_all is not None:
            yield name, name, list(row.of_all(samples))
        if row.of_teacher is not None:
            for teacher, bits in teachers.items():
                metric = name if teacher == "own" else f"{name}@{teacher}"
                yield metric, metric, list(row.of_teacher(samples, bits))


def has(task: str, name: str, row: Metric) -> bool:
    """Whether a task has a metric."""
    return {
        "all": True,
        "own": TASKS[task].metric == name,
        "open": open_ended(task),
    }[row.tasks]


def texts(metric: str, value: Value) -> Row:
    """The columns that hold a value."""
    decimals = metric_row(metric).decimals

    def shown(number: float) -> str:
        return f"{number:.{decimals}f}" if isinstance(number, float) else str(number)

    if isinstance(value, Ratio):
        return {"numerator": shown(value.numerator), "denominator": str(value.denominator)}
    return {"value": shown(value)}


def document_rows(path: Path, columns: tuple[str, ...] = DOCUMENT_COLUMNS) -> Iterator[Row]:
    """Document rows, one by one; InputError if the file is damaged or has other columns."""
    try:
        with reading(path), open_text(path) as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != columns:
                raise InputError(f"{path}: expected rows with columns {', '.join(columns)}")
            yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def read_documents(path: Path, columns: tuple[str, ...] = DOCUMENT_COLUMNS) -> list[Row]:
    """All of a file's `document_rows`; InputError if there are none."""
    rows = list(document_rows(path, columns))
    if not rows:
        raise InputError(f"{path}: expected rows with columns {', '.join(columns)}")
    return rows


def value_of(row: Row) -> Value:
    """The value that a document row holds."""
    if row.get("value"):
        return float(row["value"])
    return Ratio(float(row["numerator"]), float(row["denominator"]))


def task_score(task: str, metric: str, rows: list[Row]) -> Row:
    """One task's score row of a metric."""
    value = aggregate(task, metric, [(row["group"], value_of(row)) for row in rows])
    if not math.isfinite(value):
        raise InputError(f"{task}: {metric} is {value} over its documents; expected a number")
    return {"task": task, "metric": metric, "value": value, "n": len(rows)}


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


def scores_of(rows: list[Row], by: Rater = "") -> list[Row]:
    """Rows (task, metric, value, n) of one run: each task, and the averages whose tasks all ran.

    `by`: who rates open-ended answers, so that the rating is their score. It is over the documents
    that have one; n says how many.
    """
    by_task: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_task[row["task"]][row["metric"]].append(row)
    made, scores = [], {}
    for task, metrics in by_task.items():
        found = {name: task_score(task, name, members) for name, members in metrics.items()}
        made += [*found.values(), *derived(task, metrics, found)]
        own = score_metric(task, by)
        if own in found:
            scores[task] = found[own] | {"metric": "score"}
    for name, tasks in AVERAGES.items():
        if all(task in scores for task in tasks):
            value = sum(scores[task]["value"] for task in tasks) / len(tasks)
            n = sum(scores[task]["n"] for task in tasks)
            made.append({"task": name, "metric": "score", "value": value, "n": n})
    return sorted([*made, *scores.values()], key=lambda row: (row["task"], row["metric"]))


def run_key(path: Path, results: Path) -> tuple[str, ...]:
    """(family, student, teacher, method, seed) from `<results>/runs/<run key>/documents.csv.gz`."""
    try:
        parts = path.resolve().relative_to(results.resolve() / "runs").parent.parts
    except ValueError:
        raise InputError(f"{path}: expected a file under {results / 'runs'}") from None
    if len(parts) != 5 or not parts[4].isdigit():
        raise InputError(f"{path}: expected runs/family/student/teacher/method/seed/{path.name}")
    return parts


def costs_of(results: Path, runs: Iterable[str]) -> list[Row]:
    """Cost rows from the provenance files of models, their texts and caches, and the given runs."""
    wanted, made = set(runs), []
    for folder in ("models", "text", "cache", "students", "runs"):
        for path in sorted((results / folder).rglob("*provenance.json")):
            record = read_json(path)
            if folder in ("students", "runs") and record["run"] not in wanted:
                continue
            cost = {name: record["cost"].get(name, "") for name in (*COSTS, "tokens_per_s")}
            facts = {name: record.get(name, "") for name in ("run", "stage", "tokens", "steps")}
            made.append(facts | cost)
    return sorted(made, key=lambda row: (row["run"], row["stage"]))


def judged(rows: list[Row], verdicts: list[Row]) -> list[Row]:
    """One run's documents with a language model's; the exact judge's become `judge_exact`."""
    tasks = {row["task"] for row in verdicts}
    moved = [
        row | {"metric": EXACT} if row["metric"] == JUDGE and row["task"] in tasks else row
        for row in rows
    ]
    return moved + verdicts


def check_rated(run: str, rows: Iterable[Row], by: Rater) -> None:
    """InputError naming run and task unless their open-ended answers were rated by `by` alone.

    Every document needs its rating, or a word that a language model's replies were unreadable; a
    task needs a rating at least. A task's score could else be of another kind than the record says.
    """
    answered, rated, silent = (defaultdict[str, set[str]](set) for _ in range(3))
    for row in rows:
        task, metric, document = row["task"], row["metric"], row["document"]
        model = not row.get("value")
        if metric == JUDGE and model != (by == "model"):
            found = RATERS["model" if model else "exact"]
            wanted = f"ratings of {RATERS[by]}" if by else "no ratings"
            raise InputError(f"run {run}, task {task}: found {found}'s rating, expected {wanted}")
        kept = {JUDGE: rated, UNREAD: silent}.get(metric, answered)
        if open_ended(task) and metric != EXACT:
            kept[task].add(document)
    for task in sorted({*answered, *rated, *silent}) if by else ():
        known, place = rated[task] | silent[task], f"run {run}, task {task}: {RATERS[by]}"
        if not rated[task]:
            raise InputError(f"{place} rated no answer, expected one at least: it has no score")
        for document in sorted(answered[task] ^ known):
            lack = "did not rate" if document in answered[task] else "rated unknown"
            raise InputError(f"{place} {lack} document {document!r}; rate this run's answers anew")


def checked_record(record: Row) -> Row:
    """What `run.json` says of a run; InputError unless it has the `RECORD_FIELDS`."""
    for name in RECORD_FIELDS:
        if name not in record:
            known = ", ".join(RECORD_FIELDS)
            raise InputError(f"--record: key {name!r} is missing; expected {known}")
    for name, kind in (("config", str), ("source", str), ("judge", bool)):
        if not isinstance(record[name], kind):
            what = {str: "a name", bool: "true or false"}[kind]
            raise InputError(f"--record: {name}: found {record[name]!r}; expected {what}")
    return record


def all_documents(
    results: Path, paths: Iterable[Path], exact: Iterable[Path] = (), judge: Path | None = None
) -> dict[str, list[Row]]:
    """Run -> its document rows: its own, then its exact judge's, then a language model's.

    `judge` is a language model's documents.csv.gz, of all runs.
    """
    found = {run_key(path, results): path for path in paths}
    rated = {run_key(path, results): path for path in exact}
    for key in rated.keys() - found.keys():
        raise InputError(f"{rated[key]}: no documents of run {'/'.join(key)}; expected its own too")
    verdicts: dict[str, list[Row]] = defaultdict(list)
    for row in document_rows(judge, ("run", *DOCUMENT_COLUMNS)) if judge else ():
        verdicts[row["run"]].append(row)
    return {
        "/".join(key): judged(
            [*read_documents(path), *(document_rows(rated[key]) if key in rated else ())],
            verdicts["/".join(key)],
        )
        for key, path in sorted(found.items())
    }


def score_rows(config: str, run: str, rows: list[Row], by: Rater) -> Iterator[Row]:
    """One run's rows of scores.csv; InputError names the run."""
    names = dict(zip(RUN_COLUMNS, (config, *run.split("/")), strict=True))
    with naming(run):
        found = scores_of(rows, by)
    for row in found:
        yield names | row | {"value": f"{row['value']:.6f}"}


def collect(
    record: Row,
    results: Path,
    paths: Iterable[Path],
    exact: Iterable[Path] = (),
    judge: Path | None = None,
) -> int:
    """Writes scores.csv, documents.csv.gz, costs.csv, run.json of all runs; returns their number.

    `record` is what run.json says; the files are those of `all_documents`.
    """
    config = checked_record(record)["config"]
    runs = all_documents(results, paths, exact, judge)
    by = rater(record["source"], record["judge"])
    for run, rows in runs.items():
        check_rated(run, rows, by)
    documents = [{"run": run} | row for run, rows in runs.items() for row in rows]
    scores = [row for run, rows in runs.items() for row in score_rows(config, run, rows, by)]
    write_csv(results / "documents.csv.gz", ("run", *DOCUMENT_COLUMNS), documents)
    write_csv(results / "costs.csv", COST_COLUMNS, costs_of(results, runs))
    write_json(results / "run.json", record)
    write_csv(results / "scores.csv", SCORE_COLUMNS, scores)
    return len(runs)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd score", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="samples of one run -> documents.csv.gz")
    score.add_argument("--samples", required=True, type=Path, help="folder of <task>.jsonl")
    score.add_argument(
        "--teachers", nargs="*", default=[], metavar="NAME=FOLDER",
        help="samples of teachers that decide which tokens are easy; own=FOLDER: the run's own",
    )  # fmt: skip
    score.add_argument("--output", required=True, type=Path, help="documents.csv.gz to write")
    gather = commands.add_parser("collect", help="all runs -> scores, documents, costs, run.json")
    gather.add_argument(
        "--record", required=True, help=f"JSON for run.json: {', '.join(RECORD_FIELDS)}"
    )
    gather.add_argument(
        "--results", required=True, type=Path, help="folder with runs/, to write to"
    )
    gather.add_argument("--documents", required=True, nargs="+", type=Path, help="runs' files")
    gather.add_argument(
        "--exact", nargs="*", default=[], type=Path, metavar="FILE",
        help="judge_documents.csv.gz of the runs that an exact judge rated",
    )  # fmt: skip
    gather.add_argument("--judge", type=Path, help="documents.csv.gz of a language model's ratings")
    return parser.parse_args()


def main() -> None:
    """Scores samples per document, or collects the documents of all runs into score files."""
    args = parse()
    if args.command == "score":
        pairs = (text.partition("=") for text in args.teachers)
        rows = score_samples(args.samples, {name: Path(folder) for name, _, folder in pairs})
        write_csv(args.output, DOCUMENT_COLUMNS, rows)
        print(f"{args.output}: {len(rows)} rows")
    else:
        record = json_object("--record", args.record)
        count = collect(record, args.results, args.documents, args.exact, args.judge)
        print(f"{args.results / 'scores.csv'}: {count} runs")
