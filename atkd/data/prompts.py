"""Prompt files: the exact text each model is asked, per task and family, with the protocol's shots.

Generation tasks use the one training template. MMLU, DROP and BBH use the plain few-shot text of
instruct-eval (declare-lab), which the paper ran: shots are dropped one by one until the prompt and
the longest answer fit the context.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atkd.data.template import CUE, template
from atkd.models import tokenizers
from atkd.runtime.files import InputError, folder_lock, read_jsonl, sha256, write_json, write_jsonl
from atkd.runtime.provenance import Stage

Row = dict[str, Any]
LETTERS = ("A", "B", "C", "D")
FIELDS = {
    "mmlu": ("id", "split", "subject", "question", "choices", "answer"),
    "drop": ("id", "passage", "question", "answers"),
    "bbh": ("id", "task", "input", "target"),
}
GENERATION_FIELDS = ("id", "instruction", "input", "output")
SHOTS = {"mmlu": 5, "drop": 3, "bbh": 3}
MAX_NEW_TOKENS = {"generation": 256, "mmlu": 2, "drop": 8, "bbh": 32}
SETTINGS = ("tasks", "template", "context", "shots", "max_new_tokens", "limit", "seed")
SETTINGS += ("batch_size", "dtype")


@dataclass(frozen=True)
class Item:
    """One question before it is fitted to a context: `text` is the last part of the prompt."""

    id: str
    group: str
    text: str
    target: str
    header: str = ""
    shots: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def prompt(self, shots: int) -> str:
        """The prompt with the first `shots` shots."""
        return self.header + "".join(self.shots[:shots]) + self.text


def generation_items(rows: list[Row], released: bool = False) -> list[Item]:
    """Open-ended tasks: the template, no shots; grouped by skill where rows have one."""
    made = []
    for row in rows:
        text = template(row["instruction"], row["input"], released)
        made.append(Item(row["id"], row.get("skill", ""), text, row["output"]))
    return made


def mmlu_items(rows: list[Row], shots: int) -> list[Item]:
    """The first `shots` dev questions of a subject, then each of its test questions."""
    dev = defaultdict(list)
    for row in rows:
        if row["split"] == "dev":
            dev[row["subject"]].append(f"{_question(row)} {LETTERS[row['answer']]}\n\n")
    made = []
    for row in rows:
        if row["split"] == "test":
            subject = row["subject"]
            spaced = subject.replace("_", " ")
            # two blanks before the subject, as in instruct-eval
            header = "The following are multiple choice questions (with answers) about "
            header += f" {spaced}.\n\n"
            given, target = tuple(dev[subject][:shots]), LETTERS[row["answer"]]
            made.append(Item(row["id"], subject, _question(row), target, header, given, LETTERS))
    return made


def _question(row: Row) -> str:
    options = "".join(
        f"\n{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=True)
    )
    return f"{row['question']}{options}\nAnswer:"


def drop_items(rows: list[Row], shots: int) -> list[Item]:
    """Questions with one distinct answer; shots drawn with seed 0, their passages left out."""
    single = [row for row in rows if len(set(row["answers"])) == 1]
    if len(single) <= shots:
        raise InputError(
            f"drop: {len(single)} rows have one distinct answer, expected more than {shots}"
        )
    drawn = random.Random(0).sample(single, shots)
    given = tuple(f"{_passage(row)} {row['answers'][0]}\n\n" for row in drawn)
    seen = {row["passage"] for row in drawn}
    return [
        Item(row["id"], "", _passage(row), row["answers"][0], shots=given)
        for row in single
        if row["passage"] not in seen
    ]


def _passage(row: Row) -> str:
    return f"{row['passage'].strip()} {row['question'].strip()}\nAnswer:"


def bbh_items(rows: list[Row], shots: int) -> list[Item]:
    """The first `shots` rows of each subtask are its shots, the rest its test."""
    subtasks = defaultdict(list)
    for row in rows:
        subtasks[row["task"]].append(row)
    made = []
    for name, members in subtasks.items():
        given = tuple(f"{row['input']}\nAnswer: {row['target']}\n\n" for row in members[:shots])
        made += [
            Item(row["id"], name, f"{row['input']}\nAnswer:", row["target"], shots=given)
            for row in members[shots:]
        ]
    return made


BUILDERS: dict[str, Callable[[list[Row], int], list[Item]]] = {
    "mmlu": mmlu_items,
    "drop": drop_items,
    "bbh": bbh_items,
}


def chosen(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """A seeded draw of `limit` items, spread evenly over groups, in their first order."""
    if limit is None or limit >= len(items):
        return items
    groups = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.group].append(index)
    ranked = []
    for name, members in groups.items():
        random.Random(f"{seed} {name}").shuffle(members)
        ranked += [(rank, name, index) for rank, index in enumerate(members)]
    # an order of its own for groups, or the first names would win the last round
    names = sorted(groups)
    random.Random(f"{seed} groups").shuffle(names)
    order = {name: rank for rank, name in enumerate(names)}
    ranked.sort(key=lambda entry: (entry[0], order[entry[1]]))
    return [items[index] for index in sorted(index for _, _, index in ranked[:limit])]


class Fitter:
    """Fits items to a context of `context` tokens, prompt and answer together, and counts."""

    def __init__(self, tokenizer: Any, context: int, max_new_tokens: int, plain: bool) -> None:
        self.tokenizer, self.context, self.plain = tokenizer, context, plain
        self.max_new_tokens, self.budget = max_new_tokens, context - max_new_tokens
        if self.budget < 1:
            wanted = f"expected more than max_new_tokens = {max_new_tokens}"
            raise InputError(f"evaluation.context: found {context}, {wanted}")
        self.counts = {"documents": 0, "with_fewer_shots": 0, "shots_dropped": 0}
        self.counts |= {"prompts_cut": 0, "references_cut": 0, "longest_prompt": 0}

    def length(self, text: str) -> int:
        """Tokens of a prompt, BOS included."""
        return len(tokenizers.encode_prompt(self.tokenizer, text))

    def record(self, item: Item) -> Row:
        """The row of a prompt file."""
        shots = len(item.shots)
        while (length := self.length(item.prompt(shots))) > self.budget and shots > 0:
            shots -= 1
        prompt = item.prompt(shots)
        if length > self.budget:
            prompt = self._cut(prompt)
            length = self.length(prompt)
            self.counts["prompts_cut"] += 1
        self._count(item, shots, length)
        made = {"id": item.id, "prompt": prompt, "target": item.target}
        made |= {"options": list(item.options)} if item.options else {}
        response, size = self._response(item.target, self.context - length)
        made |= {"group": item.group, "shots": shots, "tokens": length}
        made |= {"max_new_tokens": self.max_new_tokens, "response": response, "bytes": size}
        return made

    def _count(self, item: Item, shots: int, length: int) -> None:
        self.counts["documents"] += 1
        self.counts["with_fewer_shots"] += shots < len(item.shots)
        self.counts["shots_dropped"] += len(item.shots) - shots
        self.counts["longest_prompt"] = max(length, self.counts["longest_prompt"])

    def _cut(self, prompt: str) -> str:
        """The prompt without the end of its request (template) or the start of its passage."""
        if self.plain:
            whole = len(prompt)
            size = _largest(whole, lambda n: self.length(prompt[whole - n :]) <= self.budget)
            return prompt[whole - size :]
        body = prompt.removesuffix(CUE)
        size = _largest(len(body), lambda n: self.length(body[:n] + CUE) <= self.budget)
        return body[:size] + CUE

    def _response(self, target: str, room: int) -> tuple[str, int]:
        """What bits per byte score: the reference (cut where the context ends), and its bytes.

        After "Answer:" a blank leads where the tokenizer does not mark words itself; it is not
        counted in the bytes, so that families divide by the same number.
        """
        lead = tokenizers.answer_lead(self.tokenizer) if self.plain else ""

        def fits(size: int) -> bool:
            ids = tokenizers.encode_response(self.tokenizer, lead + target[:size], eos=False)
            return len(ids) <= room

        size = len(target)
        if not fits(size):
            size = _largest(size, fits)
            self.counts["references_cut"] += 1
        return lead + target[:size], len(target[:size].encode())


def _largest(upper: int, fits: Callable[[int], bool]) -> int:
    """The largest number of characters in 0..upper that fits (bisection)."""
    low = 0
    while low < upper:
        middle = (low + upper + 1) // 2
        low, upper = (middle, upper) if fits(middle) else (low, middle - 1)
    return low


def build(task: str, rows: list[Row], tokenizer: Any, settings: Row) -> tuple[list[Row], Row]:
    """Prompt rows of one task, and counts of what was dropped, cut or left out."""
    plain = task in BUILDERS
    shots = (SHOTS | settings.get("shots", {})).get(task, 0)
    released = settings.get("template") == "released"
    items = BUILDERS[task](rows, shots) if plain else generation_items(rows, released)
    limit = (settings.get("limit") or {}).get(task)
    if limit is not None and limit < 1:
        raise InputError(f"evaluation.limit.{task}: found {limit}, expected at least 1")
    longest = MAX_NEW_TOKENS | settings.get("max_new_tokens", {})
    new_tokens = longest.get(task, longest["generation"])
    fitter = Fitter(tokenizer, settings.get("context", 2048), new_tokens, plain)
    made = [fitter.record(item) for item in chosen(items, limit, settings.get("seed", 1))]
    _check(task, made)
    return made, {"rows": len(rows), "items": len(items)} | fitter.counts


def _check(task: str, rows: list[Row]) -> None:
    if not rows:
        raise InputError(f"{task}: no items left after the shots, expected at least one")
    counts = Counter(row["id"] for row in rows)
    for row in rows:
        if counts[row["id"]] > 1:
            raise InputError(f"{task}: id {row['id']!r} occurs twice, expected unique ids")
        if row["bytes"] == 0:
            raise InputError(f"{task}: item {row['id']!r} leaves no room for its reference")


def main() -> None:
    """Writes one prompt file per task, and summary.json with what was dropped or cut."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(prog="python -m atkd prompts", description=main.__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder written by atkd.data")
    parser.add_argument("--tokenizer", required=True, type=Path, help="its folder")
    parser.add_argument("--family", help="opt, pythia or llama (default: the folder's name)")
    parser.add_argument("--settings", default="{}", help=f"JSON with any of {', '.join(SETTINGS)}")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    settings = json.loads(args.settings)
    if unknown := [key for key in settings if key not in SETTINGS]:
        raise InputError(f"settings: found {unknown[0]!r}, expected {', '.join(SETTINGS)}")
    family = args.family or args.tokenizer.name
    stage = Stage("prompts", f"prompts/{family}", settings, settings.get("seed", 1))
    tokenizer = tokenizers.open_tokenizer({"folder": str(args.tokenizer)}, family)
    stage.ready()
    found = sorted(path.stem for path in (args.data / "tasks").glob("*.jsonl"))
    with folder_lock(args.output):
        summary = {}
        for task in tqdm(settings.get("tasks", found), desc="prompts", disable=None):
            path = args.data / "tasks" / f"{task}.jsonl"
            rows = list(read_jsonl(path, FIELDS.get(task, GENERATION_FIELDS)))
            made, summary[task] = build(task, rows, tokenizer, settings)
            write_jsonl(args.output / f"{task}.jsonl", made)
            summary[task]["sha256"] = sha256(args.output / f"{task}.jsonl")
        write_json(args.output / "summary.json", summary)
        stage.write(args.output / "provenance.json")
    for task, counts in summary.items():
        print(task, " ".join(f"{key}={counts[key]}" for key in counts if key != "sha256"))
