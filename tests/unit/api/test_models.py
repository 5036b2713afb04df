"""Models opened from a source: called on one text or on several, shown as one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.api.conftest import Made

import lucidlm
from lucidlm import (
    BigLanguageModel,
    InputError,
    InputTypeError,
    SpanReader,
    TextClassifier,
    TextEmbedder,
    TextGenerator,
)
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier, SpanExtractor
from lucidlm.tokenize.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def reader(made: Made, tmp_path_factory: pytest.TempPathFactory) -> SpanReader:
    path = tmp_path_factory.mktemp("reader") / "model"
    config = ModelConfig.masked(
        vocab_size=448, embedding_dim=32, num_heads=2, ff_dim=64, num_layers=1, context_length=64
    )
    save_model(SpanExtractor(config), path, Tokenizer.load(made.model.path))
    return SpanReader(path)


def test_a_classifier_answers_one_text_or_several(made: Made) -> None:
    judge = TextClassifier(made.judge.path)
    one = judge("a good film")
    assert one.label in judge.labels == ["negative", "positive"]
    assert sum(one.probabilities) == pytest.approx(1)
    several = judge(["a good film", "a dull one"])
    assert several[0].probabilities == pytest.approx(one.probabilities, abs=1e-6)
    assert len(several) == 2
    assert judge([]) == []


def test_an_embedder_gives_a_vector_or_a_matrix(made: Made) -> None:
    embed = TextEmbedder(made.model.path)
    assert embed.dimension == 32
    assert embed("good").shape == (32,)
    both = embed(["good", "dull"])
    assert both.shape == (2, 32)
    assert np.allclose(both[0], embed("good"), atol=1e-6)
    assert embed([]).shape == (0, 32)


def test_a_generator_writes_what_follows(made: Made) -> None:
    write = TextGenerator(made.model.path)
    text = write("the film", max_new_tokens=8, temperature=0)
    whole = BigLanguageModel.from_pretrained(made.model.path).generate("the film", length=8, temperature=0)
    assert whole == "the film" + text
    assert write(["the film", "a plot"], max_new_tokens=8, temperature=0)[0] == text
    assert "".join(write.stream("the film", max_new_tokens=8, temperature=0)) == text
    assert write("the film", seed=1) == write("the film", seed=1) != write("the film", seed=2)
    assert write([]) == []


def test_a_reader_answers_by_its_context(reader: SpanReader) -> None:
    context = "The film was made by Ada. The plot is hers."
    one = reader("Who made it?", context=context)
    assert one.text in context
    several = reader(["Who made it?", "Whose plot is it?"], context=context)
    assert several[0].text == one.text
    assert len(reader(["Who?", "Who?"], context=[context, "Bob came."])) == 2
    with pytest.raises(InputError, match="2 questions and 1 contexts"):
        reader(["Who?", "Who?"], context=[context])


def test_they_print_as_one_line(made: Made, reader: SpanReader) -> None:
    judge, model = str(made.judge.path), str(made.model.path)
    assert repr(TextClassifier(judge)).startswith(f"TextClassifier({judge!r}, labels: negative, positive; ")
    assert repr(TextEmbedder(model)).startswith(f"TextEmbedder({model!r}, 32 dimensions; ")
    assert repr(TextGenerator(model)).startswith(f"TextGenerator({model!r}, context of 64 tokens; ")
    assert "reads 64 tokens at once; " in repr(reader)
    big = repr(BigLanguageModel.from_pretrained(model))
    assert big == "BigLanguageModel(2 layers, 32 wide, vocabulary of 448; 0.0 M parameters)"
    for shown in map(repr, (TextClassifier(judge), TextEmbedder(model), TextGenerator(model), reader)):
        assert "parameters)" in shown
        assert "\n" not in shown


def test_a_loaded_model_is_used_as_it_is(made: Made) -> None:
    loaded = load_model(made.judge.path)
    judge = TextClassifier.of(loaded)
    assert judge.model is loaded.model
    assert repr(judge) == repr(TextClassifier(made.judge.path, device="cpu"))
    assert TextGenerator.of(load_model(made.model.path))("the film", max_new_tokens=4)
    with pytest.raises(InputError, match="not a classifier"):
        TextClassifier.of(load_model(made.model.path))


def test_a_model_in_memory_answers_by_its_current_weights() -> None:
    tokenizer = Tokenizer.train_characters(["a good film", "a dull film"])
    config = ModelConfig.masked(
        vocab_size=tokenizer.vocab_size, embedding_dim=32, num_heads=2, ff_dim=64, num_layers=1, context_length=16
    )
    model = SequenceClassifier(config, ["bad", "good"], "mean")
    judge = TextClassifier.from_model(model, tokenizer, 16)
    assert repr(judge).startswith("TextClassifier(in memory, labels: bad, good; ")
    before = judge("a good film").probabilities
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    assert judge("a good film").probabilities != before


def test_models_of_another_kind_are_refused(made: Made) -> None:
    with pytest.raises(InputError, match="not a classifier"):
        TextClassifier(made.model.path)
    with pytest.raises(InputError, match="embedded by a language model"):
        TextEmbedder(made.judge.path)
    with pytest.raises(InputError, match="not one that finds answers"):
        SpanReader(made.judge.path)
    with pytest.raises(InputError, match="a classifier model does not continue text"):
        TextGenerator(made.judge.path)


def test_what_is_no_text_is_named(made: Made, reader: SpanReader) -> None:
    judge, embed, write = (
        kind(path)
        for kind, path in (
            (TextClassifier, made.judge.path),
            (TextEmbedder, made.model.path),
            (TextGenerator, made.model.path),
        )
    )
    for call in (judge, embed, write):
        with pytest.raises(InputTypeError, match="is 5, of type int"):
            call(5)  # type: ignore[operator]
        with pytest.raises(InputTypeError, match=r"\[1\]: is 5, of type int"):
            call(["a", 5])  # type: ignore[operator]
    with pytest.raises(InputTypeError, match="context: is 5"):
        reader("Who?", context=5)  # type: ignore[call-overload]
    for kind in (TextClassifier, TextEmbedder, SpanReader, TextGenerator):
        with pytest.raises(InputTypeError, match="source: is 5"):
            kind(5)  # type: ignore[arg-type]


def test_settings_of_a_call_are_checked(made: Made) -> None:
    write = TextGenerator(made.model.path)
    for call in (write, write.stream):
        with pytest.raises(InputTypeError, match=r"max_new_tokens: is '50', of type str"):
            call("a", max_new_tokens="50")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"temperatur: .* Did you mean temperature\?"):
            call("a", temperatur=1)  # type: ignore[call-arg]
        with pytest.raises(InputError, match="top_p"):
            call("a", top_p=3)
    big = lucidlm.BigLanguageModel.from_pretrained(made.model.path)
    for call in (big.generate, big.stream):
        with pytest.raises(InputTypeError, match="start_string: is 5, of type int"):
            call(5)  # type: ignore[arg-type]
        with pytest.raises(InputTypeError, match="length: is '50', of type str"):
            call("a", length="50")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"Did you mean temperature\?"):
            call("a", temperatur=1)


def test_there_has_to_be_a_model(tmp_path: Path) -> None:
    for kind in (TextClassifier, TextEmbedder, SpanReader, TextGenerator):
        with pytest.raises(InputError, match="there is no such model"):
            kind(tmp_path / "nowhere")
