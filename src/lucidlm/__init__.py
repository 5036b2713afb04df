"""lucidlm: from raw text to an evaluated language model.

The names below are the whole public interface at the top. Those that need PyTorch are imported when they are first
used, so that `import lucidlm` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lucidlm.core.errors import InputError, LucidError
from lucidlm.version import __version__

if TYPE_CHECKING:
    from lucidlm.big_language_model import BigLanguageModel
    from lucidlm.checkpoint.directory import load_model
    from lucidlm.model.config import ModelConfig
    from lucidlm.tokenize.tokenizer import Tokenizer

    load_tokenizer = Tokenizer.load

__all__ = [
    "BigLanguageModel",
    "InputError",
    "LucidError",
    "ModelConfig",
    "__version__",
    "load_model",
    "load_tokenizer",
]

_HOMES = {
    "BigLanguageModel": ("lucidlm.big_language_model", "BigLanguageModel"),
    "ModelConfig": ("lucidlm.model.config", "ModelConfig"),
    "load_model": ("lucidlm.checkpoint.directory", "load_model"),
    "load_tokenizer": ("lucidlm.tokenize.tokenizer", "Tokenizer.load"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lucidlm' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return attrgetter(attribute)(import_module(module))


def __dir__() -> list[str]:
    return __all__
