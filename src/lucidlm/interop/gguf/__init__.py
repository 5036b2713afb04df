"""GGUF, the file format of llama.cpp (ggml's docs/gguf.md): models in and out, tokenizer included."""

from __future__ import annotations

from importlib.util import find_spec

from lucidlm.core.errors import InputError

if find_spec("gguf") is None:
    raise InputError("GGUF files need the gguf package", fix="Run: pip install 'lucidlm[gguf]'.")
