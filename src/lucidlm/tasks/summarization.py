"""Summarization: a short text that says what a long one does."""

from __future__ import annotations

from lucidlm.baselines.summaries import LeadSentences, LongestUtterance
from lucidlm.data.examples import Pair, Written
from lucidlm.metrics.text import summarization_metrics
from lucidlm.tasks.base import Baseline, tasks
from lucidlm.tasks.sequences import SequenceToSequence


def baselines() -> list[Baseline[Pair, Written]]:
    """Return the beginning of the text, short and longer, and its longest part."""
    return [LeadSentences(1), LeadSentences(3), LongestUtterance()]


SUMMARIZATION = tasks.register("summarization")(
    SequenceToSequence(
        name="summarization",
        description="a short text that says what a long one does",
        source_field="document",
        target_field="summary",
        source_share=0.8,
        judged_by=summarization_metrics,
        beaten_by=baselines,
    )
)
