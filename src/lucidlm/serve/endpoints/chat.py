"""`/v1/chat/completions`: what the assistant says next in a conversation."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import AsyncGenerator
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, model_validator

from lucidlm.control.config import ConstraintConfig
from lucidlm.inference.sequence import Reason, SequenceState
from lucidlm.serve.constraint_fields import ConstrainedBody
from lucidlm.serve.endpoints.chat_fields import MOST_MESSAGES, ChatMessage, NamedTool, Tool, chat_prompt
from lucidlm.serve.endpoints.texts import finish_reason, usage
from lucidlm.serve.endpoints.token_text import chat_logprobs
from lucidlm.serve.endpoints.tool_calls import ToolCallReader, call_grammar
from lucidlm.serve.errors import ApiError
from lucidlm.serve.events import DONE, event, sent, unless_gone
from lucidlm.serve.fields import MOST_LOGPROBS, SamplingBody
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import state_of
from lucidlm.serve.writing import Written

router = APIRouter()


class ChatRequest(ConstrainedBody):
    """A conversation, and how to go on with it."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES, description="The turns so far.")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of a reply; left out: what fits.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The same, by its newer name.")
    logprobs: bool = Field(default=False, description="Tell how likely each token was.")
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS, description="And so many likeliest ones.")
    tools: list[Tool] | None = Field(default=None, description="What the assistant may call.")
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(
        default=None, description="Whether the assistant may call something, has to, or which of the tools it calls."
    )
    parallel_tool_calls: bool | None = Field(default=None, description="False: one call at most.")

    @model_validator(mode="after")
    def _agreeing(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are the same, and differ")
        return self

    @property
    def callable(self) -> list[Tool]:
        """The tools that the assistant may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def held_to(self) -> ConstraintConfig:
        """What the reply has to be.

        Raises
        ------
        ApiError: that is said in two ways, or a tool has to be called that is not there.
        """
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        tools = [tool.function for tool in self.callable if named in (None, tool.function.name)]
        forced = named is not None or self.tool_choice == "required"
        if forced and not tools:
            wanted = "one of them" if named is None else repr(named)
            raise ApiError(f"tool_choice: {wanted} is to be called, and not among the tools", param="tool_choice")
        single = named is not None or self.parallel_tool_calls is False
        held = forced or (tools and (single or any(tool.strict for tool in tools)))
        return self.constraint(call_grammar(tools, forced=forced, single=single) if held else None)

    @property
    def length(self) -> int | None:
        """Most tokens of a reply."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


@router.post("/v1/chat/completions")
async def chat_completions(asked: ChatRequest, request: Request) -> Response:
    """Reply to a conversation."""
    state = state_of(request)
    asked.refuse_useless_options()
    model = state.models.able(asked.model, "chat")
    ids = await to_thread(chat_prompt, model, asked.messages, asked.callable)
    await model.admit([said.message.text for said in asked.messages], "messages")
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    rows = await to_thread(reply_rows, model, ids, asked, asked.length, asked.held_to, logprobs)
    answer = _Reply(model, rows, logprobs=asked.logprobs, tools=bool(asked.callable))
    written = state.watched(request, model, rows, len(ids))
    if asked.stream:
        return await sent(request, answer.events(written, asked.wants_usage), state.config.timeout)
    return JSONResponse(await unless_gone(request, answer.whole(written), state.config.timeout))


def reply_rows(
    model: ServedModel,
    ids: list[int],
    asked: SamplingBody,
    length: int | None,
    constraint: ConstraintConfig,
    logprobs: int | None = None,
) -> list[SequenceState]:
    """Return the replies that are to be written to a prompt.

    Raises
    ------
    InputError: the prompt does not fit, or the constraint is none.
    ApiError: there is no vector of a name to steer by.
    """
    assert model.writer is not None
    assert model.template is not None
    sampling = asked.sampling(model.writer.defaults, length or model.writer.context, logprobs)
    end = model.template.end
    ends = () if end is None else (end,)
    return model.writer.rows([ids] * asked.n, sampling, constraint, ends, asked.steer)


class _Reply:
    """An answer in the making."""

    def __init__(self, model: ServedModel, rows: list[SequenceState], *, logprobs: bool, tools: bool) -> None:
        self._model, self._rows, self._logprobs = model, rows, logprobs
        self._id, self._created = f"chatcmpl-{uuid4().hex}", int(time.time())
        self._readers = [ToolCallReader() if tools else None for _ in rows]
        self._calls = [0] * len(rows)

    async def whole(self, written: AsyncGenerator[Written, None]) -> dict[str, Any]:
        """Return the answer, once it is complete."""
        async for _ in written:
            pass
        choices = []
        for index, (row, reader) in enumerate(zip(self._rows, self._readers, strict=True)):
            found = row.generation()
            said, calls = (found.text, []) if reader is None else reader.push(found.text, last=True)
            message: dict[str, Any] = {"role": "assistant", "content": said or (None if calls else ""), "refusal": None}
            if calls:
                message["tool_calls"] = calls
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": self._likelihoods(row, 0, row.released_tokens),
                    "finish_reason": self._finish_reason(found.reason, called=bool(calls)),
                }
            )
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(self._read, self._rows)}

    async def events(self, written: AsyncGenerator[Written, None], counted: bool) -> AsyncGenerator[str, None]:
        """Yield it as events."""
        head = {**self._head("chat.completion.chunk"), **({"usage": None} if counted else {})}
        begun = [False] * len(self._rows)
        async for one in written:
            index, last = one.choice, one.news.reason is not None
            said, calls = self._read_piece(index, one.news.piece, last)
            delta: dict[str, Any] = {} if begun[index] else {"role": "assistant", "content": ""}
            begun[index] = True
            if said:
                delta["content"] = said
            if calls:
                delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls, self._calls[index])]
                self._calls[index] += len(calls)
            logprobs = self._likelihoods(one.row, one.first, one.end)
            if not (delta or last or (logprobs and one.end > one.first)):
                continue
            reason = self._finish_reason(one.news.reason, called=self._calls[index] > 0)
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            yield event({**head, "choices": [choice]})
        if counted:
            yield event({**head, "choices": [], "usage": usage(self._read, self._rows)})
        yield DONE

    @property
    def _read(self) -> int:
        return len(self._rows[0].prompt)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model.name}

    @staticmethod
    def _finish_reason(reason: Reason | None, *, called: bool) -> str | None:
        return "tool_calls" if called and reason not in (None, "guarded") else finish_reason(reason)

    def _read_piece(self, index: int, piece: str, last: bool) -> tuple[str, list[dict[str, Any]]]:
        reader = self._readers[index]
        return (piece, []) if reader is None else reader.push(piece, last=last)

    def _likelihoods(self, row: SequenceState, first: int, end: int) -> dict[str, Any] | None:
        return chat_logprobs(self._model.tokenizer, row, first, end) if self._logprobs else None
