"""Training on two processes equals training on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from atkd import methods
from atkd.models import tokenizers
from atkd.runtime.files import read_json, read_jsonl, write_jsonl

pytestmark = pytest.mark.slow
KNOBS = {
    "steps": 8, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 3e-3, "warmup_ratio": 0.1,
    "weight_decay": 0.0, "beta2": 0.99, "clip": 1.0, "max_length": 64, "checkpoint_every": 3,
    "gradient_checkpointing": False, "optimiser": "adamw", "packed": True, "saved_dtype": "float32",
}  # fmt: skip
COMPUTE = {"device": "cpu", "precision": "float32", "teacher_dtype": "float32"}
ON_POLICY = ("imitkd_atkd", "gkd")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a tokenizer, a base and a teacher; answers of different lengths."""
    folder = tmp_path_factory.mktemp("processes")
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
    root: Path, role: str, output: str, processes: int = 1, data: str = "train", **options: str
) -> Path:
    """One training from the command line, on as many processes."""
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    settings = {"family": "llama", "training": KNOBS, "compute": COMPUTE}
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
    for name, value in options.items():
        line += [f"--{name}", str(root / value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *line], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[:2000] + done.stderr[-2000:]
    return root / output


@pytest.mark.parametrize(
    "method", ["sft", "supervised_kd", "supervised_kd_atkd", "imitkd_atkd", "gkd"]
)
def test_two_processes_train_like_one(root: Path, method: str) -> None:
    options = {"method": method, "base": "base"} | (
        {} if method == "sft" else {"teacher": "teacher"}
    )
    one = train(root, "student", f"{method}-1", **options)
    two = train(root, "student", f"{method}-2", processes=2, **options)
    alone, together = (list(read_jsonl(folder / "metrics.jsonl")) for folder in (one, two))
    assert [row["step"] for row in together] == list(range(1, 9))
    for left, right in zip(alone, together, strict=True):
        for name in ("loss", "grad_norm", "learning_rate", "supervised_tokens"):
            assert left[name] == pytest.approx(right[name], rel=2e-4), (left, right)
    assert read_json(two / "manifest.json")["files"] and not (two / "work").exists()
