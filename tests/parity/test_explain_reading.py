"""What `explain` reads is what `generate` reads, and its blank is what the documentation says, for every tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.parity.test_tokenizer_parity import MAKERS

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.explain.explanation import explain
from lucidlm.explain.predictions import predict
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

TEXT = "it is a world"
GREEDY = SamplingConfig(temperature=0, length=1)


def language(tokenizer: Tokenizer) -> LoadedModel:
    shape: dict[str, Any] = {"embedding_dim": 16, "num_heads": 2, "ff_dim": 16, "num_layers": 1, "context_length": 64}
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, tied_embeddings=False, **shape)).eval()
    return LoadedModel(model, tokenizer, {"kind": "language", "provenance": {}})


@pytest.mark.parametrize("kind", ["own", "characters", "bpe", "sentencepiece", "unigram"])
def test_it_reads_what_generate_reads(kind: str, tmp_path: Path) -> None:
    if kind in MAKERS:
        MAKERS[kind](tmp_path)
        tokenizer = Tokenizer.load(tmp_path)
    else:
        tokenizer = Tokenizer.train_characters([TEXT]) if kind == "characters" else Tokenizer.train_bpe([TEXT], 261)
    loaded = language(tokenizer)
    assert isinstance(loaded.model, LanguageModel)
    found = predict(loaded, TEXT)
    [row] = start_rows(loaded.model.config, tokenizer, [TEXT], GREEDY)
    assert found.ids.tolist() == row.prompt
    assert "".join(piece.text for piece in found.pieces) == TEXT
    places = [place for piece in found.pieces for place in piece.places]
    assert places == list(range(len(tokenizer.prefix), len(row.prompt)))
    # And what it explains is what would be written.
    [written] = generate(loaded.model, tokenizer, [TEXT], GREEDY)
    assert found.target == tokenizer.decode(written.tokens, skip_special=False)
    assert found.blank_text == " "
    assert tokenizer.decode([*row.prompt, found.blank]).endswith("world ")
    assert explain(loaded, TEXT, method="occlusion").blank == " "


@pytest.mark.parametrize(("causal", "blank"), [(False, "[MASK]"), (True, "[UNK]")])
def test_without_a_token_for_spaces_the_blank_is_the_mask_or_the_unknown(
    causal: bool, blank: str, tmp_path: Path
) -> None:
    MAKERS["wordpiece"](tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    shape: dict[str, Any] = {"embedding_dim": 16, "num_heads": 2, "ff_dim": 16, "num_layers": 1, "causal": causal}
    model = SequenceClassifier(ModelConfig(vocab_size=tokenizer.vocab_size, **shape), ["a", "b"], "mean").eval()
    found = explain(
        LoadedModel(model, tokenizer, {"kind": "classifier", "provenance": {}}), "Hello, world", method="occlusion"
    )
    assert found.blank == blank


def test_a_target_is_cut_as_it_stands_behind_the_text(tmp_path: Path) -> None:
    """By itself SentencePiece would put a space before it, beside its own."""
    MAKERS["sentencepiece"](tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    found = predict(language(tokenizer), TEXT, " is a")
    whole = tokenizer.encode_prompt(TEXT + " is a")
    assert found.ids.tolist() == whole[: -found.length]
    assert found.target == "is a"
