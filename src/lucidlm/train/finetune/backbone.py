"""What fine-tuning takes from a pretrained model: the Transformer without its head, or the whole language model."""

from __future__ import annotations

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.transformer import Transformer
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig


def pretrained_backbone(loaded: LoadedModel, where: str) -> tuple[Transformer, Tokenizer]:
    """Return the Transformer of a pretrained language model, and its tokenizer.

    Raises
    ------
    InputError: `where` holds another kind of model, or no tokenizer.
    """
    if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None:
        raise InputError(
            "is not a pretrained language model with its tokenizer",
            where=where,
            fix="Pass what `lucidlm pretrain` made.",
        )
    return loaded.model.model, loaded.tokenizer


def backbone_config(shape: ModelConfig, config: FinetuneConfig, *, bidirectional: bool = False) -> ModelConfig:
    """Return the pretrained model's configuration with the dropout and the attention (causal or not) of `config`.

    Parameters
    ----------
    bidirectional: whether `attention: auto` makes a causal model bidirectional.
    """
    auto = shape.causal and not bidirectional
    causal = auto if config.attention == "auto" else config.attention == "causal"
    dropout = shape.dropout if config.dropout is None else config.dropout
    return shape.changed(dropout=dropout, causal=causal)


def language_model(loaded: LoadedModel, shape: ModelConfig) -> LanguageModel:
    """Return a copy of the pretrained language model, head included, with the configuration `shape`."""
    assert isinstance(loaded.model, LanguageModel)
    model = LanguageModel(shape, seed=None)
    model.load_state_dict(loaded.model.state_dict())
    model.generation = loaded.model.generation
    return model
