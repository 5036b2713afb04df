"""What `explain` reads is what `generate` reads, and its blank is what the documentation says, for every tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.test_tokenizer_parity import MAKERS
from tests.parity.tiny_models import BERT, their, transformers

from lucidlm.checkpoint.load import load_model
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


def test_an_answer_is_scored_as_transformers_would(tmp_path: Path) -> None:
    """With BERT's segments, and where words are deleted with those of the words that are left."""
    MAKERS["wordpiece"](tmp_path)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    fields = {**BERT, "vocab_size": len(their_tokenizer), "max_position_embeddings": 64}
    theirs = their("Bert", "ForQuestionAnswering", fields, tmp_path)
    loaded = load_model(tmp_path)
    question, passage = "Hello, world", "it is a world, a world it is"
    whole = predict(loaded, question, context=passage, by="word", target="it is", rather_than="a world, a")
    assert whole.passage is not None
    read = their_tokenizer(question, passage, return_tensors="pt")
    assert whole.ids.tolist() == read["input_ids"][0].tolist()
    found = predict(loaded, question, context=passage)
    first, *_, last = 2 * sorted(place for index in found.held for place in found.pieces[index].places)
    gone = [index for index in range(len(found.pieces)) if index not in found.held][::2]
    row = found.without(gone)
    for tokens, places in (found.whole, row):
        kinds = read["token_type_ids"][0][places]
        with torch.inference_mode():
            answer = theirs(input_ids=tokens[None], token_type_ids=kinds[None])
            ours = float(found.score(tokens[None], places[None])[0])
        allowed = (kinds == 1) & (tokens != their_tokenizer.sep_token_id)
        allowed[0] = True
        at = [places.tolist().index(place) for place in (first, last)]
        logits = (answer.start_logits[0], answer.end_logits[0])
        pairs = zip(logits, at, strict=True)
        expected = sum(float(part.masked_fill(~allowed, -torch.inf).log_softmax(-1)[place]) for part, place in pairs)
        assert ours == pytest.approx(expected, abs=1e-4)
    assert len(row.tokens) < len(found.ids)
