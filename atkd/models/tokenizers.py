"""Tokenizers of the families, and the one way text becomes ids and labels.

Text is text: what spells a special token in it is split like any other word. Only what is put
around a text here, BOS and EOS, has a special id.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atkd.models import gguf
from atkd.models.families import FAMILIES, Family, family_of
from atkd.runtime.cli import json_object
from atkd.runtime.files import (
    InputError,
    check_fetched,
    first_line,
    folder_lock,
    read_jsonl,
    write_json,
)
from atkd.runtime.network import reason
from atkd.runtime.provenance import Stage

WORD = re.compile(r"\w+|[^\w\s]+")
MOST_IDS = 50000  # of a tokenizer in which every word is one piece
BYTE_PIECES = [f"<0x{value:02X}>" for value in range(256)]  # of SentencePiece, for unknown letters


def open_tokenizer(source: Mapping[str, Any], family: str) -> Any:
    """A Hugging Face tokenizer of `family` with its BOS, EOS and padding set.

    `source` is one of {"folder": path} (Hugging Face layout), {"files": path} (the family's raw
    files), {"gguf": path, "sha256": digest}, {"hub": id, "revision": r}. A family without a row is
    taken as the tokenizer describes it. InputError if it is none of these, is not there, opens
    empty, has no fast form or no EOS, reads text as special tokens, or raw files are those of an
    unknown family.
    """
    if "files" in source:
        row = family_of(family)
        return _wrap(_from_raw(Path(source["files"]), row), row)
    if "folder" in source:
        found = _from_folder(Path(source["folder"]))
    elif "gguf" in source:
        found = _from_gguf(Path(source["gguf"]), source.get("sha256"))
    elif "hub" in source:
        found = _from_hub(source["hub"], source.get("revision") or "main")
    else:
        names = ", ".join(source) or "nothing"
        raise InputError(
            f"tokenizer: found {names}, expected one of folder, files, gguf, hub, train, words"
        )
    row = FAMILIES.get(family) or _row_of(found, family)
    return _wrap(found.backend_tokenizer, row)


def train_tokenizer(family: str, texts: Iterable[str], vocab_size: int | None = None) -> Any:
    """A byte-level BPE of exactly `vocab_size` ids with the family's specials and BOS.

    Without a size every word of the text becomes one piece, with and without a space before it, and
    its id depends on the words alone, not on how often they are said. InputError if the family is
    unknown, the size has no room for all bytes and specials, or the text does not yield so many
    ids.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    row = family_of(family)
    least = 256 + len(row.specials)
    if vocab_size is not None and vocab_size < least:
        raise InputError(
            f"tokenizer.train: found {vocab_size}, expected at least {least} ({family})"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size or MOST_IDS,
        special_tokens=list(row.specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    if vocab_size is None:
        words = {word for text in texts for word in WORD.findall(text)}
        texts = sorted({form for word in words for form in (word, f" {word}")})
    backend.train_from_iterator(texts, trainer)
    size = backend.get_vocab_size()
    if vocab_size is None and size == MOST_IDS:
        raise InputError(f"tokenizer.words: the text has more words than {MOST_IDS} ids hold")
    if vocab_size is not None and size != vocab_size:
        raise InputError(f"tokenizer.train: the text yields only {size} of {vocab_size} ids")
    return _wrap(backend, row)


def save(tokenizer: Any, folder: str | Path) -> None:
    """Writes a folder that `AutoTokenizer.from_pretrained` opens to equal ids."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))


def open_saved(folder: str | Path) -> Any:
    """The tokenizer that `save` wrote, of whatever family."""
    from transformers import AutoTokenizer

    with opening(folder):
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, split_special_tokens=True
        )


@functools.lru_cache(maxsize=8)
def vocabulary_size(tokenizer: Any) -> int:
    """Rows of a head that cover all ids: the largest and one.

    More than the number of tokens where ids have holes; their rows are the model's all the same.
    """
    return max(tokenizer.get_vocab().values()) + 1


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
        ours, theirs = left.get(index), right.get(index)
        if ours != theirs:
            raise InputError(f"tokenizers differ at id {index}: {ours!r} against {theirs!r}")
    probe = "Human:\nA  probe, 12 caf\u00e9s\n\nAssistant:\n" + "".join(first.all_special_tokens)
    for name, encode in (("prompt", encode_prompt), ("response", encode_response)):
        found, wanted = encode(first, probe), encode(second, probe)
        if found != wanted:
            raise InputError(f"tokenizers split a {name} differently: {found} against {wanted}")


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


@contextlib.contextmanager
def opening(place: str | Path) -> Iterator[None]:
    """Turns what libraries raise of a tokenizer's files into an InputError."""
    if Path(place).is_dir():
        check_fetched(place)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        why = first_line(error) if Path(place).is_dir() else reason(error)
        own = f"tokenizers {version('tokenizers')}"
        raise InputError(
            f"tokenizer: {place} cannot be opened by {own} ({why}); expected whole files of that "
            "version or an earlier one"
        ) from None


def _from_folder(folder: Path) -> Any:
    if not folder.is_dir():
        raise InputError(f"tokenizer.folder: {folder} is not a folder")
    return _from_pretrained(str(folder), local_files_only=True)


def _from_gguf(path: Path, digest: str | None) -> Any:
    with opening(path):
        return _fast(gguf.open_tokenizer(path, digest), str(path))


def _from_hub(name: str, revision: str) -> Any:
    if revision == "main":
        print(f"hub tokenizer {name}: revision main (unpinned)", flush=True)
    return _from_pretrained(name, revision=revision)


def _from_pretrained(name: str, **where: Any) -> Any:
    from transformers import AutoTokenizer

    with opening(name):
        return _fast(AutoTokenizer.from_pretrained(name, **where), name)


def _fast(found: Any, name: str) -> Any:
    """The tokenizer, if it is one that can be used; InputError otherwise."""
    if not found.is_fast:
        raise InputError(f"tokenizer: {name} is a {type(found).__name__}, which has no fast form")
    size = found.backend_tokenizer.get_vocab_size()
    if size < 256:  # transformers 5 opens some layouts to two or three tokens without a word
        raise InputError(f"{name}: found {size} ids, not a usable tokenizer")
    return found


def _row_of(tokenizer: Any, family: str) -> Family:
    """The row of a family that has none, from its tokenizer."""
    eos = tokenizer.eos_token
    if eos is None:
        raise InputError(f"tokenizer: {family} has no end-of-sequence token; expected one")
    roles = {
        "bos_token": tokenizer.bos_token or eos,
        "eos_token": eos,
        "pad_token": tokenizer.pad_token or eos,
    }
    ids = tokenizer("a")["input_ids"]
    return Family(
        title=family,
        model_type="",
        arguments={},
        specials=tuple(dict.fromkeys(roles.values())),
        roles=roles,
        adds_bos=ids[0] == tokenizer.bos_token_id,
        files=(),
    )


def _from_raw(folder: Path, row: Family) -> Any:
    for name in row.files:
        if not (folder / name).is_file():
            raise InputError(f"tokenizer.files: {folder / name} not found (needed by {row.title})")
    with opening(folder):
        backend = FORMATS[row.files](folder, row)
    size = vocabulary_size(backend)
    if row.real_size is not None and size != row.real_size:
        raise InputError(f"{folder}: found {size} ids, expected {row.real_size} ({row.title})")
    return backend


def _byte_pairs(folder: Path, row: Family) -> Any:
    from transformers import GPT2Tokenizer

    vocab, merges = (str(folder / name) for name in row.files)
    return GPT2Tokenizer(vocab=vocab, merges=merges, **row.roles).backend_tokenizer


def _whole(folder: Path, row: Family) -> Any:
    from tokenizers import Tokenizer

    (name,) = row.files
    return Tokenizer.from_file(str(folder / name))


def _sentence_pieces(folder: Path, row: Family) -> Any:
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(str(folder)).backend_tokenizer


# Raw files of a tokenizer -> what opens them.
FORMATS: dict[tuple[str, ...], Callable[[Path, Family], Any]] = {
    ("vocab.json", "merges.txt"): _byte_pairs,
    ("tokenizer.json",): _whole,
    ("tokenizer.model",): _sentence_pieces,
}


def _wrap(backend: Any, row: Family) -> Any:
    """One class for all: saved is the tokenizer itself, not arguments to rebuild it from."""
    from tokenizers import AddedToken
    from tokenizers.processors import ByteLevel, TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    for token in row.roles.values():
        if backend.token_to_id(token) is None:
            raise InputError(f"tokenizer: no token {token!r}, which {row.title} needs")
    known = [token for token in row.specials if backend.token_to_id(token) is not None]
    backend.add_special_tokens([AddedToken(token, special=True) for token in known])
    if row.adds_bos:
        bos = row.roles["bos_token"]
        pair = (bos, backend.token_to_id(bos))
        backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[pair])
    elif row.model_type:
        backend.post_processor = ByteLevel(trim_offsets=False)
    else:
        backend.post_processor = TemplateProcessing(single="$A")
    backend.no_truncation()
    backend.no_padding()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        **row.roles,
    )
    _check_text(made)
    return made


def _check_text(tokenizer: Any) -> None:
    """InputError if text that spells a special token or a byte piece becomes its id."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    known = tokenizer.get_vocab()
    pieces = [piece for piece in (*special, *BYTE_PIECES) if piece in known]
    texts = [f"{piece}{piece} {piece}\na{piece}a" for piece in pieces]
    made = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    for piece, ids, spans in zip(pieces, made["input_ids"], made["offset_mapping"], strict=True):
        # A byte piece may well stand for one of these letters, but not for all of them.
        whole = [index for index, span in zip(ids, spans, strict=True) if _size(span) == len(piece)]
        if known[piece] in whole:
            raise InputError(
                f"tokenizer: text that spells {piece!r} becomes id {known[piece]}, which is not "
                "for text; expected it to be split into ordinary tokens"
            )


def _size(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def check_model(source: Mapping[str, Any], family: str, size: str, folder: Path) -> int:
    """Proves the tokenizer that a model brings its family's, id by id; returns the number of ids.

    All students and teachers of a family read the family's ids, so equality with it is equality
    within each pair. `source`: {"folder"}, {"gguf", "sha256"} or {"hub", "revision"}; `folder`: the
    family's tokenizer.
    InputError names the model and the first id that differs.
    """
    ours, theirs = open_tokenizer({"folder": str(folder)}, family), open_tokenizer(source, family)
    try:
        same_vocabulary(ours, theirs)
    except InputError as error:
        raise InputError(
            f"families.{family}.models.{size}: teacher and student must share one tokenizer, but "
            f"the {family} tokenizer of this run and this model's differ: {error}"
        ) from None
    return vocabulary_size(ours)


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
    parser.add_argument("--family", required=True, help=", ".join(FAMILIES))
    parser.add_argument(
        "--settings",
        required=True,
        help='JSON: {"train": 512}, {"words": true}, {"files": folder}, '
        '{"folder": folder}, {"gguf": file} or {"hub": id, "revision": r}',
    )
    parser.add_argument("--text", nargs="*", default=[], help="JSON-lines files to train on")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings = json_object("--settings", args.settings)
    stage = Stage("tokenizer", f"tokenizers/{args.family}", settings)
    if {"train", "words"} & set(settings):
        if "train" in settings and not isinstance(settings["train"], int):
            raise InputError(f"tokenizer.train: found {settings['train']!r}, expected a number")
        if not args.text:
            raise InputError("--text: no file given, expected JSON lines to train on")
        lines = (line for path in args.text for line in texts(path))
        tokenizer = train_tokenizer(args.family, lines, settings.get("train"))
    else:
        tokenizer = open_tokenizer(settings, args.family)
    stage.ready()
    with folder_lock(args.output):
        save(tokenizer, args.output)
        stage.write(Path(args.output) / "provenance.json", vocabulary=vocabulary_size(tokenizer))
    print(f"{args.output}: {vocabulary_size(tokenizer)} ids, EOS {tokenizer.eos_token!r}")


def check() -> None:
    """Checks, before any training, that a model made elsewhere reads its family's ids."""
    parser = argparse.ArgumentParser(prog="python -m atkd check", description=check.__doc__)
    parser.add_argument("--family", required=True, help=", ".join(FAMILIES))
    parser.add_argument("--size", required=True, help="the model's name in the configuration")
    parser.add_argument("--settings", required=True, help="JSON: source, as in the configuration")
    parser.add_argument("--tokenizer", required=True, type=Path, help="the family's, its folder")
    parser.add_argument("--output", required=True, help="JSON file to write")
    args = parser.parse_args()
    settings = json_object("--settings", args.settings)
    count = check_model(settings.get("source", {}), args.family, args.size, args.tokenizer)
    write_json(args.output, {"family": args.family, "size": args.size, "ids": count})
    print(f"{args.family} {args.size}: reads the {count} ids of its family's tokenizer")
