"""Summarization: a short text that says what a long one does."""

from __future__ import annotations

from lucidlm.baselines.summaries import LeadSentences, LongestUtterance
from lucidlm.data.examples.records import GeneratedText, Pair
from lucidlm.metrics.text_metrics import summarization_metrics
from lucidlm.tasks.base.task import Baseline, tasks
from lucidlm.tasks.base.text_generation import SequenceToSequence


def baselines() -> list[Baseline[Pair, GeneratedText]]:
    """Return the beginning of the text, short and longer, and its longest part."""
    return [LeadSentences(1), LeadSentences(3), LongestUtterance()]


SUMMARIZATION = tasks.register("summarization")(
    SequenceToSequence(
        name="summarization",
        description="a short text that says what a long one does",
        source_field="document",
        target_field="summary",
        source_share=0.8,
        metrics=summarization_metrics,
        baselines=baselines,
    )
)
