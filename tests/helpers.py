"""What several test files share: a copy of the workflow to run in, and Snakemake's command line."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "atkd"
PARTS = ("Snakefile", "workflow", "profiles", "config", "atkd", "environment.yml")
Snakemake = Callable[..., subprocess.CompletedProcess[str]]


def copy_of_checkout(folder: Path) -> Path:
    """The files a run needs, in a folder of their own."""
    folder.mkdir(exist_ok=True)
    skip = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name, **({"ignore": skip} if copy is shutil.copytree else {}))
    (folder / "results").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "results/published.csv", folder / "results/published.csv")
    return folder


def smoke() -> dict[str, Any]:
    """What config/smoke.yaml says."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "config/smoke.yaml").read_text(encoding="utf-8"))
    return found


def over_smoke(**changes: Any) -> dict[str, Any]:
    """What config/smoke.yaml says, with other values of some keys."""
    return smoke() | changes


def over_world(name: str) -> dict[str, Any]:
    """What config/world.yaml says with a file of config/world/ laid over it, as Snakemake does."""
    found: dict[str, Any] = {}
    for path in ("world", f"world/{name}"):
        text = (ROOT / f"config/{path}.yaml").read_text(encoding="utf-8")
        update_config(found, yaml.safe_load(text))
    return found


def command(*arguments: str) -> list[str]:
    """Snakemake's command line in this environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def quiet_environment() -> dict[str, str]:
    """This environment without what would lead a run elsewhere."""
    elsewhere = ("ATKD_DATA", "ATKD_WARM")
    return {name: value for name, value in os.environ.items() if name not in elsewhere}


def with_a_hole(tokenizer: Any, family: str, folder: Path) -> Any:
    """The tokenizer with its last token five ids further up."""
    from atkd.models import tokenizers

    tokenizers.save(tokenizer, folder)
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = whole["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 5
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    return tokenizers.open_tokenizer({"folder": str(folder)}, family)


def edges(path: Path) -> set[str]:
    """Modules of this package that a file imports (`folder.module`), inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("atkd.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import of {node.module}"
            package, _, module = (node.module or "").partition(".")
            if package == "atkd":
                single = (PACKAGE / f"{module.replace('.', '/')}.py").is_file()
                names = (a.name for a in node.names)
                found |= {module} if single else {f"{module}.{n}".strip(".") for n in names}
    return found


def needed(there: bool, lack: str) -> pytest.MarkDecorator:
    """Skips where something beside Python packages is not installed; under CI=true that fails."""
    return pytest.mark.skipif(not there and os.environ.get("CI") != "true", reason=lack)
