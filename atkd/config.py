"""A configuration: validated against the schema, defaults filled in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from atkd.analyses import ANALYSES
from atkd.grid import assistant, models, needs, pairs, training
from atkd.methods import (
    METHODS,
    MODELS,
    SWITCHES,
    TRAINING,
    Name,
    models_of,
    overrides,
    own_settings,
    resolve,
    row_of,
    switches_of,
)
from atkd.models.families import FAMILIES, check_layers
from atkd.runtime import packages
from atkd.runtime.files import FORMATS, InputError, format_of, read_json, read_yaml
from atkd.runtime.schema import conform, nearest
from atkd.tasks import TASKS, Task, averaged, open_ended

DATA_FOLDER = "data"  # under a data root
# Source of data -> the group of the schema that describes its settings.
SOURCES = {"world": "world", "local": "local", "hub": "remote", "url": "remote"}
SCHEMA = Path(__file__).resolve().parent / "config.schema.yaml"
# What a node of the schema may hold where it names one of these under `x-registry`.
REGISTRIES: dict[str, Callable[[], list[str]]] = {
    "tasks": lambda: list(averaged()),
    "extra_tasks": lambda: [task for task in TASKS if task not in averaged()],
    "all_tasks": lambda: list(TASKS),
    "local_tasks": lambda: [task for task, row in TASKS.items() if row.files],
    "formats": lambda: list(FORMATS),
    "answers": lambda: ["generation", *TASKS],
    "switches": lambda: list(SWITCHES),
    "analyses": lambda: list(ANALYSES),
}
# The defaults of a node that names one of these under `x-default`.
DEFAULTS: dict[str, Callable[[], Any]] = {
    "local_tasks": REGISTRIES["local_tasks"],
    "shots": lambda: {task: row.shots for task, row in TASKS.items() if row.shots},
    "new_tokens": lambda: (
        {"generation": Task.new_tokens}
        | {task: row.new_tokens for task, row in TASKS.items() if not open_ended(task)}
    ),
}


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


def load(*paths: str | Path) -> dict[str, Any]:
    """A configuration file, YAML or JSON, and what is laid over it, checked.

    InputError names the file or the bad key.
    """
    found: dict[str, Any] = {}
    for path in paths:
        _lay(read(path), found)
    return checked(found)


def _lay(over: Mapping[str, Any], under: dict[str, Any]) -> None:
    """Puts a file's values into another's, key by key, as Snakemake does."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(under.get(key), dict):
            _lay(value, under[key])
        else:
            under[key] = value


def read(path: str | Path) -> dict[str, Any]:
    """What a YAML or JSON file says, unchecked; InputError names a file that cannot be read."""
    found = read_json(path) if str(path).endswith(".json") else read_yaml(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: found {type(found).__name__}; expected keys of a configuration")
    return found


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every default filled in; InputError names the first bad key."""
    filled: dict[str, Any] = conform(schema(), schema(), config)
    data = filled["data"]
    data["settings"] = checked_data(data["source"], data["settings"])
    _check_methods(filled)
    _check_analyses(filled)
    _check_families(filled)
    _check_pairs(filled)
    _check_evaluation(filled)
    if filled["compute"]["answers"] == "vllm":
        packages.check_command("vllm", "compute.answers")
    _check_tasks(filled)
    return filled


def checked_part(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One group of the schema's `$defs`, defaults filled in; InputError names the first bad key.

    The group's title is the key under which a configuration has it.
    """
    node = schema()["$defs"][name]
    found: dict[str, Any] = conform(schema(), node, given, node["title"])
    return found


def checked_data(source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source of data, checked and filled; InputError names the first bad key."""
    if source not in SOURCES:
        raise InputError(f"config key data.source: found {source!r}; expected {', '.join(SOURCES)}")
    found = checked_part(SOURCES[source], settings)
    if source == "world":
        return found
    tasks, named = found["tasks"], {"train": found["train"], "pretrain": found["pretrain"]}
    if isinstance(tasks, dict):
        named |= {f"tasks.{task}": entries for task, entries in tasks.items()}
    for name, entries in named.items():
        for number, entry in enumerate(entries):
            _check_entry(f"config key data.settings.{name}.{number}", entry)
    for name in found["limits"]:
        key = f"config key data.settings.limits.{name}"
        if name not in {"train", *tasks} and not (name == "pretrain" and named["pretrain"]):
            raise InputError(f"{key}: there is no file {name!r} to limit")
        if name in TASKS and TASKS[name].items == "bbh":
            raise InputError(f"{key}: its shots are its first rows; set evaluation.limit.{name}")
    return found


# Where rows come from -> the further keys of such an entry.
ENTRIES = {
    "file": ("format", "split", "columns"),
    "url": ("sha256", "format", "split", "columns"),
    "id": ("revision", "configs", "splits", "columns"),
}


def _check_entry(key: str, entry: Mapping[str, Any]) -> None:
    """One of ENTRIES, with nothing that means nothing there."""
    kind = _only_one(key, entry, ENTRIES)
    for name in entry:
        if name not in (kind, *ENTRIES[kind]):
            known = ", ".join(ENTRIES[kind])
            raise InputError(f"{key}: {name!r} goes not with {kind!r}; expected {known}")
    if kind != "url":
        return
    if "sha256" not in entry:
        raise InputError(f"{key}.sha256: missing; expected the 64 hex digits of {entry['url']}")
    if "format" not in entry:
        format_of(entry["url"], f"{key}.url")


def _only_one(key: str, given: Mapping[str, Any], kinds: Iterable[str]) -> str:
    """The one of `kinds` that is given; InputError on none or several."""
    found = [kind for kind in kinds if kind in given]
    if len(found) != 1:
        told = " and ".join(found) or "none"
        raise InputError(f"{key}: found {told}; expected exactly one of {', '.join(kinds)}")
    return found[0]


def _check_methods(config: dict[str, Any]) -> None:
    node = schema()["properties"]["method_settings"]["additionalProperties"]
    for name in config["methods"]:
        _check_name("config key methods", name)
        own = conform(schema(), node, Name.of(name).settings, f"methods.{name}")
        _check_own("config key methods", name, own)
    for name, settings in config["method_settings"].items():
        _check_name("config key method_settings", name)
        if name != Name.of(name).row:
            raise InputError(
                f"config key method_settings: found {name!r}; expected {Name.of(name).row}, whose "
                "settings hold with every switch"
            )
        _check_own(f"config key method_settings.{name}", name, settings)
    for name in config["methods"]:
        if own_settings(config, name).get("scope") == "corpus":
            _check_corpus(config, name)
        if models_of(config, name)["teacher"] != "final":
            _check_teacher(config, name)


def _check_analyses(config: dict[str, Any]) -> None:
    """What looks at single models finds them in the grid."""
    for name in config["analyses"]:
        lacks = [method for method in ANALYSES[name].looks_at if method not in config["methods"]]
        if lacks:
            raise InputError(
                f"config key analyses: {name} looks at students of {lacks[0]}, which is missing "
                "under methods"
            )


def _check_name(key: str, name: str) -> None:
    """A method that there is, with no switch where nothing is trained."""
    row = Name.of(name).row
    if row not in METHODS:
        raise InputError(f"{key}: unknown method {name!r}{nearest(row, METHODS)}")
    if switches_of(name) and METHODS[row].loss is None:
        raise InputError(f"{key}: found {name!r}; {row} trains nothing that switches change")


def _check_own(key: str, name: str, own: Mapping[str, Any]) -> None:
    """A method's own settings are settings that it has."""
    row = row_of(name)
    known = [*row.settings, *(TRAINING if row.loss else ())]
    known += [key for key in MODELS if row.loss and (key == "start" or row.distils)]
    for setting in own:
        if setting not in known:
            expected = ", ".join(known) or "none"
            raise InputError(f"{key}: {name} has no setting {setting!r}; expected {expected}")
    if "divergence" in own:
        _check_divergence(key, own["divergence"])


def _check_divergence(key: str, name: str) -> None:
    from atkd.losses.divergences import DIVERGENCES  # loads torch, which few configurations need

    if name not in DIVERGENCES:
        raise InputError(
            f"{key}.divergence: unknown divergence {name!r}{nearest(name, DIVERGENCES)}"
        )


def _check_corpus(config: dict[str, Any], name: str) -> None:
    """Tokens of a whole corpus are ranked where the teacher's cache has all of them."""
    recipe = resolve(name, config["pairs"][0]["family"], overrides(config, name))
    cached = recipe.cacheable and recipe.sequences in config["teacher_cache"]
    if recipe.student_fraction > 0 or not cached:
        raise InputError(
            f"config key method_settings.{name}.scope: found 'corpus'; expected a method that "
            "splits the tokens of fixed sequences, all of them in teacher_cache"
        )


def _check_teacher(config: dict[str, Any], name: str) -> None:
    """Another teacher than the fine-tuned one has no answers, and an assistant needs a size."""
    if row_of(name).sequences == "teacher":
        raise InputError(
            f"config key methods: found {name}; expected a method on the training data's answers, "
            "for early teachers and assistants give none"
        )
    if models_of(config, name)["teacher"] == "assistant":
        for pair in pairs(config):
            if assistant(config, pair) is None:
                raise InputError(
                    f"config key methods: found {name}, but {pair.family} {pair.student} has no "
                    f"teacher smaller than {pair.teacher} to be the assistant"
                )


# Where a tokenizer or a model comes from.
TOKENIZER_KINDS = ("train", "words", "files", "folder", "gguf", "hub")
MODEL_KINDS = ("build", "folder", "gguf", "from", "hub")


def _check_families(config: dict[str, Any]) -> None:
    """Every tokenizer and model comes from one place."""
    for family, found in config["families"].items():
        where = f"families.{family}"
        key = f"config key {where}"
        sources = {f"{key}.tokenizer": (found["tokenizer"], TOKENIZER_KINDS)}
        for size, model in found["models"].items():
            sources[f"{key}.models.{size}"] = (model, MODEL_KINDS)
        for place, (source, kinds) in sources.items():
            kind = _only_one(place, source, kinds)
            if family not in FAMILIES and kind in ("build", "train", "words", "files"):
                raise InputError(
                    f"{place}: found {kind}, but {family} is a family of your own, whose files "
                    f"are in a folder or on the hub{nearest(family, FAMILIES)}"
                )
            if "revision" in source and kind != "hub":
                raise InputError(f"{place}.revision: found {source['revision']!r} without hub")
        for size, model in found["models"].items():
            if "build" in model:
                _check_shape(f"{where}.models.{size}.build", family, model["build"])
            _check_pruned(f"{where}.models.{size}", size, found["models"])


def _check_pruned(where: str, size: str, models: Mapping[str, Any]) -> None:
    """What is left of another model names one that is there, and layers that it has."""
    model = models[size]
    for key, needed_by in (("keep_layers", "from"), ("heal", "from"), ("sha256", "gguf")):
        if key in model and needed_by not in model:
            raise InputError(f"config key {where}.{key}: found without {needed_by}")
    if "from" not in model:
        return
    if "keep_layers" not in model:
        raise InputError(f"config key {where}.keep_layers: missing beside from")
    chain = [size]
    while "from" in models[chain[-1]]:
        parent = models[chain[-1]]["from"]
        if parent not in models:
            raise InputError(
                f"config key {where}.from: unknown {parent!r}{nearest(parent, models)}"
            )
        if parent in chain:
            raise InputError(f"config key {where}.from: {' from '.join([*chain, parent])}")
        chain.append(parent)
    above = models[model["from"]]
    layers = above.get("build", {}).get("layers") or len(above.get("keep_layers", ()))
    check_layers(model["keep_layers"], layers or sys.maxsize, f"{where}.keep_layers")


def _check_shape(where: str, family: str, shape: Mapping[str, Any]) -> None:
    FAMILIES[family].own_arguments(shape, where)
    if shape["hidden_size"] % shape["heads"]:
        raise InputError(
            f"config key {where}.hidden_size: found {shape['hidden_size']}; expected a multiple of "
            f"heads, {shape['heads']}"
        )


def _check_pairs(config: dict[str, Any]) -> None:
    for number, pair in enumerate(config["pairs"]):
        families = config["families"]
        if pair["family"] not in families:
            hint = nearest(pair["family"], families)
            raise InputError(f"config key pairs.{number}.family: unknown {pair['family']!r}{hint}")
        sizes = families[pair["family"]]["models"]
        for role in ("student", "teacher"):
            if pair[role] not in sizes:
                hint = nearest(pair[role], sizes)
                raise InputError(f"config key pairs.{number}.{role}: unknown {pair[role]!r}{hint}")
        if pair["student"] == pair["teacher"]:
            raise InputError(
                f"config key pairs.{number}: teacher and student are both {pair['student']!r}"
            )
        for role in ("student", "teacher"):
            _check_training(config, pair["family"], pair[role], role)
        for name in config["methods"]:
            _check_training(config, pair["family"], pair["student"], "student", name)
    for family, size in models(config):
        if {"build", "heal"} & set(config["families"][family]["models"][size]):
            _check_base(config, family, size)


def _check_base(config: dict[str, Any], family: str, size: str) -> None:
    """A model built from scratch is pretrained, and one that is healed trained, on some text."""
    if "base" in config["training"]:
        if config["data"]["settings"].get("pretrain") == []:
            raise InputError(
                f"config key data.settings.pretrain: missing, but {family} {size} is built from "
                "scratch or healed; expected text to train it on"
            )
        _check_training(config, family, size, "base")
    elif not config["training"]["student"]["allow_random_student"]:
        raise InputError(
            f"config key training.base: missing, but {family} {size} is built from scratch; "
            "distilling into random weights fails (training.student.allow_random_student insists)"
        )


def _check_training(
    config: dict[str, Any], family: str, size: str, role: str, method: str = ""
) -> None:
    """What training needs is installed, and a batch is whole micro-batches on every process."""
    found = training(config, family, size, role, method)
    if found["optimiser"] == "adamw_8bit":
        packages.check("torchao", f"training.{role}.optimiser")
    if "lora_rank" in found:
        packages.check("peft", f"training.{role}.lora_rank")
    processes = needs(config, family, [size], size)["gpus"]
    unit = found.get("micro_batch_size", 1) * max(1, processes)
    if found["batch_size"] % unit:
        trained = f"{family} {size}" + (f" by {method}" if method else "")
        raise InputError(
            f"config key training.{role}.batch_size: found {found['batch_size']} for {trained}; "
            f"expected a multiple of micro_batch_size x processes, {unit}"
        )


def _check_evaluation(config: dict[str, Any]) -> None:
    evaluation = config["evaluation"]
    answers = evaluation["max_new_tokens"]
    own = (answers.get(task, _longest_answer(answers, task)) for task in _all_tasks(config))
    longest = max([*answers.values(), *own])
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


def _longest_answer(answers: Mapping[str, int], task: str) -> int:
    """Tokens of a task's longest answer, where it has no entry of its own."""
    default = TASKS[task].new_tokens
    return answers.get("generation", default) if open_ended(task) else default


def _all_tasks(config: Mapping[str, Any]) -> list[str]:
    return [*config["tasks"], *config["extra_tasks"]]


def _check_tasks(config: dict[str, Any]) -> None:
    """Every task has data; the world has those of all."""
    known = config["data"]["settings"].get("tasks")
    for task in _all_tasks(config):
        if known is not None and task not in known:
            raise InputError(
                f"config key data.settings.tasks: {task} is missing, which the run is evaluated on;"
                f" found {', '.join(known)}"
            )


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
    try:
        root.encode()
    except UnicodeEncodeError:  # a variable of the environment may hold any bytes
        raise InputError(f"config key data_root: found {root!r}; expected UTF-8") from None
    return root


def check_folders(config: Mapping[str, Any], results: str) -> None:
    """InputError on what is named and not there, unless `results` hold what it is for."""
    for key, path, product in _folders(config):
        place = Path(data_root(config), path)
        file = key.endswith(".gguf")
        there = place.is_file() if file else place.is_dir()
        if not there and not Path(results, product).exists():
            raise InputError(
                f"config key {key}: found {place}; expected a {'file' if file else 'folder'}"
            )


def _folders(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Folders and files that others made: key, path, and the first file that a run makes of it."""
    if config["data"]["source"] == "local":
        root = config["data"]["settings"].get("root", DATA_FOLDER)
        yield "data.settings.root", root, "data/manifest.json"
    for family in {pair["family"] for pair in config["pairs"]}:
        tokenizer, made = config["families"][family]["tokenizer"], f"tokenizers/{family}"
        if "files" in tokenizer:
            yield f"families.{family}.tokenizer.files", tokenizer["files"], f"{made}/tokenizer.json"
        for kind in {"folder", "gguf"} & set(tokenizer):
            place = os.path.abspath(tokenizer[kind])
            yield f"families.{family}.tokenizer.{kind}", place, f"{made}/tokenizer.json"
    for family, size in models(config):
        model = config["families"][family]["models"][size]
        for kind in {"folder", "gguf"} & set(model):
            place = os.path.abspath(model[kind])
            yield f"families.{family}.models.{size}.{kind}", place, f"checks/{family}/{size}.json"


def reference() -> str:
    """Every key of the schema in Markdown: name, meaning, default (config/README.md holds it)."""
    groups = {name: _keys(node) for name, node in schema()["$defs"].items()}
    told = "".join(f"\n### {name}\n\n{keys}" for name, keys in groups.items() if keys)
    return _keys(schema()) + told


def _keys(node: Mapping[str, Any], path: str = "") -> str:
    lines = ""
    for name, child in node.get("properties", {}).items():
        *above, target = child.get("$ref", "").removeprefix("#/$defs/").split("/")
        if above:  # one key of another group
            child, target = schema()["$defs"][above[0]]["properties"][target] | child, ""
        items = schema()["$defs"].get(target, {}).get("items", {})
        target = items.get("$ref", target).rpartition("/")[2]  # of a list, what it is made of
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
