"""Trainings from the command line: on several processes, stopped before a step, with packages
that are installed apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helpers import ROOT

from atkd import methods
from atkd.models import tokenizers
from atkd.runtime.files import read_jsonl, write_jsonl

KNOBS = {
    "steps": 8, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 3e-3, "warmup_ratio": 0.1,
    "weight_decay": 0.0, "beta2": 0.99, "clip": 1.0, "max_length": 64, "checkpoint_every": 3,
    "gradient_checkpointing": False, "optimiser": "adamw", "packed": True, "saved_dtype": "float32",
}  # fmt: skip
COMPUTE = {"device": "cpu", "precision": "float32", "teacher_dtype": "float32"}
ON_POLICY = ("imitkd_atkd", "gkd")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]

# Ends every process of a training before a step.
STOPS = """
import importlib.abc, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "atkd.training.loop":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        run = found.loader.exec_module
        def exec_module(module):
            run(module)
            update = module.Loop.update
            def stopping(self, *rest):
                if self.step == {step} - 1:
                    raise SystemExit("stopped at step {step}")
                return update(self, *rest)
            module.Loop.update = stopping
        found.loader.exec_module = exec_module
        return found

import importlib.util
sys.meta_path.insert(0, Finder())
"""


def prepared(folder: Path) -> Path:
    """Data, a tokenizer, a base and a teacher; answers of different lengths."""
    names = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"]
    rows = [
        {
            "id": str(i),
            "instruction": f"Who is {n}?",
            "input": "",
            "output": f"{n} is near {m}." * k,
        }
        for i, (n, m, k) in enumerate((n, m, k) for k in (1, 2) for n in names for m in names[:4])
    ]
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "pretrain.jsonl", [{"id": r["id"], "text": r["output"] * 3} for r in rows])
    tokenizer = tokenizers.train_tokenizer("llama", [json.dumps(row) for row in rows], 270)
    tokenizers.save(tokenizer, folder / "tokenizer")
    train(folder, "base", "base", data="pretrain")
    train(folder, "teacher", "teacher", base="base")
    return folder


def train(
    root: Path,
    role: str,
    output: str,
    processes: int = 1,
    data: str = "train",
    sharded: bool = False,
    knobs: dict[str, Any] | None = None,
    **options: str,
) -> Path:
    """One training from the command line, on as many processes."""
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    compute = COMPUTE | ({"sharded": True} if sharded else {})
    settings = {"family": "llama", "training": KNOBS | (knobs or {}), "compute": compute}
    method = options.pop("method", "none")
    changed = {"max_new_tokens": 8} if method in ON_POLICY else {}
    if role == "student":
        settings["recipe"] = asdict(methods.resolve(method, "llama", changed))
    settings |= {"source": {"build": shape}} if role == "base" else {}
    line = [*(TWO if processes == 2 else ["-m"]), "atkd", "train", "--role", role, "--run", "r"]
    line += [
        "--seed",
        "1",
        "--settings",
        json.dumps(settings),
        "--data",
        str(root / f"{data}.jsonl"),
    ]
    line += ["--tokenizer", str(root / "tokenizer"), "--output", str(root / output)]
    paths = [str(ROOT), options.pop("packages", "")]
    if stop := options.pop("stop", ""):
        (root / "stop").mkdir(exist_ok=True)
        (root / "stop/sitecustomize.py").write_text(STOPS.format(step=stop))
        paths.insert(0, str(root / "stop"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(paths)}
    for name, value in options.items():
        line += [f"--{name}", str(root / value)]
    done = subprocess.run(
        [sys.executable, *line], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[:2000] + done.stderr[-2000:]
    return root / output


def curve(folder: Path) -> list[tuple[float, float]]:
    """Loss and norm of the gradient at each step."""
    return [(row["loss"], row["grad_norm"]) for row in read_jsonl(folder / "metrics.jsonl")]
