"""Files of a model's weights: whole, of this model, and numbers.

Whoever loads a model checks here what transformers loads without a word, and what it would end with
a traceback about.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from atkd.runtime.files import InputError, check_fetched, first_line, read_json, starts_with
from atkd.runtime.network import reason

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINGLE, INDEX, OLD = "model.safetensors", "model.safetensors.index.json", "pytorch_model*.bin"


def check_files(folder: Path) -> None:
    """InputError naming the first file of a model folder that is missing, damaged or a pointer.

    Also a weight of integers, which stands for another number, unless the configuration says how.
    """
    check_fetched(folder)
    config = folder / "config.json"
    quantised = config.is_file() and "quantization_config" in read_json(config)
    for path in tensor_files(folder):
        integers = [name for name, kind in tensor_types(path) if kind[0] in "IU"]
        weights = [name for name in integers if name.endswith(".weight")]
        if weights and not quantised:
            raise InputError(
                f"{path}: {weights[0]} holds integers; expected floating-point numbers"
            )
    for path in sorted(folder.glob(OLD)):
        if starts_with(path, b"PK") and not zipfile.is_zipfile(path):
            raise InputError(f"{path}: not whole; expected all of a checkpoint saved by torch")


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model; InputError if one of the index is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        return []
    paths = [
        folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    ]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: not found; {INDEX} names it")
    return paths


def tensor_types(path: Path) -> Iterator[tuple[str, str]]:
    """Name and type, as safetensors have it, of each tensor; InputError if the file is damaged."""
    try:
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_slice(name).get_dtype()
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


@contextmanager
def opening(place: str) -> Iterator[None]:
    """Turns whatever libraries raise of a model's files or of connections into an InputError."""
    try:
        yield
    except Exception as error:  # there is no common kind
        why = first_line(error) if Path(place).is_dir() else reason(error)
        raise InputError(f"model {place}: cannot be opened ({why})") from None


def check_report(place: str, report: Mapping[str, Iterable[Any]]) -> None:
    """InputError unless files and architecture name the same weights, of the same shapes."""
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"model {place}: {len(missing)} parameters missing, first {missing[0]}")
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, wanted = mismatched[0]
        raise InputError(
            f"model {place}: {name} has the shape {tuple(found)}; config.json wants {tuple(wanted)}"
        )
    if unused := sorted(n for n in report["unexpected_keys"] if n.endswith(".weight")):
        raise InputError(
            f"model {place}: {len(unused)} weights that its architecture has no place for, first "
            f"{unused[0]}; is config.json another model's?"
        )


def check_finite(model: PreTrainedModel, place: str) -> None:
    """InputError naming file and tensor where a weight of an opened model is NaN or infinite."""
    if found := not_finite(model):
        name, value = found
        raise InputError(f"{file_of(name, place)}: {name} holds {value}; expected finite numbers")


def not_finite(model: PreTrainedModel) -> tuple[str, float] | None:
    """The first weight that is NaN or infinite, and its value; a head's bias may ban by -inf."""
    layer = model.get_output_embeddings()
    bias = None if layer is None else getattr(layer, "bias", None)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        low, high = (each.item() for each in tensor.detach().aminmax())
        bans = tensor is bias and low == -math.inf < high < math.inf
        if not (math.isfinite(low) and math.isfinite(high)) and not bans:
            return name, high if math.isfinite(low) else low
    return None


def file_of(name: str, place: str) -> Path | str:
    """The file of a model's folder that holds a tensor; the place where that cannot be told."""
    folder = Path(place)
    if not folder.is_dir():
        return f"model {place}"
    for path in tensor_files(folder):
        held = [found for found, _ in tensor_types(path)]
        if any(name == one or name.endswith(f".{one}") for one in held):
            return path
    return next(iter(sorted(folder.glob(OLD))), f"model {place}")
