"""Tokenizers of the three families, and the one way text becomes ids and labels."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from atkd.runtime.files import InputError, folder_lock, read_jsonl
from atkd.runtime.provenance import Stage

# Trained tokenizers list the specials first, in the order that gives them the real ones' ids.
SPECIALS = {
    "opt": ("<s>", "<pad>", "</s>", "<unk>"),
    "pythia": ("<|endoftext|>", "<|padding|>"),
    "llama": ("<unk>", "<s>", "</s>"),
}
ROLES = {
    "opt": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
    "pythia": dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "llama": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
    },
}
ADDS_BOS = {"opt": True, "pythia": False, "llama": True}
REAL_SIZES = {"opt": 50265, "pythia": 50277, "llama": 32000}
IGNORED = -100


def open_tokenizer(source: dict[str, Any], family: str) -> Any:
    """A Hugging Face tokenizer of `family` with its BOS, EOS and padding set.

    `source` is one of {"folder": path} (Hugging Face layout), {"files": path} (the family's raw
    files, `vocab.json` + `merges.txt`, `tokenizer.json` or `tokenizer.model`), {"hub": id,
    "revision": r}. InputError if it is none of these, is not there or opens empty.
    """
    _check_family(family)
    if "folder" in source:
        backend = _from_pretrained(_existing(source["folder"]), family, local_files_only=True)
    elif "files" in source:
        backend = _from_raw(Path(source["files"]), family)
    elif "hub" in source:
        revision = source.get("revision") or "main"
        if revision == "main":
            print(f"hub tokenizer {source['hub']}: revision main (unpinned)", flush=True)
        backend = _from_pretrained(source["hub"], family, revision=revision)
    else:
        found = ", ".join(source) or "nothing"
        raise InputError(f"tokenizer: found {found}, expected one of folder, files, hub, train")
    return _wrap(backend, family)


def train_tokenizer(family: str, texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE of exactly `vocab_size` ids with the family's specials and BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    _check_family(family)
    least = 256 + len(SPECIALS[family])
    if vocab_size < least:
        raise InputError(
            f"tokenizer.train: found {vocab_size}, expected at least {least} ({family})"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS[family]),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    size = backend.get_vocab_size()
    if size != vocab_size:
        raise InputError(f"tokenizer.train: the text yields only {size} of {vocab_size} ids")
    return _wrap(backend, family)


def save(tokenizer: Any, folder: str | Path) -> None:
    """Writes a folder that `AutoTokenizer.from_pretrained` opens to equal ids."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Ids of a prompt with the tokenizer's own BOS (if it has one), without EOS."""
    return tokenizer(text, add_special_tokens=True)["input_ids"]


def encode_prompts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """`encode_prompt` of many texts at once."""
    return tokenizer(texts, add_special_tokens=True)["input_ids"] if texts else []


def encode_response(tokenizer: Any, text: str, eos: bool = True) -> list[int]:
    """Ids of a response: no BOS, EOS appended unless `eos` is false."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if eos else ids


def encode_responses(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """`encode_response` of many texts at once, EOS appended."""
    found = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return [[*ids, tokenizer.eos_token_id] for ids in found]


def encode_example(
    tokenizer: Any, prompt: str, response: str, max_length: int
) -> dict[str, list[int]] | None:
    """`input_ids` and `labels` (-100 on the prompt; response and EOS supervised).

    None if longer than `max_length` ids: the caller counts and reports those.
    """
    head = encode_prompt(tokenizer, prompt)
    tail = encode_response(tokenizer, response)
    if len(head) + len(tail) > max_length:
        return None
    return {"input_ids": head + tail, "labels": [IGNORED] * len(head) + tail}


def answer_lead(tokenizer: Any) -> str:
    """The white space between "Answer:" and an answer that is tokenised on its own.

    Empty where the tokenizer marks a first word itself (SentencePiece), one blank elsewhere.
    """
    first = tokenizer.convert_ids_to_tokens(encode_response(tokenizer, "A", eos=False))[0]
    return "" if first.startswith("\u2581") else " "


def same_vocabulary(first: Any, second: Any) -> None:
    """InputError naming the first differing id, unless both give equal ids to every token."""
    left, right = _by_id(first), _by_id(second)
    for index in sorted(left.keys() | right.keys()):
        if left.get(index) != right.get(index):
            found, wanted = left.get(index), right.get(index)
            raise InputError(f"tokenizers differ at id {index}: {found!r} against {wanted!r}")
    probe = "Human:\nA  probe, 12 caf\u00e9s\n\nAssistant:\n"
    for name, encode in (("prompt", encode_prompt), ("response", encode_response)):
        found, wanted = encode(first, probe), encode(second, probe)
        if found != wanted:
            raise InputError(f"tokenizers split a {name} differently: {found} against {wanted}")


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _check_family(family: str) -> None:
    if family not in ROLES:
        raise InputError(f"family: found {family!r}, expected one of {', '.join(ROLES)}")


def _existing(folder: str | Path) -> str:
    if not Path(folder).is_dir():
        raise InputError(f"tokenizer.folder: {folder} is not a folder")
    return str(folder)


def _from_pretrained(name: str, family: str, **where: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(name, **where).backend_tokenizer
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"tokenizer: {name} cannot be opened ({reason})") from None
    return _not_empty(backend, family, name)


def _from_raw(folder: Path, family: str) -> Any:
    import transformers

    names = {"opt": ("vocab.json", "merges.txt"), "pythia": ("tokenizer.json",)}
    for name in names.get(family, ("tokenizer.model",)):
        if not (folder / name).is_file():
            raise InputError(f"tokenizer.files: {folder / name} not found (needed by {family})")
    if family == "opt":
        vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
        roles = ROLES["opt"] | {"add_bos_token": True}
        backend = transformers.GPT2Tokenizer(vocab=vocab, merges=merges, **roles).backend_tokenizer
    elif family == "pythia":
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        backend = transformers.LlamaTokenizer.from_pretrained(str(folder)).backend_tokenizer
    size = backend.get_vocab_size()
    if size != REAL_SIZES[family]:
        raise InputError(f"{folder}: found {size} ids, expected {REAL_SIZES[family]} ({family})")
    return backend


def _not_empty(backend: Any, family: str, name: str) -> Any:
    size = backend.get_vocab_size()
    if size < 256:  # transformers 5 opens some layouts to two or three tokens without a word
        raise InputError(f"{name}: found {size} ids, not a usable {family} tokenizer")
    return backend


def _wrap(backend: Any, family: str) -> Any:
    """One class for all: saved is the tokenizer itself, not arguments to rebuild it from."""
    from tokenizers.processors import ByteLevel, TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    roles = ROLES[family]
    for token in roles.values():
        if backend.token_to_id(token) is None:
            raise InputError(f"tokenizer: no token {token!r}, which {family} needs")
    bos = roles["bos_token"]
    backend.post_processor = (
        TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))])
        if ADDS_BOS[family]
        else ByteLevel(trim_offsets=False)
    )
    backend.no_truncation()
    backend.no_padding()
    options = {"padding_side": "left", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **options)


def texts(path: str | Path) -> Iterator[str]:
    """The text of each row of a JSON-lines file: `text`, or its instruction fields joined."""
    for number, row in enumerate(read_jsonl(path), 1):
        names = ("text",) if "text" in row else ("instruction", "input", "output")
        found = [row[name] for name in names if row.get(name)]
        if not found:
            raise InputError(f"{path}:{number}: no text, expected text or instruction fields")
        yield "\n".join(found)


def main() -> None:
    """Opens or trains a tokenizer and writes its folder."""
    parser = argparse.ArgumentParser(prog="python -m atkd tokenizer", description=main.__doc__)
    parser.add_argument("--family", required=True, help=", ".join(ROLES))
    parser.add_argument(
        "--settings",
        required=True,
        help='JSON: {"train": 512}, {"files": folder}, '
        '{"folder": folder} or {"hub": id, "revision": r}',
    )
    parser.add_argument("--text", nargs="*", default=[], help="JSON-lines files to train on")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings = json.loads(args.settings)
    stage = Stage("tokenizer", f"tokenizers/{args.family}", settings)
    if "train" in settings:
        if not args.text:
            raise InputError("--text: no file given, expected JSON lines to train on")
        lines = (line for path in args.text for line in texts(path))
        tokenizer = train_tokenizer(args.family, lines, settings["train"])
    else:
        tokenizer = open_tokenizer(settings, args.family)
    stage.ready()
    with folder_lock(args.output):
        save(tokenizer, args.output)
        stage.write(Path(args.output) / "provenance.json", vocabulary=len(tokenizer))
    print(f"{args.output}: {len(tokenizer)} ids, EOS {tokenizer.eos_token!r}")
