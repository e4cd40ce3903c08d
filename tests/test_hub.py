"""The hub path: models, tokenizers and data come over HTTP from a hub, here one on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from helpers import ROOT, command, quiet_environment
from hub_mirror import COMMIT, Hub, mirror
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from atkd.models import checkpoints, tokenizers

MODEL, SHARDED, OLD = "lab/small", "lab/sharded", "lab/old"
DATA, ASKED = "lab/rows", "lab/questions"
OPTIMISATION = {
    "steps": 1, "batch_size": 1, "learning_rate": 0.1, "max_length": 64, "warmup_ratio": 0.0,
    "weight_decay": 0.0, "beta2": 0.99, "clip": 1.0, "checkpoint_every": 1,
    "gradient_checkpointing": False, "optimiser": "adamw", "packed": True,
    "saved_dtype": "float32", "stop_at": 1.0,
}  # fmt: skip
TEXTS = [f"Tom has {n} cats and a dog." for n in range(60)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Three models of one weight each way of saving it, and a data set."""
    root = tmp_path_factory.mktemp("hub")
    tokenizer = tokenizers.train_tokenizer("llama", TEXTS, 300)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    model = checkpoints.build("llama", shape, tokenizer, 64, seed=3)
    for name in (MODEL, SHARDED, OLD):
        model.save_pretrained(root / name, max_shard_size="20KB" if name == SHARDED else "1GB")
        tokenizer.save_pretrained(root / name)
    (root / OLD / "model.safetensors").unlink()
    torch.save(model.state_dict(), root / OLD / "pytorch_model.bin")
    assert len(list((root / SHARDED).glob("*.safetensors"))) > 1
    for name, says in ((DATA, "Count to"), (ASKED, "What is")):
        rows = [json.dumps({"instruction": f"{says} {n}.", "output": str(n)}) for n in range(9)]
        (root / name).mkdir()
        (root / name / "train.jsonl").write_text("\n".join(rows))
    with mirror({name: root / name for name in (MODEL, SHARDED, OLD, DATA, ASKED)}) as found:
        yield found


def run(hub: Hub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A stage in a process of its own, which knows no hub but this one."""
    forgotten = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in forgotten}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "atkd", *arguments],
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def tokenizer(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's tokenizer, as the stage makes it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    source = json.dumps({"hub": MODEL, "revision": COMMIT})
    line = ["tokenizer", "--family", "llama", "--settings", source, "--output", str(folder / "own")]
    made = run(hub, folder / "home", *line)
    assert made.returncode == 0, made.stderr
    return folder / "own"


def base(
    hub: Hub, folder: Path, tokenizer: Path, name: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """A pretrained base from the hub."""
    given = {
        "family": "llama",
        "source": {"hub": name, "revision": COMMIT},
        "training": OPTIMISATION,
        "compute": {"device": "cpu", "precision": "float32", "teacher_dtype": "float32"},
    }
    line = ["train", "--role", "base", "--run", "base", "--seed", "1"]
    line += ["--settings", json.dumps(given), "--tokenizer", str(tokenizer)]
    return run(hub, folder / "home", *line, "--output", str(folder / "base"), **more)


@pytest.mark.parametrize("name", [SHARDED, OLD])
def test_a_model_is_downloaded_once_however_it_was_saved(
    hub: Hub, tokenizer: Path, tmp_path: Path, name: str
) -> None:
    hub.asked.clear()
    done = base(hub, tmp_path, tokenizer, name)
    assert done.returncode == 0, done.stderr
    assert any(path.startswith(f"/{name}/resolve/{COMMIT}/") for path in hub.asked)
    opened = checkpoints.load(tmp_path / "base")
    assert opened.config.num_hidden_layers == 2 and opened.config.hidden_size == 16

    (tmp_path / "base/manifest.json").unlink()
    hub.asked.clear()
    done = base(hub, tmp_path, tokenizer, name, HF_HUB_OFFLINE="1")
    assert (done.returncode, hub.asked) == (0, []), done.stderr


def test_what_the_hub_has_not_is_one_message(hub: Hub, tokenizer: Path, tmp_path: Path) -> None:
    done = base(hub, tmp_path, tokenizer, "lab/absent")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: model lab/absent: cannot be opened"), done.stderr


def test_a_data_set_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    settings = {
        "train": [{"id": DATA, "revision": COMMIT}],
        "tasks": {"dolly": [{"id": ASKED, "revision": COMMIT}]},
    }
    line = ["data", "--source", "hub", "--seed", "1", "--settings", json.dumps(settings)]
    done = run(hub, tmp_path / "home", *line, "--output", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "data/train.jsonl").read_text().splitlines()
    assert len(rows) == 9 and json.loads(rows[0])["instruction"].startswith("Count to ")


def qwen(folder: Path, layers: int) -> None:
    """A stand-in of a Qwen3 with a tokenizer of its kind: no BOS, tokens of its own for chats."""
    own = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=own, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=own[0], pad_token=own[0]
    ).save_pretrained(folder)
    config = transformers.Qwen3Config(
        vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(layers)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.slow
def test_a_pair_of_ones_own_from_the_hub_is_distilled_as_shown(tmp_path: Path) -> None:
    """config/README.md's recipe over the paper's configuration, on stand-ins, with few rows."""
    page = (ROOT / "config/README.md").read_text("utf-8")
    (recipe,) = re.findall(r"```yaml pair\n(.*?)```", page, re.DOTALL)
    assert len(recipe.splitlines()) <= 10
    (tmp_path / "qwen.yaml").write_text(recipe, "utf-8")
    names = {"Qwen/Qwen3-0.6B-Base": 1, "Qwen/Qwen3-1.7B-Base": 2}
    for name, layers in names.items():
        qwen(tmp_path / name, layers)
    rows = [json.dumps({"instruction": f"Count to {n}.", "output": str(n)}) for n in range(9)]
    for name in (DATA, ASKED):
        (tmp_path / name).mkdir(parents=True)
        kept = rows[:5] if name == DATA else rows[5:]
        (tmp_path / name / "train.jsonl").write_text("\n".join(kept))
    absent = ("selfinst", "vicuna", "koala", "wizardlm", "mmlu", "drop", "bbh")
    tasks = dict.fromkeys(absent) | {"dolly": [{"id": ASKED}]}
    small = {
        "tasks": ["dolly"],
        "methods": ["sft", "seqkd", "supervised_kd_atkd", "gkd"],
        "data": {"settings": {"train": [{"id": DATA}], "tasks": tasks}},
        "training": {role: {"steps": 2, "batch_size": 2, "micro_batch_size": 2}
                     for role in ("teacher", "student")},
        "compute": {"device": "cpu", "gpus": 0, "threads": 1, "memory_mb": 2000},
        "student_text": {"max_new_tokens": 8},
        "teacher_text": {"max_new_tokens": 8},
        "evaluation": {"context": 256, "max_new_tokens": {"generation": 8}},
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(json.dumps(small), "utf-8")
    run = tmp_path / "run"
    with mirror({name: tmp_path / name for name in (*names, DATA, ASKED)}) as hub:
        files = [str(ROOT / "config/paper.yaml"), "qwen.yaml", "small.yaml"]
        files = [str(tmp_path / name) for name in files]
        line = command("-s", str(ROOT / "Snakefile"), "--directory", str(run), "--cores", "2")
        own = quiet_environment() | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [*line, "--configfile", *files], env=own, capture_output=True, text=True, timeout=600
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    tables = (run / "results/qwen/tables/main_qwen3.md").read_text("utf-8")
    assert "0.6B ← 1.7B | Supervised KD + ATKD" in tables, tables
    student = "results/qwen/students/qwen3/0.6b/1.7b/gkd/seed1"
    arguments = ["export", "--model", str(run / student), "--output", str(tmp_path / "mine")]
    assert "--model results/qwen/students/qwen3/0.6b/1.7b/gkd_atkd/seed1 --output" in page
    done = subprocess.run(
        [sys.executable, "-m", "atkd", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mine")
    assert type(opened).__name__ == "Qwen3ForCausalLM"
