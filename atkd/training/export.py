"""A finished model as a folder that other programs load: weights, tokenizer, chat template, card.

    python -m atkd export --model results/world/students/opt/125m/-/sft/seed1 --output FOLDER

Plain files of transformers: `AutoModelForCausalLM.from_pretrained(FOLDER)` opens it without this
package, and so does vLLM.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atkd.data.template import template
from atkd.models import checkpoints, tokenizers
from atkd.models.families import family_title
from atkd.runtime.cli import start_up
from atkd.runtime.files import InputError, read_json, write_text

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [knowledge-distillation, atkd]
---
# {run}

A {title} model of {parameters:,} parameters, made by the ATKD harness as `{run}`: {what}

{scores}
## How to ask it

Requests go into the template it was trained on, which the tokenizer's chat template writes for a
conversation of one message:

```
{prompt}
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)
asked = [{{"role": "user", "content": "..."}}]
ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids)[0]))
```

## How it was made

| | |
| --- | --- |
{facts}
"""
TRAINED = ("learning_rate", "steps", "epochs", "batch_size", "max_length", "optimiser", "lora_rank")


def chat_template(tokenizer: Any) -> str:
    """The training template in Jinja, for one message of a user and its answer."""
    adds_bos = tokenizers.encode_prompt(tokenizer, "a")[0] == tokenizer.bos_token_id
    start = tokenizer.bos_token if adds_bos else ""
    asked = template("{{ message.content }}").replace("\n", "\\n")
    before, after = asked.split("{{ message.content }}")
    return (
        "{%- for message in messages -%}"
        "{%- if message.role == 'user' -%}"
        f'{{{{- "{start}{before}" + message.content + "{after}" -}}}}'
        "{%- elif message.role == 'assistant' -%}"
        "{{- message.content + eos_token -}}"
        "{%- else -%}"
        "{{- raise_exception('expected user and assistant alone') -}}"
        "{%- endif -%}{%- endfor -%}"
    )


def score_lines(scores: Path, run: str) -> str:
    """A table of what the run scored; nothing where it has no scores."""
    if not scores.is_file():
        return ""
    keys = ("family", "student", "teacher", "method", "seed")
    with open(scores, encoding="utf-8", newline="") as handle:
        found = [row for row in csv.DictReader(handle) if "/".join(row[k] for k in keys) == run]
    lines = [
        f"| {row['task']} | {float(row['value']):.1f} | {row['n']} |"
        for row in found
        if row["metric"] == "score"
    ]
    head = ["## Scores", "", "| task | score | items |", "| --- | --- | --- |"]
    return "\n".join([*head, *lines, ""]) + "\n" if lines else ""


def about(stage: str, recipe: Mapping[str, Any] | None) -> str:
    """What kind of model it is, and what it was trained on."""
    if recipe is None:
        return "a pretrained base." if stage == "base" else f"a {stage}, trained on references."
    of = "the teacher's answers" if recipe["sequences"] == "teacher" else "references"
    if recipe["loss"] != "cross_entropy":
        return f"a {stage}, trained by its teacher with the loss `{recipe['loss']}`."
    return f"a {stage}, trained on {of}."


def card(made: Mapping[str, Any], scores: Path) -> str:
    """The model's card, from its provenance and the scores of its run."""
    settings = made["settings"]
    recipe, training = settings.get("recipe"), settings["training"]
    facts = {name: training[name] for name in TRAINED if training.get(name) is not None}
    if "steps" in facts:
        facts.pop("epochs", None)
    facts |= dict(recipe["settings"]) if recipe else {}
    facts |= {"seed": made["seed"], "tokens read": made.get("tokens"), "commit": made["commit"]}
    return CARD.format(
        run=made["run"],
        title=family_title(settings["family"]),
        parameters=made["parameters"],
        what=about(made["stage"], recipe),
        scores=score_lines(scores, made["run"]),
        prompt=template("...").rstrip("\n"),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
    )


def results_of(folder: Path) -> Path:
    """The results folder that a model lies in, <results>/students/... or <results>/models/..."""
    for parent in folder.resolve().parents:
        if (parent / "config.json").is_file() and (parent / "students").is_dir():
            return parent
    return folder


def export(folder: Path, output: Path) -> None:
    """Writes the model's folder anew; InputError if it is unfinished, damaged or there already."""
    if output.exists() and any(output.iterdir()):
        raise InputError(f"--output {output}: not empty; expected a new folder")
    checkpoints.check_weights(folder)
    made = read_json(folder / "provenance.json")
    tokenizer = tokenizers.open_saved(folder)
    output.mkdir(parents=True, exist_ok=True)
    kept = [*folder.glob(checkpoints.WEIGHTS), *folder.glob(f"{checkpoints.WEIGHTS}.index.json")]
    for path in [*kept, folder / "config.json", folder / "generation_config.json"]:
        shutil.copyfile(path, output / path.name)
    tokenizer.chat_template = chat_template(tokenizer)
    tokenizer.split_special_tokens = False  # the template writes BOS and EOS as text
    tokenizer.save_pretrained(output)
    write_text(output / "README.md", card(made, results_of(folder) / "scores.csv"))


def main() -> None:
    """Copies a finished model into a folder that other programs load, with a card."""
    parser = argparse.ArgumentParser(prog="python -m atkd export", description=main.__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of a finished model")
    parser.add_argument("--output", required=True, type=Path, help="new folder to write")
    args = parser.parse_args()
    with start_up():
        export(args.model, args.output)
    print(f"{args.output}: written")
