"""`/v1/explain`: what a prediction of a served model rests on, and how far that can be trusted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.attribution.methods import Method
from lucidlm.explain.explanation import explain as explain_text
from lucidlm.explain.generation import explain_generation
from lucidlm.explain.pieces import Unit
from lucidlm.serve.endpoints.apart import as_field_error, look_into
from lucidlm.serve.errors import ApiError
from lucidlm.serve.fields import Body, Text
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import note_of, state_of

router = APIRouter()

MOST_TOKENS = 2048
"""Tokens of a text that is explained: gradients and attention weights of longer ones take more memory than a server has
to spare."""
MOST_WRITTEN = 256
MOST_STEPS = 1000


class ExplainRequest(Body):
    """A prediction that is to be explained."""

    text: Text = Field(description="A prompt, what is classified, or a question.")
    context: Text | None = Field(default=None, description="The passage that a question is about.")
    target: Text | None = Field(
        default=None, description="A continuation, a label, or an answer; left out: what the model gives."
    )
    rather_than: Text | None = Field(default=None, description="Another one: why the target rather than this.")
    length: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WRITTEN,
        description="Explain each of so many tokens that are written, or of target.",
    )
    by: Unit = Field(default="token", description="What gets an attribution.")
    method: Method | None = Field(default=None, description="How credit is given; left out: as the model allows.")
    steps: int = Field(default=50, ge=1, le=MOST_STEPS, description="Steps of integrated gradients, at least.")
    seed: int = Field(default=0, ge=0, description="Of random orders.")


@router.post("/v1/explain")
async def explain(asked: ExplainRequest, request: Request) -> Response:
    """Explain a prediction: what each piece of a text adds to it, and whether that can be trusted."""
    model = state_of(request).models.able(asked.model, "explain")
    _refuse_what_does_not_go_together(asked, model)
    note_of(request).update(model=model.name, texts=1)
    if model.writer is not None:
        await model.admit([asked.text], "text")
    found = await look_into(request, model, lambda loaded: _found(loaded, asked))
    if model.writer is not None and asked.target is None:
        await model.admit([found["continuation" if asked.length is not None else "target"]], None)
    return JSONResponse({"object": "explanation", "model": model.name, **found})


def _refuse_what_does_not_go_together(asked: ExplainRequest, model: ServedModel) -> None:
    if asked.length is None:
        return
    if model.writer is None:
        raise ApiError(f"length: {model.name} does not continue texts", param="length")
    for name in ("context", "rather_than"):
        if getattr(asked, name) is not None:
            raise ApiError(f"{name}: does not go with length", param=name)


def _found(loaded: LoadedModel, asked: ExplainRequest) -> dict[str, Any]:
    """Return the explanation, as the command line writes it with `--json`.

    Raises
    ------
    ApiError: what is asked for cannot be explained, or not so.
    """
    length = sum(map(len, loaded.require_tokenizer().encode_batch([asked.text, asked.context or ""])))
    if length > MOST_TOKENS:
        raise ApiError(f"text: has {length:,} tokens; at most {MOST_TOKENS:,} are explained here", param="text")
    chosen: dict[str, Any] = {"by": asked.by, "steps": asked.steps, "seed": asked.seed}
    if asked.method is not None:
        chosen["method"] = asked.method
    try:
        if asked.length is not None:
            return explain_generation(loaded, asked.text, asked.target, length=asked.length, **chosen).as_dict()
        contrast = {"context": asked.context, "rather_than": asked.rather_than}
        return explain_text(loaded, asked.text, asked.target, **contrast, **chosen).as_dict()
    except InputError as error:
        raise as_field_error(error, ExplainRequest.model_fields) from error
