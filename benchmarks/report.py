"""Runs every benchmark and writes README.md beside this file."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from atkd.losses.fused import AT_ONCE

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "trl", "liger-kernel")
TEXT = """# Benchmarks

`make bench` runs the scripts on two threads and writes this file; nothing here is a test. The
contestants of a table take turns in rounds and the least time counts. Time is that of forward and
backward (steps: and update), in float32 unless a row says otherwise. Extra peak memory is what a
pass adds to the process at its highest. Run it on a machine that does nothing else.

- Machine: {machine}
- Versions: {versions}

The floor of a loss is its matrix products as large as the vocabulary, here the bare ones of torch
on all tokens at once: student and teacher logits and the gradients of hidden states and head; a
fifth where the teacher's uncertainty has to be found first. TRL's and Liger's losses have no
hard/easy split: they compare with our JSD. Bfloat16 products round the operands (and, on a CPU,
the logits) to 8 bits of mantissa and hold copies of float32 heads.

Beside these: [on a GPU](gpu.md) (`make bench-gpu`), the
[accuracy of the losses](accuracy.md) (`python benchmarks/accuracy.py`), the
[speed of evaluation](evaluation.md) (`python benchmarks/evaluation.py`) and the
[coverage of the intervals](coverage.md) (`python benchmarks/coverage.py`).

## Losses

{losses}

## Losses at small vocabularies

Multiples of the four bare products, medians of processor time on one thread in rounds of all
(`python benchmarks/small_losses.py`). *Naive torch* writes the loss down on the logits of all
tokens and leaves the rest to autograd; *fused* is given hidden states and heads alone, *cached* the
teacher's uncertainty and log-normaliser too. Up to {limit} logits, here at every size but the
last two, all tokens are worked on at once, beyond in tiles and chunks.

{small}

## Training steps

{steps}
"""


def machine() -> str:
    """Processor and number of cores."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores, {platform.system()}"


def versions() -> str:
    """Python and the packages that take part."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise SystemExit(f"{name}: not installed; `make bench` installs it") from None
    return ", ".join(found)


def run(script: str) -> str:
    """What a script prints."""
    done = subprocess.run([sys.executable, HERE / script], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{script}: failed with exit code {done.returncode}")
    print(done.stdout, flush=True)
    return done.stdout.strip()


def main() -> None:
    """Writes benchmarks/README.md."""
    parts = {"machine": machine(), "versions": versions()}
    parts |= {"losses": run("losses.py"), "steps": run("steps.py")}
    parts |= {"small": run("small_losses.py"), "limit": f"{AT_ONCE:,}"}
    (HERE / "README.md").write_text(TEXT.format(**parts), encoding="utf-8")


if __name__ == "__main__":
    main()
