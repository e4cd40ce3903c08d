"""What needs files to check, checked once before any training: the tokenizers of every pair.

Lines of data are checked where they are read (atkd/data.py) and prompts where they are written
(atkd/prompts.py); both come before this stage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atkd.models import tokenizers
from atkd.runtime.files import InputError, write_json


def own_tokenizer(source: Mapping[str, Any], family: str) -> Any:
    """The tokenizer a model's folder or hub repository brings; None for a model built here."""
    if "build" in source:
        return None
    keys = ("folder",) if "folder" in source else ("hub", "revision")
    return tokenizers.open_tokenizer({key: source[key] for key in keys if key in source}, family)


def check_pairs(settings: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Opens every named model's tokenizer and proves it the family's, id by id.

    All students and teachers of a family read the family's ids, so equality with it is equality
    within each pair. InputError names the pair's model and the first id that differs.
    """
    report = []
    sizes = dict.fromkeys(
        (pair["family"], pair[role])
        for pair in settings["pairs"]
        for role in ("student", "teacher")
    )
    for family, size in sizes:
        ours = tokenizers.open_tokenizer({"folder": str(folder / family)}, family)
        theirs = own_tokenizer(settings["models"][family][size], family)
        if theirs is not None:
            try:
                tokenizers.same_vocabulary(ours, theirs)
            except InputError as error:
                raise InputError(
                    f"families.{family}.models.{size}: teacher and student must share "
                    f"one tokenizer, but the {family} tokenizer of this run and this model's "
                    f"differ: {error}"
                ) from None
        report.append(
            {"family": family, "size": size, "ids": len(ours), "own_tokenizer": theirs is not None}
        )
    return report


def main() -> None:
    """Checks that teacher and student of every pair read the same ids."""
    parser = argparse.ArgumentParser(prog="python -m atkd check", description=main.__doc__)
    parser.add_argument(
        "--settings", required=True, help="JSON: pairs, models (by family and size)"
    )
    parser.add_argument(
        "--tokenizers", required=True, type=Path, help="folder of the family tokenizers"
    )
    parser.add_argument("--output", required=True, help="JSON file to write")
    args = parser.parse_args()
    report = check_pairs(json.loads(args.settings), args.tokenizers)
    write_json(args.output, {"tokenizers": report})
    print(f"{len(report)} models read the ids of their family's tokenizer")
