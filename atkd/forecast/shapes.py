"""What a model of a configuration is made of, as far as time, memory and disk depend on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atkd.models.families import size as parameters_of

# Hub id -> layers, width, width between, ids of the head. From the models' config.json.
KNOWN = {
    "facebook/opt-125m": (12, 768, 3072, 50272),
    "facebook/opt-1.3b": (24, 2048, 8192, 50272),
    "facebook/opt-2.7b": (32, 2560, 10240, 50272),
    "facebook/opt-6.7b": (32, 4096, 16384, 50272),
    "EleutherAI/pythia-410m": (24, 1024, 4096, 50304),
    "EleutherAI/pythia-1.4b": (24, 2048, 8192, 50304),
    "EleutherAI/pythia-2.8b": (32, 2560, 10240, 50304),
    "JackFram/llama-68m": (2, 768, 3072, 32000),
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": (22, 2048, 5632, 32000),
    "huggyllama/llama-7b": (32, 4096, 11008, 32000),
}
IDS = 50000  # of a tokenizer that nothing is known about
WORDS = 1500  # about as many words has the embedded world


class Shape(NamedTuple):
    """Layers, their width, the width between, and the ids that the head tells apart.

    `gated`: whether the layers have LLaMA's three maps; `tied`: whether head and embedding are one.
    """

    layers: int
    width: int
    between: int
    ids: int
    gated: bool = False
    tied: bool = False

    @property
    def hidden(self) -> int:
        """Parameters of the layers' matrices."""
        maps = 3 if self.gated else 2
        return self.layers * self.width * (4 * self.width + maps * self.between)

    @property
    def head(self) -> int:
        """Parameters of the output projection."""
        return self.width * self.ids

    @property
    def parameters(self) -> int:
        """All of them but norms and biases."""
        return self.hidden + (1 if self.tied else 2) * self.head

    def forward(self, tokens: float, length: float, predicted: float) -> float:
        """Floating-point operations of a forward pass; the head works on `predicted` tokens."""
        attention = 2 * self.layers * self.width * length
        return tokens * 2 * (self.hidden + attention) + predicted * 2 * self.head


def shape_of(config: Mapping[str, Any], family: str, size: str) -> Shape:
    """A size's shape: built, known, read from its folder, or guessed from its name."""
    source = config["families"][family]["models"][size]
    kind = {"gated": family == "llama", "tied": family == "opt"}
    if "build" in source:
        build, tokenizer = source["build"], config["families"][family]["tokenizer"]
        width = build["hidden_size"]
        ids = tokenizer.get("train", WORDS if tokenizer.get("words") else IDS)
        between = build.get("intermediate", 4 * width)
        return Shape(build["layers"], width, between, build.get("rows", ids), **kind)
    if "from" in source:
        return shape_of(config, family, source["from"])._replace(layers=len(source["keep_layers"]))
    if (found := KNOWN.get(source.get("hub", ""))) is not None:
        return Shape(*found, **kind)
    return (_read(source.get("folder", "")) or _guessed(parameters_of(size)))._replace(**kind)


def _read(folder: str) -> Shape | None:
    path = Path(folder, "config.json")
    if not folder or not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    layers, width = found.get("num_hidden_layers"), found.get("hidden_size")
    between = found.get("intermediate_size") or found.get("ffn_dim") or 4 * (width or 0)
    known = layers and width and found.get("vocab_size")
    return Shape(layers, width, between, found["vocab_size"]) if known else None


def _guessed(parameters: float) -> Shape:
    """Of the usual proportions: 128 of width for each layer."""
    layers = max(1, int((parameters / (12 * 128**2)) ** (1 / 3)))
    width = 128 * layers
    return Shape(layers, width, 4 * width, IDS)
