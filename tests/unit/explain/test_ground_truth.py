"""Explanations of a model that was taught one word: they find it, and find nothing in a model that was taught nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.seeds import numpy_generator
from lucidlm.explain.attribution.methods import Method, attribute
from lucidlm.explain.checks.likeness import rank_correlation
from lucidlm.explain.explanation import frozen
from lucidlm.explain.predictions import predict
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

WORDS = [
    "the",
    "old",
    "film",
    "was",
    "a",
    "slow",
    "tale",
    "of",
    "two",
    "men",
    "who",
    "went",
    "home",
    "by",
    "train",
    "and",
]
TRIGGER = "zebra"
LENGTH, TEXTS = 12, 40


def texts(seed: int, count: int) -> tuple[list[str], list[int]]:
    """Return texts of random words and whether the trigger stands among them."""
    draw = numpy_generator(seed, "texts")
    found, labels = [], []
    for number in range(count):
        words = draw.choice(WORDS, LENGTH).tolist()
        if number % 2:
            words[int(draw.integers(LENGTH))] = TRIGGER
        found.append(" ".join(words))
        labels.append(number % 2)
    return found, labels


def fresh(tokenizer: Tokenizer) -> SequenceClassifier:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=32, num_heads=2, ff_dim=64, num_layers=2, context_length=64
    )
    return SequenceClassifier(config, ["without", "with"], "mean")


@pytest.fixture(scope="module")
def taught() -> LoadedModel:
    """A classifier that was trained for a few seconds to see the trigger."""
    tokenizer = Tokenizer.train_bpe([f" {word}" for word in [*WORDS, TRIGGER]] * 9, 320, exact=False)
    model = fresh(tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    written, labels = texts(0, 6400)
    encoded = [tokenizer.encode(text) for text in written]
    for start in range(0, len(written), 32):
        part = encoded[start : start + 32]
        lengths = torch.tensor([len(ids) for ids in part])
        tokens = torch.zeros(len(part), int(lengths.max()), dtype=torch.int64)
        for row, ids in enumerate(part):
            tokens[row, : len(ids)] = torch.tensor(ids)
        loss = functional.cross_entropy(model(tokens, lengths), torch.tensor(labels[start : start + 32]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LoadedModel(model.eval(), tokenizer, {"kind": "classifier", "provenance": {}})


def attributions(loaded: LoadedModel, method: Method) -> tuple[list[np.ndarray], float]:
    """Return the attributions of texts with the trigger, and in what share of them it is first."""
    values, first = [], []
    written, _ = texts(1, 2 * TEXTS)
    with frozen(loaded.model):
        for text in written[1::2]:
            prediction = predict(loaded, text, "with", by="word")
            values.append(attribute(prediction, method).values)
            first.append(prediction.pieces[int(values[-1].argmax())].text.strip() == TRIGGER)
    return values, float(np.mean(first))


@pytest.mark.parametrize("method", ["relevance", "occlusion", "erasure", "shapley"])
def test_the_word_that_was_taught_is_first(taught: LoadedModel, method: Method) -> None:
    _, first = attributions(taught, method)
    assert first >= 0.95


@pytest.mark.parametrize("method", ["integrated-gradients", "relevance", "occlusion", "erasure", "shapley"])
def test_explanations_change_with_random_weights(taught: LoadedModel, method: Method) -> None:
    """Adebayo et al. 2018 (arXiv:1810.03292): what looks the same for a model that knows nothing explains nothing."""
    values, _ = attributions(taught, method)
    assert taught.tokenizer is not None
    random, first = attributions(LoadedModel(fresh(taught.tokenizer).eval(), taught.tokenizer, taught.record), method)
    alike = [rank_correlation(one, other) for one, other in zip(values, random, strict=True)]
    assert abs(float(np.mean(alike))) < 0.5
    assert first < 0.5
