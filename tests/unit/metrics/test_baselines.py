"""What models have to beat: baselines learn what they should and answer every example."""

from __future__ import annotations

import pytest

from lucidlm.baselines.classifiers import MajorityClass, TfidfLogisticRegression
from lucidlm.baselines.replies import MostCommonReply, NearestReply
from lucidlm.baselines.retrieval import Popularity, RandomOrder, TfidfSearch
from lucidlm.baselines.span_readers import SentenceOverlap
from lucidlm.baselines.summaries import LeadSentences, LongestUtterance
from lucidlm.baselines.translators import Copy, Dictionary
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import LabelledText, Match, Pair, Question
from lucidlm.tokenize.conversation import Chat, Message

LABELLED = [
    LabelledText(text, label, "a") for text, label in [("good film", "yes"), ("bad", "no"), ("good", "yes")] * 4
]


def pair(source: str, target: str = "") -> Pair:
    return Pair(source, target, (target,), "a")


def test_labels_are_guessed() -> None:
    assert MajorityClass().fit(LABELLED).predict(LABELLED[:1])[0].label == "yes"


def test_words_tell_labels() -> None:
    model = TfidfLogisticRegression().fit(LABELLED)
    assert [answer.label for answer in model.predict(LABELLED)] == [example.label for example in LABELLED]
    assert "word" in model.name
    with pytest.raises(InputError, match="cannot learn"):
        TfidfLogisticRegression().fit(LABELLED[:1])


def test_summaries_begin_at_the_beginning() -> None:
    text, talk = pair("One. Two is longer. Three."), pair("#Person1#: Hi. You?\n#Person2#: I am fine, thanks.")
    assert [w.text for w in LeadSentences(2).fit([]).predict([text, talk])] == [
        "One. Two is longer.",
        " ".join(talk.source.split("\n")),
    ]
    assert LeadSentences(1).predict([talk, pair("他来了。走吧。")])[1].text == "他来了。"
    assert [w.text for w in LongestUtterance().fit([]).predict([text, talk])] == [
        "Two is longer.",
        "#Person2#: I am fine, thanks.",
    ]


def test_a_dictionary_is_learnt_from_pairs() -> None:
    training = [
        pair("the house", "la maison"),
        pair("the book", "le livre"),
        pair("a house", "une maison"),
        pair("a book", "un livre"),
    ]
    found = Dictionary().fit(training).predict([pair("house book Tom.")])
    assert found[0].text == "maison livre Tom."
    assert Copy().fit(training).predict([pair("as it is")])[0].text == "as it is"


def test_a_dictionary_of_characters() -> None:
    training = [pair("cat", "猫"), pair("dog", "狗"), pair("cat dog", "猫狗")]
    assert Dictionary().fit(training).predict([pair("dog cat")])[0].text == "狗猫"


@pytest.mark.parametrize(
    ("context", "asked", "answer"),
    [
        (
            "The tower is tall. It was built in 1889. Many visit it.",
            "When was the tower built?",
            "It was built in 1889.",
        ),
        ("塔很高。它建于一八八九年。很多人来看。", "塔建于哪一年？", "它建于一八八九年。"),
    ],
)
def test_the_sentence_with_the_words_of_the_question(context: str, asked: str, answer: str) -> None:
    example = Question("1", context, asked, (), "a")
    others = [
        Question("2", other, "?", (), "a") for other in ("The tower is.", "Is the it in?", "塔很高。", "塔很好。")
    ]
    span = SentenceOverlap().fit([example, *others]).predict([example])[0]
    assert span.text == answer == context[span.start : span.start + len(span.text)]


def test_items_are_ranked() -> None:
    examples = [
        Match((query,), item, "a") for query, item in [("red apples", "an apple, red"), ("cars", "two fast cars")]
    ]
    found = TfidfSearch().fit([]).predict(examples)
    assert found[1].items[0] == "two fast cars"
    assert sorted(RandomOrder().fit([]).predict(examples)[0].items) == ["an apple, red", "two fast cars"]


def test_chinese_items_are_ranked() -> None:
    examples = [Match((query,), item, "a") for query, item in [("红苹果", "苹果是红的"), ("汽车快", "很快的汽车")]]
    assert [r.items[0] for r in TfidfSearch().fit([]).predict(examples)] == ["苹果是红的", "很快的汽车"]


def test_the_popular_comes_first_unless_one_has_it() -> None:
    training = [Match(("x",), item, "a") for item in ("b", "b", "a")]
    asked = [Match(("x",), "a", "a"), Match(("b",), "b", "a")]
    assert [r.items for r in Popularity().fit(training).predict(asked)] == [("b", "a"), ("a", "b")]


def test_replies_come_from_the_training_data() -> None:
    turns = [("Hello there", "Hi!"), ("Good morning", "Hi!"), ("What is the time?", "Noon.")]
    chats = [Chat((Message("user", said), Message("assistant", reply)), "a") for said, reply in turns]
    asked = [Chat((Message("user", "Tell me the time"), Message("assistant", "?")), "a")]
    assert MostCommonReply().fit(chats).predict(asked)[0].text == "Hi!"
    assert NearestReply().fit(chats).predict(asked)[0].text == "Noon."
    with pytest.raises(InputError, match="no assistant"):
        MostCommonReply().fit([Chat((Message("user", "Hello?"),), "b.jsonl:3")])
