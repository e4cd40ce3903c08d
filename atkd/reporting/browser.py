"""A page to read what models answered: prompt, reference and answers side by side, with scores.

Works without JavaScript; with it one can choose a task and models, search, and sort by the
difference of two models' scores. All that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from atkd.reporting.measured import Measured, measured, primary
from atkd.reporting.table import arrow
from atkd.reporting.webpage import clean, frame
from atkd.runtime.files import InputError, read_jsonl, write_text
from atkd.statistics.estimates import PRIMARY, TASKS, label, sort_key, task_label

METHODS = ("teacher", "none", "sft", "supervised_kd", "supervised_kd_atkd")
SHOWN = 500  # characters of a prompt, from its end, where a few-shot prompt has its question
FIELDS = ("id", "prompt", "target", "answer")
NAMES = {"judge": "judge", "judge_exact": "exact judge", "rouge_l": "ROUGE-L"}
NAMES |= {"prefix_match": "prefix match", "bits_per_byte": "bits per byte"}
NAMES |= {"judge_order": "judge's order effect", "judge_unparsable": "% of replies unreadable"}


class Answers(NamedTuple):
    """One model's answers to one task: samples by document, and each document's metrics."""

    run: str
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


def read(folder: Path, keys: list[str], tasks: list[str]) -> dict[str, list[Answers]]:
    """Task -> every model's answers."""
    found: dict[str, list[Answers]] = {task: [] for task in tasks}
    for key, scores in measured(folder, keys).items():
        for task in tasks:
            path = folder / "runs" / key / "samples" / f"{task}.jsonl"
            rows = (
                {str(row["id"]): row for row in read_jsonl(path, FIELDS)} if path.exists() else {}
            )
            found[task].append(Answers(key, rows, scores.get(task, {})))
    return found


def cell(place: int, answers: Answers, document: str, prompt: str) -> str:
    """One model's answer to one document."""
    sample, scores = answers.samples.get(document), answers.scores.get(document, {})
    if sample is None:
        return f'<div class="answer" data-model="{place}"><p class="soft">not asked</p></div>'
    score = primary(scores)
    known = "" if score is None else f' data-score="{score:.6f}"'
    bar = "" if score is None else f'<meter min="0" max="100" value="{score:.1f}"></meter>'
    own = "" if sample["prompt"] == prompt else folded("its own prompt", sample["prompt"])
    order = sorted(scores, key=lambda name: PRIMARY.index(name) if name in PRIMARY else 99)
    first, more = (
        " · ".join(f"{clean(spoken(name))} {number(scores[name])}" for name in some)
        for some in ([n for n in order if n in NAMES], [n for n in order if n not in NAMES])
    )
    more = more and f'<details class="scores"><summary>more</summary>{more}</details>'
    return (
        f'<div class="answer" data-model="{place}"{known}><h4>{names(answers.run)}</h4>{bar}'
        f'<p class="scores">{first}</p><p class="text" dir="auto">{clean(sample["answer"])}</p>'
        f"{more}{own}</div>"
    )


def spoken(metric: str) -> str:
    """A metric's name in words: `bits_per_byte_easy@1.3b` is of tokens easy for that teacher."""
    name, _, teacher = metric.partition("@")
    whose = f" for {teacher}" if teacher else ""
    return NAMES.get(name, name.replace("_", " ")) + whose


def number(value: float) -> str:
    """Three digits; a rating of ten times the reference's has four."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def names(run: str) -> str:
    """How a run is headed: its method, and the models it is about."""
    *key, seed = run.split("/")
    return f"{clean(label(key[3]))} <small>{clean(arrow(tuple(key)))}, seed {clean(seed)}</small>"


def folded(title: str, text: str) -> str:
    """Text behind a title that opens it."""
    return (
        f'<details><summary>{title}</summary><p class="text" dir="auto">{clean(text)}</p></details>'
    )


def article(found: list[Answers], document: str) -> str:
    """One document: prompt, reference, every model's answer."""
    sample = next(a.samples[document] for a in found if document in a.samples)
    prompt, group = sample["prompt"], str(sample.get("group") or "")
    whole = folded(f"all {len(prompt)} characters", prompt) if len(prompt) > SHOWN else ""
    asked = "\N{HORIZONTAL ELLIPSIS}" * bool(whole) + prompt[-SHOWN:]
    cells = "".join(cell(place, a, document, prompt) for place, a in enumerate(found))
    title = f"{clean(document)} <small>{clean(group)}</small>"
    asked, reference = (
        f'<p class="text" dir="auto">{clean(text)}</p>' for text in (asked, sample["target"])
    )
    return (
        f'<article><h3>{title}</h3><div class="asked"><div><h4>Prompt</h4>{asked}{whole}</div>'
        f"<div><h4>Reference</h4>{reference}</div></div>"
        f'<div class="answers">{cells}</div></article>'
    )


def section(task: str, title: str, found: list[Answers], limit: int) -> str:
    """One task: how many documents are shown, and each model's mean score over all it answered."""
    documents = list(dict.fromkeys(name for a in found for name in a.samples))
    means = []
    for answers in found:
        scores = [primary(answers.scores.get(name, {})) for name in answers.samples]
        values = [score for score in scores if score is not None]
        mean = f"{sum(values) / len(values):.1f}" if values else "no score"
        means.append(f"{names(answers.run)}: {mean}")
    shown = documents[:limit]
    about = f"{len(shown)} of {len(documents)} documents. Mean score over all of them, documents "
    about += f"weighing the same: {'; '.join(means)}."
    body = "".join(article(found, document) for document in shown)
    head = f'<h2 id="{clean(task)}">{clean(title)}</h2><p class="soft">{about}</p>'
    return f'<section data-task="{clean(task)}">{head}{body}</section>'


def controls(keys: list[str], tasks: dict[str, str]) -> str:
    """The bar that the script turns on."""
    models = [clean(f"{label(key.split('/')[3])} ({key})") for key in keys]
    boxes = "".join(f'<label><input type="checkbox" value="{i}" checked> {name}</label>'
                    for i, name in enumerate(models))  # fmt: skip
    options = "".join(f'<option value="{clean(t)}">{clean(n)}</option>' for t, n in tasks.items())
    sides = ["".join(f'<option value="{i}"{" selected" * (i == chosen)}>{name}</option>'
                     for i, name in enumerate(models))
             for chosen in (len(keys) - 1, max(len(keys) - 2, 0))]  # fmt: skip
    return (
        f'<form id="bar" hidden><label>Task <select id="task">{options}'
        '<option value="">all</option></select></label>'
        '<label>Search <input type="search" id="find"></label>'
        '<label>Order <select id="order"><option value="">as asked</option>'
        '<option value="1">first model better first</option>'
        '<option value="-1">second model better first</option></select></label>'
        f'<label>First <select id="first">{sides[0]}</select></label>'
        f'<label>Second <select id="second">{sides[1]}</select></label>'
        f"<fieldset>{boxes}</fieldset><output></output></form>"
    )


def page(title: str, found: dict[str, list[Answers]], limit: int) -> str:
    """The whole page, self-contained."""
    tasks = {task: task_label(task, title) for task in found}
    keys = [answers.run for answers in next(iter(found.values()))]
    links = "".join(f'<a href="#{clean(t)}">{clean(name)}</a>' for t, name in tasks.items())
    parts = [f"<h1>Answers: {clean(title)}</h1>", f'<p class="soft">{ABOUT}</p>']
    parts += [f"<nav>{links}</nav>", controls(keys, tasks)]
    parts += [section(task, tasks[task], found[task], limit) for task in found]
    return frame(f"Answers: {title}", "\n".join(parts), STYLE, SCRIPT)


def write(
    folder: Path,
    tasks: Iterable[str] = (),
    keys: Iterable[str] = (),
    limit: int = 50,
    output: Path | None = None,
) -> Path:
    """Writes the page of results/<config> (default: samples.html in it) and returns its path.

    InputError names a task or run without samples, and what there is.
    """
    known = runs(folder)
    chosen = list(dict.fromkeys(keys)) or default_runs(known)
    lacks = [key for key in chosen if key not in known]
    if lacks or not chosen:
        lack = f"run {lacks[0]!r}" if lacks else f"{folder}/runs"
        raise InputError(f"{lack}: no samples found; expected one of {', '.join(known) or 'none'}")
    paths = [
        p for key in chosen for p in sorted((folder / "runs" / key / "samples").glob("*.jsonl"))
    ]
    there = sorted({path.stem for path in paths}, key=task_order)
    wanted = list(dict.fromkeys(tasks)) or there
    lacks = [task for task in wanted if task not in there]
    if lacks:
        raise InputError(f"task {lacks[0]!r}: no samples found; expected one of {', '.join(there)}")
    if limit < 1:
        raise InputError(f"--limit: found {limit}, expected a number of documents, 1 or more")
    target = output or folder / "samples.html"
    write_text(target, page(folder.resolve().name, read(folder, chosen, wanted), limit))
    return target


def task_order(task: str) -> tuple[int, str]:
    """The tables' order of tasks, others last."""
    known = list(TASKS)
    return known.index(task) if task in known else len(known), task


ABOUT = (
    "What models answered, beside the reference. The first number is the document's score in "
    "percent: for free answers the judge's rating where one ran (an exact judge's of ten points, a "
    "language model's of its rating of the reference), else ROUGE-L F, the share of words in "
    "common and in order; for choices and short answers prefix match, 100 if the answer begins "
    "with the reference. Bits per byte is what the reference costs the model: lower is better."
)
STYLE = """
body{max-width:110rem}small{color:var(--soft);font-weight:400}h4{margin:0 0 .2rem;font-size:.86rem}
.answer small{display:block}nav a{display:inline-block}
article{border:1px solid var(--line);border-radius:6px;margin:1rem 0;padding:.8rem 1rem;
content-visibility:auto;contain-intrinsic-size:auto 18rem}article h3{margin:0 0 .5rem}
.text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:.2rem 0;
max-width:none;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace}
.answer .text{max-height:16rem;overflow:auto}details.scores summary{font-size:12px}
.text:empty::before{content:"(empty)";color:var(--soft)}summary{cursor:pointer;font-size:.86rem}
.asked{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1rem}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.6rem;
margin-top:.8rem}.answer{background:var(--tint);border-radius:4px;padding:.5rem .7rem}
.scores{font:12px/1.3 ui-sans-serif,system-ui,sans-serif;color:var(--soft);margin:.1rem 0 .4rem}
h2{scroll-margin-top:9rem}meter{width:100%;height:.5rem}[hidden]{display:none!important}
#bar{position:sticky;top:0;z-index:1;background:var(--paper);border-bottom:1px solid var(--line);
padding:.6rem 0;display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center;
font:13px/1.6 ui-sans-serif,system-ui,sans-serif}#bar fieldset{border:0;padding:0;margin:0;
display:flex;flex-wrap:wrap;gap:0 1rem}#bar select{max-width:14rem}
"""
SCRIPT = """
"use strict";
const get = id => document.getElementById(id), bar = get("bar");
const articles = [...document.querySelectorAll("article")];
articles.forEach((a, i) => { a.place = i; a.words = a.textContent.toLowerCase(); });
const score = (a, m) => {
  const found = a.querySelector(`[data-model="${m}"]`);
  return found && found.dataset.score !== undefined ? Number(found.dataset.score) : NaN;
};
const gap = a => score(a, get("first").value) - score(a, get("second").value);
function sort() {
  const way = Number(get("order").value);
  const key = a => { const g = way * gap(a); return Number.isNaN(g) ? -Infinity : g; };
  const order = way ? (a, b) => key(b) - key(a) || a.place - b.place : (a, b) => a.place - b.place;
  for (const s of document.querySelectorAll("section"))
    s.append(...[...s.querySelectorAll("article")].sort(order));
}
function show() {
  const task = get("task").value, words = get("find").value.toLowerCase();
  const on = new Set([...bar.querySelectorAll("input:checked")].map(box => box.value));
  for (const s of document.querySelectorAll("section")) s.hidden = task && s.dataset.task !== task;
  for (const a of articles) a.hidden = !a.words.includes(words);
  for (const d of document.querySelectorAll("[data-model]")) d.hidden = !on.has(d.dataset.model);
  const seen = articles.filter(a => !a.hidden && !a.closest("section").hidden).length;
  bar.querySelector("output").textContent = seen + " documents shown";
}
bar.addEventListener("input", e => {
  if (["order", "first", "second"].includes(e.target.id)) sort();
  show();
});
bar.addEventListener("submit", e => e.preventDefault());
addEventListener("hashchange", () => {
  const task = decodeURIComponent(location.hash.slice(1));
  if ([...get("task").options].some(o => o.value === task)) { get("task").value = task; show(); }
});
if (location.hash) dispatchEvent(new Event("hashchange"));
bar.hidden = false;
show();
"""
