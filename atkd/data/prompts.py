"""Prompt files: the exact text each model is asked, per task and family, with the protocol's shots.

Generation tasks use the one training template. MMLU, DROP and BBH use the plain few-shot text of
instruct-eval (declare-lab), which the paper ran: shots are dropped one by one until the prompt and
the longest answer fit the context.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from atkd.data.template import CUE, template
from atkd.models import tokenizers
from atkd.models.families import FAMILIES
from atkd.runtime.cli import json_object, settings_of
from atkd.runtime.files import InputError, folder_lock, read_jsonl, sha256, write_json, write_jsonl
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage
from atkd.tasks import open_ended, row_of

Row = dict[str, Any]
LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class PromptSettings:
    """The protocol's share in prompts; `of` fills it from a mapping.

    `tasks`: which (empty: all that have data). `template`: `stated`, or `released` as the official
    code tests. `context`: longest prompt plus answer, in tokens. `shots`, `max_new_tokens` and
    `limit` (documents) by task, where the task's row is not to decide; `max_new_tokens` may name
    `generation`, which stands for every open-ended task. `seed`: of the documents drawn.
    """

    tasks: tuple[str, ...] = ()
    template: str = "stated"
    context: int = 2048
    shots: Mapping[str, int] = field(default_factory=dict)
    max_new_tokens: Mapping[str, int] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    seed: int = 1

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PromptSettings:
        """The settings given, defaults for the rest; InputError names an unknown key."""
        return settings_of(cls, given)

    def shots_of(self, task: str) -> int:
        """Shots of a task."""
        return self.shots.get(task, row_of(task).shots)

    def new_tokens_of(self, task: str) -> int:
        """The longest answer to a task, in tokens."""
        default = row_of(task).new_tokens
        if open_ended(task):
            default = self.max_new_tokens.get("generation", default)
        return self.max_new_tokens.get(task, default)

    def limit_of(self, task: str) -> int | None:
        """How many documents a task is cut to."""
        limit = self.limit.get(task)
        if limit is not None and limit < 1:
            raise InputError(f"evaluation.limit.{task}: found {limit}, expected at least 1")
        return limit


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


def template_items(rows: list[Row], released: bool = False) -> list[Item]:
    """Open-ended tasks: the template, no shots; grouped by skill where rows have one."""
    return [
        Item(
            row["id"],
            row.get("skill", ""),
            template(row["instruction"], row["input"], released),
            row["output"],
        )
        for row in rows
    ]


def mmlu_items(rows: list[Row], shots: int) -> list[Item]:
    """The first `shots` dev questions of a subject, then each of its test questions."""
    dev = defaultdict(list)
    for row in rows:
        if row["split"] == "dev":
            dev[row["subject"]].append(f"{_question(row)} {LETTERS[row['answer']]}\n\n")
    return [
        Item(
            row["id"],
            row["subject"],
            _question(row),
            LETTERS[row["answer"]],
            _header(row["subject"]),
            tuple(dev[row["subject"]][:shots]),
            LETTERS,
        )
        for row in rows
        if row["split"] == "test"
    ]


def _header(subject: str) -> str:
    # Two blanks before the subject, as in instruct-eval.
    about = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about  {about}.\n\n"


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


# Items of a task -> what makes them of rows and a number of shots; the template's take none.
FEW_SHOT: dict[str, Callable[[list[Row], int], list[Item]]] = {
    "mmlu": mmlu_items,
    "drop": drop_items,
    "bbh": bbh_items,
}


def items_of(task: str, rows: list[Row], settings: PromptSettings) -> list[Item]:
    """All items of a task, by the builder that its row names."""
    if open_ended(task):
        return template_items(rows, settings.template == "released")
    return FEW_SHOT[row_of(task).items](rows, settings.shots_of(task))


def chosen(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """A seeded draw of `limit` items, spread evenly over groups, in their first order."""
    if limit is None or limit >= len(items):
        return items
    groups = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.group].append(index)
    # An order of its own for groups, or the first names would win the last round.
    names = sorted(groups)
    random.Random(f"{seed} groups").shuffle(names)
    drawn = []
    for place, name in enumerate(names):
        random.Random(f"{seed} {name}").shuffle(groups[name])
        drawn += [(turn, place, index) for turn, index in enumerate(groups[name])]
    return [items[index] for index in sorted(index for _, _, index in sorted(drawn)[:limit])]


@dataclass
class Counts:
    """What fitting did to a task's items."""

    documents: int = 0
    with_fewer_shots: int = 0
    shots_dropped: int = 0
    prompts_cut: int = 0
    references_cut: int = 0
    longest_prompt: int = 0


class Fitter:
    """Fits items to a context of `context` tokens, prompt and answer together, and counts.

    `plain`: the prompt ends in "Answer:" and not in the template's cue.
    """

    def __init__(self, tokenizer: Any, context: int, max_new_tokens: int, plain: bool) -> None:
        self.tokenizer, self.context, self.plain = tokenizer, context, plain
        self.max_new_tokens, self.budget = max_new_tokens, context - max_new_tokens
        if self.budget < 1:
            wanted = f"expected more than max_new_tokens = {max_new_tokens}"
            raise InputError(f"evaluation.context: found {context}, {wanted}")
        self.counts = Counts()

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
            self.counts.prompts_cut += 1
        self._count(item, shots, length)
        response, size = self._response(item.target, self.context - length)
        return {
            "id": item.id,
            "prompt": prompt,
            "target": item.target,
            **({"options": list(item.options)} if item.options else {}),
            "group": item.group,
            "shots": shots,
            "tokens": length,
            "max_new_tokens": self.max_new_tokens,
            "response": response,
            "bytes": size,
        }

    def _count(self, item: Item, shots: int, length: int) -> None:
        self.counts.documents += 1
        self.counts.with_fewer_shots += shots < len(item.shots)
        self.counts.shots_dropped += len(item.shots) - shots
        self.counts.longest_prompt = max(length, self.counts.longest_prompt)

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
            self.counts.references_cut += 1
        return lead + target[:size], len(target[:size].encode())


def _largest(upper: int, fits: Callable[[int], bool]) -> int:
    """The largest number of characters in 0..upper that fits (bisection)."""
    low = 0
    while low < upper:
        middle = (low + upper + 1) // 2
        low, upper = (middle, upper) if fits(middle) else (low, middle - 1)
    return low


def build(
    task: str, rows: list[Row], tokenizer: Any, settings: PromptSettings
) -> tuple[list[Row], dict[str, int]]:
    """Prompt rows of one task, and counts of what was dropped, cut or left out."""
    items = items_of(task, rows, settings)
    kept = chosen(items, settings.limit_of(task), settings.seed)
    fitter = Fitter(
        tokenizer, settings.context, settings.new_tokens_of(task), plain=not open_ended(task)
    )
    made = [fitter.record(item) for item in kept]
    _check(task, made)
    return made, {"rows": len(rows), "items": len(items), **asdict(fitter.counts)}


def _check(task: str, rows: list[Row]) -> None:
    if not rows:
        raise InputError(f"{task}: no items left after the shots, expected at least one")
    counts = Counter(row["id"] for row in rows)
    for row in rows:
        if counts[row["id"]] > 1:
            raise InputError(f"{task}: id {row['id']!r} occurs twice, expected unique ids")
        if row["bytes"] == 0:
            raise InputError(f"{task}: item {row['id']!r} leaves no room for its reference")


def write(
    data: Path, tokenizer: Any, settings: PromptSettings, output: Path
) -> dict[str, dict[str, Any]]:
    """Writes one prompt file per task and summary.json; returns the summary."""
    found = sorted(path.stem for path in (data / "tasks").glob("*.jsonl"))
    summary: dict[str, dict[str, Any]] = {}
    tasks = settings.tasks or found
    with Progress("prompts", len(tasks), "tasks") as progress:
        for task in tasks:
            rows = list(read_jsonl(data / "tasks" / f"{task}.jsonl", ("id", *row_of(task).fields)))
            made, counts = build(task, rows, tokenizer, settings)
            write_jsonl(output / f"{task}.jsonl", made)
            summary[task] = {**counts, "sha256": sha256(output / f"{task}.jsonl")}
            progress.add()
    write_json(output / "summary.json", summary)
    return summary


def main() -> None:
    """Writes one prompt file per task, and summary.json with what was dropped or cut."""
    parser = argparse.ArgumentParser(prog="python -m atkd prompts", description=main.__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder that `data` wrote")
    parser.add_argument("--tokenizer", required=True, type=Path, help="its folder")
    parser.add_argument("--family", help=f"{', '.join(FAMILIES)} (default: the folder's name)")
    keys = ", ".join(each.name for each in fields(PromptSettings))
    parser.add_argument("--settings", default="{}", help=f"JSON with any of {keys}")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    given = json_object("--settings", args.settings)
    settings, family = PromptSettings.of(given), args.family or args.tokenizer.name
    stage = Stage("prompts", f"prompts/{family}", given, settings.seed)
    tokenizer = tokenizers.open_tokenizer({"folder": str(args.tokenizer)}, family)
    stage.ready()
    with folder_lock(args.output):
        summary = write(args.data, tokenizer, settings, args.output)
        stage.write(args.output / "provenance.json")
    for task, counts in summary.items():
        print(task, " ".join(f"{key}={counts[key]}" for key in counts if key != "sha256"))
