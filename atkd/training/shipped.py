"""Pretrained bases that come with the project, taken over where a run would make the same ones.

A shipped base is a finished base without its tokenizer. Its manifest names by `recipe` the
settings, seed, data and tokenizer it was made from; versions of libraries are not part of it.
`python -m atkd bases --run results/bases --output FOLDER` collects those that a run has made.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atkd.models import checkpoints
from atkd.runtime.files import InputError, atomic_path, read_json

PROVENANCE = "provenance.json"
NAMES = ("config.json", "generation_config.json", "metrics.jsonl", PROVENANCE)


def find(folder: Path, recipe: str) -> Path | None:
    """The folder, if it holds a base of this recipe; says where it holds another one.

    InputError if its weights are not those that its manifest names.
    """
    manifest = folder / checkpoints.MANIFEST
    if not manifest.is_file():
        return None
    if read_json(manifest).get("recipe") != recipe:
        print(f"{folder}: a base of other settings or data; pretraining this one", flush=True)
        return None
    checkpoints.check_weights(folder)
    return folder


def take_over(folder: Path, output: Path) -> dict[str, Any]:
    """Copies a shipped base's weights and curve; its provenance, as facts for the new one."""
    print(
        f"NOT PRETRAINED: {output} is the base that comes with the project, {folder}; "
        "`make bases` makes it again",
        flush=True,
    )
    files(folder, output, [name for name in NAMES if name != PROVENANCE])
    made = read_json(folder / PROVENANCE)
    kept = ("cost", "commit", "versions", "machine")
    facts = {name: made[name] for name in made if name not in ("stage", "run", "seed", *kept)}
    return facts | {"shipped": {name: made[name] for name in kept}}


def files(source: Path, output: Path, names: list[str]) -> None:
    """Copies a base's weights and files of these names."""
    output.mkdir(parents=True, exist_ok=True)
    weights = [path.name for path in sorted(source.glob(checkpoints.WEIGHTS))]
    for name in [*weights, *names]:
        with atomic_path(output / name) as part:
            shutil.copyfile(source / name, part)


def bases(run: Path) -> Iterator[Path]:
    """The finished bases of a run: <run>/models/<family>/<size>/seed<seed>/base."""
    for manifest in sorted(run.glob(f"models/*/*/seed*/base/{checkpoints.MANIFEST}")):
        yield manifest.parent


def collect(run: Path, output: Path) -> list[Path]:
    """Copies a run's bases to <output>/<family>/<size>/seed<seed>; manifests last."""
    found = list(bases(run))
    if not found:
        raise InputError(f"{run}: no finished base; expected models/*/*/seed*/base")
    for base in found:
        place = output / base.parent.relative_to(run / "models")
        files(base, place, [*NAMES, checkpoints.MANIFEST])
    return found


def main() -> None:
    """Collects the bases that a run has made into the folder that ships them."""
    parser = argparse.ArgumentParser(prog="python -m atkd bases", description=main.__doc__)
    parser.add_argument("--run", required=True, type=Path, help="results folder of the run")
    parser.add_argument("--output", required=True, type=Path, help="folder to copy them to")
    args = parser.parse_args()
    for base in collect(args.run, args.output):
        print(f"{base}: copied")
