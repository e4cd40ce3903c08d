"""A teacher's view of fixed sequences, kept on disk: everything a loss needs of the teacher.

Stored are the final hidden states at supervised positions, in the teacher's own dtype, from which
its logits are rebuilt next to the student with one matrix product, its head, and in float32 its
uncertainty and log-normaliser. In float32 a cached run equals a live one to rounding.

    python -m atkd teacher-cache --teacher T --data D --settings '{...}' --output C

A folder holds head.safetensors, shard-*.safetensors (each written whole or not at all, and kept by
a rerun) and manifest.json, written last. Shapes: n supervised tokens of a shard, d teacher width.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from atkd.data.sequences import Batch, FixedBatches, Sequences, instructions
from atkd.data.template import fingerprint
from atkd.losses.fused import Head
from atkd.models import checkpoints, tokenizers
from atkd.models.checkpoints import MANIFEST
from atkd.runtime import arithmetic
from atkd.runtime.cli import json_object, settings_of, start_up
from atkd.runtime.files import (
    InputError,
    atomic_path,
    folder_lock,
    naming,
    read_json,
    sha256,
    write_json,
)
from atkd.runtime.progress import Progress
from atkd.runtime.provenance import Stage, settings_hash, versions
from atkd.training.teacher import LiveTeacher, TeacherSignal

SHARD_BYTES = 256 * 2**20
BATCH_TOKENS = 8192
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


SIGNAL = ("hidden", "uncertainty", "log_normaliser")  # a shard's tensors, as in `TeacherSignal`


@dataclass(frozen=True)
class CacheSettings:
    """What is cached; `max_length`: of a prompt with its answer, in tokens."""

    family: str
    max_length: int
    teacher_dtype: str
    device: str


def identity(teacher: Path, data: Path, text: Path | None, teacher_dtype: str) -> dict[str, Any]:
    """What decides a cache's content: weights, dtype, vocabulary, data, template, versions."""
    kept = ("torch", "transformers", "tokenizers")
    return {
        "teacher": sha256(teacher / MANIFEST),
        "teacher_dtype": teacher_dtype,
        "tokenizer": sha256(teacher / "tokenizer.json"),
        "data": sha256(data),
        "text": sha256(text) if text else None,
        "template": fingerprint(),
        "versions": {name: version for name, version in versions().items() if name in kept},
    }


class Place(NamedTuple):
    """Where a sample's tokens lie: a half-open range of a shard's rows."""

    shard: int
    first: int
    last: int


class CachedTeacher:
    """A finished cache, checked; hidden states stay on the disk, memory-mapped."""

    def __init__(self, folder: Path, wanted: Mapping[str, Any], device: str) -> None:
        record = read_json(folder / MANIFEST)
        check(folder, record, wanted)
        self.folder, self.device, self.tokens = folder, device, record["tokens"]
        self.max_length = record["max_length"]
        head = load_file(folder / "head.safetensors", device=device)
        self.head = Head(head["weight"], head.get("bias"))
        names = [name for name in record["files"] if name.startswith("shard-")]
        self._shards = [safe_open(folder / name, "pt") for name in names]
        self._hidden = [shard.get_slice("hidden") for shard in self._shards]
        self._scalars = {
            name: [shard.get_tensor(name) for shard in self._shards] for name in SIGNAL[1:]
        }
        self._places: dict[int, Place] = {}
        for number, shard in enumerate(self._shards):
            start = 0
            rows, sizes = (shard.get_tensor(key).tolist() for key in ("rows", "sizes"))
            for row, size in zip(rows, sizes, strict=True):
                self._places[row] = Place(number, start, start + size)
                start += size

    def _read(self, name: str, rows: tuple[int, ...]) -> Tensor:
        places = [self._places[row] for row in rows]
        parts = self._scalars.get(name, self._hidden)
        return torch.cat([parts[at.shard][at.first : at.last] for at in places]).to(self.device)

    def signal(self, batch: Batch, ranked: bool = True) -> TeacherSignal:
        """The stored view of a fixed batch; InputError if it lacks a sample or has other tokens."""
        for row, size in zip(batch.rows, batch.sizes, strict=True):
            at = self._places.get(row)
            found = at.last - at.first if at else 0
            if at is None or found != size:
                raise InputError(
                    f"{self.folder}: data row {row} has {found} cached tokens; "
                    f"expected {size}; delete the folder to make it anew"
                )
        return TeacherSignal(*(self._read(name, batch.rows) for name in SIGNAL))

    def uncertainty_M(self) -> Tensor:
        """The uncertainty of every cached token [M]."""
        return torch.cat(self._scalars["uncertainty"])


def check(folder: Path, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """InputError naming the file or fact unless the cache is whole and the one that is wanted."""
    missing = {"identity", "files", "tokens", "max_length"} - set(record)
    if missing:
        raise InputError(f"{folder / MANIFEST}: {min(missing)!r} is missing; delete the folder")
    for key, value in wanted.items():
        if record["identity"].get(key) != value:
            raise InputError(
                f"{folder / MANIFEST}: made with {key} {record['identity'].get(key)!r}; "
                f"expected {value!r}; delete the folder to make it anew"
            )
    for name, facts in record["files"].items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        if size != facts["bytes"]:
            found = "missing" if size is None else f"{size} bytes"
            raise InputError(f"{path}: {found}; expected {facts['bytes']} bytes")
        if sha256(path) != facts["sha256"]:
            raise InputError(f"{path}: its contents changed since it was written (sha256 differs)")


def supervised(data: Sequences, first: int, last: int) -> int:
    """Supervised tokens of samples first..last."""
    spans = (span for sample in data.samples[first:last] for span in sample.spans)
    return sum(end - start for start, end in spans)


def forecast(data: Sequences, width: int, dtype: str) -> dict[str, int]:
    """Supervised tokens and bytes of a cache that is still to be written."""
    count = supervised(data, 0, len(data))
    return {"tokens": count, "bytes": count * (width * BYTES[dtype] + 8)}


def shards(data: Sequences, width: int, dtype: str) -> Iterator[tuple[int, int]]:
    """Half-open ranges of samples whose states take about SHARD_BYTES each."""
    room, start, used = SHARD_BYTES // (width * BYTES[dtype] + 8), 0, 0
    for index, sample in enumerate(data.samples):
        size = sum(last - first for first, last in sample.spans)
        if used and used + size > room:
            yield start, index
            start, used = index, 0
        used += size
    yield start, len(data)


def batches(data: Sequences, first: int, last: int) -> Iterator[list[int]]:
    """Samples first..last by length, in batches of at most BATCH_TOKENS padded ids."""
    part: list[int] = []
    for index in sorted(range(first, last), key=lambda i: len(data.samples[i].ids)):
        if part and (len(part) + 1) * len(data.samples[index].ids) > BATCH_TOKENS:
            yield part
            part = []
        part.append(index)
    yield part


def shard_tensors(
    teacher: LiveTeacher, data: Sequences, first: int, last: int, pad: int, progress: Progress
) -> dict[str, Tensor]:
    """A shard's tensors: hidden [n, d], uncertainty [n], log_normaliser [n], rows and sizes."""
    supply = FixedBatches(data, pad, str(teacher.model.device))
    seen: dict[int, TeacherSignal] = {}
    for part in batches(data, first, last):
        batch = supply(0, part)
        tensors = [tensor.cpu().split(batch.sizes) for tensor in teacher.signal(batch)]
        for place, index in enumerate(part):
            seen[index] = TeacherSignal(*(pieces[place] for pieces in tensors))
        progress.add(int(batch.supervised_BS.sum()))
    views = [seen[index] for index in range(first, last)]
    return {
        "hidden": torch.cat([view.hidden_Nd for view in views]),
        "uncertainty": torch.cat([view.uncertainty_N for view in views]),
        "log_normaliser": torch.cat([view.log_normaliser_N for view in views]),
        "sizes": torch.tensor([len(view.uncertainty_N) for view in views]),
        "rows": torch.tensor(data.rows[first:last]),
    }


def write(
    folder: Path, teacher: LiveTeacher, data: Sequences, pad: int, facts: dict[str, Any]
) -> int:
    """Writes what is missing of a cache, manifest last; returns its supervised tokens."""
    name = settings_hash(facts)
    width, dtype = teacher.head.weight.shape[1], facts["identity"]["teacher_dtype"]
    size = forecast(data, width, dtype)
    room(folder, size)
    names = ["head.safetensors"]
    with atomic_path(folder / names[0]) as part:
        save_file(head_tensors(teacher.head), part)
    with Progress("cache", size["tokens"], "tokens") as progress:
        for number, (first, last) in enumerate(shards(data, width, dtype)):
            names.append(f"shard-{number:05d}.safetensors")
            if _finished(folder / names[-1], name):
                progress.skip(supervised(data, first, last))
                continue
            tensors = shard_tensors(teacher, data, first, last, pad, progress)
            with atomic_path(folder / names[-1]) as part:
                save_file(tensors, part, {"identity": content(tensors, name)})
    files = {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in names}
    write_json(folder / MANIFEST, {**facts, **size, "files": files})
    return size["tokens"]


def head_tensors(head: Head) -> dict[str, Tensor]:
    """The head's weight and, if it has one, its bias, as they are stored."""
    found = {"weight": head.weight, "bias": head.bias}
    return {
        name: tensor.detach().contiguous().cpu()
        for name, tensor in found.items()
        if tensor is not None
    }


def content(tensors: Mapping[str, Tensor], name: str) -> str:
    """Hex digest of a shard's tensors and its cache's name: a rerun knows what is whole by it."""
    found = hashlib.sha256(name.encode())
    for key, tensor in sorted(tensors.items()):
        found.update(key.encode())
        found.update(memoryview(tensor.contiguous().view(torch.uint8).numpy()))
    return found.hexdigest()


def _finished(path: Path, name: str) -> bool:
    """Whether a shard of this cache is there, whole and as it was written."""
    try:
        with safe_open(path, "pt") as shard:
            found = (shard.metadata() or {}).get("identity")
            tensors = {key: shard.get_tensor(key) for key in shard.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return False
    return found == content(tensors, name)


def room(folder: Path, size: Mapping[str, int]) -> None:
    """Prints what the cache will take; InputError where the disk has less."""
    folder.mkdir(parents=True, exist_ok=True)
    free, need = shutil.disk_usage(folder).free, size["bytes"] / 2**30
    print(f"{folder}: {size['tokens']} supervised tokens, {need:.3g} GiB to write", flush=True)
    if size["bytes"] > free:
        raise InputError(
            f"{folder}: needs {need:.3g} GiB, the disk has {free / 2**30:.3g} GiB free; make room, "
            "or set the config key teacher_cache to [] to run teachers beside their students"
        )


def main() -> None:
    """Caches a teacher's view of training sequences; a rerun keeps the shards that are done."""
    parser = argparse.ArgumentParser(prog="python -m atkd teacher-cache", description=main.__doc__)
    parser.add_argument("--teacher", required=True, type=Path, help="folder of the teacher")
    parser.add_argument("--data", required=True, type=Path, help="instruction data, JSON lines")
    parser.add_argument("--text", type=Path, help="teacher's answers, in place of the data's")
    parser.add_argument("--run", required=True, help="name of the run in cost files")
    keys = ", ".join(field.name for field in fields(CacheSettings))
    parser.add_argument("--settings", required=True, help=f"JSON: {keys}")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    given = arithmetic.chosen(json_object("--settings", args.settings))
    settings = settings_of(CacheSettings, given)
    stage = Stage("cache", args.run, asdict(settings))
    with folder_lock(args.output):
        with start_up():
            checkpoints.set_up(0)
            device = checkpoints.pick_device(settings.device)
            tokenizer = tokenizers.open_tokenizer({"folder": str(args.teacher)}, settings.family)
            text = str(args.text) if args.text else None
            data = instructions(str(args.data), tokenizer, settings.max_length, text)
            checkpoints.check_weights(args.teacher)
            dtype = settings.teacher_dtype
            vocabulary = tokenizers.vocabulary_size(tokenizer)
            teacher = LiveTeacher.open(args.teacher, device, dtype, vocabulary)
        stage.ready()
        facts = {
            "identity": identity(args.teacher, args.data, args.text, dtype),
            "max_length": settings.max_length,
            "samples": len(data),
            "too_long": data.too_long,
        }
        with naming(args.run):
            count = write(args.output, teacher, data, tokenizer.pad_token_id, facts)
        stage.write(args.output / "provenance.json", device=device, tokens=count)
