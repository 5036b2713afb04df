"""config.json: our configuration in the words of transformers, and back.

Our default arrangements are ones that transformers has under names of its own: Qwen3 (causal, with norms on queries and
keys), Llama (causal, without) and EuroBERT (bidirectional). Any other combination is saved as "lucidlm", which only this
package opens.
"""

from __future__ import annotations

from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig

ARCHITECTURES = {
    ("qwen3", "language"): "Qwen3ForCausalLM",
    ("qwen3", "classifier"): "Qwen3ForSequenceClassification",
    ("qwen3", "span"): "Qwen3ForQuestionAnswering",
    ("llama", "language"): "LlamaForCausalLM",
    ("llama", "classifier"): "LlamaForSequenceClassification",
    ("llama", "span"): "LlamaForQuestionAnswering",
    ("eurobert", "language"): "EuroBertForMaskedLM",
    ("eurobert", "classifier"): "EuroBertForSequenceClassification",
}


def family(config: ModelConfig) -> str:
    """Return the model type under which transformers knows this arrangement, or "lucidlm"."""
    if (config.norm, config.position, config.activation, config.bias) != ("rms", "rotary", "swiglu", False):
        return "lucidlm"
    if config.causal:
        return "qwen3" if config.qk_norm else "llama"
    return "lucidlm" if config.qk_norm else "eurobert"


def to_hf(config: ModelConfig, kind: str) -> dict[str, Any]:
    """Return what config.json holds for a model of this `kind`: "language", "classifier" or "span"."""
    model_type = family(config)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "model_type": model_type,
        "architectures": [ARCHITECTURES.get((model_type, kind), "LucidLM")],
        "vocab_size": config.vocab_size,
        "hidden_size": config.embedding_dim,
        "intermediate_size": config.ff_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # read by transformers before version 5
        "rope_parameters": rope,  # read since
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied_embeddings,
        "torch_dtype": "float32",
    }


def from_hf(fields: dict[str, Any], where: str) -> ModelConfig:
    """Return the configuration that a config.json of one of our families describes.

    Raises
    ------
    InputError: it is of a family, or has a feature, that this version does not know.
    """
    model_type = fields.get("model_type")
    if model_type not in ("qwen3", "llama", "eurobert"):
        raise InputError(
            f"model type {model_type!r} is not known to this version of lucidlm",
            where=where,
            fix="Known are qwen3, llama and eurobert.",
        )
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default" or fields.get("use_sliding_window"):
        raise InputError("scaled rotary positions and sliding windows are not supported yet", where=where)
    if fields.get("attention_bias") or fields.get("mlp_bias") or fields.get("hidden_act", "silu") != "silu":
        raise InputError("biases and activations other than silu are not supported in this family yet", where=where)
    theta = rope.get("rope_theta", fields.get("rope_theta", 250_000.0 if model_type == "eurobert" else 10_000.0))
    shape = {
        "vocab_size": fields.get("vocab_size"),
        "embedding_dim": fields.get("hidden_size"),
        "num_heads": fields.get("num_attention_heads"),
        "ff_dim": fields.get("intermediate_size"),
        "num_layers": fields.get("num_hidden_layers"),
        "num_kv_heads": fields.get("num_key_value_heads"),
        "head_dim": fields.get("head_dim"),
        "context_length": fields.get("max_position_embeddings"),
        "norm_eps": fields.get("rms_norm_eps"),
        "tied_embeddings": fields.get("tie_word_embeddings", False),
    }
    given = {name: value for name, value in shape.items() if value is not None}
    causal = model_type != "eurobert"
    return ModelConfig.parse({**given, "rope_theta": theta, "causal": causal, "qk_norm": model_type == "qwen3"}, where)
