"""Tokenizers: specials, BOS and EOS, round trips, the ids and labels of an example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atkd.models import tokenizers
from atkd.models.families import FAMILIES
from atkd.runtime import cli
from atkd.runtime.files import InputError, read_json

TEXT = "Human:\nWho is  the café's owner?\n\nAssistant:\n"
CORPUS = [
    f"The {w} of the house went to the {v} at {n} o'clock. Who saw the {w}?"
    for n, (w, v) in enumerate((a, b) for a in ["cat", "dog", "owner"] for b in ["sea", "hill"])
] * 3


def trained(family: str, size: int = 300) -> object:
    return tokenizers.train_tokenizer(family, CORPUS, size)


def real(family: str) -> object:
    root = os.environ.get("ATKD_DATA")
    if not root:
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    return tokenizers.open_tokenizer({"files": f"{root}/tokenizers/{family}"}, family)


@pytest.fixture(
    params=[(kind, family) for kind in (trained, real) for family in FAMILIES],
    ids=lambda param: f"{param[0].__name__}-{param[1]}",
)
def tokenizer(request: pytest.FixtureRequest) -> tuple[str, object]:
    kind, family = request.param
    return family, kind(family)


def test_bos_and_eos(tokenizer: tuple[str, object]) -> None:
    family, tok = tokenizer
    prompt, response = (
        tokenizers.encode_prompt(tok, TEXT),
        tokenizers.encode_response(tok, "It is Ann."),
    )
    bos = {"opt": ["</s>"], "pythia": [], "llama": ["<s>"]}[family]
    assert tok.convert_ids_to_tokens(prompt[: len(bos)]) == bos
    assert tok.bos_token_id not in prompt[len(bos) :]
    assert prompt[-1] != tok.eos_token_id
    assert response[-1] == tok.eos_token_id and response[0] != tok.bos_token_id
    assert tokenizers.encode_response(tok, "It is Ann.", eos=False) == response[:-1]
    assert tok.decode(prompt, skip_special_tokens=True) == TEXT
    assert tok.decode(response, skip_special_tokens=True) == "It is Ann."
    assert tokenizers.encode_prompts(tok, [TEXT, "x"]) == [
        prompt,
        tokenizers.encode_prompt(tok, "x"),
    ]


def test_special_ids(tokenizer: tuple[str, object]) -> None:
    family, tok = tokenizer
    ids = {"opt": (2, 2, 1), "pythia": (0, 0, 0), "llama": (1, 2, 2)}[family]
    assert (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id) == ids


def test_saved_folder_gives_equal_ids(tokenizer: tuple[str, object], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    family, tok = tokenizer
    tokenizers.save(tok, tmp_path)
    kind = FAMILIES[family].model_type
    for config in (None, {"model_type": kind}):  # alone, and beside a model
        if config:
            (tmp_path / "config.json").write_text(json.dumps(config))
        again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
        tokenizers.same_vocabulary(tok, again)
        assert len(again) == len(tok)
        for text in (TEXT, " a", "A\n\n", "7 \u2603", "</s>"):
            assert again(text)["input_ids"] == tokenizers.encode_prompt(tok, text)
        for name in ("bos_token", "eos_token", "pad_token", "padding_side"):
            assert getattr(again, name) == getattr(tok, name)
    tokenizers.same_vocabulary(tok, tokenizers.open_tokenizer({"folder": str(tmp_path)}, family))


def test_answer_lead_joins_as_running_text(tokenizer: tuple[str, object]) -> None:
    _, tok = tokenizer
    lead = tokenizers.answer_lead(tok)
    parts = tokenizers.encode_prompt(tok, "Answer:") + tokenizers.encode_response(
        tok, lead + "A", eos=False
    )
    assert parts == tokenizers.encode_prompt(tok, "Answer: A")


def test_same_vocabulary_names_the_id() -> None:
    with pytest.raises(InputError, match=r"differ at id 0: '<s>' against '<unk>'"):
        tokenizers.same_vocabulary(trained("opt"), trained("llama"))
    with pytest.raises(InputError, match="differ at id 300: None"):
        tokenizers.same_vocabulary(trained("opt"), trained("opt", 301))


def test_training_is_deterministic_across_processes(tmp_path: Path) -> None:
    corpus = tmp_path / "text.jsonl"
    corpus.write_text("".join(json.dumps({"text": line}) + "\n" for line in CORPUS))
    saved = []
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        command = [
            sys.executable,
            "-m",
            "atkd",
            "tokenizer",
            "--family",
            "opt",
            "--settings",
            '{"train": 300}',
            "--text",
            str(corpus),
            "--output",
            str(out),
        ]
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run(command, check=True, capture_output=True, env=env)
        saved.append((out / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1]


@pytest.mark.parametrize(
    ("source", "family", "message"),
    [
        ({}, "opt", "found nothing, expected one of folder, files, hub"),
        ({"folder": "/nowhere"}, "opt", "/nowhere is not a folder"),
        ({"files": "/nowhere"}, "llama", "tokenizer.model not found"),
        ({"folder": "/nowhere"}, "bloom", "found 'bloom', expected one of opt, pythia, llama"),
    ],
)
def test_bad_sources(source: dict, family: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizers.open_tokenizer(source, family)


def test_bad_training_sizes() -> None:
    with pytest.raises(InputError, match="found 100, expected at least 260"):
        trained("opt", 100)
    with pytest.raises(InputError, match="yields only"):
        trained("opt", 30000)


PAIR_TEXT = [
    "the cat sat on the mat and the dog sat on the cat " * 4,
    "a man and a map met on a mat " * 4,
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family's tokenizer, the same in another folder, and a different one."""
    root = tmp_path_factory.mktemp("folders")
    for name, texts in (("opt", PAIR_TEXT), ("same", PAIR_TEXT), ("other", PAIR_TEXT[::-1][:1])):
        tokenizers.save(tokenizers.train_tokenizer("opt", texts, 266), root / name)
    return root


def checked(folders: Path, name: str) -> int:
    return tokenizers.check_model({"folder": str(folders / name)}, "opt", "1.3b", folders / "opt")


def test_a_model_with_the_familys_ids_passes(folders: Path) -> None:
    assert checked(folders, "same") == 266


def test_another_tokenizer_is_named_with_the_first_id_that_differs(folders: Path) -> None:
    message = (
        r"families\.opt\.models\.1\.3b: teacher and student must share one tokenizer.* at id \d+"
    )
    with pytest.raises(InputError, match=message):
        checked(folders, "other")


def test_a_missing_folder_is_named(folders: Path) -> None:
    with pytest.raises(InputError, match=r"none is not a folder"):
        checked(folders, "none")


def test_the_command_line_reports_or_ends_with_one_message(
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(name: str) -> None:
        chosen = json.dumps({"source": {"folder": str(folders / name)}})
        line = ["check", "--settings", chosen, "--tokenizer", str(folders / "opt")]
        line += ["--family", "opt", "--size", "1.3b"]
        monkeypatch.setattr("sys.argv", [*line, "--output", str(tmp_path / f"{name}.json")])
        cli.run(tokenizers.check)

    run("same")
    assert read_json(tmp_path / "same.json") == {"family": "opt", "size": "1.3b", "ids": 266}
    with pytest.raises(SystemExit):
        run("other")
    error = capsys.readouterr().err
    assert error.startswith("error: families.opt.models.1.3b: ") and error.count("\n") == 1
    assert not (tmp_path / "other.json").exists()
