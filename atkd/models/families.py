"""The model families: a row each, which everything else that knows a family reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atkd.runtime.files import InputError


@dataclass(frozen=True)
class Family:
    """One row.

    `title`: how tables name the family. `model_type`: transformers' name of its architecture.
    `arguments`: what that architecture's configuration calls the keys of `build` that are not
    common to all; a key that has none is refused. `fixed`: its further arguments.
    `specials`: special tokens of a tokenizer trained here, in the order that gives them the real
    one's ids. `roles`: which of them are BOS, EOS, UNK and padding. `adds_bos`: whether a prompt
    begins with BOS. `files`: raw files of the real tokenizer, a key of `tokenizers.FORMATS`;
    `real_size`: its ids, None where that is not known.
    """

    title: str
    model_type: str
    arguments: Mapping[str, str]
    specials: tuple[str, ...]
    roles: Mapping[str, str]
    adds_bos: bool
    files: tuple[str, ...]
    real_size: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modeling(self) -> str:
        """The module that holds the architecture's code."""
        return f"transformers.models.{self.model_type}.modeling_{self.model_type}"

    def own_arguments(self, shape: Mapping[str, Any], where: str = "build") -> dict[str, Any]:
        """The configuration's arguments beyond those common to all families, from `build`.

        InputError naming the key under `where`: a setting that the architecture does not have.
        """
        width = shape["hidden_size"]
        own = {"intermediate": 4 * width, "embed": width, "dropout": 0.0}
        for key in own:
            if key in shape and key not in self.arguments:
                raise InputError(
                    f"config key {where}.{key}: found {shape[key]}; {self.title} has no such "
                    "setting"
                )
        found = {key: shape.get(key, default) for key, default in own.items()}
        return {name: found[key] for key, name in self.arguments.items()} | dict(self.fixed)


FAMILIES: dict[str, Family] = {
    "opt": Family(
        title="OPT",
        model_type="opt",
        arguments={
            "intermediate": "ffn_dim",
            "embed": "word_embed_proj_dim",
            "dropout": "dropout",
        },
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        roles={
            "bos_token": "</s>",
            "eos_token": "</s>",
            "unk_token": "</s>",
            "pad_token": "<pad>",
        },
        adds_bos=True,
        files=("vocab.json", "merges.txt"),
        real_size=50265,
    ),
    "pythia": Family(
        title="Pythia",
        model_type="gpt_neox",
        arguments={"intermediate": "intermediate_size", "dropout": "hidden_dropout"},
        fixed={"rotary_pct": 0.25},
        specials=("<|endoftext|>", "<|padding|>"),
        roles=dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"),
        adds_bos=False,
        files=("tokenizer.json",),
        real_size=50277,
    ),
    "llama": Family(
        title="LLaMA",
        model_type="llama",
        arguments={"intermediate": "intermediate_size"},
        specials=("<unk>", "<s>", "</s>"),
        roles={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "</s>",
        },
        adds_bos=True,
        files=("tokenizer.model",),
        real_size=32000,
    ),
}


def family_of(name: str) -> Family:
    """The family's row; InputError if it is unknown."""
    if name not in FAMILIES:
        raise InputError(
            f"family: found {name!r}, which is known from its files alone; expected one of "
            f"{', '.join(FAMILIES)}, or hub or folder"
        )
    return FAMILIES[name]


def family_title(name: str) -> str:
    """How tables name a family; one without a row bears its own name."""
    return FAMILIES[name].title if name in FAMILIES else name


def size(label: str) -> float:
    """Parameters meant by a size label such as 125m or 6.7b; `-` and unknown labels are 0."""
    unit = {"k": 1e3, "m": 1e6, "b": 1e9}.get(label[-1:].lower(), 0.0)
    try:
        return float(label[:-1]) * unit
    except ValueError:
        return 0.0


def check_layers(kept: Sequence[int], count: int, key: str) -> None:
    """InputError unless the numbers rise and are those of a model's `count` layers."""
    if list(kept) != sorted(set(kept)):
        raise InputError(f"config key {key}: found {list(kept)}; expected rising numbers")
    if kept and not 0 <= kept[0] <= kept[-1] < count:
        raise InputError(
            f"config key {key}: found {list(kept)}; expected numbers from 0 to {count - 1}, the "
            f"layers of the model they are taken from"
        )
