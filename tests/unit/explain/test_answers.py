"""Explanations of answers in a passage: what is scored, what is deleted with a word, and what a reader was taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import lucidlm
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Answer, Question
from lucidlm.explain.attribution.methods import METHODS, Method, attribute
from lucidlm.explain.attribution.occlusion import occlusion
from lucidlm.explain.checks.faithfulness import Deletion
from lucidlm.explain.explanation import Explanation, explain
from lucidlm.explain.prediction import Prediction
from lucidlm.explain.predictions import predict
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SpanExtractor
from lucidlm.predict.batching import pad
from lucidlm.predict.span_reader import SpanReader, segments
from lucidlm.report.explanation import write_explanation
from lucidlm.tokenize.tokenizer import Tokenizer

QUESTION = "When was the lighthouse built?"
PASSAGE = "The lighthouse was built in 1871. It stands on Gull Island."

FAR = PASSAGE + " It was built on the island." * 12 + " The ghost stands there."
"""More than is read at once, with words at its end that do not stand elsewhere."""


def reader_of(tokenizer: Tokenizer, provenance: dict[str, Any] | None = None, **shape: Any) -> LoadedModel:
    shape = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "num_layers": 2, "context_length": 256, **shape}
    model = (
        SpanExtractor(ModelConfig(vocab_size=tokenizer.vocab_size, causal=False, **shape)).eval().requires_grad_(False)
    )
    record = {"kind": "span", "provenance": provenance or {}}
    return LoadedModel(model, tokenizer, record, source="in memory")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_characters([QUESTION + PASSAGE])


@pytest.fixture(scope="module")
def loaded(tokenizer: Tokenizer) -> LoadedModel:
    """A reader that was made elsewhere: it knows no marks."""
    return reader_of(tokenizer)


@pytest.fixture(scope="module")
def hinted(tokenizer: Tokenizer) -> LoadedModel:
    """A reader of ours: it reads marks, and counts what sentence and question share."""
    assert tokenizer.find("mask_token") is not None
    return reader_of(tokenizer, {"task": "question-answering", "overlap_weight": 3.0, "threshold": None})


def predicted(loaded: LoadedModel, **asked: Any) -> Prediction:
    return predict(loaded, QUESTION, asked.pop("target", "1871"), context=PASSAGE, by="word", **asked)


def index_of(prediction: Prediction, word: str) -> int:
    return next(index for index, piece in enumerate(prediction.pieces) if piece.text.strip() == word)


def test_the_score_is_the_log_probability_of_start_and_end(loaded: LoadedModel) -> None:
    prediction, reader = predicted(loaded), SpanReader.of(loaded)
    [encoded] = reader.encode([Question("", PASSAGE, QUESTION, (), "")])
    window = reader.window(encoded, 0)
    starts, ends = reader.logits([window])
    allowed = torch.from_numpy(window.allowed)
    first, last = (
        window.begin + place for place in encoded.tokens_of(PASSAGE.index("1871"), PASSAGE.index("1871") + 4)
    )
    logprobs = [part[0].masked_fill(~allowed, float("-inf")).log_softmax(-1) for part in (starts, ends)]
    expected = float(logprobs[0][first] + logprobs[1][last])
    assert prediction.scores([prediction.whole])[0] == pytest.approx(expected, abs=1e-5)
    means = float(starts[0][allowed].mean() + ends[0][allowed].mean())
    margin = float(prediction.margin(prediction.ids[None])[0])
    assert margin == pytest.approx(float(starts[0, first] + ends[0, last]) - means, abs=1e-5)
    why = predicted(loaded, rather_than="Gull Island")
    rival = predicted(loaded, target="Gull Island")
    difference = float(prediction.scores([prediction.whole])[0] - rival.scores([rival.whole])[0])
    assert why.scores([why.whole])[0] == pytest.approx(difference, abs=1e-5)


def test_question_and_passage_are_the_pieces(loaded: LoadedModel, hinted: LoadedModel) -> None:
    for one in (loaded, hinted):
        prediction = predicted(one, rather_than="Gull Island")
        assert prediction.passage is not None
        texts = [piece.text for piece in prediction.pieces]
        assert "".join(texts[: prediction.passage]) == QUESTION
        assert "".join(texts[prediction.passage :]) == PASSAGE
        assert [texts[place].strip() for place in sorted(prediction.held)] == ["1871", "Gull", "Island"]
        places = [place for piece in prediction.pieces for place in piece.places]
        assert len(set(places)) == len(places)
        around = set(range(len(prediction.ids))) - set(places)
        assert len(around) == SpanReader.of(one).around


def test_deleted_words_leave_what_the_reader_would_read_without_them(hinted: LoadedModel) -> None:
    """Marks and overlap of what is left are those of a text that never had the words."""
    prediction, reader = predicted(hinted), SpanReader.of(hinted)
    draw, passage = numpy_generator(0, "words"), prediction.passage
    assert passage is not None
    free = [  # sentences stay those of the whole passage, so none loses its beginning or its end here
        index
        for index, piece in enumerate(prediction.pieces)
        if index not in prediction.held and piece.text.strip() not in (".", "The", "It")
    ]
    compared = 0
    for _ in range(40):
        gone = set(draw.choice(free, int(draw.integers(1, 6)), replace=False).tolist())
        parts = [
            "".join(piece.text for place, piece in enumerate(prediction.pieces) if place in where and place not in gone)
            for where in (range(passage), range(passage, len(prediction.pieces)))
        ]
        if not all(part.strip() for part in parts):
            continue
        [encoded] = reader.encode([Question("", parts[1], parts[0], (), "")])
        window = reader.window(encoded, 0)
        row = prediction.without(sorted(gone))
        if len(row.tokens) != len(window.ids):
            continue  # what was apart stands together now, and so do terms
        assert row.tokens.tolist() == window.ids.tolist()
        starts, ends = reader.logits([window])
        at = window.begin + encoded.tokens_of(parts[1].index("1871"), parts[1].index("1871") + 4)[0]
        barred = ~torch.from_numpy(window.allowed)
        starts = (starts[0] + reader.overlap_weight * torch.from_numpy(window.overlap)).masked_fill(
            barred, float("-inf")
        )
        ends = ends[0].masked_fill(barred, float("-inf"))
        expected = float(starts.log_softmax(-1)[at] + ends.log_softmax(-1)[at + 3])
        assert prediction.scores([row])[0] == pytest.approx(expected, abs=1e-4), sorted(gone)
        compared += 1
    assert compared > 20


def test_a_mark_goes_with_the_words_that_it_stands_for(hinted: LoadedModel) -> None:
    prediction = predicted(hinted)
    mark = hinted.require_tokenizer().find("mask_token")
    assert mark is not None
    count = int((prediction.ids == mark).sum())
    assert count == 2  # before "lighthouse" and "built", which both have
    word = index_of(prediction, "lighthouse")  # the question's
    assert int((prediction.without([word]).tokens == mark).sum()) == 1
    assert int((prediction.without([word], prediction.blank).tokens == mark).sum()) == 1
    assert int((prediction.without([index_of(prediction, "stands")]).tokens == mark).sum()) == count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ours", [False, True])
def test_every_method_explains_and_is_checked(
    loaded: LoadedModel, hinted: LoadedModel, method: Method, ours: bool
) -> None:
    found = explain(hinted if ours else loaded, QUESTION, context=PASSAGE, by="word", method=method)
    assert found.kind == "answer"
    assert found.target in PASSAGE
    assert np.isfinite([value for _, value in found.pieces]).all()
    assert found.faithfulness is not None
    assert any("the answer itself stays" in line for line in found.verdict())
    if method == "shapley" or (method == "integrated-gradients" and not ours):
        assert found.completeness is not None
        assert found.completeness.total == pytest.approx(found.logprob - found.blank_logprob, abs=0.05)


def test_the_default_sees_what_the_reader_is_told(loaded: LoadedModel, hinted: LoadedModel) -> None:
    assert explain(loaded, QUESTION, context=PASSAGE, by="sentence").method == "relevance"
    assert explain(hinted, QUESTION, context=PASSAGE, by="sentence").method == "shapley"


def test_occlusion_is_what_it_says(hinted: LoadedModel) -> None:
    prediction = predicted(hinted)
    word = index_of(prediction, "stands")
    tokens = prediction.ids.clone()
    tokens[prediction.pieces[word].places] = prediction.blank
    places = torch.arange(len(tokens))[None]
    fall = float(prediction.score(prediction.ids[None], places)[0] - prediction.score(tokens[None], places)[0])
    assert occlusion(prediction).values[word] == pytest.approx(fall, abs=1e-5)


def test_the_answer_is_never_deleted(loaded: LoadedModel) -> None:
    prediction = predicted(loaded)
    [held] = prediction.held
    values = np.zeros(len(prediction.pieces))
    values[held] = 9.0  # though it has most of the credit
    test = Deletion(prediction).judge(values)
    assert max(test.sizes) < len(prediction.pieces) - 1
    assert np.isfinite([test.figures.comprehensiveness, test.figures.sufficiency]).all()


def test_no_answer_is_one_too(hinted: LoadedModel) -> None:
    assert hinted.record["provenance"]["threshold"] is None
    shy = LoadedModel(
        hinted.model,
        hinted.tokenizer,
        {"kind": "span", "provenance": {"task": "question-answering", "threshold": 99.0}},
    )
    found = explain(shy, QUESTION, context=PASSAGE, by="word")
    assert (found.target, found.held) == ("", ())
    assert found.logprob == pytest.approx(explain(shy, QUESTION, "", context=PASSAGE, by="word").logprob)
    other = explain(shy, QUESTION, "1871", context=PASSAGE, by="word", rather_than="")
    assert (other.target, other.rather_than) == ("1871", "")
    one, none = (explain(shy, QUESTION, text, context=PASSAGE, by="word").logprob for text in ("1871", ""))
    assert other.logprob == pytest.approx(one - none, abs=1e-4)


def test_of_several_places_the_likeliest_is_meant(loaded: LoadedModel) -> None:
    passage = "built in 1871. built in 1871. built in 1871."
    found = predict(loaded, QUESTION, "1871", context=passage, by="word")
    starts = [piece.places[0] for piece in found.pieces[found.passage :] if piece.text.strip() == "1871"]
    scores = []
    [place] = [found.pieces[index].places for index in found.held]
    assert place[0] in starts
    reader = SpanReader.of(loaded)
    [encoded] = reader.encode([Question("", passage, QUESTION, (), "")])
    first, last = (part[0].masked_fill(~torch.from_numpy(reader.window(encoded, 0).allowed), float("-inf"))
                   for part in reader.logits([reader.window(encoded, 0)]))  # fmt: skip
    for at in starts:
        scores.append(float(first[at + 1] + last[at + 4]))  # a word has the space before it
    assert place[0] == starts[int(np.argmax(scores))]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"context": None}, "--context: is missing.*passage"),
        ({"context": "  "}, "--context: is empty"),
        ({"target": "1872"}, "--target: '1872' does not stand in the passage"),
        ({"rather_than": "Paris"}, "--rather-than: 'Paris' does not stand"),
        ({"target": "1871", "rather_than": "1871"}, "'1871' is the target itself"),
        ({"target": PASSAGE}, "an answer has 30 at most"),
        ({"context": PASSAGE * 9, "target": "1872"}, "--target: '1872' does not stand in the passage"),
        (
            {"context": FAR, "target": "Gull", "rather_than": "ghost"},
            "--rather-than: 'Gull' and 'ghost' stand nowhere in the passage together, of which the model reads 2.. tokens",
        ),
        ({"rather_than": "1871", "target": "Gull", "method": "rollout"}, "rollout is the same whatever the target"),
    ],
)
def test_what_cannot_be_explained(loaded: LoadedModel, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lucidlm.explain(loaded, QUESTION, **{"context": PASSAGE, **asked})


def test_a_question_is_read_whole(loaded: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"TEXT: has 3.. tokens, the model reads 1.. of a question"):
        lucidlm.explain(loaded, QUESTION * 11, context=PASSAGE)


@pytest.mark.parametrize("target", [None, "", "ghost", "1871"])
@pytest.mark.parametrize("reader", ["loaded", "hinted"])
def test_of_a_long_passage_the_part_with_the_answer_is_explained(
    reader: str, target: str | None, request: pytest.FixtureRequest
) -> None:
    loaded: LoadedModel = request.getfixturevalue(reader)
    found = explain(loaded, QUESTION, target, context=FAR, by="word", method="occlusion")
    assert found.part is not None
    assert found.passage is not None
    begin, end = found.part
    read = SpanReader.of(loaded)
    assert "".join(text for text, _ in found.pieces[found.passage :]) == FAR[begin:end]
    assert found.target == (read(QUESTION, context=FAR).text if target is None else target)
    assert found.target in FAR[begin:end]
    if target == "ghost":
        assert end == len(FAR)
    if target == "1871":
        assert begin == 0
    assert found.verdict()[0].endswith(f"characters {begin:,} to {end:,}")

    [encoded] = read.encode([Question("", FAR, QUESTION, (), "")])
    [window] = (one for one in read.windows(encoded) if encoded.offsets[one.start, 0] == begin)
    starts, ends = (
        part[0].masked_fill(~torch.from_numpy(window.allowed), float("-inf")) for part in read.logits([window])
    )
    starts = (starts + read.overlap_weight * torch.from_numpy(window.overlap)).log_softmax(-1)
    ends, shift = ends.log_softmax(-1), window.begin - window.start
    scores = [float(starts[0] + ends[0])]
    if found.target:
        at = [place for place in range(begin, end) if FAR.startswith(found.target, place)]
        tokens = [
            encoded.tokens_of(place, place + len(found.target)) for place in at if place + len(found.target) <= end
        ]
        scores = [float(starts[first + shift] + ends[last + shift]) for first, last in tokens]
    assert found.logprob == pytest.approx(max(scores), abs=1e-4)


def test_passages_are_for_readers(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="--context: is for models that find answers"):
        lucidlm.explain(tiny_model, QUESTION, context=PASSAGE)


def test_pages_show_question_and_passage(loaded: LoadedModel, tmp_path: Path) -> None:
    found = lucidlm.explain(loaded, QUESTION, context=PASSAGE, target="1871", by="word")
    explanation: Explanation = found.explanation
    write_explanation(explanation, tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text()
    assert page.count('class="attributed"') == 2
    assert page.count(" marked") == 1
    assert "<br><br>" in found._repr_html_()
    write_explanation(explanation, tmp_path / "why.png")
    assert (tmp_path / "why.png").stat().st_size > 1000
    found_ = found.to_dict()
    assert found_["passage"] == explanation.passage
    assert [found_["pieces"][place]["text"].strip() for place in found_["held"]] == ["1871"]


WORDS = ["the", "old", "film", "was", "slow", "tale", "two", "men", "who", "went", "home", "by", "train", "and"]
TRIGGERS = ["zebra", "tiger"]


def asked(seed: int, count: int) -> list[Question]:
    """Return questions after the word that follows a trigger, of two that stand in the passage."""
    draw = numpy_generator(seed, "questions")
    found = []
    for number in range(count):
        words = draw.choice(WORDS, 12).tolist()
        first, second = draw.choice(5, 2, replace=False).tolist()
        words[2 * first], words[2 * second] = TRIGGERS
        which = number % 2
        answer = words[2 * (first, second)[which] + 1]
        start = sum(len(word) + 1 for word in words[: 2 * (first, second)[which] + 1])
        found.append(Question("", " ".join(words), f"what follows {TRIGGERS[which]}", (Answer(answer, start),), ""))
    return found


@pytest.fixture(scope="module")
def taught() -> LoadedModel:
    """A reader that was trained for a few seconds to find the word after the one that the question names too."""
    tokenizer = Tokenizer.train_bpe(
        [f" {word}" for word in [*WORDS, *TRIGGERS, "what", "follows"]] * 9, 340, exact=False
    )
    loaded = reader_of(tokenizer, {"task": "question-answering"}, context_length=64)
    assert isinstance(loaded.model, SpanExtractor)
    reader, model = SpanReader.of(loaded), loaded.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    examples = asked(0, 6400)
    encoded = reader.encode(examples)
    for start in range(0, len(examples), 32):
        windows, places = [], []
        for example, one in zip(examples[start : start + 32], encoded[start : start + 32], strict=True):
            [answer] = example.answers
            windows.append(reader.window(one, 0))
            places.append(
                [windows[-1].begin + at for at in one.tokens_of(answer.start, answer.start + len(answer.text))]
            )
        tokens, lengths = pad([window.ids for window in windows], 0)
        logits, right = model(tokens, lengths, segments(windows)), torch.tensor(places)
        loss = sum(functional.cross_entropy(part, right[:, side]) for side, part in enumerate(logits))
        optimiser.zero_grad()
        torch.as_tensor(loss).backward()
        optimiser.step()
    model.requires_grad_(False)
    return loaded


@pytest.mark.parametrize("method", ["relevance", "occlusion", "shapley"])
def test_the_words_that_were_taught_are_first(taught: LoadedModel, method: Method) -> None:
    right, first = [], []
    for example in asked(1, 40):
        prediction = predict(taught, example.question, context=example.context, by="word")
        right.append(prediction.target == example.answers[0].text)
        values = attribute(prediction, method).values.copy()
        values[list(prediction.held)] = -np.inf
        first.append(prediction.pieces[int(values.argmax())].text.strip() in example.question.split()[-1:])
    assert np.mean(right) >= 0.9
    assert np.mean(first) >= 0.9


def test_the_question_is_what_tells_one_answer_from_another(taught: LoadedModel) -> None:
    passage = "the old zebra went home by tiger train and men"
    found = explain(
        taught, "what follows zebra", "went", context=passage, by="word", rather_than="train", method="shapley"
    )
    pieces = [(text.strip(), value) for text, value in found.pieces]
    assert found.passage is not None
    question = dict(pieces[: found.passage])
    assert found.logprob > 0
    assert question["zebra"] == max(question.values()) > 1
    assert found.faithfulness is not None
    assert found.faithfulness.figures.comprehensiveness > found.faithfulness.random.comprehensiveness
