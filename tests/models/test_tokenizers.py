"""Tokenizers: specials, BOS and EOS, round trips, the ids and labels of an example."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import PACKAGE, with_a_hole
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atkd.models import tokenizers
from atkd.models.families import FAMILIES
from atkd.runtime import cli
from atkd.runtime.files import InputError, read_json, write_json

TEXT = "Human:\nWho is  the café's owner?\n\nAssistant:\n"
CORPUS = [
    f"The {w} of the house went to the {v} at {n} o'clock. Who saw the {w}?"
    for n, (w, v) in enumerate((a, b) for a in ["cat", "dog", "owner"] for b in ["sea", "hill"])
] * 3


def trained(family: str, size: int = 300) -> Any:
    return tokenizers.train_tokenizer(family, CORPUS, size)


def real(family: str) -> Any:
    root = os.environ.get("ATKD_DATA")
    if not root:
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    return tokenizers.open_tokenizer({"files": f"{root}/tokenizers/{family}"}, family)


@functools.cache
def opened(kind: Callable[[str], Any], family: str) -> Any:
    """One object a tokenizer for the many texts below."""
    return kind(family)


@pytest.fixture(
    params=[(kind, family) for kind in (trained, real) for family in FAMILIES],
    ids=lambda param: f"{param[0].__name__}-{param[1]}",
)
def tokenizer(request: pytest.FixtureRequest) -> tuple[str, Any]:
    kind, family = request.param
    return family, kind(family)


def test_bos_and_eos(tokenizer: tuple[str, Any]) -> None:
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


def test_special_ids(tokenizer: tuple[str, Any]) -> None:
    family, tok = tokenizer
    ids = {"opt": (2, 2, 1), "pythia": (0, 0, 0), "llama": (1, 2, 2)}[family]
    assert (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id) == ids


def test_saved_folder_gives_equal_ids(tokenizer: tuple[str, Any], tmp_path: Path) -> None:
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


def control_ids(tok: Any) -> set[int]:
    """Ids that only a model or the template may use."""
    return {index for index, token in tok.added_tokens_decoder.items() if token.special}


@pytest.mark.case(
    "text",
    "a response `Write <s>old price</s> and then the new price.`",
    "its tokens are ordinary ones, in OPT, Pythia and LLaMA; EOS stands at its end alone",
)
def test_special_tokens_written_in_text_are_text(
    tokenizer: tuple[str, Any], tmp_path: Path
) -> None:
    family, tok = tokenizer
    written = "Write <s>old price</s> and then the new price.<|endoftext|>"
    text = written + " ".join(map(tok.convert_ids_to_tokens, control_ids(tok)))
    assert len(control_ids(tok)) == len(FAMILIES[family].specials)
    tokenizers.save(tok, tmp_path)
    for made in (tok, tokenizers.open_saved(tmp_path), reopened(tmp_path, family)):
        ids = tokenizers.encode_response(made, text)
        assert not control_ids(made) & set(ids[:-1]) and ids[-1] == made.eos_token_id
        assert not control_ids(made) & set(tokenizers.encode_responses(made, [text])[0][:-1])
        bos = len(tokenizers.encode_prompt(made, ""))
        assert not control_ids(made) & set(tokenizers.encode_prompt(made, text)[bos:])
        assert made.decode(ids, skip_special_tokens=True) == text


def reopened(folder: Path, family: str) -> Any:
    return tokenizers.open_tokenizer({"folder": str(folder)}, family)


@pytest.mark.case(
    "text",
    "a tokenizer's folder that other programs open with AutoTokenizer",
    "it holds `split_special_tokens`, so that they too read text as text",
)
def test_a_saved_folder_says_that_text_is_text(tmp_path: Path) -> None:
    tokenizers.save(trained("opt"), tmp_path)
    assert read_json(tmp_path / "tokenizer_config.json")["split_special_tokens"] is True


@pytest.mark.case(
    "text",
    "a folder written before, without `split_special_tokens`",
    "opened, it reads text as text all the same",
)
def test_an_older_folder_is_read_the_same_way(tmp_path: Path) -> None:
    tokenizers.save(trained("opt"), tmp_path)
    config = read_json(tmp_path / "tokenizer_config.json")
    del config["split_special_tokens"]
    write_json(tmp_path / "tokenizer_config.json", config)
    for made in (tokenizers.open_saved(tmp_path), reopened(tmp_path, "opt")):
        assert made.eos_token_id not in tokenizers.encode_response(made, "a</s>b", eos=False)


@pytest.mark.case(
    "text",
    "a model that emits a special token in the middle of its answer",
    "the token is not part of the answer's text; what is spelt `</s>` in ordinary tokens stays",
)
def test_emitted_specials_are_skipped_and_spelt_ones_kept(tokenizer: tuple[str, Any]) -> None:
    _, tok = tokenizer
    head, tail = (tokenizers.encode_response(tok, text, eos=False) for text in ("a</s>", "b"))
    ids = [number for special in sorted(control_ids(tok)) for number in (*head, special)] + tail
    assert (
        tok.decode(ids, skip_special_tokens=True).replace(" ", "")
        == "a</s>" * len(control_ids(tok)) + "b"
    )


@pytest.mark.case(
    "text",
    "a tokenizer whose EOS was added as an ordinary token (`special: false`)",
    "it is special all the same: `a</s>b` holds no EOS",
)
def test_roles_are_special_whatever_the_file_says(tmp_path: Path) -> None:
    tokenizers.save(trained("opt"), tmp_path)
    whole = read_json(tmp_path / "tokenizer.json")
    for token in whole["added_tokens"]:
        token |= {"special": False, "normalized": True}
    write_json(tmp_path / "tokenizer.json", whole)
    made = reopened(tmp_path, "opt")
    ids = tokenizers.encode_response(made, "a</s>b")
    assert ids.count(made.eos_token_id) == 1
    assert made.decode(ids, skip_special_tokens=True) == "a</s>b"


@pytest.mark.case(
    "text",
    "a tokenizer whose merges build EOS out of letters",
    "tokenizer: text that spells 'END' becomes id 2, which is not for text; expected it to be "
    "split into ordinary tokens",
)
def test_merges_that_build_a_special_token_are_refused(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = {"eos_token": "END", "pad_token": "<pad>"}
    row = replace(FAMILIES["opt"], specials=("<s>", "<pad>", "END"), roles=roles, adds_bos=False)
    monkeypatch.setitem(FAMILIES, "toy", row)
    with pytest.raises(InputError) as error:
        tokenizers.train_tokenizer("toy", ["END", "THE END OF THE END"] * 9, 264)
    assert says == str(error.value)


@pytest.mark.case(
    "text",
    "special tokens in the text that a tokenizer is trained on",
    "they are split there too: no merge reaches across them, and no id is theirs",
)
def test_training_text_is_text() -> None:
    plain = [f"{line} </s> <|endoftext|>" for line in CORPUS]
    for family in FAMILIES:
        tok = tokenizers.train_tokenizer(family, plain, 290)
        assert not control_ids(tok) & set(tokenizers.encode_response(tok, plain[0], eos=False))


def sentence_pieces(folder: Path, text: str, **options: Any) -> Path:
    """A folder with a small tokenizer.model of bytes, pieces and symbols."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter([text] * 50), model_prefix=str(folder / "tokenizer"),
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, pad_id=-1,
        minloglevel=9, **options,
    )  # fmt: skip
    return folder


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> str:
    """LLaMA with raw files of any size."""
    monkeypatch.setitem(FAMILIES, "raw", replace(FAMILIES["llama"], real_size=None))
    return "raw"


@pytest.mark.case(
    "text",
    "a raw tokenizer.model with a control symbol, a user-defined symbol and byte pieces, and text "
    "that spells them",
    "control symbol and byte piece are split; the user-defined symbol is one token, as "
    "SentencePiece has it",
)
def test_raw_sentence_pieces(raw: str, tmp_path: Path) -> None:
    folder = sentence_pieces(
        tmp_path, "the cat <s> </s> sat on the mat <0x41> again and the dog", vocab_size=340,
        control_symbols=["<ctl>"], user_defined_symbols=["<usr>"],
    )  # fmt: skip
    tok = tokenizers.open_tokenizer({"files": str(folder)}, raw)
    text = "the <ctl> <usr> cat <0x41> \u00e9 <s></s><unk>"
    tokens = tok.convert_ids_to_tokens(tokenizers.encode_response(tok, text, eos=False))
    assert "<usr>" in tokens and not {"<ctl>", "<0x41>", "<s>", "</s>", "<unk>"} & set(tokens)
    assert [token for token in tokens if token in ("<0xC3>", "<0xA9>")] == ["<0xC3>", "<0xA9>"]
    assert tok.decode(tokenizers.encode_response(tok, text), skip_special_tokens=True) == text


@pytest.mark.case(
    "text",
    "a raw tokenizer.model whose pieces join to a byte piece",
    "tokenizer: text that spells '<0x41>' becomes id",
)
def test_pieces_that_join_to_a_byte_piece_are_refused(raw: str, says: str, tmp_path: Path) -> None:
    apart = {"split_by_unicode_script": False, "split_by_number": False}
    sentence_pieces(tmp_path, "<0x4<0x4<0x4 1>1>1>", vocab_size=300, **apart)
    with pytest.raises(InputError, match=says):
        tokenizers.open_tokenizer({"files": str(tmp_path)}, raw)


@pytest.mark.case(
    "text",
    "a tokenizer that exists in slow form alone",
    "is a ByT5Tokenizer, which has no fast form",
)
def test_a_slow_tokenizer_is_named(says: str, tmp_path: Path) -> None:
    config = {"tokenizer_class": "ByT5Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=says):
        reopened(tmp_path, "opt")


def test_opt_from_raw_files_in_a_hub_folder(tmp_path: Path) -> None:
    """The layout of facebook/opt-*: vocab.json and merges.txt beside the slow class's name."""
    wanted = real("opt")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(os.environ["ATKD_DATA"]) / "tokenizers/opt" / name, tmp_path)
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | roles))
    found = reopened(tmp_path, "opt")
    tokenizers.same_vocabulary(wanted, found)
    assert tokenizers.encode_prompt(found, "a</s>") == tokenizers.encode_prompt(wanted, "a</s>")


def test_pythias_added_blanks_are_used_as_before() -> None:
    tok = real("pythia")
    found = tokenizers.encode_response(tok, "a<|endoftext|>  \n   b" + " " * 24 + "c", eos=False)
    assert [index for index in found if index >= 50254] == [50276, 50275, 50254]


def test_answer_lead_joins_as_running_text(tokenizer: tuple[str, Any]) -> None:
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
        ({}, "opt", "found nothing, expected one of folder, files, gguf, hub"),
        ({"folder": "/nowhere"}, "opt", "/nowhere is not a folder"),
        ({"files": "/nowhere"}, "llama", "tokenizer.model not found"),
        ({"files": "/nowhere"}, "bloom", "found 'bloom', .*expected one of opt, pythia, llama"),
    ],
)
def test_bad_sources(source: dict, family: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizers.open_tokenizer(source, family)


@pytest.mark.case(
    "text",
    "a tokenizer of 300 tokens whose largest id is 304",
    "a head of 305 rows, in training, caches and evaluation alike",
)
def test_the_vocabulary_covers_the_largest_id(tmp_path: Path) -> None:
    tok = with_a_hole(trained("opt"), "opt", tmp_path)
    assert len(tok) == 300 and tokenizers.vocabulary_size(tok) == 305
    assert tokenizers.vocabulary_size(trained("opt")) == 300
    for path in PACKAGE.rglob("*.py"):
        assert "len(tokenizer)" not in path.read_text(encoding="utf-8"), path


def test_bad_training_sizes() -> None:
    with pytest.raises(InputError, match="found 100, expected at least 260"):
        trained("opt", 100)
    with pytest.raises(InputError, match="yields only"):
        trained("opt", 30000)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_word_is_one_piece_where_no_size_is_given(family: str) -> None:
    tokenizer = tokenizers.train_tokenizer(family, ["Rare words, once: seen 42 times"])
    for word in ("Rare", " words", ",", " once", ":", " seen", " 42", " times"):
        assert len(tokenizers.encode_response(tokenizer, word, eos=False)) == 1, word
    assert len(tokenizers.encode_response(tokenizer, "Rarer", eos=False)) == 2
    again = ["42 times", "seen 42", "words, once:", "Rare words, once: seen 42 times", "Rare words"]
    other = tokenizers.train_tokenizer(family, [*again, "42 times"])
    spoken = tokenizers.train_tokenizer(family, [*again[::-1], "Rare words"])
    assert other.get_vocab() == spoken.get_vocab()


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


# Texts that have led tokenizers astray, to be sprinkled over any others.
ASTRAY = [
    *(token for row in FAMILIES.values() for token in row.specials),
    *("<mask>", "<0x41>", "<0x0A>", "<0x", "madeupword0000", "[PAD]", "<|im_start|>", "<s", "/s>"),
    *(" ", "  ", " " * 24, "\t", "\n\n", "\r\n", "\x00", "\x1f", "\x7f", "\u00a0", "\u2028"),
    *("\u2581", "\u0120", "\u010a", "e\u0301", "\u212b", "\ufeff", "\ufffd", "\u202e", "\ufb01"),
    *("Human:\n", "\n\nAssistant:\n", "caf\u00e9", "\u4f60\u597d", "\U0001f600", "\U0010ffff"),
]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXTS = st.lists(st.sampled_from(ASTRAY) | ANY, max_size=8).map("".join)


def as_kept(kind: Callable[[str], Any], family: str, text: str) -> str:
    """What a text comes back as.

    Tokenizers trained here and OPT's keep every text. Pythia's composes letters and marks (NFC).
    LLaMA's writes blanks as U+2581, so that U+2581 itself comes back as a blank, and puts one in
    front unless the text begins with one, so that a first blank is lost.
    """
    if kind is real and family == "pythia":
        return unicodedata.normalize("NFC", text)
    return (
        text.replace("\u2581", " ").removeprefix(" ")
        if kind is real and family == "llama"
        else text
    )


@pytest.mark.case(
    "text",
    "any Unicode text, sprinkled with special tokens, byte pieces, blanks and control characters",
    "text in = text out, and no id of a special token; Pythia's own tokenizer composes letters and "
    "marks (NFC), LLaMA's reads U+2581 as a blank and leaves out a blank at the very start",
)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [trained, real], ids=["trained", "real"])
def test_any_text_comes_back_and_holds_no_special_id(kind: Any, family: str) -> None:
    tok = opened(kind, family)
    special, bos = control_ids(tok), tokenizers.encode_prompt(tok, "")

    @settings(max_examples=700, deadline=None, derandomize=True, database=None)
    @given(TEXTS)
    @example("Write <s>old price</s> and then the new price.")
    @example(" leading and trailing ")
    def check(text: str) -> None:
        prompt = tokenizers.encode_prompt(tok, text)
        ids = tokenizers.encode_response(tok, text, eos=False)
        assert prompt == [*bos, *ids] and not special & set(ids)
        assert tokenizers.encode_prompts(tok, [text, "x"])[0] == prompt
        assert tok.decode(prompt, skip_special_tokens=True) == as_kept(kind, family, text)
        assert tok.decode(ids, skip_special_tokens=True) == as_kept(kind, family, text)

    check()


def newer(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    found["model"]["type"] = "BPE2"
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            newer,
            marks=pytest.mark.case(
                "text",
                "tokenizer.json in the format of a newer library",
                "(data did not match any variant of untagged enum ModelUntagged at line",
            ),
        ),
        pytest.param(
            lambda path: os.truncate(path, 500),
            marks=pytest.mark.case(
                "text",
                "tokenizer.json cut off",
                "expected whole files of that version or an earlier one",
            ),
        ),
        pytest.param(
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 4d7a\n"),
            marks=pytest.mark.case(
                "text",
                "tokenizer.json that Git LFS has not fetched",
                "tokenizer.json: a Git LFS pointer; expected the file, see `git lfs pull`",
            ),
        ),
        pytest.param(
            lambda path: path.unlink(),
            marks=pytest.mark.case(
                "text",
                "A tokenizer's folder without tokenizer.json",
                "(Couldn't instantiate the backend tokenizer from one of: )",
            ),
        ),
    ],
)
def test_files_that_no_tokenizer_can_be_read_from_are_named(
    damage: Callable[[Path], Any], tmp_path: Path, says: str
) -> None:
    tokenizers.save(trained("llama"), tmp_path)
    damage(tmp_path / "tokenizer.json")
    for open_it in (
        lambda: tokenizers.open_tokenizer({"folder": str(tmp_path)}, "llama"),
        lambda: tokenizers.open_saved(tmp_path),
    ):
        with pytest.raises(InputError) as error:
            open_it()
        assert says in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_without_a_row_is_what_its_tokenizer_says(family: str, tmp_path: Path) -> None:
    known = tokenizers.train_tokenizer(family, ["the cat sat on the mat"] * 9, 270)
    tokenizers.save(known, tmp_path / "known")
    own = tokenizers.open_tokenizer({"folder": str(tmp_path / "known")}, "own")
    tokenizers.save(own, tmp_path / "own")
    again = tokenizers.open_tokenizer({"folder": str(tmp_path / "own")}, "own")
    for text in ("the cat", "", "a </s> <|endoftext|> <s> b", " é\n"):
        wanted = tokenizers.encode_prompt(known, text)
        assert (
            tokenizers.encode_prompt(own, text) == tokenizers.encode_prompt(again, text) == wanted
        )
        assert own.decode(tokenizers.encode_response(own, text, eos=False)) == text
    assert own.eos_token_id == again.eos_token_id == known.eos_token_id
    tokenizers.same_vocabulary(known, again)
