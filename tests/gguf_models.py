"""Tiny models in the arrangements that llama.cpp runs, and GGUF files with whatever one wants in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from gguf import GGUFWriter
from tokenizers import decoders, models, normalizers

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.interop.gguf.header import read_header
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import CONTROL, UNKNOWN, Tokenizer

TEXT = "The quick brown fox jumps over the lazy dog, doesn't it? 春眠不觉晓，处处闻啼鸟。 1984 was 36 years ago.\n"
SPACE = "▁"
SIZE: dict[str, Any] = {"embedding_dim": 64, "num_heads": 4, "ff_dim": 96, "num_layers": 2, "context_length": 64}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "original_context": 8192}
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False, "num_kv_heads": 2, "norm_eps": 1e-5},
    "llama, longer": {"qk_norm": False, "rope_scaling": LLAMA3, "rope_theta": 5e5, "tied_embeddings": False},
    "llama, stretched": {"qk_norm": False, "rope_scaling": {"kind": "linear", "factor": 4.0}},
    "qwen2": {"qk_norm": False, "qkv_bias": True, "num_kv_heads": 1, "rope_theta": 1e6},
    "qwen3": {"num_kv_heads": 2, "head_dim": 24, "tied_embeddings": False},
    "gpt2": {"qk_norm": False, "norm": "layer", "position": "learned", "activation": "gelu_tanh", "bias": True},
}


def trained_tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([TEXT * 20], 300, exact=False)


def characters_without_bytes(text: str) -> Tokenizer:
    """Return a tokenizer of characters as they once were made: what is not in `text` is unknown."""
    tokens = [*CONTROL, UNKNOWN, *sorted(set(text))]
    core = tokenizers.Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [], unk_token=UNKNOWN))
    core.decoder = decoders.Fuse()
    core.add_special_tokens([*CONTROL, UNKNOWN])
    return Tokenizer(core)


def tiny(tokenizer: Tokenizer, **fields: Any) -> LoadedModel:
    """Return a model whose every weight is random, those of norms around 1: fresh biases are zeros, and would not show."""
    model = LanguageModel(ModelConfig(**{"vocab_size": tokenizer.vocab_size, **SIZE, **fields}), seed=None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return LoadedModel(model.eval(), tokenizer, {})


def sentence_piece() -> tokenizers.Tokenizer:
    """Return SentencePiece's BPE, which merges any two tokens that together are one."""
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *f"{SPACE}itsaworldfpce"]
    tokens += ["is", "it", f"{SPACE}i", f"{SPACE}it", f"{SPACE}is", "or", f"{SPACE}a", f"{SPACE}{SPACE}", "or", "wor"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    core = tokenizers.Tokenizer(
        models.BPE(vocabulary, all_merges(vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    core.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(special)
    return core


def all_merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return every way to make a token of two, the shortest tokens first."""
    tokens = sorted(vocabulary, key=lambda token: (len(token), vocabulary[token]))
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in sorted(range(1, len(token)), key=lambda cut: vocabulary.get(token[:cut], 0))
        if {token[:cut], token[cut:]} <= vocabulary.keys()
    ]


class Parts:
    """A GGUF file taken apart, to be changed and put together again."""

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        self.metadata = dict(header.metadata)
        data = np.fromfile(path, np.uint8)
        self.tensors = {
            info.name: (info.kind, info.shape, data[info.offset : info.offset + info.nbytes])
            for info in header.tensors.values()
        }

    def write(self, path: Path) -> Path:
        """Put the file together at `path`, by the gguf package's own writer."""
        writer = GGUFWriter(path, self.metadata["general.architecture"])
        for key, value in self.metadata.items():
            if key == "general.architecture":
                continue
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            else:
                writer.add_array(key, value.tolist() if isinstance(value, np.ndarray) else value)
        for name, (kind, shape, data) in self.tensors.items():
            writer.add_tensor_info(name, shape, np.dtype(np.float32), data.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, _, data in self.tensors.values():
            writer.write_tensor_data(data)
        writer.close()
        return path
