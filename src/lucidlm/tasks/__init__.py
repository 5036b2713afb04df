"""What a model can be tuned for and judged on: one small file per task, found by name in `tasks`."""

from lucidlm.tasks import (  # noqa: F401  (they register themselves)
    dialogue,
    generation,
    generative_qa,
    minimal_pairs,
    multi_label,
    perplexity,
    question_answering,
    recommendation,
    search,
    sentence_pairs,
    sentiment,
    summarization,
    text_classification,
    token_tagging,
    translation,
)
from lucidlm.tasks.base.task import Task, read_examples, tasks

__all__ = ["Task", "read_examples", "tasks"]
