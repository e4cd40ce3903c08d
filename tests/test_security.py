"""What SECURITY.md says of code that nobody may run, and of names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers import PACKAGE, smoke

from atkd import config
from atkd.runtime.files import InputError

FILES = sorted(PACKAGE.rglob("*.py"))
# Functions that run what they read, by the name that calls them.
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_read_is_run(path: Path) -> None:
    for call in calls(path):
        name = name_of(call)
        assert name not in RUNS_CODE, f"{path.name}: {name}"
        assert name not in ("torch.load", "torch.save", "os.system", "yaml.load"), path.name
        options = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert options.get("trust_remote_code", "False") == "False", path.name
        assert options.get("shell", "False") == "False", path.name
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not imported & PICKLES, path.name


OUTSIDE = ["../x", "/etc", "a/b", "..", "a\nb", "a;b", "$(a)"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["name", "size", "family", "method", "task"])
def test_a_name_that_is_no_part_of_a_path_is_refused(place: str, name: str) -> None:
    found = smoke()
    models = found["families"]["opt"]["models"]
    if place == "name":
        found["name"] = name
    elif place == "size":
        models[name] = models.pop("1.3b")
        found["pairs"][0]["teacher"] = name
    elif place == "family":
        found["families"][name] = found["families"].pop("opt")
        found["pairs"][0]["family"] = name
    elif place == "method":
        found["methods"].append(name)
    else:
        found["tasks"].append(name)
    with pytest.raises(InputError, match="config key"):
        config.checked(found)
