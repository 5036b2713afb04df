"""What a config.json may say: the families, heads and features that are known, and what is said of those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lucidlm.checkpoint.families import families, family_of
from lucidlm.checkpoint.hf_config import read_hf_config
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier

ROTARY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
BERT = {name: value for name, value in ROTARY.items() if name != "num_key_value_heads"}
GPT2: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
FIELDS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "bert": BERT,
    **dict.fromkeys(("eurobert", "llama", "mistral", "qwen2", "qwen3"), ROTARY),
}


def adopted(path: Path, family: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a directory whose config.json is a usual one of this family but for `changes`."""
    fields = {"model_type": family, **FIELDS[family], **changes}
    (path / "config.json").write_text(json.dumps(fields))
    return read_hf_config(read_json(path / "config.json"), path / "config.json")


def config_of(path: Path, family: str, **changes: Any) -> ModelConfig:
    return ModelConfig(**adopted(path, family, **changes)["model"])


def test_a_usual_configuration_of_each_family_is_read(tmp_path: Path) -> None:
    assert set(families) >= set(FIELDS)
    for name in FIELDS:
        config = config_of(tmp_path, name)
        assert (config.embedding_dim, config.num_layers, config.context_length) == (16, 2, 32)
        found = family_of(config)
        assert found is not None
        assert found.model_type == ("llama" if name == "mistral" else name)


@pytest.mark.parametrize(
    ("family", "named", "kind"),
    [
        ("gpt2", "GPT2LMHeadModel", "language"),
        ("gpt2", "GPT2Model", "language"),
        ("bert", "BertForPreTraining", "language"),
        ("bert", "BertForMaskedLM", "language"),
        ("bert", "BertForSequenceClassification", "classifier"),
        ("bert", "BertForTokenClassification", "tagger"),
        ("bert", "BertForQuestionAnswering", "span"),
        ("mistral", "MistralForSequenceClassification", "classifier"),
        ("qwen3", None, "language"),
    ],
)
def test_the_class_tells_the_head(family: str, named: str | None, kind: str, tmp_path: Path) -> None:
    assert adopted(tmp_path, family, architectures=None if named is None else [named])["kind"] == kind


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("gpt2", {"model_type": "t5"}, ["model type 't5'", "bert, eurobert, gpt2, llama, mistral, qwen2, qwen3"]),
        ("gpt2", {"model_type": ["gpt2"]}, ["model type"]),
        ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, ["GPT2DoubleHeadsModel", "GPT2LMHeadModel"]),
        ("bert", {"architectures": ["BertForMultipleChoice"]}, ["BertForMultipleChoice"]),
        ("qwen2", {"architectures": ["Qwen2ForRewardModel"]}, ["Qwen2ForRewardModel"]),
        ("eurobert", {"architectures": ["EuroBertForQuestionAnswering"]}, ["EuroBertForQuestionAnswering"]),
        ("gpt2", {"activation_function": "relu"}, ["activation_function", "'relu'", "gelu_new"]),
        ("llama", {"hidden_act": ["silu"]}, ["hidden_act"]),
        ("bert", {"position_embedding_type": "relative_key"}, ["position_embedding_type", "absolute"]),
        ("bert", {"is_decoder": True}, ["is_decoder"]),
        ("llama", {"is_causal": False}, ["is_causal"]),
        ("llama", {"per_layer_config": {"1": {"intermediate_size": 48}}}, ["per_layer_config"]),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types"]),
        ("qwen2", {"layer_types": 5}, ["layer_types"]),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8}, ["use_sliding_window"]),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["'dynamic'", "linear and llama3"]),
        ("llama", {"rope_scaling": {"type": ["linear"], "factor": 2.0}}, ["linear and llama3"]),
        ("llama", {"rope_scaling": {"type": "linear"}}, ["factor"]),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, ["low_freq"]),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 9.0}}}, ["once, for all layers"]),
        ("llama", {"rope_parameters": [1]}, ["once, for all layers"]),
        ("llama", {"partial_rotary_factor": 0.5}, ["a part of each head"]),
        ("llama", {"rope_theta": None}, ["rope_theta"]),
        ("llama", {"hidden_size": None}, ["hidden_size"]),
        ("llama", {"num_attention_heads": 3}, ["num_attention_heads"]),
        ("llama", {"num_key_value_heads": 3}, ["num_key_value_heads"]),
        ("gpt2", {"n_embd": "wide"}, ["n_embd"]),
        ("gpt2", {"n_layer": 10**30}, ["n_layer"]),
        ("mistral", {"sliding_window": "wide"}, ["sliding_window"]),
        ("mistral", {"sliding_window": 0}, ["sliding_window"]),
        ("bert", {"architectures": ["BertForSequenceClassification"], "problem_type": "ranking"}, ["problem_type"]),
        ("bert", {"architectures": ["BertForSequenceClassification"], "problem_type": "regression"}, ["2 numbers"]),
        ("bert", {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}}, ["a single class"]),
        ("bert", {"architectures": ["BertForSequenceClassification"], "id2label": {"1": "a", "2": "b"}}, ["id2label"]),
        ("bert", {"architectures": ["BertForSequenceClassification"], "id2label": [1]}, ["id2label"]),
        ("eurobert", {"architectures": ["EuroBertForSequenceClassification"]}, ["classifier_pooling", "'late'"]),
    ],
)
def test_what_is_not_known_is_named(family: str, changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        adopted(tmp_path, family, **changes)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
    for word in words:
        assert word in str(caught.value)


def test_null_is_not_what_is_left_out(tmp_path: Path) -> None:
    """For some fields null is a value: no window, as many key heads as queries have, heads of the usual width."""
    changes = {"max_position_embeddings": 8192}
    assert config_of(tmp_path, "mistral", **changes).context_length == 4096
    assert config_of(tmp_path, "mistral", **changes, sliding_window=16).context_length == 16
    assert config_of(tmp_path, "mistral", **changes, sliding_window=None).context_length == 8192
    assert config_of(tmp_path, "mistral", num_key_value_heads=None).num_kv_heads == 4
    assert config_of(tmp_path, "llama", head_dim=None, rope_scaling=None).head_dim == 4
    assert config_of(tmp_path, "gpt2", n_inner=None).ff_dim == 64
    assert config_of(tmp_path, "llama", rope_parameters=None, partial_rotary_factor=None).rope_theta == 10_000


def test_positions_in_all_the_ways_of_saying_them(tmp_path: Path) -> None:
    for changes in (
        {"rope_theta": 9.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 9.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}},
        {"rope_theta": 1.0, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}},
    ):
        config = config_of(tmp_path, "llama", **changes)
        assert config.rope_scaling is not None
        assert (config.rope_theta, config.rope_scaling.kind, config.rope_scaling.factor) == (9.0, "linear", 2.0)
    llama3 = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for changes, original in (
        ({"rope_scaling": llama3}, 32),
        ({"rope_scaling": llama3 | {"original_max_position_embeddings": 8}}, 8),
        ({"rope_scaling": llama3, "original_max_position_embeddings": 16}, 16),
    ):
        scaling = config_of(tmp_path, "llama", **changes).rope_scaling
        assert scaling is not None
        assert scaling.original_context == original


# ---------------------------------------------------------------------- weights


def rewrite(path: Path, change: Any) -> None:
    tensors: dict[str, Tensor] = load_file(path / "model.safetensors")
    save_file(change(tensors), path / "model.safetensors")
    (path / "lucidlm.json").unlink(missing_ok=True)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    config = ModelConfig(vocab_size=50, embedding_dim=16, num_heads=4, ff_dim=24, num_layers=2, qk_norm=False)
    save_model(LanguageModel(config), tmp_path / "llama")
    return tmp_path / "llama"


def test_a_tied_head_may_be_stored_again_if_it_is_the_same(llama: Path) -> None:
    table = "model.embed_tokens.weight"
    rewrite(llama, lambda tensors: tensors | {"lm_head.weight": tensors[table].clone()})
    assert load_model(llama).model.config.tied_embeddings
    rewrite(llama, lambda tensors: tensors | {"lm_head.weight": tensors[table] + 1})
    with pytest.raises(InputError, match="tie_word_embeddings"):
        load_model(llama)


def test_tensors_that_have_no_place_are_named(llama: Path) -> None:
    for change, words in (
        ({"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}, "unknown: model.layers.0.self_attn.q_proj.bias"),
        ({"visual.weight": torch.zeros(3)}, "unknown: visual.weight"),
        ({"model.layers.2.mlp.up_proj.weight": torch.zeros(24, 16)}, "unknown: model.layers.2.mlp.up_proj.weight"),
    ):
        kept = load_file(llama / "model.safetensors")
        rewrite(llama, lambda tensors, added=change: tensors | added)
        with pytest.raises(InputError, match=words):
            load_model(llama)
        save_file(kept, llama / "model.safetensors")
    rewrite(llama, lambda tensors: {name: value for name, value in tensors.items() if "norm" not in name})
    with pytest.raises(InputError, match="5 tensors are missing"):
        load_model(llama)


def test_a_model_that_lacks_its_head_is_not_taken_for_one_that_never_had_any(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=50, embedding_dim=16, num_heads=4, ff_dim=24, num_layers=2, qk_norm=False, tied_embeddings=False
    )
    save_model(LanguageModel(config), tmp_path)
    rewrite(tmp_path, lambda tensors: {name: tensors[name] for name in tensors if name != "lm_head.weight"})
    with pytest.raises(InputError, match=r"missing: lm_head\.weight"):
        load_model(tmp_path)


def test_a_name_with_and_without_the_prefix_is_one_too_many(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=50,
        embedding_dim=16,
        num_heads=4,
        ff_dim=64,
        num_layers=2,
        position="learned",
        norm="layer",
        activation="gelu_tanh",
        bias=True,
        qk_norm=False,
    )
    save_model(LanguageModel(config), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"wte.weight": torch.zeros(50, 16)})
    with pytest.raises(InputError, match=r"unknown: wte\.weight"):
        load_model(tmp_path)


def test_nothing_but_a_pooler_is_no_model(tmp_path: Path) -> None:
    fields = {"model_type": "bert", **BERT, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    save_file({"pooler.dense.weight": torch.zeros(16, 16)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="missing"):
        load_model(tmp_path)


def test_a_header_may_be_as_long_as_a_pickle_begins(llama: Path) -> None:
    """The first bytes of safetensors are a size, and some sizes are what pickles and archives of them begin with."""
    file = llama / "model.safetensors"
    (llama / "lucidlm.json").unlink()
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    for size in (0x10280, 0x10380, 0x10480, 0x10580, 0x14B50):
        file.write_bytes(size.to_bytes(8, "little") + content[8:end].ljust(size) + content[end:])
        load_model(llama)


def test_classifiers_keep_their_labels_without_our_record(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=50, embedding_dim=16, num_heads=4, ff_dim=24, num_layers=2)
    save_model(SequenceClassifier(config, ["bad", "good"], "last"), tmp_path)
    (tmp_path / "lucidlm.json").unlink()
    model = load_model(tmp_path).model
    assert isinstance(model, SequenceClassifier)
    assert (model.labels, model.pooling) == (["bad", "good"], "last")
