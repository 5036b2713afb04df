"""`lucidlm tasks`: what models can be tuned for and judged on."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    app.command(name="tasks")(list_tasks)


def list_tasks() -> None:
    """List the tasks: the fields of a row of their data, and what each is.

    Examples:

      lucidlm tasks
    """
    from lucidlm.tasks import tasks

    found = [tasks.get(name) for name in tasks]
    width, fields = max(len(task.name) for task in found), [", ".join(task.fields) for task in found]
    for task, names in zip(found, fields, strict=True):
        print(f"{task.name:{width}}  {names:{max(map(len, fields))}}  {task.description}")
