"""A configuration: validated against the schema, defaults filled in, and the grid it spans."""

from __future__ import annotations

import copy
import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from atkd.methods import METHODS, SWITCHES, deviations, row_of, switches_of
from atkd.models.families import FAMILIES
from atkd.runtime.files import InputError, read_json
from atkd.tasks import TASKS, Task, averaged, open_ended

DATA_FOLDER = "data"  # under a data root
SCHEMA = Path(__file__).resolve().parent / "config.schema.yaml"
# What a node of the schema may hold where it names one of these under `x-registry`.
REGISTRIES: dict[str, Callable[[], list[str]]] = {
    "tasks": lambda: list(averaged()),
    "extra_tasks": lambda: [task for task in TASKS if task not in averaged()],
    "families": lambda: list(FAMILIES),
    "switches": lambda: list(SWITCHES),
}
# The defaults of a node that names one of these under `x-default`.
DEFAULTS: dict[str, Callable[[], Any]] = {
    "local_tasks": lambda: [task for task, row in TASKS.items() if row.files],
    "shots": lambda: {task: row.shots for task, row in TASKS.items() if row.shots},
    "new_tokens": lambda: (
        {"generation": Task.new_tokens}
        | {task: row.new_tokens for task, row in TASKS.items() if not open_ended(task)}
    ),
}


RUN_KEYS = ("family", "student", "teacher", "method")


@dataclass(frozen=True)
class Run:
    """One evaluated model; `-` stands for no student, or no teacher."""

    family: str
    student: str
    teacher: str
    method: str
    seed: int

    @property
    def key(self) -> str:
        """Name of the run in score files, and its folder under runs/."""
        return f"{self.family}/{self.student}/{self.teacher}/{self.method}/{self.seed}"

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Run:
        """From the parts of a key, as text."""
        family, student, teacher, method = (names[key] for key in RUN_KEYS)
        return cls(family, student, teacher, method, int(names["seed"]))


@cache
def schema() -> dict[str, Any]:
    """The configuration's JSON schema, with the names that registries hold."""
    import yaml

    found = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    _name(found)
    return found


def _name(node: Any) -> None:
    """Puts what registries hold into every node that names one."""
    if isinstance(node, list):
        for item in node:
            _name(item)
    if not isinstance(node, dict):
        return
    if isinstance(registry := node.get("x-registry"), str):
        node["enum"] = REGISTRIES[registry]()
    if isinstance(default := node.get("x-default"), str):
        node["default"] = DEFAULTS[default]()
    for child in node.values():
        _name(child)


def load(path: str | Path) -> dict[str, Any]:
    """A configuration file, YAML or JSON, checked; InputError names the file or the bad key."""
    if str(path).endswith(".json"):
        return checked(read_json(path))
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: found {type(found).__name__}; expected keys of a configuration")
    return checked(found)


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every default filled in; InputError names the first bad key."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    filled = copy.deepcopy(dict(config))
    error = best_match(Draft202012Validator(schema()).iter_errors(filled), key=_depth)
    if error is not None:
        raise InputError(_message(error))
    _fill(schema(), filled)
    _check_methods(filled)
    _check_pairs(filled)
    _check_evaluation(filled)
    return filled


def checked_part(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One group of the schema's `$defs`, defaults filled in; InputError names the first bad key.

    The group's title is the key under which a configuration has it.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    filled = copy.deepcopy(dict(given))
    node = {"$defs": schema()["$defs"], "$ref": f"#/$defs/{name}"}
    error = best_match(Draft202012Validator(node).iter_errors(filled), key=_depth)
    if error is not None:
        raise InputError(_message(error, schema()["$defs"][name]["title"]))
    return filled_part(name, filled)


def filled_part(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One group of the schema's `$defs` with its defaults, unchecked."""
    filled = copy.deepcopy(dict(given))
    _fill(schema()["$defs"][name], filled)
    return filled


def _depth(error: Any) -> Any:
    return (len(error.path), error.validator not in ("anyOf", "oneOf"))


def _message(error: Any, place: str = "") -> str:
    path = [place, *map(str, error.absolute_path)] if place else map(str, error.absolute_path)
    key = ".".join(path) or "(top level)"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(name for name in error.instance if name not in known)
        return f"config key {key}: unknown key {unknown!r}{_nearest(unknown, known)}"
    if error.validator == "required":
        return f"config key {key}: {error.message}"
    why = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    if isinstance(error.schema, dict) and error.schema.get("writeOnly"):  # may be a secret
        return f"config key {key}: expected {why}"
    found = json.dumps(error.instance, default=str)
    found = found if len(found) <= 80 else found[:77] + "..."
    return f"config key {key}: found {found}; expected {_expected(error)}. {why}".rstrip()


def _expected(error: Any) -> str:
    value = error.validator_value
    words = {
        "type": f"{value}",
        "minimum": f"a number of at least {value}",
        "exclusiveMinimum": f"a number above {value}",
        "maximum": f"a number of at most {value}",
        "exclusiveMaximum": f"a number below {value}",
        "enum": f"one of {value}",
        "minItems": f"a list of at least {value}",
        "minProperties": f"a mapping with at least {value} key",
        "minLength": f"a text of at least {value} character",
        "uniqueItems": "no item twice",
        "pattern": f"a match of {value}",
    }
    return words.get(error.validator, f"{error.validator} {value}")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f"; expected one of {', '.join(known)}"


def _fill(node: Mapping[str, Any], value: Any) -> None:
    if "$ref" in node:
        target: Any = schema()
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        _fill(target, value)
    if isinstance(value, list):
        for item in value:
            _fill(node.get("items", {}), item)
    if not isinstance(value, dict):
        return
    properties = node.get("properties", {})
    for name, child in properties.items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
    for name, item in value.items():
        extra = node.get("additionalProperties")
        child = properties.get(name, extra if isinstance(extra, dict) else {})
        _fill(child, item)


def _check_methods(config: dict[str, Any]) -> None:
    for key in ("methods", "method_settings"):
        for name in config[key]:
            if name.partition("+")[0] not in METHODS:
                hint = _nearest(name, METHODS)
                raise InputError(f"config key {key}: unknown method {name!r}{hint}")
            switches_of(name)
    for name, settings in config["method_settings"].items():
        if "divergence" in settings:
            _check_divergence(name, settings["divergence"])


def _check_divergence(method: str, name: str) -> None:
    from atkd.losses.divergences import DIVERGENCES  # loads torch, which few configurations need

    if name not in DIVERGENCES:
        key = f"config key method_settings.{method}.divergence"
        raise InputError(f"{key}: unknown divergence {name!r}{_nearest(name, DIVERGENCES)}")


def _check_pairs(config: dict[str, Any]) -> None:
    for number, pair in enumerate(config["pairs"]):
        families = config["families"]
        if pair["family"] not in families:
            hint = _nearest(pair["family"], families)
            raise InputError(f"config key pairs.{number}.family: unknown {pair['family']!r}{hint}")
        sizes = families[pair["family"]]["models"]
        for role in ("student", "teacher"):
            if pair[role] not in sizes:
                hint = _nearest(pair[role], sizes)
                raise InputError(f"config key pairs.{number}.{role}: unknown {pair[role]!r}{hint}")
        if pair["student"] == pair["teacher"]:
            raise InputError(
                f"config key pairs.{number}: teacher and student are both {pair['student']!r}"
            )
    for family, size in models(config):
        _check_model(config, family, size)


def _check_model(config: dict[str, Any], family: str, size: str) -> None:
    source = config["families"][family]["models"][size]
    kinds = [kind for kind in ("build", "folder", "hub") if kind in source]
    if len(kinds) != 1:
        key = f"families.{family}.models.{size}"
        raise InputError(
            f"config key {key}: found {kinds}; expected exactly one of build, folder, hub"
        )
    training = config["training"]
    if (
        kinds == ["build"]
        and "base" not in training
        and not training["student"]["allow_random_student"]
    ):
        raise InputError(
            f"config key training.base: missing, but {family} {size} is built from scratch; "
            "distilling into random weights fails (training.student.allow_random_student insists)"
        )


def _check_evaluation(config: dict[str, Any]) -> None:
    evaluation, tasks = config["evaluation"], [*config["tasks"], *config["extra_tasks"]]
    for task in evaluation["limit"]:
        if task not in TASKS:
            raise InputError(
                f"config key evaluation.limit: unknown task {task!r}{_nearest(task, tasks)}"
            )
    longest = max(evaluation["max_new_tokens"].values())
    if longest >= evaluation["context"]:
        raise InputError(
            f"config key evaluation.context: found {evaluation['context']}; expected more than the "
            f"longest answer, {longest} tokens (evaluation.max_new_tokens)"
        )
    for family, size in models(config):
        if "build" not in config["families"][family]["models"][size]:
            continue
        trained = training(config, family, size, "base")["max_length"]
        if evaluation["context"] > trained:
            raise InputError(
                f"config key evaluation.context: found {evaluation['context']}; expected at most "
                f"{trained}, the length {family} {size} is pretrained at (training.base.max_length)"
            )


def model_seed(config: Mapping[str, Any], seed: int) -> int:
    """Seed of the base and teacher that a run of `seed` uses."""
    return seed if config["seeds_cover"] == "all" else 0


def models(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(family, size) of every model the pairs name, in their order."""
    found: dict[tuple[str, str], None] = {}
    for pair in config["pairs"]:
        found[pair["family"], pair["student"]] = None
        found[pair["family"], pair["teacher"]] = None
    return list(found)


def runs(config: Mapping[str, Any]) -> list[Run]:
    """The grid: every model to evaluate, controls included, each once and in a stable order.

    A method that no teacher enters is trained once per student. With `deviations`, every method is
    also run with each switch of the released code that touches it in the family, and with all.
    """
    found: dict[Run, None] = {}
    variants = {
        pair["family"]: deviations(config, pair["family"]) if config["deviations"] else []
        for pair in config["pairs"]
    }
    for pair, seed in ((pair, seed) for pair in config["pairs"] for seed in config["seeds"]):
        family, student, teacher = pair["family"], pair["student"], pair["teacher"]
        found[Run(family, "-", teacher, "teacher", model_seed(config, seed))] = None
        for method in [*config["methods"], *variants[family]]:
            source = teacher if row_of(method).needs_teacher else "-"
            found[_run(config, family, student, source, method, seed)] = None
    return list(found)


def _run(
    config: Mapping[str, Any], family: str, student: str, teacher: str, method: str, seed: int
) -> Run:
    seed = model_seed(config, seed) if method == "none" else seed
    return Run(family, student, teacher, method, seed)


def training(config: Mapping[str, Any], family: str, size: str, role: str) -> dict[str, Any]:
    """Settings of training `size` as `role` (base, teacher, student), its overrides applied."""
    common = config["training"].get(role, config["training"]["student"])
    own = config["families"][family]["models"][size].get("training", {}).get(role, {})
    kept = {key: value for key, value in common.items() if key != "allow_random_student"}
    return kept | own


def needs(config: Mapping[str, Any], family: str, sizes: Iterable[str]) -> dict[str, int]:
    """What a job that loads these sizes asks for: each need is the largest of theirs."""
    common = config["compute"]
    found = [config["families"][family]["models"][size].get("compute", {}) for size in sizes]
    keys = ("gpus", "threads", "memory_mb", "minutes")
    return {key: max(own.get(key, common[key]) for own in found) for key in keys}


def data_root(config: Mapping[str, Any]) -> str:
    """Folder under which relative paths lie; InputError when one is needed and none is known."""
    root = config.get("data_root") or os.environ.get("ATKD_DATA", "")
    paths = {}
    if config["data"]["source"] == "local":
        paths["data.source"] = config["data"]["settings"].get("root", DATA_FOLDER)
    for family in {pair["family"] for pair in config["pairs"]}:
        tokenizer = config["families"][family]["tokenizer"]
        paths[f"families.{family}.tokenizer.files"] = tokenizer.get("files", "/")
    relative = [(key, path) for key, path in paths.items() if not Path(path).is_absolute()]
    if relative and not root:
        key, path = relative[0]
        raise InputError(
            f"config key data_root: missing, but {key} reads {path!r} under it; set it, or the "
            "environment variable ATKD_DATA, to the folder that holds data/ and tokenizers/"
        )
    return root


def reference() -> str:
    """Every key of the schema in Markdown: name, meaning, default (config/README.md holds it)."""
    groups = {name: _keys(node) for name, node in schema()["$defs"].items()}
    return _keys(schema()) + "".join(f"\n### {name}\n\n{keys}" for name, keys in groups.items())


def _keys(node: Mapping[str, Any], path: str = "") -> str:
    lines = ""
    for name, child in node.get("properties", {}).items():
        *above, target = child.get("$ref", "").removeprefix("#/$defs/").split("/")
        if above:  # one key of another group
            child, target = schema()["$defs"][above[0]]["properties"][target] | child, ""
        facts = [child.get("description", "").rstrip("."), target and f"Keys: {target}"]
        facts.append("enum" in child and f"One of {', '.join(map(str, child['enum']))}")
        facts.append("default" in child and f"Default `{json.dumps(child['default'])}`")
        lines += f"- `{path}{name}`: {' '.join(f'{fact}.' for fact in facts if fact)}\n"
        for suffix, inner in (
            (".", child),
            ("[].", child.get("items")),
            (".<name>.", child.get("additionalProperties")),
        ):
            lines += _keys(inner, f"{path}{name}{suffix}") if isinstance(inner, dict) else ""
    return lines
