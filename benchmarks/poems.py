"""Whether a model that learned Chinese poems writes in their form, beside an n-gram model of characters.

    lucidlm recipe recipes/tang-poems.yaml --data datasets --out runs
    python benchmarks/poems.py runs/tang-poems/tuned --text datasets/pretraining/tang-poems-zh.jsonl

Of each poem the first four lines are judged, which is a quatrain: its form (four lines of five characters, or four of
seven), its rhyme (the second and the fourth line end in different characters that rhyme in today's Mandarin, by their
finals in pypinyin), and that none of its lines is one of the text's. In the text each poem has its title and its author
before it, a line each; what is written is read in the same way. The poems of the text itself are the measure of form and
rhyme: sounds have changed since they were written, so even of these not all rhyme.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from lucidlm.metrics.statistics import estimate, ratio
from lucidlm.predict.text_generator import TextGenerator
from results import record

BEFORE = 2
"""Lines of a text before its poem: title and author."""
PAUSES = re.compile(r"[，。！？；：、\s]+")
RHYMES = (
    "a ia ua",
    "o e uo",
    "ie ve",
    "ai uai",
    "ei uei",
    "ao iao",
    "ou iou",
    "an ian uan van",
    "en in uen vn",
    "ang iang uang",
    "eng ing ueng ong iong",
    "i er v",
    "u",
)
"""The rhymes of the Zhonghua Xinyun (2005), by the finals of each: what stands before the main vowel does not matter. Its
two of the final i, after s or zh and elsewhere, are one here, as pypinyin writes them alike."""
LONGEST = 128
"""Tokens, or characters, that are written of a poem at most: more than title, author and four lines of seven take."""
ORDERS = (3, 4)
"""Characters of an n-gram, the one that is drawn included: few know little of the form, many copy."""
BEGIN = "\x02"
"""What stands before each text for the n-gram model."""


def first_lines(text: str) -> list[str]:
    """Return the first four lines of the poem in a text: what stands between punctuation marks."""
    poem = "\n".join(text.strip().split("\n")[BEFORE:])
    return [line for line in PAUSES.split(poem) if line][:4]


def has_form(lines: Sequence[str]) -> bool:
    """Return whether these are four lines of five characters each, or of seven."""
    return len(lines) == 4 and {len(line) for line in lines} in ({5}, {7})


def rhymes(lines: Sequence[str]) -> bool:
    """Return whether the second and the fourth of four lines end in different characters that rhyme."""
    if len(lines) < 4 or lines[1][-1] == lines[3][-1]:
        return False
    return bool(endings(lines[1][-1]) & endings(lines[3][-1]))


@cache
def endings(character: str) -> frozenset[int]:
    """Return the places in `RHYMES` of all readings of a character; none for what is no Chinese character."""
    from pypinyin import Style, pinyin  # pyright: ignore[reportMissingImports]

    found = {final for readings in pinyin(character, style=Style.FINALS, heteronym=True) for final in readings}
    return frozenset(place for place, group in enumerate(RHYMES) if found & set(group.split()))


class CharacterNgrams:
    """A model that draws each character by how often the texts have it after the `order` - 1 before it."""

    def __init__(self, texts: Sequence[str], order: int) -> None:
        self.order = order
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            for place, character in enumerate([*text, ""], 1):  # "" ends a text
                self.counts[self._before(f"{BEGIN}{text}"[:place])][character] += 1

    def _before(self, text: str) -> str:
        return text[-(self.order - 1) :]

    def write(self, generator: random.Random) -> str:
        """Return a text, drawn from its beginning on."""
        text = BEGIN
        while len(text) <= LONGEST:
            found = self.counts[self._before(text)]
            (character,) = generator.choices(list(found), list(found.values()))
            if not character:
                break
            text += character
        return text.removeprefix(BEGIN)


def judged(texts: Sequence[str], known: frozenset[str]) -> dict[str, np.ndarray]:
    """Return, by what is asked, a 1 for each text of which it is true and a 0 for the others."""
    poems = [first_lines(text) for text in texts]
    asked: dict[str, Callable[[list[str]], bool]] = {
        "form": has_form,
        "rhyme": rhymes,
        "form and rhyme": lambda lines: has_form(lines) and rhymes(lines),
        "no line copied": lambda lines: bool(lines) and not known & set(lines),
    }
    return {name: np.array([float(true(lines)) for lines in poems]) for name, true in asked.items()}


def shown(hits: np.ndarray) -> str:
    """Return a share with its 95 % bootstrap interval."""
    found = estimate(ratio, np.stack([hits, np.ones_like(hits)], axis=1))
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="models that write such poems")
    parser.add_argument("--text", type=Path, required=True, help="the poems that they learned: JSON lines, field text")
    parser.add_argument("--poems", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    texts = [json.loads(line)["text"] for line in options.text.read_text(encoding="utf-8").splitlines()]
    lines = [line for text in texts for line in PAUSES.split("\n".join(text.split("\n")[BEFORE:])) if line]
    known, generator = frozenset(lines), random.Random(options.seed)
    written = {
        name: TextGenerator(name)(
            [""] * options.poems, max_new_tokens=LONGEST, temperature=options.temperature, seed=options.seed
        )
        for name in options.models
    }
    for order in ORDERS:
        ngrams = CharacterNgrams(texts, order)
        written[f"character {order}-grams"] = [ngrams.write(generator) for _ in range(options.poems)]
    written["poems of the text"] = generator.sample(texts, min(options.poems, len(texts)))
    rows = [[name, *map(shown, judged(found, known).values())] for name, found in written.items()]
    rows[-1][-1] = "–"
    header = ["who writes", *judged([], known)]
    notes = [f"{options.poems} poems each, temperature {options.temperature:g}; in brackets 95 % bootstrap intervals."]
    record("Poems", header, rows, notes)


if __name__ == "__main__":
    main()
