"""`/v1/completions`: texts that go on from prompts."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, field_validator

from lucidlm.inference.sequence import SequenceState
from lucidlm.serve.constraint_fields import ConstrainedBody
from lucidlm.serve.endpoints.texts import finish_reason, usage
from lucidlm.serve.endpoints.token_text import completion_logprobs
from lucidlm.serve.errors import ApiError
from lucidlm.serve.events import DONE, event, sent, unless_gone
from lucidlm.serve.fields import MOST_CHOICES, MOST_LOGPROBS, Text
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import state_of
from lucidlm.serve.writing import Written

router = APIRouter()

LENGTH = 16
"""Tokens that are written where a request does not say how many, as OpenAI's endpoint has it."""

MOST_PROMPTS = 128

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(ConstrainedBody):
    """Prompts, and how to go on with them."""

    prompt: Text | Tokens | list[Text] | list[Tokens] = Field(description="A prompt or several: texts or token ids.")
    max_tokens: int = Field(default=LENGTH, ge=1, description="Most tokens of each text.")
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS, description="So many likeliest tokens a place.")

    @field_validator("prompt")
    @classmethod
    def _some_prompts(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and not len(prompt) >= 1:
            raise ValueError("there is none")
        return prompt

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, whatever form they have."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]
        return list(self.prompt)  # pyright: ignore[reportReturnType]


@router.post("/v1/completions")
async def completions(asked: CompletionRequest, request: Request) -> Response:
    """Continue prompts."""
    state = state_of(request)
    asked.refuse_useless_options()
    model = state.models.able(asked.model, "completions")
    assert model.writer is not None
    if len(asked.prompts) > MOST_PROMPTS or len(asked.prompts) * asked.n > MOST_PROMPTS * MOST_CHOICES // 4:
        raise ApiError("prompt: too many texts in one request", param="prompt")
    sampling = asked.sampling(model.writer.defaults, asked.max_tokens, asked.logprobs)
    texts = [one if isinstance(one, str) else model.tokenizer.decode(one) for one in asked.prompts]
    await model.admit(texts, "prompt")
    prompts = [prompt for prompt in asked.prompts for _ in range(asked.n)]
    rows = await to_thread(model.writer.rows, prompts, sampling, asked.constraint(), steering=asked.steer)
    read = sum(len(row.prompt) for row in rows[:: asked.n])
    answer = _Completion(model, rows, read, logprobs=asked.logprobs is not None)
    written = state.watched(request, model, rows, read)
    if asked.stream:
        return await sent(request, answer.events(written, asked.wants_usage), state.config.timeout)
    return JSONResponse(await unless_gone(request, answer.whole(written), state.config.timeout))


class _Completion:
    """An answer in the making."""

    def __init__(self, model: ServedModel, rows: list[SequenceState], read: int, *, logprobs: bool) -> None:
        self._model, self._rows, self._read, self._logprobs = model, rows, read, logprobs
        self._head = {
            "id": f"cmpl-{uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }
        self._said = [0] * len(rows)

    async def whole(self, written: AsyncGenerator[Written, None]) -> dict[str, Any]:
        """Return the answer, once it is complete."""
        async for _ in written:
            pass
        choices = []
        for index, row in enumerate(self._rows):
            found = row.generation()
            logprobs = (
                completion_logprobs(self._model.tokenizer, row, 0, row.released_tokens, 0) if self._logprobs else None
            )
            choices.append(self._choice(index, found.text, logprobs, finish_reason(found.reason)))
        return {**self._head, "choices": choices, "usage": usage(self._read, self._rows)}

    async def events(self, written: AsyncGenerator[Written, None], counted: bool) -> AsyncGenerator[str, None]:
        """Yield it as events."""
        async for one in written:
            new, last = one.end > one.first, one.news.reason is not None
            if not (one.news.piece or last or (new and self._logprobs)):
                continue
            logprobs = None
            if self._logprobs:
                tokenizer = self._model.tokenizer
                logprobs = completion_logprobs(tokenizer, one.row, one.first, one.end, self._said[one.choice])
                self._said[one.choice] += sum(map(len, logprobs["tokens"]))
            choice = self._choice(one.choice, one.news.piece, logprobs, finish_reason(one.news.reason))
            yield event({**self._head, "choices": [choice], **({"usage": None} if counted else {})})
        if counted:
            yield event({**self._head, "choices": [], "usage": usage(self._read, self._rows)})
        yield DONE

    @staticmethod
    def _choice(index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
