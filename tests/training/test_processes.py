"""Training on two processes equals training on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from safetensors.torch import load_file

from atkd import methods
from atkd.models import tokenizers
from atkd.runtime.files import read_json, read_jsonl, write_jsonl

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
    root: Path,
    role: str,
    output: str,
    processes: int = 1,
    data: str = "train",
    sharded: bool = False,
    **options: str,
) -> Path:
    """One training from the command line, on as many processes."""
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    compute = COMPUTE | ({"sharded": True} if sharded else {})
    settings = {"family": "llama", "training": KNOBS, "compute": compute}
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
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if stop := options.pop("stop", ""):
        (root / "stop").mkdir(exist_ok=True)
        (root / "stop/sitecustomize.py").write_text(STOPS.format(step=stop))
        environment["PYTHONPATH"] = f"{root / 'stop'}:{ROOT}"
    for name, value in options.items():
        line += [f"--{name}", str(root / value)]
    done = subprocess.run(
        [sys.executable, *line], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[:2000] + done.stderr[-2000:]
    return root / output


@pytest.mark.slow
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


def curve(folder: Path) -> list[tuple[float, float]]:
    """Loss and norm of the gradient at each step."""
    return [(row["loss"], row["grad_norm"]) for row in read_jsonl(folder / "metrics.jsonl")]


def test_a_sharded_training_is_the_same(root: Path) -> None:
    one = root / "teacher"
    two = train(root, "teacher", "sharded", processes=2, sharded=True, base="base")
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=2e-4)
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["one process", "two sharded"])
def test_a_training_goes_on_with_another_number_of_processes(root: Path, first: str) -> None:
    output = f"resumed after {first}"
    alone, shared = {"processes": 1}, {"processes": 2, "sharded": True}
    order = (alone, shared) if first == "one process" else (shared, alone)
    with pytest.raises(AssertionError, match="stopped at step 5"):
        train(root, "teacher", output, **order[0], stop="5", base="base")
    assert [path.name for path in (root / output / "work").glob("step-*")] == ["step-0000003"]
    done = train(root, "teacher", output, **order[1], base="base")
    for left, right in zip(curve(root / "teacher"), curve(done), strict=True):
        assert left == pytest.approx(right, rel=2e-4)


@pytest.mark.slow
def test_what_cannot_be_sharded_is_refused(root: Path) -> None:
    with pytest.raises(AssertionError, match=r"compute\.sharded: found true, but a student that"):
        train(root, "student", "no", sharded=True, method="gkd", base="base", teacher="teacher")
