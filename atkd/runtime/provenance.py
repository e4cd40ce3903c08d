"""What was run: commit, versions, device, seed, settings and cost, written beside every output."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from atkd.runtime.files import write_json

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "lm_eval", "datasets")


def settings_hash(settings: Any) -> str:
    """Twelve hex digits that name a settings fragment, whatever the order of its keys."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, `+dirty` if tracked files differ, or `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    command += ["--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def machine() -> str:
    """Architecture and, of a process with torch, the vector instructions that its kernels use.

    Sums of another order end in other last bits: models trained elsewhere differ as by their seed.
    """
    torch = sys.modules.get("torch")
    parts = [platform.machine(), torch.backends.cpu.get_cpu_capability() if torch else ""]
    return " ".join(part for part in parts if part)


def process_age_s() -> float:
    """Seconds since this process started, start-up and imports included."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return time.process_time()
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB (2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Stage:
    """Collects one job's provenance: `Stage(...)`, `.ready()` when set-up ends, `.write(path)`."""

    def __init__(self, stage: str, run: str, settings: Any, seed: int | None = None) -> None:
        self.record: dict[str, Any] = {"stage": stage, "run": run, "seed": seed}
        self.record |= {"settings": settings, "settings_hash": settings_hash(settings)}
        self.startup_s: float | None = None

    def ready(self) -> None:
        """Marks the end of start-up (imports, loading); what follows is the job's own work."""
        self.startup_s = process_age_s()

    def write(self, path: str | os.PathLike[str], **facts: Any) -> dict[str, Any]:
        """Writes the record with `facts` (device, dtype, tokens, steps, ...) added; returns it."""
        wall_s = process_age_s()
        startup_s = wall_s if self.startup_s is None else self.startup_s
        cost = {"wall_s": round(wall_s, 3), "cpu_s": round(time.process_time(), 3)}
        cost |= {"startup_s": round(startup_s, 3), "peak_memory_mb": round(peak_memory_mb(), 1)}
        if facts.get("tokens"):
            cost["tokens_per_s"] = round(facts["tokens"] / max(wall_s - startup_s, 1e-9), 1)
        where = {"commit": commit(), "versions": versions(), "machine": machine()}
        record = self.record | facts | {"cost": cost} | where
        write_json(path, record)
        return record
