"""Causal language models of the families: build, open, save; backbone, head, vocabulary.

A tokenizer of V ids may come with more than V embedding rows (Pythia: 50304 or 50432, OPT: 50272);
rows from V on are never given probability: training and evaluation project on the first V alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atkd.models import gguf, weights
from atkd.models.families import family_of
from atkd.models.tokenizers import vocabulary_size
from atkd.runtime.files import InputError, read_json, sha256, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "*.safetensors"
MANIFEST = "manifest.json"
COMMON = {  # keys of `build` -> arguments of every architecture's configuration
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}


def set_up(seed: int) -> None:
    """Seeds Python, numpy and torch, fixes the thread count and quietens transformers."""
    import transformers

    transformers.set_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def pick_device(name: str) -> str:
    """`auto` becomes cuda where there is a GPU; InputError when cuda is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "config key compute.device: found 'cuda', but torch sees no GPU; use auto or cpu"
        )
    if name == "cpu":
        keep_freed_memory()
    return name


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of returning them to the system at once.

    With a real vocabulary every logits tensor is such a block, and mapping it anew each step costs
    a third of a CPU run. Elsewhere than on glibc nothing happens.
    """
    trim_threshold, mmap_max = -1, -4  # names in malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def configuration(
    family: str, shape: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, context: int
) -> dict[str, Any]:
    """Arguments of the family's configuration for a `build`; InputError names a wrong key."""
    vocabulary = vocabulary_size(tokenizer)
    rows = shape.get("rows", vocabulary)
    if rows < vocabulary:
        raise InputError(
            f"config key build.rows: found {rows}; expected at least the tokenizer's {vocabulary}"
        )
    return {
        "vocab_size": rows,
        "max_position_embeddings": context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **{name: shape[key] for key, name in COMMON.items()},
        **family_of(family).own_arguments(shape),
    }


def build(
    family: str,
    shape: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    seed: int,
) -> PreTrainedModel:
    """A randomly initialised model of the family's architecture, deterministic for the seed."""
    set_up(seed)
    from transformers import AutoConfig, AutoModelForCausalLM

    arguments = configuration(family, shape, tokenizer, context)
    config = AutoConfig.for_model(family_of(family).model_type, **arguments)
    return AutoModelForCausalLM.from_config(config)


def open_source(
    source: Mapping[str, Any],
    family: str,
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    seed: int,
) -> PreTrainedModel:
    """A pretrained model from {"folder"}, {"hub", "revision"} or {"gguf", "sha256"}.

    Or a random one from {"build"}. Weights that are not safetensors are read with torch's
    weights-only unpickler; the stage that calls this saves them as safetensors once.
    """
    if "build" in source:
        return build(family, source["build"], tokenizer, context, seed)
    if "gguf" in source:
        return gguf.open_model(Path(source["gguf"]), source.get("sha256"))
    place = source.get("folder") or source["hub"]
    if "folder" in source and not Path(place).is_dir():
        raise InputError(f"model folder {place}: not found")
    options = {"local_files_only": "folder" in source, "revision": source.get("revision", "main")}
    if "hub" in source and "revision" not in source:
        print(f"hub model {place}: revision not given, using main (unpinned)", flush=True)
    return _open(place, options, "float32")


def manifest_files(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file of a finished model; InputError if the folder is not one."""
    found = read_json(Path(folder) / MANIFEST)
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise InputError(f"{Path(folder) / MANIFEST}: not of a model that was trained here")
    return found["files"]


def load(
    folder: str | os.PathLike[str], device: str = "cpu", dtype: str = "float32"
) -> PreTrainedModel:
    """A finished model in evaluation mode; InputError if it is unfinished or damaged."""
    for name, facts in manifest_files(folder).items():
        path = Path(folder) / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            raise InputError(
                f"{path}: missing or not of the size in {MANIFEST} ({facts['bytes']} bytes)"
            )
    options = {"local_files_only": True, "use_safetensors": True, **placement(device)}
    model = _open(str(folder), options, dtype)
    return (model if "device_map" in options else model.to(device)).eval()


def placement(device: str) -> dict[str, Any]:
    """How to open a model on the GPUs that one process was given; {} for a single device."""
    given = "CUDA_VISIBLE_DEVICES" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) == 1
    several = device == "cuda" and given and torch.cuda.device_count() > 1
    return {"device_map": "auto"} if several else {}


def check_weights(folder: str | os.PathLike[str]) -> None:
    """InputError if a finished model's weights are not those that were saved.

    Reads them whole, so it is for what is made once: `load` looks at sizes alone.
    """
    for name, facts in manifest_files(folder).items():
        if sha256(Path(folder) / name) != facts["sha256"]:
            raise InputError(f"{Path(folder) / name}: not what {MANIFEST} says (sha256 differs)")


def _open(place: str, options: Mapping[str, Any], dtype: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    if Path(place).is_dir():
        weights.check_files(Path(place))
    options = {"dtype": getattr(torch, dtype), "trust_remote_code": False, **options}
    with weights.opening(place):
        model, report = AutoModelForCausalLM.from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    weights.check_report(place, report)
    check_loaded(model, place)
    weights.check_finite(model, place)
    return model


def check_loaded(model: PreTrainedModel, place: str) -> None:
    """InputError if a parameter has no data or a head that should be tied is not."""
    empty = [name for name, value in model.named_parameters() if value.device.type == "meta"]
    if empty:
        raise InputError(
            f"model {place}: {len(empty)} parameters have no weights, first {empty[0]}"
        )
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and head(model).weight is not model.get_input_embeddings().weight:
        raise InputError(
            f"model {place}: its configuration ties head and embedding, but they differ"
        )


def head(model: PreTrainedModel) -> torch.nn.Linear:
    """The output projection, whatever the family calls it."""
    return model.get_output_embeddings()


def hidden_states(
    model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor
) -> Tensor:
    """What the head is applied to: final norm and any output projection included [B, T, d]."""
    backbone = getattr(model, model.base_model_prefix)
    output = backbone(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
    return output.last_hidden_state.to(input_ids_BT.device)  # from the last of several GPUs


def head_rows(model: PreTrainedModel, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The head's weight [V, d] and bias [V] (or None) for the tokenizer's ids alone.

    The very same tensors where that is all rows and the head lies where ids go in: a slice's
    gradient is copied into a whole one.
    """
    weight, bias = head(model).weight.to(model.device), head(model).bias
    bias = None if bias is None else bias.to(model.device)
    if vocabulary == len(weight):
        return weight, bias
    return weight[:vocabulary], None if bias is None else bias[:vocabulary]


def project(model: PreTrainedModel, hidden_Nd: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Logits over the tokenizer's ids alone [N, V]."""
    import torch

    return torch.nn.functional.linear(hidden_Nd, *head_rows(model, vocabulary))


def check_head(model: PreTrainedModel, vocabulary: int) -> None:
    """InputError unless head(hidden) equals the model's own logits and the rows cover the ids."""
    rows = head(model).weight.shape[0]
    if rows < vocabulary:
        raise InputError(
            f"model has {rows} embedding rows; expected at least the tokenizer's {vocabulary}"
        )
    was_training = model.training
    ids_BT = torch.arange(3, 11, device=model.device)[None] % vocabulary
    model.eval()
    with torch.no_grad():
        hidden_BTd = hidden_states(model, ids_BT, torch.ones_like(ids_BT))
        ours = project(model, hidden_BTd[0], vocabulary).float()
        theirs = model(input_ids=ids_BT).logits[0, :, :vocabulary].float()
    model.train(was_training)
    worst = (ours - theirs).where(ours != theirs, 0.0).abs().max().item()
    size = theirs.where(theirs > -math.inf, 0.0).abs().max().item()  # of tokens not banned
    if not worst <= 1e-2 * (1 + size):  # NaN is not
        raise InputError(
            f"model {type(model).__name__}: head(hidden) differs from its logits by {worst:.3g}"
        )


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike[str],
    names: Mapping[str, str],
    dtype: str = "float32",
) -> None:
    """Saves safetensors and tokenizer, then the manifest; the model is in `dtype` afterwards.

    InputError if a weight is no finite number.
    """
    model.to(getattr(torch, dtype))
    if found := weights.not_finite(model):
        raise InputError(f"model to save: {found[0]} holds {found[1]}; expected finite numbers")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    finish(folder, names)


def finish(folder: str | os.PathLike[str], names: Mapping[str, str]) -> None:
    """Writes manifest.json, written last; `names`: hashes of its making."""
    weights = sorted(Path(folder).glob(WEIGHTS))
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in weights}
    write_json(Path(folder) / MANIFEST, {**names, "files": files})
