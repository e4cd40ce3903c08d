"""Models out of GGUF files, whose weights may be quantised: read once, then plain float32 weights.

transformers and the package `gguf` do the reading; the file's tokenizer comes with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atkd.models import weights
from atkd.runtime import packages
from atkd.runtime.files import InputError, check_fetched, sha256, starts_with

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAGIC = b"GGUF"


def check_file(path: Path, digest: str | None) -> None:
    """InputError unless the file is there, is a GGUF and has the digest that is asked for."""
    if not path.is_file():
        raise InputError(f"gguf {path}: file not found")
    check_fetched(path)
    if not starts_with(path, MAGIC):
        raise InputError(f"gguf {path}: not a GGUF file (it does not begin with {MAGIC.decode()})")
    if digest is not None and (found := sha256(path)) != digest:
        raise InputError(f"gguf {path}: found sha256 {found}; expected {digest}")
    packages.check("gguf", "gguf")


def open_model(path: Path, digest: str | None = None) -> PreTrainedModel:
    """The file's model as one of its architecture that holds float32 weights and nothing else.

    What transformers opens remembers that it was quantised and refuses to be saved. InputError on
    a damaged file, or one of an architecture that transformers cannot read.
    """
    from transformers import AutoModelForCausalLM

    check_file(path, digest)
    options = {"gguf_file": path.name, "dtype": "float32", "local_files_only": True}
    with weights.opening(str(path)):
        found = AutoModelForCausalLM.from_pretrained(str(path.parent), **options)
    config = found.config
    for name in ("quantization_config", "_name_or_path"):
        if hasattr(config, name):
            delattr(config, name)
    plain = type(found)(config)
    plain.load_state_dict(found.state_dict())
    plain.tie_weights()
    weights.check_finite(plain, str(path))
    return plain


def open_tokenizer(path: Path, digest: str | None = None) -> Any:
    """The tokenizer in the file."""
    from transformers import AutoTokenizer

    check_file(path, digest)
    return AutoTokenizer.from_pretrained(
        str(path.parent), gguf_file=path.name, local_files_only=True
    )
