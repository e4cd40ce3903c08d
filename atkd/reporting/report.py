"""A run as one page, frozen, redrawn, summed up.

`python -m atkd report html --run results/world` writes `index.html`; `freeze` copies a finished
run's score files and provenance; `redraw` draws every table and figure from a frozen folder;
`summary` prints what finished, whether the controls are in order, and where the time went;
`samples` writes a page of what models answered.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.evaluation.scores import COST_COLUMNS, SCORE_COLUMNS
from atkd.reporting import diagnostics, figures, freezing, pages, score_tables
from atkd.reporting.inputs import run_in
from atkd.reporting.table import read
from atkd.runtime.files import read_json, write_json, write_text
from atkd.statistics import estimates
from atkd.statistics.estimates import KEYS, RECORD
from atkd.statistics.reproduction import reproduction, told

if TYPE_CHECKING:
    import pandas as pd

KEY_HELP = "family/student/teacher/method/seed, - for none (default: the first pair's models)"


# Provenance.


def gather(run: Path, paths: Iterable[str | Path] = ()) -> dict[str, Any]:
    """One run's provenance from its jobs' records; each distinct value once, settings by hash.

    Without job records (a frozen folder) the folder's own provenance.json is returned.
    """
    own = run / "provenance.json"
    found = sorted(set(map(Path, paths)) or {*run.glob("**/*provenance.json")})
    found = [path for path in found if path.resolve() != own.resolve()]
    if not found and own.is_file():
        return dict(read_json(own))
    jobs = [dict(read_json(path)) for path in found]
    shown = ("stage", "run", "seed", "settings_hash")
    records = ({key: job.get(key) for key in shown} for job in jobs)
    return {
        "jobs": len(jobs),
        **{f"{key}s": _distinct(jobs, key) for key in ("commit", "machine", "device", "dtype")},
        "seeds": _distinct(jobs, "seed"),
        "versions": _versions(jobs),
        "runs": sorted(records, key=lambda job: (str(job["stage"]), str(job["run"]))),
        "settings": {
            str(job["settings_hash"]): job.get("settings") for job in jobs if "settings_hash" in job
        },
    }


def _distinct(jobs: list[dict[str, Any]], key: str) -> list[str]:
    return sorted({str(job[key]) for job in jobs if job.get(key) is not None})


def _versions(jobs: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for job in jobs:
        for name, version in job.get("versions", {}).items():
            found.setdefault(name, set()).add(str(version))
    return {name: sorted(found[name]) for name in sorted(found)}


# The commands.


def freeze(run: Path, output: Path) -> None:
    """Copies a finished run's score files into `output`."""
    freezing.freeze(run, output, gather(run))


def html(run: Path, jobs: Iterable[str] = (), published: Path | None = None) -> None:
    """Writes index.html and provenance.json from the run's tables and figures.

    Also samples.html, linked from it, where there are samples (a frozen run has none), and
    explorer.html where tokens were looked into. `published` is in the tables already.
    """
    if pages.runs(run):
        pages.samples(run)
    if (run / pages.EXPLORED).is_file():
        pages.explorer(run)
    provenance = gather(run, jobs)
    page = pages.index(estimates.read_record(run / RECORD), run, provenance)
    write_json(run / "provenance.json", provenance)
    write_text(run / "index.html", page)


def redraw(run: Path, published: Path | None = None) -> str:
    """Every table and figure, and index.html, from score files alone."""
    score_tables.draw(run_in(run, published), run / "tables")
    figures.draw(run / "tables", run / "figures")
    html(run)
    return f"drawn: {run / 'tables'}, {run / 'figures'}, {run / 'index.html'}"


def summary(run: Path, reference: Path | None = None) -> str:
    """What a run's last lines should tell; scores are held against a frozen run if one is given."""
    record = estimates.read_record(run / RECORD)
    frame = estimates.read_csv(run / "scores.csv", SCORE_COLUMNS)
    runs = frame[[*KEYS, "seed"]].drop_duplicates()
    taught = runs[(runs.student != "-") & (runs.teacher != "-")]
    pairs = taught[["family", "student", "teacher"]].drop_duplicates()
    spent = estimates.read_csv(run / "costs.csv", COST_COLUMNS)
    split = diagnostics.time_split(diagnostics.phases(spent))
    total = sum(split.values()) or 1.0
    controls = run / "tables" / "controls.json"
    lines = [
        f"configuration {record.config}: {len(runs)} models scored, {len(pairs)} teacher-student "
        f"pairs, {frame.task.nunique()} tasks and averages, {runs.seed.nunique()} seed(s)",
        *([read(controls).notes[0]] if controls.is_file() else []),
        *([repeats(frame, reference)] if reference and reference != run else []),
        "where the time went, in job seconds:",
        *(f"  {name:<11}{s:>9,.0f}  {s / total:>4.0%}" for name, s in split.items()),
        f"see {run / 'index.html'}, {run / 'tables'}, {run / 'figures'}",
        *([pages.MINIATURE] if record.world else []),
    ]
    return "\n".join(lines)


def repeats(scores: pd.DataFrame, reference: Path) -> str:
    """Whether scores repeat a frozen run's."""
    other = estimates.read_csv(reference / "scores.csv", SCORE_COLUMNS)
    return told(reproduction(scores, other), str(reference))


def samples(
    run: Path, task: Iterable[str], runs: Iterable[str], limit: int, output: Path | None
) -> str:
    """Writes the page of answers."""
    return f"written: {pages.samples(run, task, runs, limit, output)}"


class Command(NamedTuple):
    """A command: what it does, and its options beside --run, as argparse takes them."""

    about: str
    run: Callable[..., str | None]
    options: Mapping[str, Mapping[str, Any]]


PUBLISHED = {"--published": {"type": Path, "help": "results/published.csv"}}
COMMANDS = {
    "html": Command(
        "write index.html, and samples.html where there are samples",
        html,
        {
            "--published": {"type": Path, "help": argparse.SUPPRESS},
            "--jobs": {"nargs": "*", "default": (), "help": "jobs' provenance files"},
        },
    ),
    "freeze": Command(
        "copy a finished run's score files and provenance into a folder",
        freeze,
        {"--output": {"required": True, "type": Path, "help": "folder to freeze into"}},
    ),
    "redraw": Command(
        "draw every table, every figure and index.html from score files alone", redraw, PUBLISHED
    ),
    "summary": Command(
        "print what finished, whether the controls are in order, where the time went",
        summary,
        {"--reference": {"type": Path, "help": "frozen run to compare the scores with"}},
    ),
    "samples": Command(
        "write a page of what models answered",
        samples,
        {
            "--task": {"nargs": "+", "default": (), "help": "tasks (default: all)"},
            "--runs": {"nargs": "+", "default": (), "metavar": "KEY", "help": KEY_HELP},
            "--limit": {"type": int, "default": 50, "help": "documents a task (default: 50)"},
            "--output": {"type": Path, "help": "file (default: RUN/samples.html)"},
        },
    ),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd report", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.about, description=command.about)
        one.add_argument(
            "--run", required=True, type=Path, help="results/<config>, or a frozen one"
        )
        for option, settings in command.options.items():
            one.add_argument(option, **settings)
    options = vars(parser.parse_args())
    said = COMMANDS[options.pop("command")].run(**options)
    if said is not None:
        print(said)
