"""Small GGUF files of LLaMAs with their tokenizers, as converters of llama.cpp write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Queries and keys in llama.cpp's order: pairs of a rotation beside each other."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _name(name: str) -> str:
    own = name.removesuffix(".weight")
    if own.startswith("model.layers."):
        _, _, layer, rest = own.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.weight"
    return f"{NAMES[own]}.weight"


def write(path: Path, model: Any, tokenizer: Any, architecture: str = "llama") -> None:
    """Writes a model of transformers with a byte-level tokenizer; matrices in 4 bits (Q4_1)."""
    config = model.config
    made = gguf.GGUFWriter(path, architecture)
    made.add_name("small")
    made.add_context_length(config.max_position_embeddings)
    made.add_embedding_length(config.hidden_size)
    made.add_block_count(config.num_hidden_layers)
    made.add_feed_forward_length(config.intermediate_size)
    made.add_head_count(config.num_attention_heads)
    made.add_head_count_kv(config.num_key_value_heads)
    made.add_layer_norm_rms_eps(config.rms_norm_eps)
    made.add_rope_freq_base(config.rope_parameters["rope_theta"])
    made.add_rope_dimension_count(config.head_dim)
    made.add_vocab_size(config.vocab_size)
    _add_tokenizer(made, tokenizer)
    for name, tensor in model.state_dict().items():
        array = tensor.detach().float().numpy()
        if "q_proj" in name or "k_proj" in name:
            own = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = _permuted(array, own)
        if tensor.dim() == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            made.add_tensor(_name(name), gguf.quantize(array, kind), raw_dtype=kind)
        else:
            made.add_tensor(_name(name), np.ascontiguousarray(array))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()


def _add_tokenizer(made: Any, tokenizer: Any) -> None:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens)
    kinds = [3 if token in special else 1 for token in tokens]  # control, normal
    made.add_tokenizer_model("gpt2")
    made.add_tokenizer_pre("default")
    made.add_token_list(tokens)
    made.add_token_types(kinds)
    made.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    made.add_bos_token_id(tokenizer.bos_token_id)
    made.add_eos_token_id(tokenizer.eos_token_id)
    made.add_pad_token_id(tokenizer.pad_token_id)
    made.add_unk_token_id(tokenizer.eos_token_id)
    made.add_add_bos_token(False)


def rounded(model: Any) -> dict[str, torch.Tensor]:
    """The model's weights as Q4_1 keeps them."""
    kind = gguf.GGMLQuantizationType.Q4_1
    found = {}
    for name, tensor in model.state_dict().items():
        array = tensor.detach().float().numpy()
        if tensor.dim() == 2:
            array = gguf.dequantize(gguf.quantize(array, kind), kind)
        found[name] = torch.from_numpy(np.array(array))
    return found
