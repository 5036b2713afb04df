"""Sentiment: whether a text speaks well or ill of what it is about."""

from __future__ import annotations

from lucidlm.tasks.base.task import tasks
from lucidlm.tasks.text_classification import TextClassification

SENTIMENT = tasks.register("sentiment")(
    TextClassification(
        name="sentiment",
        description="whether a text is positive or negative (or the labels its data has)",
        synonyms={"0": "negative", "1": "positive", "neg": "negative", "pos": "positive"},
    )
)
