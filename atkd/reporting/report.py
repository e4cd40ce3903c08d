"""A run as one page, frozen, redrawn, summed up.

`python -m atkd report html --run results/world` writes `index.html`; `freeze` copies a finished
run's score files and provenance; `redraw` draws every table and figure from a frozen folder;
`summary` prints what finished, whether the controls are in order, and where the time went;
`samples` writes a page of what models answered.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import shutil
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from atkd.reporting import browser, costs, figures, score_tables, secondary_table
from atkd.reporting.webpage import frame
from atkd.runtime.files import InputError, atomic_path, read_json, sha256, write_json, write_text
from atkd.statistics import estimates

SCORE_FILES = ("scores.csv", "documents.csv.gz", "costs.csv")
COMMANDS = {
    "html": "write index.html, and samples.html where there are samples",
    "freeze": "copy a finished run's score files and provenance into a folder",
    "redraw": "draw every table, every figure and index.html from score files alone",
    "summary": "print what finished, whether the controls are in order, where the time went",
    "samples": "write a page of what models answered",
}
KEY_HELP = "family/student/teacher/method/seed, - for none (default: the first pair's models)"
MINIATURE = (
    "This is the paper's reproduction in miniature: tiny models, the embedded world's tasks. "
    "The paper's own models and data: snakemake --configfile config/paper.yaml "
    "(needs GPUs; with -n it only lists what it would run)."
)


def gather(run: Path, paths: Iterable[str | Path] = ()) -> dict[str, Any]:
    """One run's provenance from its jobs' records; each distinct value once, settings by hash.

    Without job records (a frozen folder) the folder's own provenance.json is returned.
    """
    found = sorted(set(map(Path, paths)) or {*run.glob("**/*provenance.json")})
    found = [path for path in found if path.resolve() != (run / "provenance.json").resolve()]
    if not found and (run / "provenance.json").is_file():
        return dict(read_json(run / "provenance.json"))
    jobs = [dict(read_json(path)) for path in found]
    merged: dict[str, Any] = {"jobs": len(jobs)}
    for key in ("commit", "machine", "device", "dtype", "seed"):
        merged[key + "s"] = sorted({str(job[key]) for job in jobs if job.get(key) is not None})
    pairs = {(k, str(v)) for job in jobs for k, v in job.get("versions", {}).items()}
    merged["versions"] = {k: sorted(v for n, v in pairs if n == k) for k in sorted({*dict(pairs)})}
    shown = ("stage", "run", "seed", "settings_hash")
    records = ({key: job.get(key) for key in shown} for job in jobs)
    merged["runs"] = sorted(records, key=lambda job: (str(job["stage"]), str(job["run"])))
    merged["settings"] = {
        str(job["settings_hash"]): job.get("settings") for job in jobs if "settings_hash" in job
    }
    return merged


def missing(run: Path) -> list[str]:
    """What keeps a run from being complete and consistent; empty when nothing does."""
    absent = [f"{name}: file not found" for name in SCORE_FILES if not (run / name).is_file()]
    if absent:
        return absent
    frame = estimates.read_csv(
        run / "scores.csv", [*estimates.KEYS, "seed", "task", "metric", "value"]
    )
    tasks, seeds = set(frame.task), sorted(set(frame.seed))
    cells = {tuple(cell) for cell in frame[estimates.KEYS].drop_duplicates().to_numpy()}
    students = {cell for cell in cells if cell[2] != "-" and cell[3] != "teacher"}
    wanted = {(f, s, t, m) for f, s, t, _ in students for *_, m in students}
    wanted |= {(f, s, "-", m) for f, s, *_ in students for m in ("none", "sft")}
    wanted |= {(f, "-", t, "teacher") for f, _, t, _ in students}
    out = [f"{'/'.join(cell)}: no scores" for cell in sorted(wanted - cells)]
    for key, part in frame.groupby([*estimates.KEYS, "seed"]):
        lack = sorted(tasks - set(part.task))
        out += [f"{'/'.join(map(str, key))}: task {lack[0]} has no score"] if lack else []
    for key, part in frame.groupby(estimates.KEYS):
        lack = sorted(set(seeds) - set(part.seed))
        out += [f"{'/'.join(key)}: seed {lack[0]} has no score"] if lack else []
    return out or _disagreements(run, frame)


def _disagreements(run: Path, frame: Any) -> list[str]:
    """Scores that the documents of their seed do not give (estimates share all seeds' ones)."""
    loaded = estimates.load(run / "scores.csv", run / "documents.csv.gz")
    found = {}
    for seed in sorted(set(frame.seed)):
        rows = {cell: {seed: of[seed]} for cell, of in loaded.rows.items() if seed in of}
        alone = dataclasses.replace(loaded, rows=rows)
        for row in estimates.estimates(alone, [(((cell,), ()), "cell") for cell in rows]):
            key = (*(row[k] for k in estimates.KEYS), str(seed), row["task"], row["metric"])
            found[key] = row["value"]
    out = []
    for row in frame[frame.metric.isin(loaded.metrics())].to_dict("records"):
        key = tuple(str(row[k]) for k in (*estimates.KEYS, "seed", "task", "metric"))
        other = found.get(key)
        if other is None or abs(other - row["value"]) > 0.01:
            value = row["value"]
            out.append(f"{'/'.join(key)}: scores.csv has {value}, its documents give {other}")
    return out


def freeze(run: Path, output: Path) -> None:
    """Copies a complete run's score files and provenance (no weights) into `output`."""
    lacks = missing(run)
    if lacks:
        more = f" (and {len(lacks) - 1} more)" if len(lacks) > 1 else ""
        raise InputError(f"{run}: not a complete run: {lacks[0]}{more}; expected a finished run")
    record = gather(run)
    for name in SCORE_FILES:
        with atomic_path(output / name) as part:
            shutil.copyfile(run / name, part)
    record["files"] = {name: sha256(output / name) for name in SCORE_FILES}
    write_json(output / "provenance.json", record)


def html_table(table: score_tables.Table) -> str:
    """A table as HTML, all text escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.heads)
    body, rule = [], ""
    for row in table.rows:
        if row is None:
            rule = ' class="rule"'
            continue
        body.append(f"<tr{rule}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
        rule = ""
    notes = "<br>".join(map(escape, table.notes))
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll">{grid}</div><p class="note">{notes}</p>'
    )


def html_figure(folder: Path, name: str) -> str:
    """A figure inline, its caption below it."""
    data = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
    text = escape((folder / f"{name}.txt").read_text(encoding="utf-8").strip())
    image = f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def html_provenance(record: dict[str, Any]) -> str:
    """Commit, versions and seeds at a glance; the settings folded away."""
    rows = [(k, ", ".join(map(str, record[k]))) for k in ("commits", "devices", "dtypes", "seeds")
            if record.get(k)]  # fmt: skip
    rows += [(name, ", ".join(found)) for name, found in record.get("versions", {}).items()]
    lines = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<p>{record.get('jobs', 0)} jobs left a record.</p><table>{lines}</table>"


def page(config: str, found: list[score_tables.Table], folder: Path, record: dict[str, Any]) -> str:
    """The whole page, self-contained."""
    by_name = {table.name: table for table in found}
    drawn = [name for name in ("scaling", "forest", "gains") if (folder / f"{name}.svg").is_file()]
    said = by_name["controls"].notes[0]
    bad = "" if said.startswith("Controls in order") else " bad"
    parts = [f"<h1>Knowledge distillation benchmark: {escape(config)}</h1>"]
    parts += [f'<p class="soft">{escape(MINIATURE)}</p>'] if estimates.is_world(config) else []
    parts += [f'<p class="verdict{bad}">{escape(said)}</p>']
    links = ("figures", "gains", "scores", "controls", "more", "costs", "provenance")
    answers = '<a href="samples.html">Answers</a>' * (folder.parent / "samples.html").is_file()
    anchors = "".join(f'<a href="#{n}">{n.capitalize()}</a>' for n in links)
    parts += [f"<nav>{anchors}{answers}</nav>"]
    groups: dict[str, list[str]] = {name: [] for name in links[1:-1]}
    for name in by_name:
        place = name if name in groups else "more"
        groups["scores" if name.startswith(("main_", "rouge_l_")) else place] += [name]
    parts += ['<h2 id="figures">Figures</h2>', *(html_figure(folder, name) for name in drawn)]
    for name, members in groups.items():
        parts += [f'<h2 id="{name}">{name.capitalize()}</h2>']
        parts += [html_table(by_name[member]) for member in members]
    parts += ['<h2 id="provenance">Provenance</h2>', html_provenance(record)]
    return frame(config, "\n".join(parts))


def html(run: Path, published: Path | None = None, jobs: Iterable[str] = ()) -> None:
    """Writes index.html and provenance.json from the score files and the run's figures.

    Also samples.html, linked from it, where there are samples (a frozen run has none).
    """
    if browser.runs(run):
        browser.write(run)
    found = score_tables.collect(**_files(run), published=published)[2]
    _index(run, [*found, *secondary_table.build(run / "scores.csv")], jobs)


def _files(run: Path) -> dict[str, Path]:
    return dict(zip(("scores", "documents", "costs"), (run / n for n in SCORE_FILES), strict=True))


def _index(run: Path, found: list[score_tables.Table], jobs: Iterable[str] = ()) -> None:
    record = gather(run, jobs)
    write_json(run / "provenance.json", record)
    config = str(estimates.read_csv(run / "scores.csv", ["config"]).config[0])
    write_text(run / "index.html", page(config, found, run / "figures", record))


def redraw(run: Path, published: Path | None = None) -> None:
    """Every table and figure, and index.html, from score files alone."""
    found = score_tables.draw(run / "tables", **_files(run), published=published)
    found += secondary_table.draw(run / "scores.csv", run / "tables")
    figures.draw(run / "tables", run / "figures")
    _index(run, found)
    print(f"drawn: {run / 'tables'}, {run / 'figures'}, {run / 'index.html'}")


def summary(run: Path) -> str:
    """What a run's last lines should tell."""
    frame = estimates.read_csv(run / "scores.csv", ["config", *estimates.KEYS, "seed", "task"])
    config, spent = (
        str(frame.config[0]),
        estimates.read_csv(run / "costs.csv", estimates.COST_COLUMNS),
    )
    runs = frame[[*estimates.KEYS, "seed"]].drop_duplicates()
    pairs = runs[(runs.student != "-") & (runs.teacher != "-")][
        estimates.KEYS[:3]
    ].drop_duplicates()
    split = costs.time_split(costs.phases(spent))
    total = sum(split.values()) or 1.0
    lines = [
        f"configuration {config}: {len(runs)} models scored, {len(pairs)} teacher-student pairs,"
    ]
    lines[0] += f" {frame.task.nunique()} tasks and averages, {runs.seed.nunique()} seed(s)"
    with contextlib.suppress(OSError):
        lines += [(run / "tables" / "controls.md").read_text(encoding="utf-8").split("\n\n")[-1]]
        lines[-1] = lines[-1].splitlines()[0].strip()
    lines += ["where the time went, in job seconds:"]
    lines += [f"  {name:<11}{s:>9,.0f}  {s / total:>4.0%}" for name, s in split.items()]
    lines += [f"see {run / 'index.html'}, {run / 'tables'}, {run / 'figures'}"]
    return "\n".join(lines + ([MINIATURE] if estimates.is_world(config) else []))


def samples(
    run: Path, task: Iterable[str], runs: Iterable[str], limit: int, output: Path | None
) -> None:
    """Writes the page of answers."""
    print(f"written: {browser.write(run, task, runs, limit, output)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m atkd report", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument(
            "--run", required=True, type=Path, help="results/<config>, or a frozen one"
        )
        if name == "freeze":
            one.add_argument("--output", required=True, type=Path, help="folder to freeze into")
        if name == "samples":
            one.add_argument("--task", nargs="+", default=(), help="tasks (default: all)")
            one.add_argument("--runs", nargs="+", default=(), metavar="KEY", help=KEY_HELP)
            one.add_argument("--limit", type=int, default=50, help="documents a task (default: 50)")
            one.add_argument("--output", type=Path, help="file (default: RUN/samples.html)")
        if name in ("html", "redraw"):
            one.add_argument("--published", type=Path, help="results/published.csv")
        if name == "html":
            one.add_argument("--jobs", nargs="*", default=(), help="jobs' provenance files")
    options = vars(parser.parse_args())
    done = globals()[options.pop("command")](**options)
    if done is not None:
        print(done)
