"""Exported models: opened without this package they answer the same to the same ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from atkd.data.template import template
from atkd.models import checkpoints, tokenizers
from atkd.models.families import FAMILIES
from atkd.runtime.files import InputError, write_json
from atkd.training import export

ASKED = "Where is the cat?"
MADE = {
    "stage": "student", "run": "F/small/large/gkd_atkd/1", "seed": 1, "parameters": 12345,
    "tokens": 99, "commit": "abc",
    "settings": {
        "training": {"learning_rate": 0.001, "steps": 7, "epochs": 3, "batch_size": 4},
        "recipe": {"loss": "atkd", "sequences": "ground_truth", "settings": {"easy_weight": 0.2}},
    },
}  # fmt: skip


def finished(folder: Path, family: str) -> Path:
    """A student's folder as training leaves it, in a results folder with scores."""
    place = folder / "students/small"
    tokenizer = tokenizers.train_tokenizer(family, [template(ASKED) + "the mat"] * 9, 280)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2}
    model = checkpoints.build(family, shape, tokenizer, 64, 1)
    checkpoints.save(model, tokenizer, place, {})
    settings = {"settings": MADE["settings"] | {"family": family}}
    write_json(place / "provenance.json", MADE | settings)
    write_json(folder / "config.json", {})
    (folder / "scores.csv").write_text(
        "config,family,student,teacher,method,seed,task,metric,value,n\n"
        "c,F,small,large,gkd_atkd,1,dolly,score,41.25,100\n"
        "c,F,small,large,gkd,1,dolly,score,40,100\n"
    )
    return place


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_model_is_the_model(family: str, tmp_path: Path) -> None:
    own = finished(tmp_path / "run", family)
    export.export(own, tmp_path / "out")
    code = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()\n"
        "asked = [{'role': 'user', 'content': sys.argv[2]}]\n"
        "found = tokenizer.apply_chat_template(\n"
        "    asked, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "logits = model(**found).logits[0, -1]\n"
        "assert 'atkd' not in sys.modules\n"
        "print(json.dumps([found['input_ids'][0].tolist(), logits.tolist()]))\n"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "out"), ASKED]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids, logits = json.loads(done.stdout.splitlines()[-1])
    tokenizer = tokenizers.open_saved(own)
    assert ids == tokenizers.encode_prompt(tokenizer, template(ASKED))
    expected = checkpoints.load(own)(torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(torch.tensor(logits), expected)


def test_the_card_says_what_it_is_and_what_it_scored(tmp_path: Path) -> None:
    own = finished(tmp_path / "run", "llama")
    export.export(own, tmp_path / "out")
    said = (tmp_path / "out/README.md").read_text("utf-8")
    assert said.startswith("---\nlibrary_name: transformers\n")
    assert "| dolly | 41.2 | 100 |" in said and "40.0" not in said
    assert "loss `atkd`" in said and "| steps | 7 |" in said and "| easy_weight | 0.2 |" in said
    assert "12,345 parameters" in said and "| epochs" not in said and "Assistant:" in said


def test_the_card_says_what_a_model_was_trained_on() -> None:
    plain = {"loss": "cross_entropy", "sequences": "ground_truth"}
    assert export.about("base", None) == "a pretrained base."
    assert export.about("teacher", None) == "a teacher, trained on references."
    assert export.about("student", plain) == "a student, trained on references."
    seqkd = plain | {"sequences": "teacher"}
    assert export.about("student", seqkd) == "a student, trained on the teacher's answers."


def test_files_are_those_that_servers_of_models_read(tmp_path: Path) -> None:
    export.export(finished(tmp_path / "run", "opt"), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert not names & {"manifest.json", "provenance.json", "metrics.jsonl"}
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == ["OPTForCausalLM"]


@pytest.mark.case("model", "an exported student whose weights were changed", "sha256 differs")
def test_what_is_damaged_or_in_the_way_is_refused(tmp_path: Path, says: str) -> None:
    own = finished(tmp_path / "run", "llama")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("")
    with pytest.raises(InputError, match="not empty"):
        export.export(own, tmp_path / "out")
    weights = own / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=says):
        export.export(own, tmp_path / "new")


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[Any]
) -> None:
    own, out = finished(tmp_path / "run", "llama"), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["export", "--model", str(own), "--output", str(out)])
    export.main()
    assert capsys.readouterr().out == f"{out}: written\n"
