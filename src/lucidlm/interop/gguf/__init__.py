"""GGUF, the file format of llama.cpp (ggml's docs/gguf.md): models in and out, tokenizer included."""

from __future__ import annotations

from lucidlm.core.extras import require_package

require_package("gguf", "gguf")
