"""Fixtures that several test files share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers import Snakemake, command, copy_of_checkout, quiet_environment

# Test processes run side by side, a core each: torch's threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture
def says(request: pytest.FixtureRequest) -> str:
    """What the test's row of tests/cases.md promises, see `cases`."""
    mark = request.node.get_closest_marker("case")
    assert mark is not None, "no mark `case` on this test"
    text: str = mark.args[2]
    return text
