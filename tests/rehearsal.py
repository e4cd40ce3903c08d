"""The paper's configuration with stand-ins for its models, on a hub of this machine.

Every checkpoint of config/paper.yaml is there under its name, of its architecture and with its real
tokenizer, two narrow layers deep, in the format in which hubs keep such models: float16, some in
several files, some pickled. Data are real ones, served under the names of the file.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from helpers import ROOT

from atkd.forecast.shapes import KNOWN
from atkd.models import tokenizers

FAMILIES = {"facebook": "opt", "EleutherAI": "pythia"}  # by owner; the others' are LLaMA's
PICKLED = ("facebook/opt-125m", "facebook/opt-1.3b")
SEVERAL = ("facebook/opt-6.7b", "huggyllama/llama-7b")  # more than one file each
FEW_KEYS = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"  # a quarter of the heads
FILES = "paper/files"  # stands for the addresses of single files
WIDTH = 32


def model(name: str) -> Any:
    """A stand-in of a hub model, of few layers and little width."""
    import transformers

    ids = KNOWN[name][3]
    common = {"vocab_size": ids, "hidden_size": WIDTH, "num_hidden_layers": 2,
              "num_attention_heads": 4, "max_position_embeddings": 2048}  # fmt: skip
    owner = name.split("/")[0]
    if owner == "facebook":
        config = transformers.OPTConfig(**common, ffn_dim=2 * WIDTH, word_embed_proj_dim=WIDTH)
    elif owner == "EleutherAI":
        config = transformers.GPTNeoXConfig(**common, intermediate_size=2 * WIDTH, rotary_pct=0.25)
    else:
        keys = 1 if name == FEW_KEYS else 4
        config = transformers.LlamaConfig(
            **common, intermediate_size=2 * WIDTH, num_key_value_heads=keys
        )
    torch.manual_seed(len(name))
    return transformers.AutoModelForCausalLM.from_config(config).half()


def stand_in(name: str, folder: Path, root: Path) -> None:
    """Writes a hub model's folder."""
    family = FAMILIES.get(name.split("/")[0], "llama")
    made = model(name)
    made.save_pretrained(folder, max_shard_size="3MB" if name in SEVERAL else "9GB")
    if name in PICKLED:
        (folder / "model.safetensors").unlink()
        torch.save(made.state_dict(), folder / "pytorch_model.bin")
    source = {"files": str(root / "tokenizers" / family)}
    tokenizers.open_tokenizer(source, family).save_pretrained(folder)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a data file of the data root."""
    found = path.read_bytes()
    yield from map(
        json.loads, (gzip.decompress(found) if path.suffix == ".gz" else found).splitlines()
    )


def data_set(folder: Path, tables: Mapping[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Writes a data set of the hub: its configurations' splits, a file each."""
    folder.mkdir(parents=True)
    configs: dict[str, list[dict[str, str]]] = defaultdict(list)
    for (config, split), found in tables.items():
        name = f"{config}-{split}.jsonl"
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
        configs[config].append({"split": split, "path": name})
    listed = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", "utf-8")


def data_sets(root: Path, folder: Path) -> dict[str, Path]:
    """Writes the paper's data sets, each under its name in config/paper.yaml."""
    data = root / "data"
    made = {name: folder / name for name in
            ("vicgalle/alpaca-gpt4", "cais/mmlu", "ucinlp/drop", "SaylorTwift/bbh")}  # fmt: skip
    alpaca, mmlu, drop, bbh = made.values()
    data_set(alpaca, {("default", "train"): [*rows(data / "alpaca_gpt4_subset/train.jsonl")]})
    splits = ("dev", "test")
    data_set(mmlu, {("all", each): [*rows(data / f"mmlu/{each}.jsonl.gz")] for each in splits})
    asked = [row | {"answers_spans": {"spans": row.pop("answers")}}
             for row in rows(data / "drop/dev.jsonl.gz")]  # fmt: skip
    data_set(drop, {("default", "validation"): asked})
    subtasks: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows(data / "bbh/test.jsonl.gz"):
        subtasks[row.pop("task"), "test"].append(row)
    data_set(bbh, subtasks)
    return made


def repositories(root: Path, folder: Path) -> dict[str, Path]:
    """Writes all that config/paper.yaml downloads, from a data root; by its name on the hub."""
    models = {name: folder / name for name in KNOWN}
    for name, place in models.items():
        stand_in(name, place, root)
    (folder / FILES).mkdir(parents=True)
    for name in ("dolly", "self-inst", "vicuna", "koala", "wizardlm"):
        shutil.copyfile(root / f"data/{name}/valid.jsonl", folder / f"{FILES}/{name}.jsonl")
    return models | data_sets(root, folder) | {FILES: folder / FILES}


def overlay(address: str) -> dict[str, Any]:
    """What is laid over config/paper.yaml: a processor, few steps and items, this hub's files."""
    paper = yaml.safe_load((ROOT / "config/paper.yaml").read_text("utf-8"))
    tasks = paper["data"]["settings"]["tasks"]
    files = {
        task: [{**entry, "url": f"{address}/{FILES}/resolve/main/{place(entry['url'])}"}]
        for task, (entry, *_) in tasks.items()
        if "url" in entry
    }
    models = {
        family: {"models": {
            size: {"compute": {"memory_mb": 3000} | (
                {"gpus": 2} if source.get("compute", {}).get("sharded") else {})}
            for size, source in of["models"].items()
        }}
        for family, of in paper["families"].items()
    }  # fmt: skip
    few = {"steps": 2, "batch_size": 4, "micro_batch_size": 2}
    return {
        "data": {"settings": {"tasks": files, "limits": {"train": 40}}},
        "families": models,
        "training": {"teacher": few, "student": few},
        "compute": {"device": "cpu", "gpus": 0, "threads": 1, "memory_mb": 3000},
        "student_text": {"max_new_tokens": 8},
        "teacher_text": {"max_new_tokens": 8},
        "evaluation": {
            "limit": dict.fromkeys(tasks, 4),
            "max_new_tokens": {"generation": 8, "bbh": 8},
        },
    }


def place(url: str) -> str:
    """A file's name on this hub: the folder of its address names the set."""
    return f"{url.split('/')[-2]}.jsonl"
