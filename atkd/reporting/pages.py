"""A run's pages: figures and tables, what models answered, and what they say at every token.

Each is one file. All that comes from data is escaped, and a page's policy lets it load nothing and
run its own script alone. They work without JavaScript; with it one can choose a task and models,
search, and sort answers by the difference of two models' scores.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atkd.evaluation.metrics import JUDGE, METRICS, UNREAD
from atkd.evaluation.scores import DOCUMENT_COLUMNS, Row, document_rows, judged, read_documents
from atkd.methods import title_of
from atkd.reporting import registry
from atkd.reporting.table import Table, arrow, read
from atkd.runtime.files import InputError, read_json, read_jsonl, write_text
from atkd.statistics.estimates import (
    RECORD,
    RunRecord,
    read_record,
    sort_key,
    task_label,
)
from atkd.tasks import TASKS

TEMPLATES = Path(__file__).parent / "templates"
UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Of the page, in order.
SECTIONS = (
    "claims", "figures", "gains", "scores", "studies", "probes", "controls", "more", "costs",
)  # fmt: skip
EXPLORED = "analyses/explorer.json"
METHODS = ("teacher", "none", "sft", "supervised_kd", "supervised_kd_atkd")  # shown by default
SHOWN = 500  # characters of a prompt, from its end, where a few-shot prompt has its question
FIELDS = ("id", "prompt", "target", "answer")
# Metrics at an answer's head; the others are folded.
FIRST = (JUDGE, "judge_exact", "rouge_l", "prefix_match", "bits_per_byte", "judge_order", UNREAD)
MINIATURE = (
    "This is the paper's reproduction in miniature: tiny models, the embedded world's tasks. "
    "The paper's own models and data: snakemake --configfile config/paper.yaml "
    "(needs GPUs; with -n it only lists what it would run)."
)


def printable(value: Any) -> Any:
    """A value as a page shows it: control characters and surrogates become U+FFFD."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return UNFIT.sub("\ufffd", value) if plain else value


def render(template: str, script: str = "", **values: Any) -> str:
    """A template filled in, all values escaped; `script` is the only one that may run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    own = {"policy": Markup(policy), "script": Markup(script), "line_break": Markup("<br>")}
    return environment.get_template(template).render(**own, **values)


# The run on one page.


def index(record: RunRecord, folder: Path, provenance: Mapping[str, Any]) -> str:
    """The page of a run whose tables and figures lie under `folder`; InputError if none do."""
    tables = {table.name: table for table in _tables(record, folder / "tables")}
    if "controls" not in tables:
        where = folder / "tables/controls.json"
        raise InputError(f"{where}: file not found; expected the tables of the stage tables")
    said = tables["controls"].notes[0]
    return render(
        "index.html",
        title=record.config,
        remark=MINIATURE if record.world else "",
        verdict=said,
        in_order=said.startswith("Controls in order"),
        answers=(folder / "samples.html").is_file(),
        tokens=(folder / "explorer.html").is_file(),
        sections=_sections(record, folder, tables),
        provenance=_facts(provenance),
    )


def _tables(record: RunRecord, folder: Path) -> list[Table]:
    names = [name for entry in registry.tables() for name in entry.families(record)]
    return [read(path) for name in names if (path := folder / f"{name}.json").is_file()]


def _sections(
    record: RunRecord, folder: Path, tables: Mapping[str, Table]
) -> dict[str, dict[str, list[Any]]]:
    """Section -> its figures and tables, in the registry's order."""
    found: dict[str, dict[str, list[Any]]] = {
        name: {"figures": [], "tables": []} for name in SECTIONS
    }
    for entry in registry.figures():
        for name in entry.families(record) if entry.section else ():
            if (folder / "figures" / f"{name}.svg").is_file():
                members = found.setdefault(entry.section, {"figures": [], "tables": []})
                members["figures"].append(_picture(folder / "figures", name))
    for entry in registry.tables():
        members = found.setdefault(entry.section, {"figures": [], "tables": []})
        members["tables"] += [tables[name] for name in entry.families(record) if name in tables]
    return found


def _picture(folder: Path, name: str) -> dict[str, str]:
    return {
        "name": name,
        "data": base64.b64encode((folder / f"{name}.svg").read_bytes()).decode(),
        "caption": (folder / f"{name}.txt").read_text(encoding="utf-8").strip(),
    }


def _facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Commit, versions and seeds at a glance."""
    names = ("commits", "devices", "dtypes", "seeds")
    facts = {name: provenance[name] for name in names if provenance.get(name)}
    facts |= provenance.get("versions", {})
    texts = {name: ", ".join(map(str, found)) for name, found in facts.items()}
    return {"jobs": provenance.get("jobs", 0), "facts": texts}


# What was measured of each document.

Measured = dict[str, float]  # metric -> value
Tasks = dict[str, dict[str, Measured]]  # task -> document -> metric -> value


def primary(task: str, scores: Measured, rated: bool) -> float | None:
    """The value that counts as a document's score; none where it has no value of that kind.

    `rated`: whether a judge rates the task's answers, see `is_rated`.
    """
    own = TASKS[task].metric if task in TASKS else ""
    return scores.get(JUDGE if rated else own)


def is_rated(found: Iterable[Mapping[str, Measured]]) -> bool:
    """Whether a judge rated any of several models' answers to one task, if only in vain."""
    documents = (scores for several in found for scores in several.values())
    return any(JUDGE in scores or UNREAD in scores for scores in documents)


def measured(folder: Path, runs: Iterable[str]) -> dict[str, Tasks]:
    """Run -> its documents' metrics, judges' ratings in percent, from results/<config>.

    From documents.csv.gz of all runs, which has a language model's ratings; for a run that it lacks
    from the run's own file and judge/documents.csv.gz. InputError names a missing or broken file.
    """
    wanted = list(runs)
    whole = folder / "documents.csv.gz"
    merged, rated = (_by_run(path, wanted) for path in (whole, folder / "judge" / whole.name))
    found = {}
    for run in wanted:
        path, rows = whole, merged.get(run)
        if rows is None:
            path = folder / "runs" / run / whole.name
            rows = judged([*read_documents(path), *_exact(path)], rated.get(run, []))
        found[run] = _by_task(path, rows)
    return found


def _exact(path: Path) -> Iterable[Row]:
    """The exact judge's rows of a run, where it wrote a file of its own beside the documents."""
    own = path.with_name("judge_documents.csv.gz")
    return document_rows(own) if own.is_file() else ()


def _by_run(path: Path, runs: list[str]) -> dict[str, list[Row]]:
    """The rows of these runs in a file of all, if there is one."""
    found: dict[str, list[Row]] = defaultdict(list)
    columns = ("run", *DOCUMENT_COLUMNS)
    for row in document_rows(path, columns) if path.is_file() else ():
        if row["run"] in runs:
            found[row["run"]].append(row)
    return dict(found)


def _by_task(path: Path, rows: Iterable[Row]) -> Tasks:
    found: Tasks = {}
    try:
        for row in rows:
            document = found.setdefault(row["task"], {}).setdefault(row["document"], {})
            document[row["metric"]] = _value(row)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: expected numbers as values ({error})") from None
    return found


def _value(row: Row) -> float:
    if row["value"]:
        return float(row["value"])
    ratio = float(row["numerator"]) / float(row["denominator"])
    return 100 * ratio if row["metric"] == JUDGE else ratio


# What models answered.


class Answers(NamedTuple):
    """One model's answers to one task: samples by document, and each document's metrics."""

    samples: dict[str, dict[str, Any]]
    scores: dict[str, Measured]


def runs(folder: Path) -> list[str]:
    """Run keys with samples under results/<config>, in the tables' order."""
    found = {path.parent.parent for path in folder.glob("runs/*/*/*/*/*/samples/*.jsonl")}
    keys = [path.relative_to(folder / "runs").parts for path in found]
    return ["/".join(key) for key in sorted(keys, key=lambda key: (sort_key(key[:4]), key[4]))]


def default_runs(found: list[str]) -> list[str]:
    """The first pair's models of the `METHODS`, one seed; without a pair the first runs."""
    keys = [tuple(run.split("/")) for run in found]
    pairs = [key for key in keys if "-" not in key[1:3]]
    if not pairs:
        return found[: len(METHODS)]
    family, student, teacher, _, seed = pairs[0]
    wanted = {"teacher": ("-", teacher), "none": (student, "-"), "sft": (student, "-")}
    cells = ((family, *wanted.get(m, (student, teacher)), m, seed) for m in METHODS)
    return ["/".join(cell) for cell in cells if cell in keys] or found[: len(METHODS)]


def answers_of(folder: Path, keys: list[str], tasks: list[str]) -> dict[str, list[Answers]]:
    """Task -> every model's answers."""
    found: dict[str, list[Answers]] = {task: [] for task in tasks}
    for key, scores in measured(folder, keys).items():
        for task in tasks:
            path = folder / "runs" / key / "samples" / f"{task}.jsonl"
            rows = read_jsonl(path, FIELDS) if path.exists() else ()
            found[task].append(Answers({str(row["id"]): row for row in rows}, scores.get(task, {})))
    return found


def spoken(metric: str) -> str:
    """A metric's name in words: `bits_per_byte_easy@1.3b` is of tokens easy for that teacher."""
    name, _, teacher = metric.partition("@")
    whose = f" for {teacher}" if teacher else ""
    return (METRICS[name].words if name in METRICS else name.replace("_", " ")) + whose


def number(value: float) -> str:
    """Three digits; a rating of ten times the reference's has four."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _model(run: str) -> dict[str, str]:
    """How a run is headed: its method, and the models it is about."""
    *cell, seed = run.split("/")
    return {"run": run, "method": title_of(cell[3]), "pair": arrow(tuple(cell)), "seed": seed}


def _answer(
    task: str, answers: Answers, document: str, prompt: str, rated: bool
) -> dict[str, Any] | None:
    """One model's answer to one document; none where it was not asked."""
    sample, scores = answers.samples.get(document), answers.scores.get(document, {})
    if sample is None:
        return None
    lead = [JUDGE, *([TASKS[task].metric] if task in TASKS else [])]
    order = sorted(scores, key=lambda name: lead.index(name) if name in lead else len(lead))
    return {
        "score": primary(task, scores, rated),
        "text": sample["answer"],
        "first": _listed(scores, [name for name in order if name in FIRST]),
        "more": _listed(scores, [name for name in order if name not in FIRST]),
        "own_prompt": "" if sample["prompt"] == prompt else sample["prompt"],
    }


def _listed(scores: Measured, names: list[str]) -> str:
    return " · ".join(f"{spoken(name)} {number(scores[name])}" for name in names)


def _document(task: str, found: list[Answers], name: str) -> dict[str, Any]:
    """One document: prompt, reference, every model's answer."""
    sample = next(a.samples[name] for a in found if name in a.samples)
    prompt, rated = sample["prompt"], is_rated(answers.scores for answers in found)
    return {
        "name": name,
        "group": str(sample.get("group") or ""),
        "prompt": prompt,
        "asked": prompt[-SHOWN:],
        "cut": len(prompt) > SHOWN,
        "target": sample["target"],
        "answers": [_answer(task, answers, name, prompt, rated) for answers in found],
    }


def _section(task: str, title: str, found: list[Answers], limit: int) -> dict[str, Any]:
    """One task: the documents shown, and each model's mean score over all it answered."""
    names = list(dict.fromkeys(name for answers in found for name in answers.samples))
    rated = is_rated(answers.scores for answers in found)
    return {
        "task": task,
        "title": title,
        "count": len(names),
        "means": [_mean(task, answers, rated) for answers in found],
        "documents": [_document(task, found, name) for name in names[:limit]],
    }


def _mean(task: str, answers: Answers, rated: bool) -> str:
    scores = [primary(task, answers.scores.get(name, {}), rated) for name in answers.samples]
    values = [score for score in scores if score is not None]
    return f"{sum(values) / len(values):.1f}" if values else "no score"


def samples(
    folder: Path,
    tasks: Iterable[str] = (),
    keys: Iterable[str] = (),
    limit: int = 50,
    output: Path | None = None,
) -> Path:
    """Writes the page of results/<config> (default: samples.html in it) and returns its path.

    InputError names a task or run without samples, and what there is.
    """
    chosen, wanted = _chosen(folder, list(keys), list(tasks))
    if limit < 1:
        raise InputError(f"--limit: found {limit}, expected a number of documents, 1 or more")
    found = answers_of(folder, chosen, wanted)
    record = folder / RECORD
    world = record.is_file() and read_record(record).world
    name = folder.resolve().name
    page = render(
        "samples.html",
        script=(TEMPLATES / "samples.js").read_text(encoding="utf-8"),
        title=f"Answers: {name}",
        name=name,
        models=[_model(key) for key in chosen],
        sections=[_section(t, task_label(t, world), found[t], limit) for t in wanted],
        ellipsis="\N{HORIZONTAL ELLIPSIS}",
    )
    target = output or folder / "samples.html"
    write_text(target, page)
    return target


def _chosen(folder: Path, keys: list[str], tasks: list[str]) -> tuple[list[str], list[str]]:
    """The runs and tasks to show; InputError for one without samples."""
    known = runs(folder)
    chosen = list(dict.fromkeys(keys)) or default_runs(known)
    lacks = [key for key in chosen if key not in known]
    if lacks or not chosen:
        lack = f"run {lacks[0]!r}" if lacks else f"{folder}/runs"
        raise InputError(f"{lack}: no samples found; expected one of {', '.join(known) or 'none'}")
    paths = [path for key in chosen for path in (folder / "runs" / key / "samples").glob("*.jsonl")]
    there = sorted({path.stem for path in paths}, key=task_order)
    wanted = list(dict.fromkeys(tasks)) or there
    lacks = [task for task in wanted if task not in there]
    if lacks:
        raise InputError(f"task {lacks[0]!r}: no samples found; expected one of {', '.join(there)}")
    return chosen, wanted


def task_order(task: str) -> tuple[int, str]:
    """The tables' order of tasks, others last."""
    known = list(TASKS)
    return known.index(task) if task in known else len(known), task


# What models say at every token.


def explorer(folder: Path) -> Path:
    """Writes explorer.html of results/<config> from what was looked into; returns its path."""
    found = read_json(folder / EXPLORED)
    documents, name = found["documents"], folder.resolve().name
    page = render(
        "explorer.html",
        script=(TEMPLATES / "explorer.js").read_text(encoding="utf-8"),
        title=f"Tokens: {name}",
        name=name,
        models=[_named(_model(key)) for key in found["runs"]],
        truth=any(token["truth"] for document in documents for token in document["tokens"]),
        documents=documents,
    )
    write_text(folder / "explorer.html", page)
    return folder / "explorer.html"


def _named(model: Mapping[str, Any]) -> str:
    return f"{model['method']} ({model['pair']}, seed {model['seed']})"
