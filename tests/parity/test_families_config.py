"""What config.json may say in each family: every field of transformers' is heeded, harmless, or refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tests.parity.tiny_models import BERT, GPT2, LLAMA3, ROTARY, V, close, ids, randomise, their, transformers

from lucidlm.checkpoint.families import families
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.interop.hf import export_hf
from lucidlm.interop.pre_tokenizers import BY_NAME
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.tokenize.tokenizer import Tokenizer

SMALL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2", "LMHeadModel", GPT2 | {"n_layer": 2}),
    "bert": ("Bert", "ForMaskedLM", BERT | {"num_hidden_layers": 2}),
    "llama": ("Llama", "ForCausalLM", ROTARY | {"num_hidden_layers": 2}),
    "mistral": ("Mistral", "ForCausalLM", ROTARY | {"num_hidden_layers": 2}),
    "qwen2": ("Qwen2", "ForCausalLM", ROTARY | {"num_hidden_layers": 2}),
    "qwen3": ("Qwen3", "ForCausalLM", ROTARY | {"num_hidden_layers": 2, "head_dim": 6}),
    "eurobert": ("EuroBert", "ForMaskedLM", ROTARY | {"num_hidden_layers": 2, "mask_token_id": 2}),
}

ACTIVATIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "relu2", "silu", "quick_gelu", "tanh"]
OTHERS: dict[str, list[Any]] = {
    "activation_function": ACTIVATIONS,
    "add_cross_attention": [True],
    "architectures": [],
    "attention_bias": [True],
    "attention_dropout": [0.5],
    "attention_probs_dropout_prob": [0.5],
    "attn_pdrop": [0.5],
    "bos_token_id": [5, None],
    "chunk_size_feed_forward": [3],
    "classifier_dropout": [0.5],
    "classifier_pooling": ["mean", "bos"],
    "dtype": ["float32"],
    "embd_pdrop": [0.5],
    "eos_token_id": [5, None, [5, 6]],
    "head_dim": [10],
    "hidden_act": ACTIVATIONS,
    "hidden_dropout_prob": [0.5],
    "hidden_size": [32],
    "id2label": [{0: "one", 1: "two", 2: "three"}],
    "initializer_range": [0.5],
    "intermediate_size": [48],
    "is_causal": [False],
    "is_decoder": [True],
    "is_encoder_decoder": [True],
    "label2id": [{"one": 0, "two": 1, "three": 2}],
    "layer_norm_eps": [0.5],
    "layer_norm_epsilon": [0.5],
    "layer_types": [["full_attention"] * 2, ["full_attention", "sliding_attention"]],
    "mask_token_id": [5],
    "max_position_embeddings": [16],
    "max_window_layers": [1],
    "mlp_bias": [True],
    "n_embd": [32],
    "n_head": [2],
    "n_inner": [48],
    "n_layer": [1],
    "n_positions": [16],
    "num_attention_heads": [2, 8],
    "num_hidden_layers": [1],
    "num_key_value_heads": [1, 4],
    "output_hidden_states": [True],
    "pad_token_id": [5, None],
    "pretraining_tp": [2],
    "problem_type": ["single_label_classification"],
    "reorder_and_upcast_attn": [True],
    "resid_pdrop": [0.5],
    "return_dict": [True],
    "rms_norm_eps": [0.5],
    "rope_parameters": [
        {"rope_type": "default", "rope_theta": 9.0},
        {"rope_type": "linear", "factor": 3.0, "rope_theta": 9.0},
        LLAMA3,
        {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 9.0},
        {"rope_type": "yarn", "factor": 3.0, "rope_theta": 9.0, "original_max_position_embeddings": 8},
        {"rope_type": "default", "rope_theta": 9.0, "partial_rotary_factor": 0.5},
    ],
    "scale_attn_by_inverse_layer_idx": [True],
    "scale_attn_weights": [False],
    "sliding_window": [4, 16, None],
    "summary_activation": ["tanh"],
    "summary_first_dropout": [0.5],
    "summary_proj_to_labels": [False],
    "summary_type": ["mean"],
    "summary_use_proj": [False],
    "tie_word_embeddings": [False, True],
    "transformers_version": [],
    "type_vocab_size": [1, 4],
    "use_cache": [False],
    "use_sliding_window": [True],
    "vocab_size": [V + 1],
}
"""For every field of a family's configuration, values other than the usual ones."""

POSITIONS: dict[str, list[Any]] = {
    "rope_theta": [9.0],
    "rope_scaling": [{"type": "linear", "factor": 3.0}, {"type": "dynamic", "factor": 3.0}, LLAMA3],
    "partial_rotary_factor": [0.5, 1.0],
}
"""Likewise for what those with rotary positions take besides."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    """They warn of fields that they do not know, and of windows: none of these tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def fields_of(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(getattr(transformers, f"{name}Config"))}


@pytest.mark.parametrize("family", SMALL)
@torch.no_grad()
def test_no_field_is_passed_over(family: str, tmp_path: Path) -> None:
    """Whatever a field says, the logits are theirs or the model is refused: never other logits."""
    name, head, usual = SMALL[family]
    heeded, refused = set(), set()
    changes = [(changed, value) for changed in sorted(fields_of(name) | {"is_causal"}) for value in OTHERS[changed]]
    if "rope_parameters" in fields_of(name):
        changes += [(changed, value) for changed, values in POSITIONS.items() for value in values]
    for index, (changed, value) in enumerate(changes):
        path = tmp_path / str(index)
        try:
            theirs = their(name, head, usual | {changed: value}, path)
        except (ValueError, KeyError, AttributeError, TypeError):
            continue  # they refuse it themselves
        try:
            ours = load_model(path).model
        except InputError as error:
            assert error.where == str(path / "config.json")  # noqa: PT017
            refused.add(changed)
            continue
        assert isinstance(ours, LanguageModel)
        tokens = ids(length=min(12, ours.config.context_length))
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=1e-5, msg=f"{changed}={value!r}")
        heeded.add(changed)
    assert heeded >= {"vocab_size", "initializer_range", "tie_word_embeddings"}
    assert refused >= EXPECTED[family], EXPECTED[family] - refused


EXPECTED = {
    "gpt2": {"activation_function", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention"},
    "bert": {"hidden_act", "is_decoder"},
    "llama": {"hidden_act", "attention_bias", "mlp_bias", "rope_parameters"},
    "mistral": {"hidden_act", "rope_parameters"},
    "qwen2": {"hidden_act", "rope_parameters", "layer_types", "use_sliding_window"},
    "qwen3": {"hidden_act", "rope_parameters", "layer_types", "use_sliding_window", "attention_bias"},
    "eurobert": {"hidden_act", "attention_bias", "mlp_bias", "rope_parameters"},
}
"""What is refused, at the least, as there is no such feature here."""


@pytest.mark.parametrize("family", SMALL)
def test_fields_that_are_left_out_mean_what_they_mean_there(family: str) -> None:
    name, _, usual = SMALL[family]
    sizes = families.get(family).sizes
    needed = {
        field: usual[field]
        for ours, field in sizes.items()
        if ours in ("vocab_size", "embedding_dim", "num_heads", "ff_dim", "num_layers") and field in usual
    }
    # In older versions too: as many key heads as queries have, but where a default says otherwise.
    needed |= {"num_attention_heads": 32, "hidden_size": 64} if family in ("qwen2", "qwen3", "mistral") else {}
    ours = families.get(family).to_config({"model_type": family, **needed}, "config.json")
    theirs = getattr(transformers, f"{name}Config")(**needed)
    values = {**ours.model_dump(), "num_kv_heads": ours.num_kv_heads, "head_dim": ours.head_dim}
    for field, their_field in sizes.items():
        expected = getattr(theirs, their_field, None)
        if field == "context_length" and family == "mistral":
            expected = theirs.sliding_window
        if expected is not None:
            assert values[field] == expected, field
    if ours.position == "rotary":
        assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


# ---------------------------------------------------------------------- ours, opened there


SIZE: dict[str, Any] = {
    "vocab_size": V,
    "embedding_dim": 24,
    "num_heads": 4,
    "ff_dim": 40,
    "num_layers": 2,
    "context_length": 32,
}
LEARNED: dict[str, Any] = {"norm": "layer", "position": "learned", "bias": True, "qk_norm": False}
OURS = {
    "gpt2": ModelConfig(**SIZE, **LEARNED, activation="gelu_tanh", dropout=0.2),
    "gpt2, squared relu": ModelConfig(**SIZE, **LEARNED, activation="relu2", tied_embeddings=False),
    "bert": ModelConfig(
        **SIZE, **LEARNED, activation="gelu", causal=False, post_norm=True, head_transform=True, token_types=2
    ),
    "llama": ModelConfig(**SIZE, qk_norm=False, num_kv_heads=1, tied_embeddings=False, norm_eps=0.1),
    "llama 3": ModelConfig(
        **SIZE, qk_norm=False, rope_scaling={"kind": "llama3", "factor": 4.0, "original_context": 9}
    ),
    "qwen2": ModelConfig(**SIZE, qk_norm=False, qkv_bias=True, head_dim=10),
    "qwen3": ModelConfig(**SIZE, num_kv_heads=2, rope_theta=50.0, rope_scaling={"kind": "linear", "factor": 2.0}),
    "eurobert": ModelConfig.masked(**SIZE, num_kv_heads=2),
}


TEXT = "The quick brown fox jumps over the lazy dog, 1984 times.\n\nWho's afraid? 你好，世界！ Ünïcödé 🙂 "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([TEXT] * 3, 290)


@pytest.fixture(scope="module")
def qwen_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that cuts texts as Qwen2's does, which transformers expects for its architecture."""
    core = tokenizers.Tokenizer.from_str(tokenizer.core.to_str())
    core.pre_tokenizer = BY_NAME["qwen2"].build()
    core.normalizer = tokenizers.normalizers.NFC()
    return Tokenizer(core, tokenizer.config)


def exported(
    model: Model, kind: str, tokenizer: Tokenizer | None, path: Path, dtype: str | None = None
) -> dict[str, Any]:
    export_hf(LoadedModel(model, tokenizer, {"kind": kind, "provenance": {}}), path, dtype)
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("case", OURS)
@torch.no_grad()
def test_models_made_here_open_there(
    case: str, tmp_path: Path, tokenizer: Tokenizer, qwen_tokenizer: Tokenizer
) -> None:
    config = OURS[case]
    tokenizer = qwen_tokenizer if case == "qwen2" else tokenizer
    model = randomise(LanguageModel(config))
    fields = exported(model, "language", tokenizer, tmp_path)
    auto = "AutoModelForCausalLM" if config.causal else "AutoModelForMaskedLM"
    theirs, report = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    close(model(ids()), theirs(ids()).logits)
    assert [type(theirs).__name__] == fields["architectures"]
    assert theirs.dtype == torch.float32
    again = load_model(tmp_path)
    assert again.model.config.model_dump() == config.model_dump()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "a  b\tc\r\n", "don't I'LL 第一章 1234567"):
        assert reader(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    # What other software needs: the tokenizer, the special ids, and for models that write a generation_config.json.
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {
        file.name for file in tmp_path.iterdir()
    }
    assert not (tmp_path / "lucidlm.json").exists()
    assert (fields["eos_token_id"], fields["pad_token_id"]) == (tokenizer.eos_id, tokenizer.pad_id)
    assert (tmp_path / "generation_config.json").exists() == config.causal


def test_half_precision(tmp_path: Path) -> None:
    model = randomise(LanguageModel(OURS["llama"]))
    assert exported(model, "language", None, tmp_path / "bf16", "bf16")["torch_dtype"] == "bfloat16"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bf16")
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(theirs.lm_head.weight, model.state_dict()["lm_head.weight"].bfloat16())
    with pytest.raises(InputError, match="there is no int8 here"):
        exported(model, "language", None, tmp_path / "int8", "int8")


def test_dropout_is_the_same_there(tmp_path: Path) -> None:
    exported(LanguageModel(OURS["gpt2"]), "language", None, tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (theirs.resid_pdrop, theirs.embd_pdrop, theirs.attn_pdrop) == (0.2, 0.2, 0.0)
    assert theirs.n_ctx == 32  # which llama.cpp's converter asks for


def test_what_transformers_would_misread_is_not_exported(tmp_path: Path, tokenizer: Tokenizer) -> None:
    other = ModelConfig(**SIZE, activation="gelu")
    for model, kind, words in (
        (LanguageModel(other), "language", "no model of this arrangement"),
        (SpanExtractor(OURS["eurobert"]), "span", "no span model"),
        (SequenceClassifier(OURS["llama"], ["no", "yes"], "mean"), "classifier", "--pooling last"),
        (SequenceClassifier(OURS["bert"], ["no", "yes"], "mean"), "classifier", "--pooling first"),
    ):
        with pytest.raises(InputError, match=words):
            exported(model, kind, None, tmp_path / "out")
    with pytest.raises(InputError, match="not Qwen2's"):
        exported(LanguageModel(OURS["qwen2"]), "language", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
