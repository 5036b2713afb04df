"""Guards for tests: one that looks for a word and remembers what it was asked, and a classifier that knows a word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.serving import small_tokenizer

from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import LucidError
from lucidlm.inference.guard import Guard
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier
from lucidlm.model.ngrams import NgramClassifier, NgramKind, NgramTable, WideBranch


class WordGuard(Guard):
    """Refuses texts with a word in them, and fails at another word.

    `passed` are the texts that it has let through, `calls` how many texts it was asked about at a time.
    """

    def __init__(self, word: str, failing: str | None = None) -> None:
        self.word, self.failing = word, failing
        self.passed: list[str] = []
        self.calls: list[int] = []

    def refusals(self, texts: Sequence[tuple[str, int]]) -> list[str | None]:
        self.calls.append(len(texts))
        if self.failing is not None and any(self.failing in text for text, _ in texts):
            raise LucidError("it broke")
        self.passed += [text for text, _ in texts if self.word not in text]
        return [f"it says {self.word}" if self.word in text else None for text, _ in texts]


def word_judge(
    directory: Path,
    word: str,
    labels: Sequence[str] = ("fine", "bad"),
    max_length: int = 32,
    kind: NgramKind = "words",
) -> Path:
    """Save a classifier that nobody has trained but for one word, by which alone it finds a text to be of the last label."""
    tokenizer = small_tokenizer().with_end()
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 32, "num_layers": 1}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context_length=64, causal=False, **shape)
    model = SequenceClassifier(config, list(labels), "mean")
    table = NgramTable(kind, (word,), np.array([[1.0]], np.float32), np.array([[40.0]], np.float32))
    model.wide = WideBranch(NgramClassifier((table,), np.array([-20.0], np.float32)), 0.0, 1.0)
    provenance = {"task": "sentiment", "config": {"max_length": max_length}}
    save_model(model.eval(), directory, tokenizer, provenance=provenance)
    return directory
