"""How long Snakemake takes to plan a large grid, and how much memory: `-n` on made-up models.

`python benchmarks/graph.py` prints a table for README.md; nothing is trained. Families, pairs,
methods and seeds are multiplied until the graph has as many jobs as a large cluster run.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atkd.methods import METHODS  # noqa: E402

GRIDS = {  # families, pairs of each, methods, seeds
    "2 families x 5 pairs x 30 methods x 10 seeds": (2, 5, 30, 10),
    "10 families x 10 pairs x 30 methods x 5 seeds": (10, 10, 30, 5),
}


def methods(count: int) -> list[str]:
    """As many methods: the table's, then Supervised KD at other learning rates."""
    own = [name for name, row in METHODS.items() if row.loss is not None][:count]
    return own + [f"supervised_kd+learning_rate={n + 1}e-5" for n in range(count - len(own))]


def config(families: int, pairs: int, count: int, seeds: int) -> dict[str, Any]:
    """config/smoke.yaml with a larger grid of models in folders."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "config/smoke.yaml").read_text("utf-8"))
    names = [f"family{n}" for n in range(families)]
    sizes = ["1m", *(f"{n + 2}m" for n in range(pairs))]
    models = {size: {"folder": f"models/{size}"} for size in sizes}
    found["families"] = {
        name: {"tokenizer": {"folder": "models/1m"}, "models": models} for name in names
    }
    found["pairs"] = [
        {"family": name, "student": "1m", "teacher": size} for name in names for size in sizes[1:]
    ]
    return found | {
        "name": "graph", "methods": methods(count), "seeds": list(range(1, seeds + 1)),
        "teacher_cache": [],
    }  # fmt: skip


def measure(grid: tuple[int, int, int, int]) -> tuple[int, float, float]:
    """Jobs, seconds, and GB of memory at the highest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.yaml"
        path.write_text(yaml.safe_dump(config(*grid)), "utf-8")
        line = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n", "--quiet",
                "rules", "--directory", folder, "--configfile", str(path)]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True, cwd=folder)
        spent = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    jobs = re.search(r"^total +(\d+)", done.stdout, re.MULTILINE)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return int(jobs[1]) if jobs else 0, spent, peak


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--grid", type=int, nargs=4, help="families pairs methods seeds")
    args = parser.parse_args()
    grids = {" ".join(map(str, args.grid)): tuple(args.grid)} if args.grid else GRIDS
    print("| grid | jobs | seconds | GB |\n| --- | ---: | ---: | ---: |")
    for name, grid in grids.items():
        jobs, spent, peak = measure(grid)
        print(f"| {name} | {jobs:,} | {spent:.0f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
