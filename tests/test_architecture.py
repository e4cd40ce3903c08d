"""The house: who may import whom, what may load torch, and how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import PACKAGE, ROOT, edges

FILES = sorted(PACKAGE.rglob("*.py"))
# What each folder may import beside itself; a module named with its folder stands alone.
ALLOWED = {
    "runtime": set(),
    "losses": set(),
    "tasks": {"runtime"},
    "methods": {"runtime"},
    "analyses": {"methods"},
    "grid": {"methods", "analyses", "models.families"},
    "config": {"runtime", "tasks", "methods", "analyses", "grid", "models.families", "losses"},
    "world": {"runtime", "tasks", "config"},
    "models": {"runtime"},
    "statistics": {
        "runtime", "tasks", "methods", "analyses", "models.families", "evaluation.metrics",
    },
    "jobs": {"runtime"},
    "code": {"runtime"},
    "layout": {"runtime", "tasks", "config", "methods", "grid", "jobs"},
    "plan": {"runtime", "tasks", "config", "methods", "analyses", "grid", "jobs", "layout"},
    "forecast": {"tasks", "config", "grid", "jobs", "layout", "plan", "models", "data", "world"},
    "data": {"runtime", "tasks", "config", "models", "world"},
    "integrations": {"losses"},
    "training": {"runtime", "losses", "models", "data", "methods"},
    "evaluation": {"runtime", "tasks", "models", "world"},
    "analysis": {"runtime", "losses", "models", "data", "evaluation"},
    "judge": {"runtime", "tasks", "config", "evaluation.scores", "world"},
    "reporting": {
        "runtime", "tasks", "methods", "analyses", "models.families", "statistics",
        "evaluation.scores", "evaluation.metrics",
    },
    "__init__": {"losses", "methods"},
    "__main__": {"runtime", "config", "jobs", "plan"},
}  # fmt: skip


def room(path: Path) -> str:
    """The folder of a file of the package, or its own name for one at the top."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way_by_folder(path: Path) -> None:
    here = room(path)
    assert here in ALLOWED, f"{here}: give it its place in ALLOWED"
    for name in edges(path):
        folder = name.partition(".")[0]
        assert folder == here or {folder, name} & ALLOWED[here], f"{path.name} imports {name}"


def test_folders_do_not_import_each_other_in_the_end() -> None:
    graph = {
        name: {one.partition(".")[0] for one in wanted} - {name} for name, wanted in ALLOWED.items()
    }
    while graph:
        leaves = {name for name, wanted in graph.items() if not wanted & graph.keys()}
        assert leaves, f"a cycle among {', '.join(graph)}"
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}


# What runs on tensors imports torch at once, and nothing else does.
TORCH = {
    "losses", "training", "data.sequences", "models.checkpoints", "models.generation",
    "models.one_token",
    "evaluation.evaluate", "evaluation.fidelity", "evaluation.mmlu_crosscheck",
    "evaluation.references", "analysis.uncertainty", "analysis.landscape",
    "analysis.explorer",
}  # fmt: skip


@pytest.mark.parametrize("loaded", [[], ["torch"]])
def test_importing_loads_nothing_heavy(loaded: list[str]) -> None:
    heavy = ("torch", "transformers", "lm_eval", "datasets", "pandas", "matplotlib", "accelerate")
    modules = [
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in FILES
        if path.stem not in ("__init__", "integrations") and "lm_eval_tasks" not in path.parts
    ]
    names = [
        f"atkd.{name}"
        for name in modules
        if bool({name, name.partition(".")[0]} & TORCH) == bool(loaded)
    ]
    code = f"import sys, importlib\nfor n in {names}: importlib.import_module(n)\n"
    code += f"print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(loaded)


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_functions_stay_small() -> None:
    sizes = {
        f"{path.relative_to(PACKAGE)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert sorted(sizes.values())[len(sizes) // 2] < 12
    longest = max(FILES, key=lambda path: len(path.read_text(encoding="utf-8").splitlines()))
    assert len(longest.read_text(encoding="utf-8").splitlines()) <= 600, longest


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_annotated_and_public_ones_described(path: Path) -> None:
    tree, name = ast.parse(path.read_text(encoding="utf-8")), path.stem
    assert ast.get_docstring(tree) or not tree.body
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
            bare = [
                a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
            ]
            assert node.returns is not None and not bare, f"{name}.{node.name}: {bare}"


def test_both_environments_install_the_same() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = [line for line in lines if line and not line.startswith("#")]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (conda,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert conda == locked
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in locked), "exact public versions"
    light = (ROOT / "requirements-figures.lock").read_text(encoding="utf-8").splitlines()
    assert {line for line in light if line and not line.startswith("#")} <= set(locked)


def test_make_offers_what_the_readers_are_told() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert {"help", "reproduce", "smoke", "test", "figures", "freeze", "lint"} <= targets
    told = set(re.findall(r'echo "make (\w+)', text))
    assert told <= targets and {"reproduce", "test", "figures", "lint"} <= told
