"""Questions about contexts: what rows mean, that spans survive tokens and windows, and that a reader learns them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import made_up_reviews

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Answer, Question, Row, Span
from lucidlm.data.scripts import sentences
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SpanExtractor
from lucidlm.predict.span_reader import LONGEST, SpanReader
from lucidlm.predict.terms import sentence_overlap, shared_terms, terms
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.question_answering import QuestionAnswering
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.cloze import ClozeQuestions
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.finetune.span_objective import SpanObjective
from lucidlm.train.loop import LoopConfig

CONTEXT = "The lighthouse was built in 1871. It stands on Gull Island, far from the mainland."
COLOURS = ("amber", "black", "copper", "golden", "purple", "silver")
TEXTS = [CONTEXT, "灯塔建于一八七一年。它矗立在海鸥岛上，远离大陆。", "naïve café 😀🏳️‍🌈 e\u0301tude"]


def task() -> QuestionAnswering:
    found = tasks.get("question-answering")
    assert isinstance(found, QuestionAnswering)
    return found


def read(**fields: Any) -> Question:
    return task().read(Row({"context": CONTEXT, "question": "When was it built?", **fields}, "f:3"))


def question(context: str = CONTEXT, text: str | None = "1871", asked: str = "When was it built?") -> Question:
    answers = () if text is None else (Answer(text, context.index(text)),)
    return Question("1", context, asked, answers, "f:1")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([text for text in TEXTS for _ in range(3)], 400, exact=False)


def reader(tokenizer: Tokenizer, max_length: int = 64, **fields: Any) -> SpanReader:
    shape = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "num_layers": 2, "context_length": 128, **fields}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, causal=False, **shape)
    return SpanReader.from_model(SpanExtractor(config), tokenizer, max_length)


@pytest.fixture(scope="module")
def narrow(tokenizer: Tokenizer) -> SpanReader:
    """A reader of 24 tokens at once."""
    return reader(tokenizer, 24)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A causal model with fresh weights, which nobody may write to."""
    directory = tmp_path_factory.mktemp("pretrained")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=64, num_heads=2, ff_dim=128, num_layers=2, context_length=128
    )
    save_model(LanguageModel(config), directory, tokenizer)
    return directory


def config(model: Path, data: str = "f", **fields: Any) -> FinetuneConfig:
    loop = LoopConfig(**{"evaluations": 1, "patience": None, **fields.pop("loop", {})})
    base = {"task": "question-answering", "model": str(model), "data": data, "batch_size": 8, "device": "cpu"}
    return FinetuneConfig(**{**base, "validation": 0.0, "test": 0.0, "dropout": 0.0, "loop": loop, **fields})


def objective(model: Path, train: list[Question], validation: Sequence[Question] = (), **fields: Any) -> SpanObjective:
    parts: Any = {"train": train, "validation": list(validation), "test": []}
    return SpanObjective.build(config(model, **fields), task(), load_model(model), parts, torch.device("cpu"))


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "1871", "start": 28}],
        [{"text": "1871", "answer_start": 28}],
        {"text": ["1871", "1871"], "answer_start": [28, 28]},
    ],
)
def test_answers_are_read_in_the_forms_that_data_sets_use(answers: Any) -> None:
    assert read(answers=answers, id=7) == Question("7", CONTEXT, "When was it built?", (Answer("1871", 28),), "f:3")


@pytest.mark.parametrize("fields", [{"answers": []}, {"answers": {"text": [], "answer_start": []}}])
def test_a_question_without_answers_has_none_in_its_context(fields: Any) -> None:
    assert read(**fields).answers == ()


def test_what_is_marked_impossible_has_no_answer_whatever_is_listed() -> None:
    assert read(is_impossible=True, answers=[{"text": "1871", "start": 28}]).answers == ()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"answers": [{"text": "1872", "start": 28}]}, "'1872' is not in the context"),
        ({"answers": [{"text": "1871", "start": 12}]}, "'1871' stands at 28, not 12"),
        ({"answers": [{"text": "1871", "start": -54}]}, "'1871' stands at 28, not -54"),
        ({"answers": [{"text": "1871"}]}, "has no start"),
        ({"answers": [{"text": " ", "start": 3}]}, "an answer without text"),
        ({"answers": "1871"}, "neither a list of answers"),
        ({"answers": {"text": ["1871"], "answer_start": []}}, "as many starts as texts"),
        ({}, '"answers" is missing'),
        ({"answers": [], "context": " "}, '"context" holds no text'),
    ],
)
def test_what_cannot_be_an_answer_is_refused_with_its_place(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        read(**fields)
    assert caught.value.where == "f:3"
    assert caught.value.fix or "missing" in what or "no text" in what


def test_contexts_are_not_cleaned_since_that_would_move_answers() -> None:
    context = "  A\u200bb \u00a0 c\r\nd"
    assert read(context=context, answers=[{"text": "d", "start": context.index("d")}]).context == context


# ---------------------------------------------------------------------- tokens, windows and back


def characters() -> st.SearchStrategy[str]:
    odd = ["😀", "🏳️‍🌈", "e\u0301", "灯塔", "𠮷", "\u00a0", "é", "\u200b", "ก็", "1871", "\r\n"]
    return st.lists(st.sampled_from([*odd, " ", ".", "the", "lighthouse"]) | st.characters(codec="utf-8")).map("".join)


@settings(max_examples=150, deadline=None)
@given(before=characters(), answer=characters().filter(lambda text: bool(text.strip())), after=characters())
def test_a_gold_span_survives_tokens_and_windows(narrow: SpanReader, before: str, answer: str, after: str) -> None:
    answer, context, read = answer.strip(), f"{before}{answer.strip()}{after}", narrow
    (encoded,) = read.encode([Question("", context, f"Why {after}?", (), "")])
    start = len(before)
    first, last = encoded.tokens_of(start, start + len(answer))
    text, found = encoded.text_of(context, first, last)
    assert context[found : found + len(text)] == text
    # Tokens may be wider than the answer, never narrower; with their bounds at its own it comes back as it was.
    assert found <= start
    assert start + len(answer) <= found + len(text)
    begins, ends = encoded.offsets[first, 0], encoded.offsets[last, 1]
    if not context[begins:start].strip() and not context[start + len(answer) : ends].strip():
        assert (text, found) == (answer, start)
    for window in read.windows(encoded):
        held = encoded.context[window.start : window.start + read.width(encoded)]
        assert (window.ids[window.begin : -1] == held).all()
        assert len(window.ids) <= 24


def test_windows_cover_a_context_and_overlap_by_half(tokenizer: Tokenizer) -> None:
    read = reader(tokenizer, 32)
    (encoded,) = read.encode([question(CONTEXT * 5)])
    windows, width = read.windows(encoded), read.width(encoded)
    starts = [window.start for window in windows]
    assert starts[0] == 0
    assert starts[-1] + width == len(encoded.context)
    assert all(0 < after - before <= width // 2 for before, after in pairwise(starts))
    assert len(windows) == 1 + -(-(len(encoded.context) - width) // (width // 2))
    assert len(read.windows(read.encode([question("1871")])[0])) == 1


def test_a_long_question_is_cut_to_half_of_the_room_and_counted(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    read = reader(tokenizer, 32)
    asked = question(asked="When was the lighthouse built? " * 9)
    (encoded,) = read.encode([asked])
    assert len(encoded.question) == read.max_tokens // 2
    assert len(encoded.question) + encoded.cut == len(tokenizer.encode(asked.question))
    read.predict([asked, question()], label="reading")
    assert "1 question is longer than 14 tokens" in capsys.readouterr().err
    assert read.long_inputs([asked, question("1871")]) == {"questions cut": 1, "contexts read in windows": 1}


@pytest.mark.parametrize(
    ("asked", "context", "marked"),
    [
        ("When was the lighthouse built?", CONTEXT, ["lighthouse built"]),
        ("WHO lives on Gull Islands?", CONTEXT, ["Gull", "Island"]),
        ("海鸥在哪里？", TEXTS[1], ["海鸥"]),
        ("In 1871?", CONTEXT, ["1871"]),
        ("Why?", CONTEXT, []),
    ],
)
def test_marks_stand_before_what_the_question_says_too(
    tokenizer: Tokenizer, asked: str, context: str, marked: list[str]
) -> None:
    read = reader(tokenizer)
    (encoded,) = read.encode([question(context, None, asked)])
    shared = shared_terms(terms(asked), terms(context), len(context))
    assert "".join(np.array(list(context))[shared].tolist()) == "".join(marked).replace(" ", "")
    assert (encoded.context[encoded.marks] == tokenizer.mask_id).all()
    assert encoded.context[~encoded.marks].tolist() == tokenizer.encode(context)
    assert (encoded.marks.sum() > 0) == bool(marked)
    for place in np.flatnonzero(encoded.marks):
        start, end = encoded.offsets[place + 1]
        assert shared[start:end].any()
        assert place == 0 or not shared[slice(*encoded.offsets[place - 1])].any()


def test_answers_come_from_the_context_alone(tokenizer: Tokenizer) -> None:
    read = reader(tokenizer)
    (encoded,) = read.encode([question()])
    (window,) = read.windows(encoded)
    places = [0, *(window.begin + np.flatnonzero(~encoded.marks))]
    assert encoded.marks.any()
    assert np.flatnonzero(window.allowed).tolist() == places


def test_predictions_are_stretches_of_the_contexts_and_do_not_depend_on_company(tokenizer: Tokenizer) -> None:
    read = reader(tokenizer, 32)
    asked = [question(text, None) for text in [*TEXTS, CONTEXT * 4, "x", "\u00a0灯"]]
    answers = read.predict(asked)
    for example, answer in zip(asked, answers, strict=True):
        assert answer.text
        assert example.context[answer.start :].startswith(answer.text)
        assert len(read.encode([question(answer.text, None)])[0].context) <= LONGEST + 2
        (alone,) = read.predict([example])
        assert (alone.text, alone.start) == (answer.text, answer.start)
        assert alone.score == pytest.approx(answer.score, abs=1e-4)


def test_a_score_that_is_not_above_the_threshold_is_no_answer(tokenizer: Tokenizer) -> None:
    read = reader(tokenizer)
    (given_answer,) = read.predict([question()])
    read.threshold = given_answer.score
    assert read.predict([question()]) == [Span("", 0, given_answer.score)]
    read.threshold = given_answer.score - 1e-6
    assert read.predict([question()])[0].text == given_answer.text


def test_the_span_taken_has_the_greatest_sum_of_logits(tokenizer: Tokenizer) -> None:
    read = reader(tokenizer)
    (encoded,) = read.encode([question()])
    (window,) = read.windows(encoded)
    with torch.inference_mode():
        starts, ends = read.model(torch.from_numpy(window.ids)[None].long(), torch.tensor([len(window.ids)]))
    scores = {
        (first, last): (starts[0, first] + ends[0, last] - starts[0, 0] - ends[0, 0]).item()
        for first in range(window.begin, len(window.ids) - 1)
        for last in range(first, min(first + LONGEST, len(window.ids) - 1))
        if window.allowed[first] and window.allowed[last]
    }
    first, last = max(scores, key=lambda span: scores[span])
    text, start = encoded.text_of(CONTEXT, first - window.begin, last - window.begin)
    (answer,) = read.predict([question()])
    assert (answer.text, answer.start) == (text, start)
    assert answer.score == pytest.approx(scores[first, last], abs=1e-4)


# ---------------------------------------------------------------------- training


def test_training_windows_hold_the_answer_or_say_that_they_do_not(pretrained: Path) -> None:
    long = "A gull flew over the water. " * 12 + CONTEXT + " Nobody saw it again." * 12
    goal = objective(pretrained, [question(long), question(), question(text=None)], max_length=64)
    outside = 0
    for step in range(60):
        batch = goal.collate(np.array([0, 1, 2]), numpy_generator(0, step))
        ids, starts, ends = batch.tokens, batch.starts.tolist(), batch.ends.tolist()
        assert batch.allowed.gather(1, batch.starts[:, None]).all()
        for row in (0, 1):
            found = goal.tokenizer.decode(ids[row, starts[row] : ends[row] + 1].tolist(), skip_special=False).strip()
            assert found == "1871" or starts[row] == ends[row] == 0
        assert (starts[2], ends[2]) == (0, 0)
        assert starts[1] > 0
        outside += starts[0] == 0
        assert goal.counted(batch) == 3
        assert goal.tokens(batch) == int(batch.lengths.sum())
    assert 0 < outside < 20


def test_the_loss_is_the_mean_of_two_cross_entropies_summed_over_the_batch(pretrained: Path) -> None:
    for smoothing in (0.0, 0.2):
        goal = objective(pretrained, [question(), question(TEXTS[1], "海鸥岛")], label_smoothing=smoothing)
        batch = goal.collate(np.array([0, 1]), numpy_generator(0))
        expected = torch.tensor(0.0)
        for logits, right in zip(goal.model(batch.tokens, batch.lengths), (batch.starts, batch.ends), strict=True):
            for row in range(2):
                places = batch.allowed[row].nonzero()[:, 0].tolist()
                losses = -logits[row, places].log_softmax(-1)
                target = losses[places.index(int(right[row]))]
                expected = expected + ((1 - smoothing) * target + smoothing * losses.mean()) / 2
        assert goal.loss(goal.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_of_several_answers_each_is_taken_at_times(pretrained: Path) -> None:
    both = Question("", CONTEXT, "Which?", (Answer("1871", 28), Answer("Gull Island", 47)), "")
    goal = objective(pretrained, [both])
    assert len({int(goal.collate(np.array([0]), numpy_generator(0, step)).starts[0]) for step in range(20)}) == 2


def test_a_small_model_learns_real_questions_by_heart(tmp_path: Path, shared_data: Path) -> None:
    rows = (shared_data / "qa/xquad-zh/train.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = sorted(rows, key=lambda row: len(json.loads(row)["context"]))[:30]
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(chosen), encoding="utf-8")
    examples = read_examples(task(), str(data))
    tokenizer = Tokenizer.train_bpe([example.context for example in examples] * 2, 1500, exact=False)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=64, num_heads=2, ff_dim=128, num_layers=2, context_length=160
    )
    save_model(LanguageModel(shape), tmp_path / "pretrained", tokenizer)
    fresh = {"optimizer": {"name": "muon", "learning_rate": 1e-3}}  # by its record it might be a model made elsewhere
    finetune(config(tmp_path / "pretrained", str(data), batch_size=15, epochs=50, loop=fresh), tmp_path / "out")
    opened = load_model(tmp_path / "out")
    assert isinstance(opened.model, SpanExtractor)
    assert not opened.model.config.causal
    answers = task().predictor(load_model(tmp_path / "out")).predict(examples)
    exact = sum(a.text == e.answers[0].text for a, e in zip(answers, examples, strict=True)) / len(examples)
    assert exact >= 0.9


def test_the_threshold_is_fitted_where_some_questions_have_no_answer(pretrained: Path) -> None:
    asked = [question(), question(text=None, asked="Who?"), question(TEXTS[1], None)]
    goal = objective(pretrained, asked, asked)
    figures = goal.evaluate(goal.model)
    kept = goal.provenance()["threshold"]
    assert isinstance(kept, float)
    for threshold in (-1e9, 0.0, 1e9):
        goal.reader.threshold = threshold
        assert goal.score(asked, goal.reader.predict(asked))["validation_f1"] <= figures["validation_f1"] + 1e-9
    assert objective(pretrained, [question()], asked).provenance() == {"threshold": None, "overlap_weight": 0.0}


def test_what_is_no_reader_is_refused(pretrained: Path) -> None:
    with pytest.raises(InputError, match="not one that finds answers"):
        SpanReader(pretrained, device="cpu")
    with pytest.raises(InputError, match="16 to 128"):
        objective(pretrained, [question()], max_length=9)


def test_what_is_shown_has_question_and_answers(tokenizer: Tokenizer) -> None:
    shown = task().show(question(), Span("1871", 28, 1.23456))
    assert shown["answers"] == ["1871"]
    assert shown["predicted"] == "1871"
    assert shown["score"] == 1.2346
    assert task().texts(question()) == ("When was it built?", CONTEXT)
    assert task().key(question()) != task().key(question(asked="Why?"))


# ---------------------------------------------------------------------- questions made of text


PROSE = {
    "en": CONTEXT + ' The keeper, Ada Marsh, left on 3 May 1902 with "the last lamp" and 12 cats in a small boat.',
    "zh": TEXTS[1] + "艾达·马什于1902年5月3日带着“最后一盏灯”和12只猫乘小船离开了那座安静的岛屿。",
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_made_up_questions_have_their_answer_in_the_context_and_not_in_the_question(language: str) -> None:
    made = ClozeQuestions([(PROSE[language], "f:1")])
    questions = made.draw(200, numpy_generator(0, "cloze"))
    assert questions == made.draw(200, numpy_generator(0, "cloze"))
    asked = {found.answers[0].text for found in questions}
    assert {"Ada Marsh", "the last lamp"} <= asked if language == "en" else {"艾达·马什", "最后一盏灯"} <= asked
    for found in questions:
        (answer,) = found.answers
        assert found.context[answer.start : answer.start + len(answer.text)] == answer.text == answer.text.strip()
        assert found.question[-1] in "?？"
        assert found.context in PROSE[language]
        assert found.where == "f:1"


def test_the_kind_of_a_span_decides_what_is_asked() -> None:
    words: dict[str, Callable[[str], bool]] = {
        "3 May 1902": lambda text: "hen" in text or "year" in text,
        "12": lambda text: "ow m" in text or "hat" in text,
        "Gull Island": lambda text: any(word in text.lower() for word in ("who", "what", "which", "where")),
    }
    questions = ClozeQuestions([(PROSE["en"], "f:1")]).draw(300, numpy_generator(0))
    for answer, fits in words.items():
        asked = [found.question for found in questions if found.answers[0].text == answer]
        assert asked, answer
        assert all(fits(text) for text in asked), asked


def test_the_first_steps_learn_from_made_up_questions_and_a_resumed_run_from_the_same(
    pretrained: Path, tmp_path: Path
) -> None:
    source = tmp_path / "prose.txt"
    source.write_text(" ".join(PROSE.values()), encoding="utf-8")
    train = [question(), question(TEXTS[1], "海鸥岛")]
    goal = objective(pretrained, train, synthetic=str(source), loop={"max_steps": 10})
    assert goal.synthetic_steps == 7
    assert any("7 steps" in line for line in goal.report())
    batches = goal.batches(0)
    steps = [next(batches)[0] for _ in range(10)]
    later = goal.batches(5)
    for step in range(5, 10):
        assert torch.equal(next(later)[0].tokens, steps[step].tokens)
    assert [len(batch.starts) for batch in steps] == [8] * 7 + [2] * 3
    assert str(source) in goal.describe(6)
    assert "f:1" in goal.describe(7)


def test_text_without_sentences_makes_no_questions(pretrained: Path, tmp_path: Path) -> None:
    source = tmp_path / "words.txt"
    source.write_text("no\nprose\n", encoding="utf-8")
    with pytest.raises(InputError, match="no sentences"):
        objective(pretrained, [question()], synthetic=str(source))


def test_questions_are_made_of_any_prose() -> None:
    reviews = [(review["text"], "r") for review in made_up_reviews(20)]
    assert len(ClozeQuestions(reviews).draw(5, numpy_generator(0))) == 5


# ---------------------------------------------------------------------- overlap of question and sentence


def test_the_overlap_is_the_share_of_the_rarer_terms() -> None:
    context = "Gulls nest here. Gulls eat fish near lighthouses. The lighthouse is old."
    bounds = sentences(context)
    asked = terms("What do gulls eat by the lighthouse, whales?")
    common, rare = math.log(1 + 3 / 2), math.log(1 + 3 / 2)  # gulls and lighthouse: two of three sentences each
    total = common + rare
    assert sentence_overlap(asked, terms(context), bounds) == pytest.approx([common / total, 1, rare / total])
    assert not sentence_overlap(terms("Who?"), terms(context), bounds).any()
    assert sentence_overlap(asked, [], []).shape == (0,)


def test_tokens_have_the_overlap_of_their_sentence(tokenizer: Tokenizer) -> None:
    asked = question(f"{CONTEXT} Nothing else.", "Gull Island", "On which island does it stand?")
    (found,) = reader(tokenizer).encode([asked])
    first, last = found.tokens_of(asked.answers[0].start, asked.answers[0].start + len("Gull Island"))
    assert (found.overlap[first : last + 1] == 1).all()  # its sentence has both terms, island and stand
    assert found.overlap[0] == 0
    assert found.overlap[-1] == 0
    narrow = reader(tokenizer, 24)
    (found,) = narrow.encode([asked])
    assert len(narrow.windows(found)) > 1
    for window in narrow.windows(found):
        inside = window.overlap[window.begin : window.begin + 3]
        assert (inside == found.overlap[window.start : window.start + 3]).all()
        assert not window.overlap[: window.begin].any()


def test_the_weight_of_the_overlap_is_fitted_kept_and_used(tmp_path: Path, pretrained: Path) -> None:
    rows = []
    for number in range(40):
        parts = [
            f"The {colour} house number {number} was built in {1800 + place}." for place, colour in enumerate(COLOURS)
        ]
        asked = COLOURS[number % len(COLOURS)]
        context, text = " ".join(parts), f"{1800 + number % len(COLOURS)}"
        answers = [{"text": text, "answer_start": context.index(text)}]
        rows.append(
            {
                "id": str(number),
                "context": context,
                "question": f"When was the {asked} house built?",
                "answers": answers,
            }
        )
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    fields = {"validation": 0.5, "max_length": 128, "loop": {"max_steps": 1}}
    finetune(config(pretrained, str(data), **fields), tmp_path / "out")
    found = SpanReader(tmp_path / "out")
    assert found.overlap_weight > 1
    examples = read_examples(task(), str(data))

    def in_the_right_sentence() -> int:
        answers = found.predict(examples)
        sides = [
            (example.answers[0].start, answer.start, example.context)
            for example, answer in zip(examples, answers, strict=True)
        ]
        return sum(context.count(".", 0, right) == context.count(".", 0, chosen) for right, chosen, context in sides)

    found.overlap_weight = 30.0
    assert in_the_right_sentence() == len(examples)
    found.overlap_weight = 0.0
    assert in_the_right_sentence() < len(examples) / 2


def test_what_the_first_steps_read_is_known_before_them(pretrained: Path) -> None:
    goal = objective(pretrained, [question(), question(TEXTS[1], "海鸥岛")] * 3, batch_size=4)
    parts = goal.step_parts(5)
    assert [sum(rows for rows, _ in step) for step in parts] == [4, 2, 4, 2, 4]
    assert max(length for step in parts for _, length in step) == max(goal.lengths)
