"""The loss around a trained student's weights, on references that nobody was trained on.

Random directions are scaled filter by filter to the length of the weights (Li et al., NeurIPS
2018), so that models whose weights differ in size compare; biases and normalisations stay as they
are. All models of one shape are moved along the same random numbers. The rise of the loss by steps
of one length, mean over directions, is a number for its sharpness; a plane is for the eye.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from atkd.evaluation.probe import Given, Probe, Row
from atkd.evaluation.references import Text, log_probabilities, look, read_texts, targets_of
from atkd.evaluation.settings import LandscapeSettings
from atkd.models import checkpoints, tokenizers
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage

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


def landscape(given: Given, settings: LandscapeSettings, stage: Stage) -> list[Row]:
    """Rows of every model."""
    tokenizer = given.tokenizer(stage)
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    texts = read_texts(given.tasks, given.prompts, tokenizer, settings)
    count, rows = sum(len(text.response) for text in texts), list[Row]()
    steps = 1 + 2 * len(settings.lengths) * settings.directions + settings.points**2
    device = checkpoints.pick_device(settings.device)
    with Progress("landscape", steps * len(given.folders), "losses") as progress:
        for run, folder in given.folders.items():
            model = checkpoints.load(folder, device, settings.dtype)
            for row in around(Ground(model, texts, vocabulary, settings), settings):
                rows.append({"run": run, "tokens": count} | row | {"loss": f"{row['loss']:.6f}"})
                progress.add()
    return rows


PROBE = Probe("landscape", "students of one size and seed", LandscapeSettings, COLUMNS, landscape)
main = PROBE.main
