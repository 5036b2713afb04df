"""lucidlm: from raw text to an evaluated language model.

The names below are the whole public interface: a function a command, a class for each kind of model. All but the errors
are imported when they are first used, so that `import lucidlm` takes no time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lucidlm.core.errors import InputError, InputTypeError, LucidError
from lucidlm.version import __version__

if TYPE_CHECKING:
    from lucidlm.api import inspecting as inspect
    from lucidlm.api import planning as plan
    from lucidlm.api.judging import compare, evaluate, explain, explain_data, explain_generated
    from lucidlm.api.training import export, finetune, label_curve, prepare, pretrain
    from lucidlm.big_language_model import BigLanguageModel
    from lucidlm.checkpoint.load import load_model
    from lucidlm.model.config import ModelConfig
    from lucidlm.predict.classifier import TextClassifier
    from lucidlm.predict.embedder import TextEmbedder
    from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
    from lucidlm.predict.pair_classifier import PairClassifier, PairScorer
    from lucidlm.predict.span_reader import SpanReader
    from lucidlm.predict.text_generator import TextGenerator
    from lucidlm.predict.token_tagger import TokenTagger
    from lucidlm.tokenize.tokenizer import Tokenizer

    load_tokenizer = Tokenizer.load

__all__ = [
    "BigLanguageModel",
    "InputError",
    "InputTypeError",
    "LucidError",
    "ModelConfig",
    "MultiLabelClassifier",
    "PairClassifier",
    "PairScorer",
    "SpanReader",
    "TextClassifier",
    "TextEmbedder",
    "TextGenerator",
    "TokenTagger",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "explain_data",
    "explain_generated",
    "export",
    "finetune",
    "inspect",
    "label_curve",
    "load_model",
    "load_tokenizer",
    "plan",
    "prepare",
    "pretrain",
]

_HOMES = {
    "BigLanguageModel": ("lucidlm.big_language_model", "BigLanguageModel"),
    "ModelConfig": ("lucidlm.model.config", "ModelConfig"),
    "MultiLabelClassifier": ("lucidlm.predict.multi_label_classifier", "MultiLabelClassifier"),
    "PairClassifier": ("lucidlm.predict.pair_classifier", "PairClassifier"),
    "PairScorer": ("lucidlm.predict.pair_classifier", "PairScorer"),
    "SpanReader": ("lucidlm.predict.span_reader", "SpanReader"),
    "TextClassifier": ("lucidlm.predict.classifier", "TextClassifier"),
    "TextEmbedder": ("lucidlm.predict.embedder", "TextEmbedder"),
    "TextGenerator": ("lucidlm.predict.text_generator", "TextGenerator"),
    "TokenTagger": ("lucidlm.predict.token_tagger", "TokenTagger"),
    "compare": ("lucidlm.api.judging", "compare"),
    "evaluate": ("lucidlm.api.judging", "evaluate"),
    "explain": ("lucidlm.api.judging", "explain"),
    "explain_data": ("lucidlm.api.judging", "explain_data"),
    "explain_generated": ("lucidlm.api.judging", "explain_generated"),
    "export": ("lucidlm.api.training", "export"),
    "finetune": ("lucidlm.api.training", "finetune"),
    "inspect": ("lucidlm.api.inspecting", ""),
    "label_curve": ("lucidlm.api.training", "label_curve"),
    "load_model": ("lucidlm.checkpoint.load", "load_model"),
    "load_tokenizer": ("lucidlm.tokenize.tokenizer", "Tokenizer.load"),
    "plan": ("lucidlm.api.planning", ""),
    "prepare": ("lucidlm.api.training", "prepare"),
    "pretrain": ("lucidlm.api.training", "pretrain"),
}


class _Package(ModuleType):
    """The package as a module, in which `evaluate` and `explain` are functions and `plan` is what Python users call.

    Python would put the folders of these names in their place as soon as something is imported from them.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lucidlm' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    module = import_module(home)
    return attrgetter(attribute)(module) if attribute else module


def __dir__() -> list[str]:
    return __all__
