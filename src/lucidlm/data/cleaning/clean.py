"""Cleaning: turn HTML into text, repair what was decoded wrongly, normalise, and leave out what is no use.

Repair is ftfy's (Speer 2019), of mojibake alone: quotes stay curled and full-width punctuation stays wide, as Chinese
needs it. ftfy looks at 2 to 7 MB of text a second, so only lines that hold what mojibake cannot do without are shown to
it (`may_be_mojibake`); the result is the same, at hundreds of MB a second. HTML becomes text once, as text may speak of
HTML; the other steps are repeated until none changes the text, so cleaning twice is cleaning once.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import ftfy
from ftfy.badness import MOJIBAKE_CATEGORIES

from lucidlm.data.cleaning.config import CleanConfig
from lucidlm.data.cleaning.html import plain_text
from lucidlm.data.cleaning.repetition import is_repetitive

# One character at least of each pattern by which ftfy.badness knows mojibake.
_CATEGORIES = ("c1", "bad", "law", "currency", "numeric", "upper_accented", "lower_accented", "box")
SUSPECT = re.compile(f"[{''.join(MOJIBAKE_CATEGORIES[name] for name in _CATEGORIES)}ŒœÙ‚ΒΓΞΟВГРСЂ]")
ALONE = re.compile(f"[{MOJIBAKE_CATEGORIES['c1']}ŒœÃÂ]")
"""Those of them that a pattern takes for mojibake between two ASCII characters; the others stand beside another one."""
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
LINE_END = re.compile("[\r\x0b\x0c\u2028\u2029]")


class Cleaner:
    """Cleans one text after the other and counts what it does.

    `counts` holds the number of documents by step: "repaired", "html", "control characters", "normalised" for those
    changed, "too short", "too long", "too repetitive" for those left out.
    """

    def __init__(self, config: CleanConfig | None = None) -> None:
        self.config = config or CleanConfig()
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str, *, plain: bool = False) -> str | None:
        """Return the clean text, or None if it is to be left out; in one that is `plain` no HTML is looked for."""
        steps: set[str] = set()
        if not plain and (read := plain_text(text, self.config.html)) != text:
            steps.add("html")
            text = read
        while (cleaned := self._pass(text, steps)) != text:
            text = cleaned
        if reason := self._reason_against(text):
            self.counts[reason] += 1
            return None
        self.counts.update(sorted(steps))
        return text

    def _pass(self, text: str, steps: set[str]) -> str:
        """Take each step once; add to `steps` those that changed the text."""
        before = text
        if self.config.repair and not text.isascii() and SUSPECT.search(text) and (sound := _repair(text)) != text:
            steps.add("repaired")
            text = sound
        lines = text
        if not text.replace("\n", "").isprintable():  # no line end and no control character is, and most texts are
            lines = LINE_END.sub("\n", lines.replace("\r\n", "\n"))
            if CONTROL.search(lines):
                steps.add("control characters")
                lines = CONTROL.sub("", lines)
        lines = unicodedata.normalize("NFC", lines)
        if "\n" in lines:
            lines = "\n".join(map(str.rstrip, lines.split("\n")))
            if "\n\n\n" in lines:
                lines = re.sub("\n{3,}", "\n\n", lines)
        lines = lines.strip()
        if lines != text:
            steps.add("normalised")
        return before if lines == before else lines

    def _reason_against(self, text: str) -> str | None:
        if len(text) < self.config.min_characters:
            return "too short"
        if self.config.max_characters is not None and len(text) > self.config.max_characters:
            return "too long"
        if self.config.repetition and is_repetitive(text):
            return "too repetitive"
        return None


def may_be_mojibake(line: str) -> bool:
    """Return whether ftfy might repair the line: a suspect character is in it, and not one by itself, as é in "café"."""
    if line.isascii():
        return False
    found = (match.start() for match in SUSPECT.finditer(line))
    return any(
        ALONE.match(line, at) or not (line[max(0, at - 1) : at] + line[at + 1 : at + 2]).isascii() for at in found
    )


def _repair(text: str) -> str:
    """Undo mojibake, line by line as ftfy advises: a line comes from one place, a document perhaps from several."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if may_be_mojibake(line):
            lines[number] = ftfy.fix_encoding(line)
    return "\n".join(lines)
