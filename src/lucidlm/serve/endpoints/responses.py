"""`/v1/responses`: OpenAI's newer protocol for replies; nothing is kept between two requests."""

from __future__ import annotations

import json
import time
from asyncio import to_thread
from collections.abc import AsyncGenerator
from itertools import count
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, field_validator

from lucidlm.control.config import ConstraintConfig
from lucidlm.inference.sequence import SequenceState
from lucidlm.serve.constraint_fields import TextFormat, schema_of
from lucidlm.serve.endpoints.chat import reply_rows
from lucidlm.serve.endpoints.chat_fields import MOST_MESSAGES, ChatMessage, Part, chat_prompt
from lucidlm.serve.errors import FILTERED
from lucidlm.serve.events import event, sent, unless_gone
from lucidlm.serve.fields import STEERING, Body, SamplingBody, Steering, Strict, Text
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import state_of
from lucidlm.serve.writing import Written

router = APIRouter()


class InputItem(Strict):
    """A turn of a conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]


class TextOptions(Strict):
    """What a reply has to be."""

    format: TextFormat | None = None


class ResponsesRequest(Body):
    """A conversation, and how to go on with it."""

    input: Text | list[InputItem] = Field(description="What the user says, or the turns so far.")
    instructions: Text | None = Field(default=None, description="What the assistant is told before the conversation.")
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    text: TextOptions | None = Field(default=None, description="What the reply has to be.")
    steer: Steering | None = Field(default=None, description=STEERING)
    stream: bool = False
    store: Literal[False] | None = Field(default=None, description="Nothing is kept.")
    metadata: dict[str, Text] | None = Field(default=None, description="Given back as it is.")

    @field_validator("input")
    @classmethod
    def _something(cls, given: str | list[InputItem]) -> str | list[InputItem]:
        if isinstance(given, list) and not 1 <= len(given) <= MOST_MESSAGES:
            raise ValueError(f"1 to {MOST_MESSAGES:,} turns")
        return given

    @property
    def messages(self) -> list[ChatMessage]:
        """The conversation."""
        told = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        if isinstance(self.input, str):
            return [*told, ChatMessage(role="user", content=self.input)]
        return [*told, *(ChatMessage(role=one.role, content=one.content) for one in self.input)]

    @property
    def sampling_body(self) -> SamplingBody:
        """How to write."""
        return SamplingBody(temperature=self.temperature, top_p=self.top_p, steer=self.steer)


@router.post("/v1/responses")
async def responses(asked: ResponsesRequest, request: Request) -> Response:
    """Reply to a conversation."""
    state = state_of(request)
    model = state.models.able(asked.model, "chat")
    ids = await to_thread(chat_prompt, model, asked.messages, [])
    await model.admit([said.message.text for said in asked.messages], "input")
    schema = None if asked.text is None else schema_of(asked.text.format)
    held = ConstraintConfig(json_schema=None if schema is None else json.dumps(schema))
    (row,) = await to_thread(reply_rows, model, ids, asked.sampling_body, asked.max_output_tokens, held)
    answer = _Response(model, asked, row)
    written = state.watched(request, model, [row], len(ids))
    if asked.stream:
        return await sent(request, answer.events(written), state.config.timeout)
    return JSONResponse(await unless_gone(request, answer.whole(written), state.config.timeout))


class _Response:
    """An answer in the making."""

    def __init__(self, model: ServedModel, asked: ResponsesRequest, row: SequenceState) -> None:
        self._row, self._message = row, f"msg_{uuid4().hex}"
        self._head = {
            "id": f"resp_{uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model.name,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "temperature": row.config.temperature,
            "top_p": row.config.top_p,
            "metadata": asked.metadata or {},
            "store": False,
            "tools": [],
            "tool_choice": "none",
            "parallel_tool_calls": True,
            "error": None,
        }

    async def whole(self, written: AsyncGenerator[Written, None]) -> dict[str, Any]:
        """Return the answer, once it is complete."""
        async for _ in written:
            pass
        return self._complete()

    async def events(self, written: AsyncGenerator[Written, None]) -> AsyncGenerator[str, None]:
        """Yield it as events."""
        numbers = count()
        place = {"item_id": self._message, "output_index": 0, "content_index": 0}

        def named(name: str, **fields: Any) -> str:
            return event({"type": name, "sequence_number": next(numbers), **fields}, name)

        begun = False
        async for one in written:
            if not begun:
                begun = True
                started = {
                    **self._head,
                    "status": "in_progress",
                    "output": [],
                    "usage": None,
                    "incomplete_details": None,
                }
                yield named("response.created", response=started)
                yield named("response.in_progress", response=started)
                yield named(
                    "response.output_item.added", output_index=0, item=self._item("", "in_progress", empty=True)
                )
                yield named("response.content_part.added", **place, part=_part(""))
            if one.news.piece:
                yield named("response.output_text.delta", **place, delta=one.news.piece, logprobs=[])
        text, status = self._row.text, self._status
        yield named("response.output_text.done", **place, text=text, logprobs=[])
        yield named("response.content_part.done", **place, part=_part(text))
        yield named("response.output_item.done", output_index=0, item=self._item(text, status))
        yield named(f"response.{status}", response=self._complete())

    @property
    def _status(self) -> Literal["completed", "incomplete"]:
        return "completed" if self._row.reason in ("eos", "stop", "complete") else "incomplete"

    def _item(self, text: str, status: str, *, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [_part(text)]
        return {"id": self._message, "type": "message", "role": "assistant", "status": status, "content": content}

    def _complete(self) -> dict[str, Any]:
        read, written, status = len(self._row.prompt), len(self._row.tokens), self._status
        reason = FILTERED if self._row.reason == "guarded" else "max_output_tokens"
        cut = {"reason": reason} if status == "incomplete" else None
        return {
            **self._head,
            "status": status,
            "incomplete_details": cut,
            "output": [self._item(self._row.text, status)],
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + written,
            },
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
