"""What a chat template writes: the turns of a conversation, and the tools in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Parameters
    ----------
    role: "system", "user", "assistant" or "tool".
    content: what is said; an assistant that calls tools may say nothing.
    also: what else a chat template is told, by its names: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`.
    counts: whether a model is to learn it, if the assistant says it.
    place: which turn of its row it is, for error messages.
    """

    role: str
    content: str
    also: Mapping[str, Any] = field(default_factory=dict, hash=False)
    counts: bool = True
    place: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """What is said and, a line each, the tools that are called, as JSON."""
        calls = (call.get("function", call) for call in self.also.get("tool_calls", ()))
        return "\n".join([*filter(None, [self.content]), *(json.dumps(call, ensure_ascii=False) for call in calls)])


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, and the tools that the assistant may call, each as its JSON schema."""

    messages: tuple[Message, ...]
    where: str
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
