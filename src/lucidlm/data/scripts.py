"""How texts are cut into words and sentences, in scripts that put spaces between words and in those that do not.

Metrics and baselines count words. Where a script does not separate them (Chinese, Japanese, Thai) its characters stand
for words, which is what the field does where no segmenter is agreed upon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import regex

Segmentation = Literal["zh", "unspaced", "en"]

_UNSPACED_RANGES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_LETTER = re.compile(r"[^\W\d_]")
# Of a word in `regex`, unlike `re`, are the marks that Unicode combines with letters (the vowels of Hindi, an accent that
# stands by itself), and the joiners inside it; those that only choose the look of a sign (❤️, 1️⃣) belong to none.
_WORD = rf"(?=[^\W\p{{M}}])[^\W\ufe00-\ufe0f\u20e3{_UNSPACED_RANGES}]+"
_UNIT = regex.compile(rf"[{_UNSPACED_RANGES}]|{_WORD}")
_TOKEN = regex.compile(rf"[{_UNSPACED_RANGES}]|{_WORD}(?:['’](?=\w))?|\S")
_NO_SPACE_BEFORE = re.compile(r"\s+(?=[.,!?;:%)\]…])")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\['’])\s+")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）]*|\n+")
FEW = 1000
"""Texts that are looked at to tell the script."""


def separates_no_words(texts: Sequence[str]) -> bool:
    """Return whether most letters of the first texts belong to scripts that put no spaces between words."""
    sample = _sample(texts)
    return 2 * len(_UNSPACED.findall(sample)) > len(_LETTER.findall(sample))


def is_unspaced(text: str) -> bool:
    """Return whether a text's script sets no spaces between words, quickly, as cleaning asks it of every document.

    Judged by its first 2,000 characters: mostly characters that UTF-8 writes in three bytes (which Latin, Greek,
    Cyrillic, Hebrew and Arabic letters are not), and few spaces (which Korean and Hindi have as many of as English).
    """
    sample = text[:2000]
    return len(sample.encode("utf-8", "replace")) > 2 * len(sample) and 20 * sample.count(" ") < len(sample)


def one_line(text: str) -> str:
    """Return `text` with any white space as one space and none around it, as `" ".join(text.split())` does, but sooner."""
    flat = text.replace("\n\n", " ").replace("\n", " ")
    # No white space but the space itself is printable.
    if flat.isprintable() and "  " not in flat and not flat.startswith(" ") and not flat.endswith(" "):
        return flat
    return " ".join(text.split())


def language_of(texts: Sequence[str]) -> Segmentation:
    """Return how the first texts are to be cut into words.

    "zh" is Chinese; "unspaced" another script without spaces (kana among the Han characters: Japanese); "en" is every
    script that separates its words.
    """
    if not separates_no_words(texts):
        return "en"
    sample = _sample(texts)
    han, kana = len(_HAN.findall(sample)), len(_KANA.findall(sample))
    return "zh" if 2 * han > len(_UNSPACED.findall(sample)) and 20 * kana < han else "unspaced"


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; each character of an unspaced script is one."""
    return _UNIT.findall(text.lower())


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each of the `words` begins and ends, in characters."""
    return [match.span() for match in _UNIT.finditer(text)]


def tokens(text: str) -> list[str]:
    """Return words as they are written, apostrophes at their end, and punctuation marks; characters as in `words`."""
    return _TOKEN.findall(text)


def token_spans(text: str) -> list[tuple[int, int]]:
    """Return where each of the `tokens` begins and ends, in characters."""
    return [match.span() for match in _TOKEN.finditer(text)]


def joined(parts: Sequence[str]) -> str:
    """Put `tokens` together again, with spaces where the script has them."""
    if separates_no_words(parts):
        return "".join(parts)
    return _NO_SPACE_AFTER.sub("", _NO_SPACE_BEFORE.sub("", " ".join(parts)))


def sentences(text: str) -> list[tuple[int, int]]:
    """Return where the sentences of a text begin and end, in characters, the spaces around them left out.

    A sentence ends with its last mark (and the quotes or brackets that close after it) or with its line. Western marks
    need a space after them, so "3.5" is in one piece; abbreviations are not known and do end a sentence.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    found = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        part = text[start:end]
        if stripped := part.strip():
            start += len(part) - len(part.lstrip())
            found.append((start, start + len(stripped)))
    return found


def _sample(texts: Sequence[str]) -> str:
    return "".join(text[:1000] for text in texts[:FEW])
