"""`/tokenize` and `/detokenize`: texts as token ids, and back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from lucidlm.serve.endpoints.token_text import shown, spelling
from lucidlm.serve.errors import ApiError
from lucidlm.serve.fields import Body, Text
from lucidlm.serve.state import state_of

router = APIRouter()


class TokenizeRequest(Body):
    """A text to be cut into tokens."""

    text: Text
    special: bool = Field(default=False, description="Read control tokens that the text spells out as such.")


class DetokenizeRequest(Body):
    """Tokens to be put together."""

    tokens: list[Annotated[int, Field(ge=0)]]


@router.post("/tokenize")
def tokenize(asked: TokenizeRequest, request: Request) -> dict[str, Any]:
    """Cut a text into tokens, as a prompt is."""
    model = state_of(request).models.named(asked.model)
    ids = model.tokenizer.encode_prompt(asked.text, special=asked.special)
    spelt = [shown(spelling(model.tokenizer, token)) for token in ids]
    return {"model": model.name, "count": len(ids), "tokens": ids, "texts": spelt}


@router.post("/detokenize")
def detokenize(asked: DetokenizeRequest, request: Request) -> dict[str, Any]:
    """Put tokens together again."""
    model = state_of(request).models.named(asked.model)
    size = model.tokenizer.vocab_size
    if beyond := next((token for token in asked.tokens if token >= size), None):
        raise ApiError(f"tokens: there is no token {beyond} in a vocabulary of {size:,}", param="tokens")
    return {"model": model.name, "text": model.tokenizer.decode(asked.tokens)}
