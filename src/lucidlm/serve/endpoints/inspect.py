"""`/v1/inspect`: what happens inside a served model while it reads a text, and how far that can be trusted."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.attention import attention
from lucidlm.explain.inside.lens import lens
from lucidlm.explain.inside.logits import logit_attribution
from lucidlm.explain.inside.norms import norms
from lucidlm.explain.inside.reading import Reading, read
from lucidlm.explain.inside.view import View
from lucidlm.serve.endpoints.apart import as_field_error, look_into
from lucidlm.serve.errors import ApiError
from lucidlm.serve.fields import Body, Text
from lucidlm.serve.state import note_of, state_of

router = APIRouter()

MOST_TOKENS = 256
"""Tokens of a text that is looked at: what is recorded of longer ones takes more memory than a server has to spare."""
MOST_WEIGHTS = 200_000
"""Attention weights that are sent: some four megabytes."""

Name = Literal["attention", "lens", "norms", "logits"]
OF_VIEW: dict[str, Name] = {"layer": "attention", "head": "attention", "target": "logits", "foil": "logits"}
"""The fields that one view has, and which one."""


class InspectRequest(Body):
    """A text that a model is to be looked into with."""

    text: Text = Field(description="What the model reads; for a masked model with its mask token in it.")
    view: Name = Field(default="attention", description="What is shown.")
    layer: int | None = Field(default=None, ge=0, description="Of attention: one layer; left out: all.")
    head: int | None = Field(default=None, ge=0, description="Of attention: one head; left out: all.")
    target: Text | None = Field(default=None, description="Of logits: one token or a label; left out: the likeliest.")
    foil: Text | None = Field(default=None, description="Of logits: the answer whose logit is taken off.")


@router.post("/v1/inspect")
async def inspect(asked: InspectRequest, request: Request) -> Response:
    """Look inside a model: where heads look, what each layer would answer, how large states are, what writes a logit."""
    model = state_of(request).models.able(asked.model, "inspect")
    for name, view in OF_VIEW.items():
        if getattr(asked, name) is not None and asked.view != view:
            raise ApiError(f"{name}: is of the view {view}, not of {asked.view}", param=name)
    note_of(request).update(model=model.name, texts=1)
    if model.writer is not None:
        await model.admit([asked.text], "text")
    found = await look_into(request, model, lambda loaded: _view(loaded, asked))
    return JSONResponse({"object": "inspection", "model": model.name, **found.as_dict()})


def _view(loaded: LoadedModel, asked: InspectRequest) -> View:
    """Return what is asked for.

    Raises
    ------
    ApiError: it cannot be shown, or is too large.
    """
    try:
        reading = read(loaded, asked.text)
        _refuse_what_is_too_large(reading, asked)
        match asked.view:
            case "attention":
                return attention(reading, asked.layer, asked.head)
            case "lens":
                return lens(reading)
            case "norms":
                return norms(reading)
            case "logits":
                return logit_attribution(reading, asked.target, asked.foil)
    except InputError as error:
        raise as_field_error(error, InspectRequest.model_fields) from error


def _refuse_what_is_too_large(reading: Reading, asked: InspectRequest) -> None:
    length, config = len(reading.tokens), reading.model.config
    if length > MOST_TOKENS:
        raise ApiError(f"text: has {length:,} tokens; at most {MOST_TOKENS:,} are looked at here", param="text")
    heads = (config.num_layers if asked.layer is None else 1) * (config.num_heads if asked.head is None else 1)
    if asked.view == "attention" and heads * length**2 > MOST_WEIGHTS:
        message = (
            f"{heads} heads of {length} tokens have {heads * length**2:,} weights; at most {MOST_WEIGHTS:,} are sent"
        )
        param = "layer" if asked.layer is None else "head"
        raise ApiError(f"{param}: {message}. Choose one.", param=param)
