"""What a model can be tuned for and judged on: one small file per task, found by name in `tasks`."""

from lucidlm.tasks import classification, sentiment, translation  # noqa: F401  (they register themselves)
from lucidlm.tasks.base import Task, read_examples, tasks

__all__ = ["Task", "read_examples", "tasks"]
