"""What a model can be tuned for and judged on: one small file per task, found by name in `tasks`."""

from lucidlm.tasks import sentiment  # noqa: F401  (registers the task)
from lucidlm.tasks.base import Task, tasks
from lucidlm.tasks.classification import LabelledText, TextClassification, read_examples

__all__ = ["LabelledText", "Task", "TextClassification", "read_examples", "tasks"]
