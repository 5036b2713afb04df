"""Translation: a text in another language. `--field source=target --field target=source` turns the direction."""

from __future__ import annotations

from lucidlm.baselines.translation import Copy, Dictionary
from lucidlm.data.examples import Pair, Written
from lucidlm.tasks.base import Baseline, tasks
from lucidlm.tasks.sequences import SequenceToSequence


def baselines() -> list[Baseline[Pair, Written]]:
    """Return the source as it is, and its words looked up one by one."""
    return [Copy(), Dictionary()]


TRANSLATION = tasks.register("translation")(
    SequenceToSequence(
        name="translation",
        description="a text in another language, from pairs of texts",
        beaten_by=baselines,
        longest_ratio=9.0,
    )
)
