"""Translation: a sentence in another language. `--field source=fr --field target=en` turns the direction."""

from __future__ import annotations

from lucidlm.tasks.base import tasks
from lucidlm.tasks.sequences import SequenceToSequence

TRANSLATION = tasks.register("translation")(
    SequenceToSequence(
        name="translation",
        description="a text in another language, from pairs of texts",
        longest_ratio=9.0,
    )
)
