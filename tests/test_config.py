"""Configurations: defaults, the grid, and one message for every wrong value."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, over_world
from hypothesis import given, settings
from hypothesis import strategies as st

from atkd import config as grid
from atkd.runtime.files import InputError

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
OVER_WORLD = sorted((ROOT / "config/world").glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    path = ROOT / f"config/{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    found = grid.checked(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert found["name"] == path.stem
    assert found["evaluation"]["shots"]["mmlu"] == (2 if path.stem == "world" else 5)
    assert grid.checked(found) == found


@pytest.mark.parametrize("name", [path.stem for path in OVER_WORLD])
def test_every_file_over_the_world_is_valid_and_shares_its_models(name: str) -> None:
    found, world = grid.checked(over_world(name)), grid.checked(read("world"))
    assert found["name"] == ("world" if name == "five_seeds" else name)
    same = ("families", "training", "tasks", "evaluation")
    assert {key: found[key] for key in same} == {key: world[key] for key in same}


FAMILY = {"tokenizer": {"train": 400}, "models": {"1b": {"hub": "some/model"}}}
BAD = [
    ("sedes", [1], "(top level): unknown key 'sedes' (did you mean 'seeds'?)"),
    ("training.student.lr", 1e-3, "training.student: unknown key 'lr'; expected one of steps"),
    ("methods", ["supervised_kdd"], "methods: unknown method 'supervised_kdd' (did you mean"),
    ("method_settings", {"gdk": {}}, "method_settings: unknown method 'gdk'"),
    ("method_settings", {"sft": {"easy": 1}}, "method_settings.sft: unknown key 'easy'"),
    ("pairs.0.family", "otp", "pairs.0.family: unknown 'otp' (did you mean 'opt'?)"),
    ("pairs.0.teacher", "1.3", "pairs.0.teacher: unknown '1.3' (did you mean '1.3b'?)"),
    ("pairs.0.teacher", "125m", "pairs.0: teacher and student are both '125m'"),
    ("families.oppt", FAMILY, "or on the hub (did you mean 'opt'?)"),
    ("training.student.learning_rate", -1e-3, "learning_rate: found -0.001; expected a number"),
    ("training.student.learning_rate", "fast", 'learning_rate: found "fast"; expected number'),
    ("evaluation.limit.dolly", 0, "evaluation.limit.dolly: found 0; expected a number of at least"),
    ("evaluation.limit", {"doly": 3}, "(did you mean 'dolly'?)"),
    ("evaluation.context", 300, "evaluation.context: found 300; expected at most 256"),
    ("evaluation.max_new_tokens.mmlu", 256, "evaluation.context: found 256; expected more than"),
    ("tasks", ["dolly", "dolly"], "tasks: found"),
    ("tasks", ["gsm8k"], 'tasks.0: found "gsm8k"; expected one of'),
    ("families.opt.models.125m", {"hub": "a", "folder": "b"}, "expected exactly one of build"),
    ("training.base", None, "training.base"),
    ("name", "../up", 'name: found "../up"; expected a match of'),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=[f"{k}={v}" for k, v, _ in BAD])
def test_wrong_values_name_key_value_and_what_was_expected(
    key: str, value: Any, message: str
) -> None:
    config = read("smoke")
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    if key.endswith(("125m", "1.3b")):
        path, last = ["families", "opt", "models"], "125m"
    node: Any = config
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(InputError) as caught:
        grid.checked(config)
    assert str(caught.value).startswith("config key ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def put(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The configuration with a value under a dotted key."""
    *path, last = key.split("/")
    node: Any = config
    for part in path:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value
    return config


SIZES = "families/opt/models"
BUILD = {"build": {"hidden_size": 16, "layers": 1, "heads": 2}}
LOCAL = {"source": "local", "settings": {"pretrain": "text_novels"}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(f"{SIZES}/1.3 b", BUILD, marks=pytest.mark.case(
            "config", "a size with a blank, `1.3 b`",
            'families.opt.models: found "1.3 b"; expected a match of')),
        pytest.param(f"{SIZES}/-", BUILD, marks=pytest.mark.case(
            "config", "a size `-`, which stands for none in a run's key",
            'families.opt.models: found "-"; expected a match of')),
        pytest.param(f"{SIZES}/.b", BUILD, marks=pytest.mark.case(
            "config", "a size that begins with a dot", 'families.opt.models: found ".b"')),
        pytest.param(f"{SIZES}/a+b", BUILD, marks=pytest.mark.case(
            "config", "a size with the + of methods", 'families.opt.models: found "a+b"')),
        pytest.param(f"{SIZES}/$HOME", BUILD, marks=pytest.mark.case(
            "config", "a size that a shell would replace", 'families.opt.models: found "$HOME"')),
        pytest.param("name", "two words", marks=pytest.mark.case(
            "config", "a name with a blank", 'name: found "two words"; expected a match of')),
        pytest.param("name", "smoke\n", marks=pytest.mark.case(
            "config", "a name with a line's end", 'name: found "smoke\\n"; expected a match of')),
        pytest.param("training/student/batch_size", 4.5, marks=pytest.mark.case(
            "config", "`batch_size: 4.5`",
            "training.student.batch_size: found 4.5; expected integer")),
        pytest.param("training/student/batch_size", True, marks=pytest.mark.case(
            "config", "`batch_size: true`",
            "training.student.batch_size: found true; expected integer")),
        pytest.param("training/student/learning_rate", float("nan"), marks=pytest.mark.case(
            "config", "`learning_rate: .nan`",
            "training.student.learning_rate: found nan; expected a finite number")),
        pytest.param("data/settings/held_out", float("-inf"), marks=pytest.mark.case(
            "config", "`held_out: -.inf` of the world",
            "data.settings.held_out: found -inf; expected a finite number")),
        pytest.param("data/settings/train", "banana", marks=pytest.mark.case(
            "config", "`train: banana` of the world",
            'data.settings.train: found "banana"; expected integer')),
        pytest.param("data/settings/seed", 1, marks=pytest.mark.case(
            "config", "a setting that the world has not",
            "data.settings: unknown key 'seed'")),
        pytest.param("evaluation/judge", {"endpoint": "http://h/v1", "model": "m",
            "timeout_s": float("inf")}, marks=pytest.mark.case(
            "config", "`timeout_s: .inf` of a judge",
            "evaluation.judge.timeout_s: found inf; expected a finite number")),
        pytest.param("seeds", [1, 1.0], marks=pytest.mark.case(
            "config", "`seeds: [1, 1.0]`", "seeds: found [1, 1]; expected no item twice")),
        pytest.param("seeds", [2**32], marks=pytest.mark.case(
            "config", "a seed beyond 32 bits", "seeds.0: found 4294967296; expected a number of")),
        pytest.param("training/student/micro_batch_size", 3, marks=pytest.mark.case(
            "config", "a batch of 4 in micro-batches of 3",
            "training.student.batch_size: found 4 for opt 125m; expected a multiple of "
            "micro_batch_size x processes, 3")),
        pytest.param(f"{SIZES}/1.3b/build/heads", 3, marks=pytest.mark.case(
            "config", "32 dimensions for 3 heads",
            "families.opt.models.1.3b.build.hidden_size: found 32; expected a multiple of heads, 3"
        )),
        pytest.param("families/llama/models/68m/build/dropout", 0.1, marks=pytest.mark.case(
            "config", "a shape's key that the family has not",
            "families.llama.models.68m.build.dropout: found 0.1; LLaMA has no such setting")),
        pytest.param("families/opt/tokenizer/hub", "a/b", marks=pytest.mark.case(
            "config", "a tokenizer with two sources",
            "families.opt.tokenizer: found train and hub; expected exactly one of train, words")),
        pytest.param("families/opt/tokenizer/revision", "main", marks=pytest.mark.case(
            "config", "a revision without hub",
            "families.opt.tokenizer.revision: found 'main' without hub")),
        pytest.param("methods", ["none+released"], marks=pytest.mark.case(
            "config", "a switch of a method that trains nothing",
            "methods: found 'none+released'; none trains nothing that switches change")),
        pytest.param("method_settings", {"gkd+released": {"beta": 0.4}}, marks=pytest.mark.case(
            "config", "settings of a method with a switch, which nobody would read",
            "method_settings: found 'gkd+released'; expected gkd, whose settings hold")),
        pytest.param("method_settings", {"gkd_atkd": {"scope": "corpus"}}, marks=pytest.mark.case(
            "config", "a corpus ranked for a method on the student's own answers",
            "method_settings.gkd_atkd.scope: found 'corpus'; expected a method that "
            "splits the tokens of fixed sequences, all of them in teacher_cache")),
        pytest.param("method_settings", {"supervised_kd": {"scope": "corpus"}},
            marks=pytest.mark.case("config", "a setting that the method has not",
            "method_settings.supervised_kd: supervised_kd has no setting 'scope'; expected "
            "temperature, ")),
        pytest.param("methods", ["sft+learning_rate=fast"], marks=pytest.mark.case(
            "config", "a method's own rate that is no number",
            'methods.sft+learning_rate=fast.learning_rate: found "fast"; expected number')),
        pytest.param("methods", ["sft+k=0.3"], marks=pytest.mark.case(
            "config", "an own setting that there is not",
            "methods.sft+k=0.3: unknown key 'k'")),
        pytest.param("methods", ["supervised_kd_atkd+tokens=hard"], marks=pytest.mark.case(
            "config", "some tokens alone for a method that parts them itself",
            "methods: supervised_kd_atkd+tokens=hard has no setting 'tokens'; expected ")),
        pytest.param("methods", ["supervised_kd+temperature=0"], marks=pytest.mark.case(
            "config", "a temperature of 0",
            "methods.supervised_kd+temperature=0.temperature: found 0; expected ")),
        pytest.param("methods", ["supervised_kd+teacher=assistant"], marks=pytest.mark.case(
            "config", "an assistant where no teacher is smaller",
            "methods: found supervised_kd+teacher=assistant, but opt 125m has no teacher smaller "
            "than 1.3b to be the assistant")),
        pytest.param("methods", ["f_distill+teacher=early"], marks=pytest.mark.case(
            "config", "the answers of a teacher that stopped early",
            "methods: found f_distill+teacher=early; expected a method on the training data's")),
        pytest.param("analyses", ["sweeps"], marks=pytest.mark.case(
            "config", "an analysis that there is not", 'analyses.0: found "sweeps"; expected one')),
        pytest.param("methods", ["sft+hard_fraction=0.3"], marks=pytest.mark.case(
            "config", "an own setting of another method",
            "methods: sft+hard_fraction=0.3 has no setting 'hard_fraction'; expected ")),
        pytest.param("methods", ["none+steps=3"], marks=pytest.mark.case(
            "config", "an own setting where nothing is trained",
            "methods: none+steps=3 has no setting 'steps'; expected none")),
        pytest.param("evaluation/max_new_tokens", {"dolly": 300}, marks=pytest.mark.case(
            "config", "an answer longer than the context", "found 256; expected more than the "
            "longest answer, 300 tokens")),
        pytest.param("evaluation/shots", {"mlmu": 5}, marks=pytest.mark.case(
            "config", "shots of an unknown task", "(did you mean 'mmlu'?)")),
        pytest.param("data", LOCAL, marks=pytest.mark.case(
            "config", "a task without data",
            "data.settings.tasks: unseen is missing, which the run is evaluated on")),
        pytest.param("data", {"source": "local", "settings": {"tasks": ["dolly", "gsm8k"]}},
            marks=pytest.mark.case("config", "data of an unknown task",
            'data.settings.tasks.1: found "gsm8k"; expected one of')),
        pytest.param("data", {"source": "local", "settings": {"limits": {"doly": 3}}},
            marks=pytest.mark.case("config", "a limit of no file",
            "data.settings.limits.doly: there is no file 'doly' to limit")),
        pytest.param("data", {"source": "local", "settings": {"limits": {"bbh": 3}}},
            marks=pytest.mark.case("config", "a limit of BBH's rows, the first of which are shots",
            "data.settings.limits.bbh: its shots are its first rows; set evaluation.limit.bbh")),
        pytest.param("data", {"source": "local", "settings": {"overlap": "ignore"}},
            marks=pytest.mark.case("config", "an unknown policy of overlap",
            "data.settings.overlap: found \"ignore\"; expected one of ['remove', 'refuse']")),
        pytest.param("data", {"source": "local"}, marks=pytest.mark.case(
            "config", "built models without text to pretrain them on",
            "data.settings.pretrain: missing, but opt 125m is built from scratch")),
        pytest.param("data", {"source": "hub", "settings": {"train": {"split": "x"}, "tasks": {
            "dolly": "d.json"}}}, marks=pytest.mark.case(
            "config", "an entry without file, url and id",
            "data.settings.train.0: found none; expected exactly one of file, url, id")),
        pytest.param("data", {"source": "hub", "settings": {"train": {"url": "https://h/a.json"},
            "tasks": {"dolly": "d.json"}}}, marks=pytest.mark.case(
            "config", "an address without sha256",
            "data.settings.train.0.sha256: missing; expected the 64 hex digits of "
            "https://h/a.json")),
        pytest.param("data", {"source": "hub", "settings": {"train": {"url": "https://h/a?b=c.json",
            "sha256": "0" * 64}, "tasks": {"dolly": "d.json"}}}, marks=pytest.mark.case(
            "config", "an address whose path tells no format",
            "data.settings.train.0.url: found https://h/a?b=c.json; expected a name that ends in "
            ".jsonl, .json, .parquet, .gz or not, or the key `format`")),
        pytest.param("data", {"source": "hub", "settings": {"train": {"file": "a.json",
            "splits": ["train"]}, "tasks": {"dolly": "d.json"}}}, marks=pytest.mark.case(
            "config", "a key that means nothing for a file",
            "data.settings.train.0: 'splits' goes not with 'file'; expected format, split, "
            "columns")),
    ],
)  # fmt: skip
def test_what_needs_no_file_is_checked_before_any_job(key: str, value: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        grid.checked(put(read("smoke"), key, value))
    assert str(caught.value).startswith("config key ") and says in str(caught.value)


def test_a_probe_needs_its_models() -> None:
    config = read("smoke") | {"analyses": ["landscape"], "methods": ["sft", "supervised_kd"]}
    with pytest.raises(
        InputError, match="landscape looks at students of supervised_kd_atkd, which"
    ):
        grid.checked(config)


def test_a_corpus_is_ranked_where_it_is_cached() -> None:
    settings = {"supervised_kd_atkd": {"scope": "corpus"}}
    config = read("smoke") | {"method_settings": settings}
    assert grid.checked(config)["method_settings"] == settings
    with pytest.raises(InputError, match=r"supervised_kd_atkd\.scope: found 'corpus'"):
        grid.checked(config | {"teacher_cache": []})


@pytest.mark.parametrize("size", ["1.3b", "6.7b", "125m", "7b-instruct", "7B_v2", "seed1", "0"])
def test_sizes_that_others_use_pass(size: str) -> None:
    assert grid.checked(put(read("smoke"), f"{SIZES}/{size}", BUILD))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("name: [open", marks=pytest.mark.case(
            "config", "a file that is no YAML", "c.yaml: not valid YAML (while parsing a flow")),
        pytest.param("name: x\n\tseeds: [1]\n", marks=pytest.mark.case(
            "config", "YAML with a tab", "c.yaml: not valid YAML (while scanning")),
        pytest.param("name: x\nseeds: [1]\nname: y\n", marks=pytest.mark.case(
            "config", "a key that occurs twice", "c.yaml:3: key 'name' occurs twice")),
        pytest.param("- a\n- b\n", marks=pytest.mark.case(
            "config", "a list at the top", "c.yaml: found list; expected keys of a configuration")),
        pytest.param("", marks=pytest.mark.case(
            "config", "an empty file", "c.yaml: found NoneType; expected keys of a configuration")),
        pytest.param("name: 2024-13-01\n", marks=pytest.mark.case(
            "config", "a date that is none", "c.yaml: not valid YAML (month must be in 1..12)")),
        pytest.param("pairs: &a [*a]\n", marks=pytest.mark.case(
            "config", "an anchor within itself", "pairs: nested too deeply; expected 20 levels")),
        pytest.param("a: " + "[" * 3000, marks=pytest.mark.case(
            "config", "thousands of brackets", "c.yaml: not valid YAML (nested too deeply)")),
        pytest.param("1: x\n", marks=pytest.mark.case(
            "config", "a key that is no text", "(top level): found the key 1; expected text")),
        pytest.param("a: !!python/name:os.system x\n", marks=pytest.mark.case(
            "config", "a Python tag", "c.yaml: not valid YAML (could not determine a constructor")),
        pytest.param("name: caf\udce9\n", marks=pytest.mark.case(
            "config", "a file in Latin-1", "c.yaml:1: byte 0xe9 is not UTF-8; save it so")),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as caught:
        grid.load(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_or_nothing_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, expected a file"):
        grid.load(tmp_path)
    with pytest.raises(InputError, match=r"none\.yaml: file not found"):
        grid.load(tmp_path / "none.yaml")
    (tmp_path / "c.json").write_text('{"name": "x", "name": "y"}')
    with pytest.raises(InputError, match=r"c\.json: not valid JSON \(key 'name' occurs twice\)"):
        grid.load(tmp_path / "c.json")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.text(alphabet="ab:- []{}&*!#|>'\"\n\t\\,?%@`0189.~", max_size=40) | st.binary(max_size=30)
)
def test_any_text_is_a_configuration_or_refused(tmp_path_factory: Any, text: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError):
        grid.load(path)


def test_random_students_are_refused_unless_asked_for() -> None:
    config = read("smoke")
    del config["training"]["base"]
    with pytest.raises(InputError, match=r"training\.base: missing, but opt 125m is built"):
        grid.checked(config)
    config["training"]["student"]["allow_random_student"] = True
    assert grid.checked(config)["training"]["student"]["allow_random_student"]


def test_checking_leaves_its_input_alone() -> None:
    config = read("smoke")
    before = copy.deepcopy(config)
    grid.checked(config)
    assert config == before


def test_a_data_root_is_asked_for_only_where_paths_are_relative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ATKD_DATA", raising=False)
    config = grid.checked(read("smoke"))
    assert grid.data_root(config) == ""
    config["families"]["opt"]["tokenizer"] = {"files": "tokenizers/opt"}
    with pytest.raises(InputError, match=r"data_root: missing, but families\.opt\.tokenizer"):
        grid.data_root(config)
    monkeypatch.setenv("ATKD_DATA", "/data")
    assert grid.data_root(config) == "/data"
    assert grid.data_root(config | {"data_root": "here"}) == "here"
    config["data"]["source"] = "local"
    monkeypatch.delenv("ATKD_DATA")
    with pytest.raises(InputError, match=r"data_root: missing, but data\.source reads 'data'"):
        grid.data_root(config)


def test_every_key_of_the_schema_is_described() -> None:
    def bare(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, child in node.get("properties", {}).items():
            if "description" not in child and "$ref" not in child:
                found.append(f"{path}.{name}")
            found += bare(child, f"{path}.{name}")
        for name in ("items", "additionalProperties"):
            found += bare(node.get(name), f"{path}.{name}")
        return found

    schema = grid.schema()
    assert bare(schema, "") == []
    assert not any(bare(node, name) for name, node in schema["$defs"].items())


@pytest.mark.case(
    "config", "training.teacher.optimiser: adamw_8bit without torchao",
    "training.teacher.optimiser: needs the package torchao",
)  # fmt: skip
def test_a_package_that_settings_need_is_missed_before_anything_runs() -> None:
    with pytest.raises(
        InputError, match=r"training\.teacher\.optimiser: needs the package torchao"
    ):
        grid.checked(put(read("smoke"), "training/teacher/optimiser", "adamw_8bit"))
    found = grid.checked(put(read("smoke"), "training/teacher/lora_rank", 4))
    settings = grid.training(found, "opt", "1.3b", "teacher")
    assert settings["lora_rank"] == 4
    assert "lora_rank" not in grid.training(found, "opt", "125m", "student")


SMOL = {"family": "smol", "student": "half", "teacher": "whole"}


def smol(**half: Any) -> dict[str, Any]:
    """Smoke with a pair out of a GGUF file."""
    config = put(read("smoke"), "pairs", [SMOL])
    whole = {"gguf": "/nowhere/a.gguf"}
    models = {"whole": whole, "half": {"from": "whole", "keep_layers": [0, 2]} | half}
    return put(config, "families/smol", {"tokenizer": whole, "models": models})


@pytest.mark.parametrize(
    ("half", "message"),
    [
        pytest.param({"keep_layers": [2, 0]}, "keep_layers: found [2, 0]; expected rising numbers",
            marks=pytest.mark.case("config", "keep_layers: [2, 0]",
                "smol.models.half.keep_layers: found [2, 0]; expected rising numbers")),
        pytest.param({"from": "hole"}, "half.from: unknown 'hole' (did you mean 'whole'?)",
            marks=pytest.mark.case("config", "`from` a size that is not there",
                "smol.models.half.from: unknown 'hole' (did you mean 'whole'?)")),
        pytest.param({"from": "half"}, "half.from: half from half",
            marks=pytest.mark.case("config", "a model `from` itself", "half.from: half from half")),
        pytest.param({"sha256": "0" * 64}, "half.sha256: found without gguf",
            marks=pytest.mark.case("config", "`sha256` of a model that is no GGUF file",
                "half.sha256: found without gguf")),
    ],
)  # fmt: skip
def test_what_is_left_of_a_model_is_checked_first(
    half: dict[str, Any], message: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        grid.checked(smol(**half))
    assert message in str(caught.value) and says in str(caught.value)


@pytest.mark.case(
    "config", "a GGUF file that is not there", "smol.tokenizer.gguf: found /nowhere/a.gguf"
)
def test_files_are_looked_for_before_anything_runs(tmp_path: Path, says: str) -> None:
    config = grid.checked(smol())
    with pytest.raises(InputError, match="expected a file") as caught:
        grid.check_folders(config, str(tmp_path))
    assert says in str(caught.value)
    built = {"build": {"hidden_size": 16, "layers": 2, "heads": 2}}
    config = put(read("smoke"), "families/opt/models/1.3b", built)
    cut = {"from": "1.3b", "keep_layers": [0, 2]}
    with pytest.raises(InputError, match="expected numbers from 0 to 1"):
        grid.checked(put(config, "families/opt/models/125m", cut))
