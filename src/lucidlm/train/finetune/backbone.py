"""What fine-tuning takes over from a pretrained model: the Transformer without its head."""

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
    """Return the shape of the model to be tuned: the pretrained one's, with the dropout and the attention asked for.

    Parameters
    ----------
    bidirectional: what "auto" means for a causal model: whether tokens are to see those after them as well.
    """
    auto = shape.causal and not bidirectional
    causal = auto if config.attention == "auto" else config.attention == "causal"
    return shape.changed(dropout=config.dropout, causal=causal)
