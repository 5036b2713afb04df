"""Whether a chat template writes all of a conversation: what it fails on or leaves out is refused, by row and turn.

Templates are programs that read what they know and pass over the rest (tools, names, whole turns). So each thing that is
said gets a mark, and has to bring its mark through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.tokenize.chat_template import ChatTemplate, free_characters, located, strings
from lucidlm.tokenize.conversation import Chat, Message

Tag = Callable[[str, str | None], str]
"""Takes what is said and where, and returns the mark to put behind it."""


def refuse_unwritten(template: ChatTemplate, chat: Chat) -> None:
    """Do nothing if the template writes all that a conversation says.

    What an assistant says plainly is not looked at: `ChatTemplate.render` does where it counts, and elsewhere templates
    leave out what was only thought.

    Raises
    ------
    InputError: the template fails, or leaves out what somebody says, a name, a call of a tool, thoughts or the tools.
    """
    free = free_characters("".join(strings([chat.tools, *((one.content, one.also) for one in chat.messages)])))
    marks: dict[str, tuple[str, str | None]] = {}

    def tag(what: str, where: str | None) -> str:
        mark = next(free)
        marks[mark] = what, where
        return mark

    written = _written(template, _tagged(chat, tag))
    if written is None:
        _refuse_failing(template, chat)
    for mark in marks:
        if mark not in (written or "") and not _writes(template, chat, mark, iter(marks)):
            what, where = marks[mark]
            fix = "Leave it out, or choose a model whose template has a place for it."
            raise InputError(f"the chat template leaves out {what}", where=where, fix=fix)


def _writes(template: ChatTemplate, chat: Chat, mark: str, order: Iterator[str]) -> bool:
    """Return whether the template brings one mark through, or reads it at least, as it does not like it."""
    written = _written(template, _tagged(chat, lambda *_: mark if next(order) == mark else ""))
    return written is None or mark in written


def _written(template: ChatTemplate, chat: Chat) -> str | None:
    try:
        return template.render(chat.messages, tools=chat.tools, reply=False).text
    except InputError:
        return None


def _refuse_failing(template: ChatTemplate, chat: Chat) -> None:
    """Do nothing if the template does not fail on the conversation, but on its marks; else say at which turn it does."""
    try:
        template.render(chat.messages, tools=chat.tools, reply=False, where=chat.where)
    except InputError as error:
        for count in range(1, len(chat.messages) + 1):
            try:
                template.render(chat.messages[:count], tools=chat.tools, reply=False)
            except InputError as earlier:
                if earlier.what == error.what:
                    where = located(chat.where, chat.messages[count - 1])
                    raise InputError(error.what, where=where, fix=error.fix) from None
        raise


def _tagged(chat: Chat, tag: Tag) -> Chat:
    """Return the conversation with a mark behind each thing that a template may leave out."""
    called: set[str] = set()
    messages = []
    for message in chat.messages:
        messages.append(_tagged_message(message, located(chat.where, message), called, tag))
        called |= {call["function"]["name"] for call in message.also.get("tool_calls", ())}
    where = ", ".join(filter(None, (chat.where, "the tools")))
    return replace(chat, messages=tuple(messages), tools=tuple(_tagged_tool(tool, where, tag) for tool in chat.tools))


def _tagged_message(message: Message, where: str | None, called: set[str], tag: Tag) -> Message:
    also = dict(message.also)
    content = message.content
    plain = message.role == "assistant" and not also.keys() & {"tool_calls", "reasoning_content"}
    if (content and not plain) or message.role == "tool":
        content += tag("what a tool returned" if message.role == "tool" else f"what the {message.role} says", where)
    # The name of a tool that was just called says nothing new beside what it returned.
    if "name" in also and not (message.role == "tool" and also["name"] in called):
        also["name"] += tag(f"the {message.role}'s name", where)
    if "reasoning_content" in also:
        also["reasoning_content"] += tag("what the assistant thinks", where)
    if "tool_calls" in also:
        also["tool_calls"] = [_tagged_call(call, where, tag) for call in also["tool_calls"]]
    return replace(message, content=content, also=also)


def _tagged_call(call: Mapping[str, Any], where: str | None, tag: Tag) -> dict[str, Any]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    what = f"the call of {name}"
    mark = tag(what, where)
    inner = tag(f"what {name} is called with", where)
    if inner and isinstance(arguments, str):
        arguments = json.dumps({**json.loads(arguments), inner: inner}, ensure_ascii=False)
    elif inner:
        arguments = {**arguments, inner: inner}
    return {**call, "function": {"name": name + mark, "arguments": arguments}}


def _tagged_tool(tool: Mapping[str, Any], where: str, tag: Tag) -> dict[str, Any]:
    function = dict(tool["function"])
    for key in ("name", "description"):
        if function.get(key):
            function[key] += tag(f"the {key} of the tool {tool['function']['name']}", where)
    return {**tool, "function": function}
