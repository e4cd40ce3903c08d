"""Samples -> metrics per document -> scores. Needs the standard library alone."""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from atkd.evaluation import secondary
from atkd.runtime.files import InputError, open_text, read_json, read_jsonl, write_text

Row = dict[str, Any]
GENERATION = ("dolly", "selfinst", "vicuna", "koala", "wizardlm")
UNDERSTANDING = ("mmlu", "drop", "bbh")
AVERAGES = {
    "average": (*GENERATION, *UNDERSTANDING),
    "generation": GENERATION,
    "understanding": UNDERSTANDING,
}
OVER_GROUPS = ("bbh",)  # plain mean over groups, as instruct-eval does; all others over documents
DOCUMENT_COLUMNS = ("task", "document", "group", "metric", "value", "numerator", "denominator")
SCORE_COLUMNS = ("config", "family", "student", "teacher", "method", "seed", "task", "metric")
SCORE_COLUMNS += ("value", "n")
COSTS = ("wall_s", "cpu_s", "startup_s", "peak_memory_mb")
COST_COLUMNS = ("run", "stage", *COSTS, "tokens", "tokens_per_s", "steps")
JUDGE = "judge"  # stands in for ROUGE-L as a task's score wherever a judge ran
SAMPLE_FIELDS = ("id", "group", "target", "answer", "bits", "bytes")


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


def primary(task: str) -> str:
    """The task's own metric."""
    return "prefix_match" if task in UNDERSTANDING else "rouge_l"


def bits_per_byte(pairs: Iterable[tuple[float, float]]) -> float:
    """Sum of bits over sum of bytes, from pairs (bits, bytes) per document."""
    bits, size = (sum(values) for values in zip(*pairs, strict=True))
    return bits / size


def mean_score(task: str, values: Iterable[tuple[str, float]]) -> float:
    """Mean over documents of pairs (group, value); BBH: over the means of its groups."""
    groups: dict[str, list[float]] = defaultdict(list)
    for group, value in values:
        groups[group if task in OVER_GROUPS else ""].append(value)
    means = [sum(members) / len(members) for members in groups.values()]
    return sum(means) / len(means)


def score_samples(folder: Path, teachers: dict[str, Path] | None = None) -> list[Row]:
    """Document rows of every `<task>.jsonl` in a samples folder.

    `teachers` are samples folders of teachers, by name (`own`: the run's own), which decide what
    tokens of a reference are easy.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise InputError(f"{folder}: no samples found, expected <task>.jsonl files")
    made = []
    for path in paths:
        task, metric = path.stem, primary(path.stem)
        judge = {"prefix_match": prefix_match, "rouge_l": rouge_l}[metric]
        fields = (*SAMPLE_FIELDS, "token_bits") if teachers else SAMPLE_FIELDS
        samples = list(read_jsonl(path, fields))
        for row in samples:
            value = f"{judge(row['answer'], row['target']):.6f}"
            made.append(named(task, row) | {"metric": metric, "value": value})
            bits = {"numerator": f"{row['bits']:.6f}", "denominator": str(row["bytes"])}
            made.append(named(task, row) | {"metric": "bits_per_byte"} | bits)
        found = secondary_rows(path, samples, teachers or {})
        made += (named(task, row) | columns for row, columns in found)
    return made


def named(task: str, sample: Row) -> Row:
    """The columns that say what a document row is about."""
    return {"task": task, "document": sample["id"], "group": sample["group"]}


def secondary_rows(
    path: Path, samples: list[Row], teachers: dict[str, Path]
) -> Iterator[tuple[Row, Row]]:
    """(sample, columns) of all secondary metrics of a task."""
    if primary(path.stem) == "rouge_l":
        yield from secondary.answer_rows(samples, [words(row["answer"]) for row in samples])
    for row in samples:
        if "likelihoods" in row:
            yield from ((row, columns) for columns in secondary.choice_rows(row))
    fields = ("id", "token_bits")
    bits = {
        name: {row["id"]: row["token_bits"] for row in read_jsonl(other / path.name, fields)}
        for name, other in teachers.items()
    }
    yield from secondary.split_rows(samples, bits)


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """Writes rows atomically, LF line ends; columns a row lacks stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def document_rows(path: Path, columns: tuple[str, ...] = DOCUMENT_COLUMNS) -> Iterator[Row]:
    """Document rows, one by one; InputError if the file is damaged or has other columns."""
    try:
        with open_text(path) as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != columns:
                raise InputError(f"{path}: expected rows with columns {', '.join(columns)}")
            yield from reader
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def read_documents(path: Path, columns: tuple[str, ...] = DOCUMENT_COLUMNS) -> list[Row]:
    """All of a file's `document_rows`; InputError if there are none."""
    rows = list(document_rows(path, columns))
    if not rows:
        raise InputError(f"{path}: expected rows with columns {', '.join(columns)}")
    return rows


def task_score(task: str, metric: str, rows: list[Row]) -> Row:
    """One task's value of a metric: a mean over documents, or a ratio of sums."""
    if rows[0].get("value"):
        value = mean_score(task, ((row["group"], float(row["value"])) for row in rows))
    else:
        pairs = ((float(row["numerator"]), float(row["denominator"])) for row in rows)
        value = (100.0 if metric in (JUDGE, *secondary.PERCENT) else 1.0) * bits_per_byte(pairs)
    return {"task": task, "metric": metric, "value": value, "n": len(rows)}


def scores_of(rows: list[Row]) -> list[Row]:
    """Rows (task, metric, value, n) of one run: each task, and the averages whose tasks all ran."""
    by_task: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_task[row["task"]][row["metric"]].append(row)
    made, scores = [], {}
    for task, metrics in by_task.items():
        found = {name: task_score(task, name, members) for name, members in metrics.items()}
        made += [*found.values(), *secondary.derived(task, metrics, found)]
        own = JUDGE if JUDGE in found else primary(task)
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
    made = []
    for row in rows:
        moved = row["metric"] == JUDGE and row["task"] in tasks
        made.append(row | {"metric": "judge_exact"} if moved else row)
    return made + verdicts


def _check_judged(rows: list[Row]) -> None:
    ran: dict[str, dict[bool, str]] = defaultdict(dict)
    judges = {(row["run"], row["task"]) for row in rows if row["metric"] == JUDGE}
    for row in rows:
        ran[row["task"]][(row["run"], row["task"]) in judges] = row["run"]
    for task, runs in ran.items():
        if len(runs) > 1:
            raise InputError(
                f"{task}: a judge rated run {runs[True]} but not {runs[False]}, expected all or "
                "none: their scores would not be of one kind"
            )


def collect(config: str, results: Path, paths: list[Path], judge: Path | None = None) -> int:
    """Writes scores.csv, documents.csv.gz and costs.csv of all runs; returns their number.

    `judge` is a language model's documents.csv.gz, of all runs.
    """
    runs = {run_key(path, results): path for path in paths}
    verdicts: dict[str, list[Row]] = defaultdict(list)
    for row in read_documents(judge, ("run", *DOCUMENT_COLUMNS)) if judge else ():
        verdicts[row["run"]].append(row)
    documents: list[Row] = []
    scores: list[Row] = []
    for key, path in sorted(runs.items()):
        rows = judged(read_documents(path), verdicts["/".join(key)])
        documents += ({"run": "/".join(key)} | row for row in rows)
        names = dict(zip(SCORE_COLUMNS, (config, *key), strict=False))
        scores += (names | row | {"value": f"{row['value']:.6f}"} for row in scores_of(rows))
    _check_judged(documents)
    write_csv(results / "documents.csv.gz", ("run", *DOCUMENT_COLUMNS), documents)
    write_csv(results / "costs.csv", COST_COLUMNS, costs_of(results, ("/".join(k) for k in runs)))
    write_csv(results / "scores.csv", SCORE_COLUMNS, scores)
    return len(runs)


def main() -> None:
    """Scores samples per document, or collects the documents of all runs into score files."""
    parser = argparse.ArgumentParser(prog="python -m atkd score", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="samples of one run -> documents.csv.gz")
    score.add_argument("--samples", required=True, type=Path, help="folder of <task>.jsonl")
    score.add_argument(
        "--teachers", nargs="*", default=[], metavar="NAME=FOLDER",
        help="samples of teachers that decide which tokens are easy; own=FOLDER: the run's own",
    )  # fmt: skip
    score.add_argument("--output", required=True, type=Path, help="documents.csv.gz to write")
    gather = commands.add_parser("collect", help="all runs -> scores, documents and costs")
    gather.add_argument("--config", required=True, help="name of the configuration")
    gather.add_argument(
        "--results", required=True, type=Path, help="folder with runs/, to write to"
    )
    gather.add_argument("--documents", required=True, nargs="+", type=Path, help="runs' files")
    gather.add_argument("--judge", type=Path, help="documents.csv.gz of a language model's ratings")
    args = parser.parse_args()
    if args.command == "score":
        pairs = (text.partition("=") for text in args.teachers)
        rows = score_samples(args.samples, {name: Path(folder) for name, _, folder in pairs})
        write_csv(args.output, DOCUMENT_COLUMNS, rows)
        print(f"{args.output}: {len(rows)} rows")
    else:
        count = collect(args.config, args.results, args.documents, args.judge)
        print(f"{args.results / 'scores.csv'}: {count} runs")
