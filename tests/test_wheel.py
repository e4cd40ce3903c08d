"""The built wheel holds what it should, and its losses run where torch is all there is."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

import atkd

LOSSES = """
import importlib.util
import torch
import atkd.integrations
from atkd import atkd_loss, fused_kd_loss, kd_loss, token_terms

noise = torch.Generator().manual_seed(0)
student, teacher = (torch.randn(2, 7, 20, generator=noise) for _ in range(2))
student.requires_grad_()
targets = torch.randint(20, (2, 7), generator=noise)
targets[:, :3] = -100
hidden, theirs = (torch.randn(8, d, generator=noise) for d in (4, 6))
head, heads = (torch.randn(20, d, generator=noise) for d in (4, 6))
hidden.requires_grad_(), head.requires_grad_()
losses = [atkd_loss(student, teacher, targets), token_terms(student, teacher, targets)["dkd"].sum()]
for name in ("atkd", "forward_kl", "jsd"):
    losses.append(kd_loss(name, student, teacher, targets))
    losses.append(fused_kd_loss(name, hidden, head, theirs, heads, targets[:, 3:].flatten()))
for loss in losses:
    loss.backward()
    assert loss > 0
for leaf in (student, hidden, head):
    assert leaf.grad.isfinite().all() and leaf.grad.any()
for trainer in (atkd.integrations.KDTrainer, atkd.integrations.TRLKDTrainer):
    try:
        trainer(None, None)
    except ImportError as error:
        assert 'pip install "atkd[' in str(error), error
    else:
        raise AssertionError(trainer)
assert importlib.util.find_spec("transformers") is importlib.util.find_spec("numpy") is None
print(atkd.__version__, atkd.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources, so that nothing is built in the checkout."""
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building the wheel needs setuptools 77 or newer")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "atkd", source / "atkd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    line = ["-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    options = ["--disable-pip-version-check", "-w", str(source / "dist")]
    done = subprocess.run(
        [sys.executable, *line, *options], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (source / "dist").glob("*.whl")
    return found


def closure(name: str) -> set[str]:
    """The installed distributions that `pip install NAME` would bring, itself included."""
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            needs = map(Requirement, importlib.metadata.requires(current) or [])
            waiting += [n.name for n in needs if not n.marker or n.marker.evaluate({"extra": ""})]
    return found


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"atkd-{atkd.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"atkd", info}
    assert {"atkd/py.typed", f"{info}/licenses/LICENSE"} <= set(names)
    ours = [path.relative_to(ROOT) for path in (ROOT / "atkd").rglob("*") if path.is_file()]
    kept = {path.as_posix() for path in ours if path.suffix != ".pyc"}
    assert kept == {name for name in names if name.startswith("atkd/")}


def test_the_wheel_asks_for_torch_alone(wheel: Path) -> None:
    (name,) = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA")]
    text = zipfile.ZipFile(wheel).read(name).decode()
    needs = re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
    assert [need for need in needs if "extra ==" not in need] == ["torch>=2.8"]
    extras = set(re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE))
    assert extras == {
        "harness",
        "trainer",
        "trl",
        "figures",
        "bench",
        "large",
        "gguf",
        "vllm",
        "dev",
    }


def test_the_losses_run_where_torch_is_all_there_is(wheel: Path, tmp_path: Path) -> None:
    """An isolated interpreter sees the wheel and links to torch's own packages, nothing else."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    (tmp_path / "torch").mkdir()
    for name in closure("torch"):
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            target = importlib.metadata.distribution(name).locate_file(top)
            (tmp_path / "torch" / top).symlink_to(target)
    seen = [str(tmp_path / "wheel"), str(tmp_path / "torch")]
    (tmp_path / "losses.py").write_text(LOSSES, encoding="utf-8")
    start = f"import sys, runpy; sys.path += {seen}; list(map(runpy.run_path, sys.argv[1:]))"
    scripts = [str(tmp_path / "losses.py"), str(ROOT / "examples/plain_loop.py")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start, *scripts],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, *_, last = done.stdout.splitlines()
    assert first == f"{atkd.__version__} {tmp_path}/wheel/atkd/__init__.py"
    assert last.startswith("step 20  loss 0.0")


def test_type_checkers_see_every_public_name() -> None:
    """The face is lazy, so what it tells checkers could drift from what it gives."""
    tree = ast.parse((ROOT / "atkd/__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert {a.asname: node.module for node in block.body for a in node.names} == atkd._PUBLIC
    assert sorted(atkd.__all__) == sorted([*atkd._PUBLIC, "__version__"]) == dir(atkd)
    assert all(getattr(atkd, name) is not None for name in atkd.__all__)
