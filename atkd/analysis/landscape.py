"""The loss around a trained student's weights, on references that nobody was trained on.

Random directions are scaled filter by filter to the length of the weights (Li et al., NeurIPS
2018), so that models whose weights differ in size compare; biases and normalisations stay as they
are. All models of one shape are moved along the same random numbers. The rise of the loss by steps
of one length, mean over directions, is a number for its sharpness; a plane is for the eye.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atkd.evaluation.references import Text, log_probabilities, look, read_texts, targets_of
from atkd.evaluation.settings import LandscapeSettings
from atkd.models import checkpoints, tokenizers
from atkd.runtime.cli import json_object, start_up
from atkd.runtime.files import collect_csv, write_csv
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

Row = dict[str, Any]
Weights = dict[str, Tensor]
COLUMNS = ("run", "kind", "direction", "x", "y", "loss", "tokens")


def direction(weights: Mapping[str, Tensor], number: int) -> Weights:
    """A random direction whose every filter (row of a matrix) is as long as the weights' own."""
    found = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            continue
        key = hashlib.sha256(f"{number}/{name}".encode()).digest()
        source = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
        noise = torch.randn(weight.shape, generator=source, dtype=torch.float32)
        length = weight.float().norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        found[name] = (noise * length).to(weight)
    return found


class Ground:
    """A model whose weights can be moved, and its loss on some texts."""

    def __init__(
        self, model: Any, texts: Sequence[Text], vocabulary: int, settings: LandscapeSettings
    ) -> None:
        self.model, self.texts, self.vocabulary = model, texts, vocabulary
        self.batch_size, self.targets_N = settings.batch_size, targets_of(texts)
        self.weights = {name: each.detach().clone() for name, each in model.named_parameters()}

    def loss(self, *moves: tuple[float, Weights]) -> float:
        """Cross-entropy in nats a token after moving the weights along directions."""
        with torch.no_grad():
            for name, each in self.model.named_parameters():
                each.copy_(self.weights[name])
                for length, way in moves:
                    if name in way:
                        each.add_(way[name], alpha=length)
        seen = look(self.model, self.texts, self.vocabulary, self.batch_size)
        return -log_probabilities(seen, self.targets_N).mean().item()


def around(ground: Ground, settings: LandscapeSettings) -> Iterator[Row]:
    """The loss at the weights, at steps along every direction and back, and on a plane."""
    yield {"kind": "centre", "loss": ground.loss()}
    ways = [direction(ground.weights, number) for number in range(settings.directions)]
    for number, way in enumerate(ways):
        for length in (sign * each for each in settings.lengths for sign in (-1, 1)):
            place = {"kind": "step", "direction": number, "x": length}
            yield place | {"loss": ground.loss((length, way))}
    edge = [settings.reach * (2 * at / (settings.points - 1) - 1) for at in range(settings.points)]
    for x in edge:
        for y in edge:
            moved = ground.loss((x, ways[0]), (y, ways[1]))
            yield {"kind": "plane", "x": round(x, 6), "y": round(y, 6), "loss": moved}


def landscape(
    folders: Mapping[str, Path],
    tasks: Path,
    prompts: Path,
    settings: LandscapeSettings,
    stage: Stage,
) -> list[Row]:
    """Rows of every model."""
    run, folder = min(folders.items())
    with start_up():
        import_module("transformers.modeling_utils")
        tokenizer = tokenizers.open_tokenizer({"folder": str(folder)}, run.split("/")[0])
    stage.ready()
    texts = read_texts(tasks, prompts, tokenizer, settings)
    count, rows = sum(len(text.response) for text in texts), list[Row]()
    steps = 1 + 2 * len(settings.lengths) * settings.directions + settings.points**2
    with Progress("landscape", steps * len(folders), "losses") as progress:
        for run, folder in folders.items():
            model = checkpoints.load(
                folder, checkpoints.pick_device(settings.device), settings.dtype
            )
            vocabulary = tokenizers.vocabulary_size(tokenizer)
            for row in around(Ground(model, texts, vocabulary, settings), settings):
                rows.append({"run": run, "tokens": count} | row | {"loss": f"{row['loss']:.6f}"})
                progress.add()
    return rows


def main() -> None:
    """Looks around models of one student and seed, or collects what jobs found."""
    parser = argparse.ArgumentParser(prog="python -m atkd landscape", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="models of one student and seed -> CSV")
    one.add_argument("--runs", required=True, nargs="+", metavar="KEY", help="keys of the models")
    one.add_argument("--models", required=True, nargs="+", type=Path, help="their folders")
    one.add_argument("--tasks", required=True, type=Path, help="folder of <task>.jsonl of the data")
    one.add_argument("--prompts", required=True, type=Path, help="folder of prompt files")
    one.add_argument("--settings", default="{}", help=LandscapeSettings.about())
    one.add_argument("--output", required=True, type=Path, help="CSV to write")
    gather = commands.add_parser("collect", help="CSVs of all jobs -> one")
    gather.add_argument("--found", required=True, nargs="+", type=Path, help="jobs' CSVs")
    gather.add_argument("--output", required=True, type=Path, help="CSV to write")
    args = parser.parse_args()
    if args.command == "collect":
        count = collect_csv(args.found, args.output, COLUMNS)
    else:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        given = json_object("--settings", args.settings)
        folders = dict(zip(args.runs, args.models, strict=True))
        stage = Stage("landscape", args.runs[0], given)
        rows = landscape(folders, args.tasks, args.prompts, LandscapeSettings.of(given), stage)
        write_csv(args.output, COLUMNS, rows)
        stage.write(args.output.with_suffix(".provenance.json"))
        count = len(rows)
    print(f"{args.output}: {count} rows")
