"""What several test files share: a copy of the workflow to run in, and Snakemake's command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
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


def command(*arguments: str) -> list[str]:
    """Snakemake's command line in this environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def quiet_environment() -> dict[str, str]:
    """This environment without what would lead a run elsewhere."""
    elsewhere = ("ATKD_DATA", "ATKD_WARM")
    return {name: value for name, value in os.environ.items() if name not in elsewhere}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow without results."""
    return copy_of_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    """Runs Snakemake in a folder and returns what it printed, both streams in `stdout`."""

    def run(
        folder: Path, *arguments: str, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=folder,
            env=quiet_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    return run
