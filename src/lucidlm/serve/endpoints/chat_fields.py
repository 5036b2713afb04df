"""Conversations as requests have them: checked, and turned into messages and prompts."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, field_validator

from lucidlm.serve.errors import ApiError
from lucidlm.serve.fields import Strict, Text
from lucidlm.serve.models import ServedModel
from lucidlm.tokenize.chat_check import refuse_unwritten
from lucidlm.tokenize.conversation import Chat, Message

MOST_MESSAGES = 4096


class Part(Strict):
    """A part of a message: text, as nothing else can be read here."""

    type: Literal["text", "input_text", "output_text"]
    text: Text


class FunctionCall(Strict):
    """What an assistant calls, and with which arguments, as JSON."""

    name: Text
    arguments: Text

    @field_validator("arguments")
    @classmethod
    def _an_object(cls, arguments: str) -> str:
        try:
            found = json.loads(arguments)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError("is no JSON object")
        return arguments


class ToolCall(Strict):
    """A call in an earlier reply."""

    id: Text
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Strict):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    refusal: None = None

    @property
    def message(self) -> Message:
        """The turn as a template sees it."""
        content = self.content
        said = content if isinstance(content, str) else "".join(part.text for part in content or ())
        also: dict[str, Any] = {}
        if self.name is not None:
            also["name"] = self.name
        if self.tool_call_id is not None:
            also["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            calls = [call.model_dump() for call in self.tool_calls]
            for call in calls:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            also["tool_calls"] = calls
        return Message("system" if self.role == "developer" else self.role, said, also)


class Function(Strict):
    """What can be called: its name and, as a JSON schema, its arguments."""

    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Whether calls always have arguments by that schema.")


class Tool(Strict):
    """Something that the assistant may call."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """Which function."""

    name: Text


class NamedTool(Strict):
    """The tool that the assistant is to call."""

    type: Literal["function"]
    function: FunctionName


def chat_prompt(model: ServedModel, messages: list[ChatMessage], tools: list[Tool]) -> list[int]:
    """Return the ids of a conversation up to the assistant's next turn.

    Raises
    ------
    ApiError: there is nothing to reply to, or the model's template knows no tools.
    InputError: the template refuses the conversation, or leaves something out.
    """
    assert model.template is not None
    if messages[-1].role == "assistant":
        raise ApiError("messages: the assistant has spoken last, there is nothing to reply to", param="messages")
    said = [message.message for message in messages]
    described = [tool.model_dump(exclude_none=True) for tool in tools]
    chat = Chat(tuple(said), "messages", tuple(described))
    refuse_unwritten(model.template, chat)
    rendered = model.template.render(said, reply=True, tools=described, where="messages")
    return model.template.encode(rendered)[0]
