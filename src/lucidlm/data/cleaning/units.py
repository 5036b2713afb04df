"""What counts as a unit of a text, for comparing texts and finding repetition: a word, or a character."""

from __future__ import annotations


def is_unspaced(text: str) -> bool:
    """Return whether the text's script sets no spaces between words, as Chinese, Japanese and Thai.

    Judged by its first 2,000 characters: mostly characters that UTF-8 writes in three bytes (which Latin, Greek,
    Cyrillic, Hebrew and Arabic letters are not), and few spaces (which Korean and Hindi have as many of as English).
    """
    sample = text[:2000]
    return len(sample.encode("utf-8", "replace")) > 2 * len(sample) and 20 * sample.count(" ") < len(sample)
