"""Cleaning twice is cleaning once, and the quick way past ftfy never changes what ftfy would do."""

from __future__ import annotations

from itertools import product

import ftfy
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from lucidlm.data.cleaning.clean import CONTROL, SUSPECT, CleanConfig, Cleaner, _repair, may_be_mojibake
from lucidlm.data.cleaning.pii import Masker
from lucidlm.data.scripts import one_line

ODD = st.sampled_from(
    [
        "Ã",
        "©",
        "â",
        "€",
        "™",
        "\x80",
        "\x97",
        "\xa0",
        " ",
        "\n",
        "\r",
        "\x00",
        "é",
        "e",
        "\u0301",
        "“",
        "”",
        "，",
        "中",
        "文",
        "<br />",
        "<p>",
        "</p>",
        "<i>",
        "&amp;",
        "&lt;",
        "br>",
        "amp;",
        "&#233;",
        "ВЂ",
        "в",
        "Ђ",
        "Р",
        "ø",
        "√",
        "∂",
        "‚",
        "Ä",
        "Γ",
        "Ù",
        "Œ",
        "à",
        "²",
        "°",
        "╤",
        "ﬁ",
        "\ufeff",
        "\u200b",
        "\ud800",
        "a",
        "Z",
        "1",
        "<html>",
        "&",
        ";",
        "<",
        ">",
    ]
)
texts = st.one_of(st.text(), st.lists(ODD).map("".join))


@st.composite
def mojibake(draw: st.DrawFn) -> str:
    """Text that went through the wrong codec once or twice."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    for codec in draw(
        st.lists(st.sampled_from(["latin-1", "cp1252", "cp1251", "cp1253", "macroman", "cp437"]), max_size=2)
    ):
        text = text.encode("utf-8").decode(codec, "replace")
    return draw(st.sampled_from(["", "Text: ", "中文 "])) + text


@given(st.one_of(texts, mojibake()))
@settings(max_examples=400, deadline=None)
def test_cleaning_twice_is_cleaning_once(text):
    cleaned = Cleaner()(text)
    if cleaned is not None:
        again = Cleaner()
        assert again(cleaned, plain=True) == cleaned  # a page may show the source of another one
        assert not again.counts
        assert not CONTROL.search(cleaned)
        cleaned.encode("utf-8")


@given(st.one_of(texts, mojibake()))
@settings(max_examples=400, deadline=None)
def test_the_quick_way_past_ftfy_changes_nothing(text):
    assert _repair(text) == "\n".join(ftfy.fix_encoding(line) for line in text.split("\n"))


def test_a_suspect_character_by_itself_is_no_mojibake_unless_it_is_said_to_be():
    ascii_characters = ["", *"aeiosuzAEZ019 \t.,;:!?'\"()-<&|_~"]
    suspects = [character for character in map(chr, range(0x80, 0x10000)) if SUSPECT.match(character)]
    assert len(suspects) > 200
    for before, suspect, after in product(ascii_characters, suspects, ascii_characters):
        line = before + suspect + after
        assert may_be_mojibake(line) or not is_bad(line)


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_every_text_is_either_kept_or_counted(text):
    cleaner = Cleaner(CleanConfig(min_characters=5, max_characters=50))
    left_out = cleaner(text) is None
    assert left_out == bool(cleaner.counts["too short"] + cleaner.counts["too long"] + cleaner.counts["too repetitive"])


@given(st.one_of(st.text(), st.lists(st.sampled_from([" ", "\n", "\t", "\xa0", "\u3000", "a", "中"])).map("".join)))
@settings(max_examples=400, deadline=None)
def test_one_line_has_single_spaces(text):
    assert one_line(text) == " ".join(text.split())


@given(texts)
@settings(max_examples=100, deadline=None)
def test_masking_twice_is_masking_once(text):
    masked = Masker()(text)
    assert Masker()(masked) == masked
