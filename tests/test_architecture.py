"""The house: who may import whom, what may load torch, and how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MODULES = {path.stem: path for path in sorted((ROOT / "atkd").glob("*.py"))}
ANYONE = {"files", "provenance", "config"}
ALLOWED = {
    "__init__": {"fused", "objectives"},
    "warm": set(),
    "files": {"warm"},
    "provenance": {"files"},
    "config": {"files"},
    "divergences": set(),
    "weighting": set(),
    "objectives": {"divergences", "weighting"},
    "kernels": {"divergences", "objectives", "weighting"},
    "products": set(),
    "guess": {"weighting"},
    "sweep": {"guess", "kernels", "products", "weighting"},
    "fused": {"kernels", "objectives", "products", "sweep", "weighting"},
    "released": set(),
    "generation": {"models", "tokens"},
    "onpolicy": {"generation", "released", "sequences"},
    "text": {"generation", "models", "sequences", "tokens"},
    "teachers": {"models", "fused", "sequences"},
    "cache": {"fused", "models", "prompts", "sequences", "teachers", "tokens"},
    "tdist": set(),
    "stats": {"tdist"},
    "secondary": set(),
    "scoring": {"secondary"},
    "grammar": set(),
    "universe": set(),
    "wording": {"grammar", "universe"},
    "exams": {"universe", "wording"},
    "skills": {"grammar", "universe", "wording"},
    "grading": {"grammar", "universe"},
    "world": {"exams", "grading", "grammar", "skills", "universe", "wording"},
    "sources": set(),
    "data": {"sources", "world"},
    "tokens": set(),
    "prompts": {"tokens"},
    "check": {"tokens"},
    "models": set(),
    "sequences": {"tokens", "prompts", "released"},
    "loop": {"models", "sequences"},
    "distillation": {
        "cache",
        "fused",
        "generation",
        "models",
        "products",
        "sequences",
        "teachers",
        "weighting",
    },
    "recipes": {"objectives", "released"},
    "integrations": {"fused", "loop", "objectives", "weighting"},
    "train": {
        "cache",
        "distillation",
        "loop",
        "models",
        "onpolicy",
        "recipes",
        "sequences",
        "teachers",
        "tokens",
    },
    "evaluate": {"generation", "models", "tokens", "scoring"},
    "crosscheck": {"models", "scoring", "tokens"},
    "oracle": {"grammar"},
    "fidelity": {"generation", "grammar", "models", "oracle", "scoring", "tokens"},
    "analyse": {"models", "data", "objectives", "cache"},
    "ledger": set(),
    "endpoint": set(),
    "asker": {"endpoint", "ledger"},
    "verdicts": {"scoring"},
    "judge": {"asker", "endpoint", "grading", "ledger", "scoring", "verdicts"},
    "agreement": {"estimates", "layout"},
    "claims": {"stats"},
    "plan": set(),
    "estimates": {"stats"},
    "deviations": {"estimates", "layout", "released"},
    "comparisons": {"estimates", "stats"},
    "layout": {"estimates", "stats"},
    "costs": {"layout"},
    "tables": {"agreement", "comparisons", "costs", "estimates", "layout", "stats", "claims"},
    "scaling": set(),
    "figures": {"comparisons", "scaling", "stats", "claims"},
    "webpage": set(),
    "measured": {"estimates", "scoring"},
    "browser": {"estimates", "layout", "measured", "webpage"},
    "secondary_table": {"estimates", "layout"},
    "report": {
        "browser",
        "costs",
        "estimates",
        "figures",
        "layout",
        "secondary_table",
        "tables",
        "webpage",
    },
}


def edges(path: Path) -> set[str]:
    """Modules of this package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("atkd.")}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            package, _, module = node.module.partition(".")
            if package == "atkd":
                found |= {module.split(".")[0]} if module else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"relative import of {node.module}"}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    assert name in ALLOWED, f"{name}.py: give it its place in ALLOWED"
    allowed = ALLOWED[name] | (ANYONE - {name} if name not in ANYONE else set())
    assert edges(MODULES[name]) <= allowed


def test_no_module_imports_itself_in_the_end() -> None:
    graph = {name: edges(path) & MODULES.keys() for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, wanted in graph.items() if not wanted & graph.keys()}
        assert leaves, f"a cycle among {', '.join(graph)}"
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "lm_eval", "datasets", "pandas", "matplotlib", "accelerate")
    names = [f"atkd.{name}" for name in MODULES if name != "__init__"]
    code = f"import sys, importlib\nfor n in {names}: importlib.import_module(n)\n"
    code += f"print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{name}.{node.name}"


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_annotated_and_public_ones_described(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
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
