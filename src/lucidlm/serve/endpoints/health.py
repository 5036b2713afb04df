"""`/health`, `/ready`, `/metrics`, `/v1/models`: how the server is, and what it has."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import state_of

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """Say whether every engine goes on: 503 if one has been held up in a step, or its thread has died."""
    models = state_of(request).models
    status = {model.name: "ok" if model.healthy else "stuck" for model in models}
    return JSONResponse(
        {"status": "ok" if models.healthy else "stuck", "models": status}, 200 if models.healthy else 503
    )


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Say whether requests will be answered: 503 from the moment on that the server is to stop."""
    open_ = request.app.state.accepts
    return JSONResponse({"status": "ready" if open_ else "stopping"}, 200 if open_ else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return what is measured, for Prometheus."""
    return Response(generate_latest(state_of(request).measures.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models, and what each can do."""
    return {"object": "list", "data": [_described(model) for model in state_of(request).models]}


@router.get("/v1/models/{name}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """Describe a model."""
    return _described(state_of(request).models.named(name))


def _described(model: ServedModel) -> dict[str, Any]:
    config = model.loaded.model.config
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "lucidlm",
        "abilities": model.abilities,
        "steering": {} if model.writer is None else model.writer.steering,
        "context_length": config.context_length,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "task": None if model.task is None else {"name": model.task[0], "fields": model.task[1].fields},
    }
