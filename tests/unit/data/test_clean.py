"""Cleaning: what each step does, what it leaves alone, and what is left out."""

from __future__ import annotations

import pytest

from lucidlm.data.cleaning.clean import CleanConfig, Cleaner
from lucidlm.data.scripts import is_unspaced


@pytest.mark.parametrize(
    ("text", "clean", "step"),
    [
        ("voilÃ\xa0 le cafÃ©", "voilà le café", "repaired"),
        ("a film\x97a good one", "a film—a good one", "repaired"),
        ("One.<br /><br />Two &amp; <i>three</i>.", "One.\n\nTwo & three.", "html"),
        ("<html><body><p>One</p><script>x</script><p>Two</p></body></html>", "One\n\nTwo", "html"),
        ("a\x00b\u200bc\ufeff", "abc", "control characters"),
        ("e\u0301t\u00e9", "été", "normalised"),
        ("one  \r\ntwo\t\rthree\u2028four\n\n\n\nfive \n", "one\ntwo\nthree\nfour\n\nfive", "normalised"),
    ],
)
def test_each_step(text, clean, step):
    cleaner = Cleaner()
    assert cleaner(text) == clean
    assert cleaner.counts[step] == 1


@pytest.mark.parametrize(
    "text",
    [
        "“全角标点，不动！”——ＡＢＣ１２３（测试）…《书》、·",
        "He said “don’t” — 3 < 4 > 2, R&D, List<String>, x<y and a <3 b.",
        "    def f():\n        return 1\n\nÉté à Zürich, señor. Привет, мир! Γειά σου",
        "½ × 3 ÷ 4 = 10°C, £5, €6, ¥7, №8, «oui»",
        "日本語のテキスト、ﾊﾝｶｸ。한국어 텍스트.",
    ],
)
def test_sound_text_stays_as_it_is(text):
    text = text.strip()
    cleaner = Cleaner()
    assert cleaner(text) == text
    assert not cleaner.counts


def test_steps_can_be_left_out():
    assert Cleaner(CleanConfig(html="no"))("a.<br />B") == "a.<br />B"
    assert Cleaner(CleanConfig(repair=False))("cafÃ©") == "cafÃ©"


def test_length_limits():
    cleaner = Cleaner(CleanConfig(min_characters=3, max_characters=5))
    assert [cleaner(text) for text in ("ab", " abc ", "abcdef", "")] == [None, "abc", None, None]
    assert cleaner.counts == {"too short": 2, "too long": 1, "normalised": 1}


def test_blank_texts_are_left_out():
    cleaner = Cleaner()
    assert cleaner(" \n\u3000") is None
    assert cleaner.counts == {"too short": 1}


@pytest.mark.parametrize(
    "text",
    [
        "buy now " * 100,
        "\n".join(["the same line again and again"] * 30 + [f"line {i} of its own" for i in range(30)]),
        "好评好评好评很好" * 60,
        " ".join(f"word{i % 150}" for i in range(400)),
    ],
)
def test_repetitive_texts_are_left_out(text):
    cleaner = Cleaner()
    assert cleaner(text) is None
    assert cleaner.counts == {"too repetitive": 1}
    assert Cleaner(CleanConfig(repetition=False))(text) == text.strip()


def test_real_text_is_not_taken_for_repetitive(shared_data):
    for name in ("tinyshakespeare.txt", "wikitext2.test.txt"):
        assert Cleaner()((shared_data / "pretraining" / name).read_text(encoding="utf-8")[:200_000])


def test_html_is_looked_for_once():
    cleaner = Cleaner()
    assert cleaner("<p>write &lt;p&gt;this&lt;/p&gt;</p>") == "write <p>this</p>"
    assert cleaner("<p>&lt;p&gt;this&lt;/p&gt;</p>") == "<p>this</p>"
    assert cleaner("<p>this</p>", plain=True) == "<p>this</p>"
    assert cleaner.counts == {"html": 2}


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        ("话说天下大势，分久必合，合久必分。", True),
        ("鞍馬軍城外，\n笙歌祖帳前。", True),
        ("นี่คือข้อความภาษาไทย", True),
        ("The quick brown fox", False),
        ("한국어 텍스트는 띄어쓰기를 합니다", False),
        ("हिन्दी में शब्दों के बीच रिक्त स्थान होता है", False),
        ("Широкая электрификация южных губерний", False),
        ("", False),
    ],
)
def test_scripts_without_spaces_are_known(text, unspaced):
    assert is_unspaced(text) == unspaced
