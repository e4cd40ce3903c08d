"""A training's state on the disk: weights, optimisers, schedules, random numbers, the method's own.

Tensors lie in safetensors files and all else in JSON, so that nothing that is read can run code. A
folder is whole or not there, says its step and whose it is, and its files' sizes are known.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atkd.runtime import packages
from atkd.runtime.files import InputError, first_line, write_json

WEIGHTS, STATE, FACTS = "model.safetensors", "state", "step.json"
TENSOR, PAIRS, TUPLE, EIGHT_BITS = "tensor", "pairs", "tuple", "eight_bits"


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """A tree of plain values as JSON takes it; tensors go into `tensors`, by their place.

    TypeError on anything but mappings, lists, tuples, tensors, text, numbers, booleans and None.
    """
    if type(value).__name__ == "OptimState8bit":  # torchao's, of moments
        parts = [value.codes, value.scale, value.qmap, value.signed]
        return {EIGHT_BITS: pack(parts, tensors, name)}
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {PAIRS: [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        found = [pack(item, tensors, f"{name}/{at}") for at, item in enumerate(value)]
        return {TUPLE: found} if isinstance(value, tuple) else found
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{name}: {type(value).__name__} cannot be kept in a checkpoint")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == TENSOR:
        return tensors[inner]
    if kind == EIGHT_BITS:
        optim = packages.needed("torchao.optim", "training.optimiser")
        parts = unpack(inner, tensors)
        return optim.subclass_8bit.OptimState8bit(*parts, dtype=torch.float32)
    if kind == PAIRS:
        return {key: unpack(item, tensors) for key, item in inner}
    return tuple(unpack(item, tensors) for item in inner)


def write_tree(folder: Path, name: str, value: Any) -> None:
    """Writes a tree of plain values as <name>.json and <name>.safetensors."""
    tensors: dict[str, Tensor] = {}
    write_json(folder / f"{name}.json", pack(value, tensors))
    save_file(tensors, folder / f"{name}.safetensors")


def read_tree(folder: Path, name: str) -> Any:
    """What `write_tree` was given."""
    tensors = load_file(folder / f"{name}.safetensors")
    return unpack(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)


def write_state(folder: Path, weights: Mapping[str, Tensor], states: Mapping[str, Any]) -> None:
    """Writes what all processes share: weights, and states of other parts by name."""
    held: dict[int, str] = {}
    for name, tensor in weights.items():  # one of those that are tied to each other
        held.setdefault(tensor.data_ptr() or id(tensor), name)
    save_file({name: weights[name].contiguous() for name in held.values()}, folder / WEIGHTS)
    write_tree(folder, STATE, states)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_state` was given, tied weights once."""
    return load_file(folder / WEIGHTS), read_tree(folder, STATE)


def write_random(folder: Path, process: int) -> None:
    """Writes the state of a process's random numbers."""
    state = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    write_tree(folder, f"random_{process}", state)


def read_random(folder: Path, process: int) -> None:
    """Restores a process's random numbers; one that was not there goes on as the first did."""
    own = process if (folder / f"random_{process}.json").is_file() else 0
    state = read_tree(folder, f"random_{own}")
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def write_facts(folder: Path, step: int, identity: str) -> None:
    """Writes a checkpoint's last file: its step, whose it is, and the bytes of the others."""
    write_json(folder / FACTS, {"step": step, "identity": identity, "bytes": sizes(folder)})


def read_facts(folder: Path) -> dict[str, Any]:
    """Step and identity of a checkpoint; InputError if it does not say them."""
    with damaged(folder):
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return {name: found[name] for name in ("step", "identity", "bytes")}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a checkpoint."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def check_sizes(folder: Path, wanted: Mapping[str, int]) -> None:
    """ValueError naming the first file that is missing or not of its size."""
    found = sizes(folder)
    for name, size in wanted.items():
        if found.get(name) != size:
            raise ValueError(f"{name}: {found.get(name, 'no')} bytes, expected {size}")


@contextlib.contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Says of a checkpoint that cannot be read what to do about it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many libraries
        raise InputError(
            f"{folder}: a damaged checkpoint ({first_line(error)}); delete this folder to train "
            "from the start"
        ) from None
