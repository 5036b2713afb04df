"""Translation: a text in another language. `--field source=target --field target=source` turns the direction."""

from __future__ import annotations

from lucidlm.baselines.translators import Copy, Dictionary
from lucidlm.data.examples.records import GeneratedText, Pair
from lucidlm.tasks.base.task import Baseline, tasks
from lucidlm.tasks.base.text_generation import SequenceToSequence


def baselines() -> list[Baseline[Pair, GeneratedText]]:
    """Return the source as it is, and its words looked up one by one."""
    return [Copy(), Dictionary()]


TRANSLATION = tasks.register("translation")(
    SequenceToSequence(
        name="translation",
        description="a text in another language, from pairs of texts",
        baselines=baselines,
        longest_ratio=9.0,
    )
)
