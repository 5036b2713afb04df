"""Metrics of written text by hand; agreement with sacrebleu and rouge-score is in the parity tests."""

from __future__ import annotations

import math
from unicodedata import normalize

import numpy as np
import pytest

from lucidlm.data.examples.records import Answer, GeneratedText, Pair, Question, Span
from lucidlm.data.scripts import joined, language_of, sentences, tokens, words
from lucidlm.metrics import text_metrics as metrics
from lucidlm.metrics.answer_metrics import span_metrics
from lucidlm.metrics.statistics import estimate
from lucidlm.tokenize.conversation import Chat, Message


def pair(target: str, *others: str) -> Pair:
    return Pair("a source", target, (target, *others), "a.jsonl:1")


def test_writing_is_told_from_the_letters() -> None:
    assert language_of(["A sentence.", "Une phrase 中"]) == "en"
    assert language_of(["今天天气很好。", "OK"]) == "zh"
    assert language_of(["今日はとても天気がいいです。"]) == "unspaced"
    assert language_of(["วันนี้อากาศดี"]) == "unspaced"
    assert language_of([""]) == "en"


def test_texts_are_cut_into_words_and_sentences() -> None:
    assert words("The GPT-4 模型, isn't it?") == ["the", "gpt", "4", "模", "型", "isn", "t", "it"]
    text = 'It costs 3.5 euros. "Really?" Yes\n他来了。“好！”走吧'
    assert [text[a:b] for a, b in sentences(text)] == [
        "It costs 3.5 euros.",
        '"Really?"',
        "Yes",
        "他来了。",
        "“好！”",
        "走吧",
    ]
    assert joined(tokens("L'homme (grand) court, vite !")) == "L'homme (grand) court, vite!"
    assert joined(tokens("他来了。")) == "他来了。"


def test_exact_match_takes_any_reference() -> None:
    examples = [pair("one", "two"), pair("three")]
    assert metrics.exact_match()(examples, [GeneratedText(" two "), GeneratedText("four")]) == 50


def test_rouge_takes_the_best_reference_and_cuts_chinese_into_characters() -> None:
    english = [pair("nothing alike", "the cat sat")]
    assert metrics.rouge("rouge1", english)(english, [GeneratedText("the cats sat")]) == pytest.approx(100)
    chinese = [pair("猫坐在垫子上")]
    assert metrics.rouge("rouge1", chinese)(chinese, [GeneratedText("猫坐在")]) == pytest.approx(100 * 2 * 3 / 9)
    assert metrics.rouge("rougeL", chinese)(chinese, [GeneratedText("上子垫")]) == pytest.approx(100 * 2 * 1 / 9)


SENTENCES = {
    "Russian": ("Ёжик идёт домой", "Ёжик идёт лесом", 2 / 3),
    "Greek": ("Ο σκύλος τρέχει εδώ", "Ο σκύλος τρέχει εκεί", 3 / 4),
    "Hindi": ("देव हिन्दी बोलता है", "देव हिन्दी लिखता है", 3 / 4),
    "Bengali": ("আমি বাংলায় গান গাই", "আমি বাংলায় কথা বলি", 2 / 4),
    "Tamil": ("தமிழ் மொழி அழகு", "தமிழ் மொழி பழமை", 2 / 3),
    "Arabic": ("الكِتَابُ على الطاولة، هنا", "الكِتَابُ على الكرسي، هنا", 3 / 4),
    "Persian": ("می‌خواهم کتاب بخوانم", "می‌خواهم نامه بنویسم", 1 / 3),
    "Hebrew": ("שָׁלוֹם לכל העולם", "שָׁלוֹם לכל הילדים", 2 / 3),
    "Korean": ("나는 한국어 공부한다", "나는 영어 공부한다", 2 / 3),
    "Vietnamese": ("Tiếng Việt rất đẹp", "Tiếng Anh rất đẹp", 3 / 4),
    "French": ("« Ça va déjà ? »", "« Ça ira déjà ! »", 2 / 3),
    "Thai": ("กินข้าว", "กินปลา", None),
    "Chinese": ("今天天气很好。", "今天天气不好。", 5 / 6),
    "Japanese": ("がっこうへ行きます", "がっこうへ来ます", None),
}
"""Two sentences, and the share of words (or characters) that they have in common."""


@pytest.mark.parametrize("language", SENTENCES)
def test_words_of_any_script_count(language: str) -> None:
    said, other, share = SENTENCES[language]
    examples = [pair(said)]
    question = [Question("1", said, "?", (Answer(said, 0),), "a.jsonl:1")]
    for form in ("NFC", "NFD"):  # composed and taken apart
        written = [GeneratedText(normalize(form, said))]
        for kind in metrics.ROUGE_TYPES:
            assert metrics.rouge(kind, examples)(examples, written) == pytest.approx(100)
        assert metrics.exact_match()(examples, written) == 100
        for metric in span_metrics(question):
            assert metric(question, [Span(normalize(form, said), 0)]) == 100
    found = metrics.rouge("rouge1", examples)(examples, [GeneratedText(other)])
    assert 0 < found < 100
    if share is not None:
        assert found == pytest.approx(100 * share)


def test_marks_belong_to_their_letters_and_joiners_to_their_words() -> None:
    assert words("हिन्दी में") == ["हिन्दी", "में"]
    assert words("می‌خواهم") == ["می‌خواهم"]
    assert words(normalize("NFD", "été")) == [normalize("NFD", "été")]
    assert words("I ❤️ 1️⃣") == ["i", "1"]
    assert joined(tokens("देव हिन्दी बोलता है।")) == "देव हिन्दी बोलता है ।"


def test_the_last_turn_is_the_reference_of_a_conversation() -> None:
    chat = Chat((Message("user", "How are you?"), Message("assistant", "I am very well.")), "a.jsonl:1")
    asked = [metrics.chrf([chat]), metrics.exact_match(), metrics.perplexity()]
    found = {metric.name: metric([chat], [GeneratedText("I am very well.", 2.0, 4)]) for metric in asked}
    assert found["chrf++"] == found["exact_match"] == pytest.approx(100)
    assert found["perplexity"] == pytest.approx(math.exp(0.5))


def test_costs_that_nobody_measured_are_not_numbers() -> None:
    bits = metrics.bits_per_byte(lambda example: example.target)
    examples = [pair("好"), pair("ab")]
    assert bits(examples, [GeneratedText("", math.log(2) * 6, 1), GeneratedText("")]) == pytest.approx(2)
    assert math.isnan(bits(examples, [GeneratedText("")] * 2))
    assert math.isnan(metrics.perplexity()(examples, [GeneratedText("")] * 2))


def test_repetition_and_distinct_ngrams() -> None:
    written = [GeneratedText("a b a b a b"), GeneratedText("x")]
    assert metrics.distinct(2)(written, written) == pytest.approx(2 / 5)
    assert metrics.repetition()(written, written) == pytest.approx(1 / 3)


@pytest.mark.parametrize("texts", [["", ""], ["zzz", "qqq"], ["the cat", ""]])
def test_poor_texts_have_a_score(texts: list[str]) -> None:
    examples = [pair("the cat sat on the mat"), pair("a dog")]
    for metric in metrics.translation_metrics(examples)[:3]:
        assert 0 <= metric(examples, [GeneratedText(text) for text in texts]) < 60


def test_thousands_of_resamples_have_the_shape_of_one() -> None:
    examples = [pair(f"the cat number {n} sat on the mat") for n in range(50)]
    written = [GeneratedText(f"a cat number {n % 7} sat on a mat") for n in range(50)]
    for metric in (metrics.bleu(examples), metrics.chrf(examples)):
        statistics = metric.statistics(examples, written)
        stack = np.stack([statistics[:20].sum(0), statistics[20:].sum(0)])[None]
        assert metric.value(stack).shape == (1, 2)
        found = estimate(metric.value, statistics)
        assert found.low < found.value < found.high
