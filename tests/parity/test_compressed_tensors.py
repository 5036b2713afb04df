"""int8 and int4 directories in transformers, which reads them through compressed-tensors where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.quantize import INTEGERS, Dtype
from lucidlm.checkpoint.save import save_model
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

pytest.importorskip("compressed_tensors")

SIZE: dict[str, Any] = {"vocab_size": 60, "embedding_dim": 16, "num_heads": 2, "ff_dim": 24, "num_layers": 2}
BERT: dict[str, Any] = {
    "causal": False,
    "norm": "layer",
    "position": "learned",
    "activation": "gelu",
    "bias": True,
    "qk_norm": False,
    "post_norm": True,
    "head_transform": True,
    "token_types": 2,
}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "fields", [{}, {"qk_norm": False, "tied_embeddings": False}, BERT], ids=["qwen3", "llama", "bert"]
)
def test_transformers_computes_the_same(fields: dict[str, Any], dtype: Dtype, tmp_path: Path) -> None:
    size = SIZE | ({"embedding_dim": 64, "ff_dim": 96} if dtype == "int4" else {})  # rows that can be cut into groups
    model = LanguageModel(ModelConfig(**size, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10 if dtype == "int8" else 3)
    save_model(model, tmp_path, dtype=dtype)
    name = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    tokens = torch.randint(60, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs.eval()(tokens).logits
        ours = load_model(tmp_path).model(tokens)
        off = (logits - model.eval()(tokens)).abs().max()
    assert 0 < off < (0.2 if dtype == "int8" else 1.0) * logits.std()
    # It multiplies int4 by its scales in the scales' fp16, which rounds once more than we do.
    assert (logits - ours).abs().max() < (1e-5 if dtype == "int8" else off / 10)
