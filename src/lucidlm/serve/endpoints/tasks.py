"""`/v1/tasks/TASK`: an endpoint for each task that a served model was tuned for, with fields of its own."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from lucidlm.serve.errors import ApiError
from lucidlm.serve.events import unless_gone
from lucidlm.serve.fields import Body
from lucidlm.serve.models import Models
from lucidlm.serve.state import note_of, state_of
from lucidlm.serve.task_kinds import Columns, TaskKind


def task_router(models: Models) -> APIRouter:
    """Return the endpoints of the tasks that `models` were tuned for."""
    router = APIRouter()
    for task, kind in {model.task[0]: model.task[1] for model in models if model.task is not None}.items():
        _add(router, task, kind)
    return router


def _add(router: APIRouter, task: str, kind: TaskKind) -> None:
    body = kind.body(task)

    async def answer(asked: Any, request: Request) -> Response:
        state = state_of(request)
        model = state.models.able(asked.model, f"tasks/{task}")
        columns = _columns(asked, kind)
        count = len(next(iter(columns.values())))
        note_of(request).update(model=model.name, texts=count)
        for name, texts in columns.items() if kind.writes else ():
            await model.admit(texts, name)
        results = await unless_gone(
            request, model.call(lambda: kind.answer(model.predictor, columns)), state.config.timeout
        )
        if kind.writes:
            await model.admit([one["text"] for one in results], None)
        return JSONResponse({"object": "list", "model": model.name, "task": task, "results": results})

    answer.__annotations__["asked"] = body
    name = task.replace("-", " ")
    router.post(
        f"/v1/tasks/{task}", name=f"tasks_{task.replace('-', '_')}", description=f"Answer by a model of {name}."
    )(answer)


def _columns(asked: Body, kind: TaskKind) -> Columns:
    """Return the inputs of a request, as many of each field: a single one stands beside each of several others.

    Raises
    ------
    ApiError: the fields are not equally long, or a text is empty.
    """
    given = {name: getattr(asked, name) for name in kind.fields}
    most = max(1 if isinstance(value, str) else len(value) for value in given.values())
    columns = {name: [value] * most if isinstance(value, str) else value for name, value in given.items()}
    for name, texts in columns.items():
        if len(texts) != most:
            raise ApiError(f"{name}: {len(texts):,} texts, and {most:,} of another field", param=name)
        if any(not text.strip() for text in texts):
            raise ApiError(f"{name}: a text is empty", param=name)
    return columns
