"""Conversations in their published forms, read as messages: OpenAI's form, ShareGPT's, Alpaca's, and transcripts.

What changes a conversation and is not understood is refused by name. Fields and keys that hold nothing (null, an empty
list) are taken for missing, as tables fill up what a row lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import SURROGATES, Row
from lucidlm.tokenize.conversation import Chat, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""The roles, by the names that data have for them."""

CALLING = ("function_call", "tool_call")
"""Roles whose turns hold calls of tools, as JSON."""

LISTS = ("messages", "conversations", "conversation")
ASKED, ABOUT, ANSWERED = (
    ("instruction", "prompt", "query", "question"),
    ("input", "context"),
    ("output", "completion", "response", "answer"),
)
TRANSCRIPTS = ("document", "dialogue")
SYSTEM = ("system", "system_prompt")
TOOLS = ("tools", "functions")
FIELDS = (
    *(*LISTS, *ASKED, *ABOUT, *ANSWERED, "history"),
    *(*TRANSCRIPTS, *SYSTEM, *TOOLS),
)
"""The fields of a row that are read."""

UNREAD = (
    *("image", "images", "audio", "audios", "video", "videos", "documents"),
    *("chosen", "rejected", "response_format", "chat_template_kwargs"),
)
"""Fields that would change what a conversation says, and that no model here can be given."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What data call what an assistant thinks before it speaks."""

KNOWN = ("name", "tool_calls", "tool_call_id", "function_call", "weight", *THOUGHTS)
"""Keys of a turn, besides who says what."""

TEXT_PARTS = ("text", "input_text", "output_text")

SPEAKERS = tuple(
    re.compile(pattern, re.MULTILINE) for pattern in (r"^#(\w+)#[ \t]*[:：][ \t]*", r"^(\w[\w .'-]{0,30})[:：][ \t]*")
)
"""Who says a line of a transcript, `#Person1#: …` or `Amanda: …`: the form of the first line is that of all."""


def read_chat(row: Row) -> Chat:
    """Turn a row into a conversation, up to the last turn of the assistant that counts.

    Raises
    ------
    InputError: it is of no known form, something in it is not understood, or the assistant says nothing that counts.
    """
    for name in UNREAD:
        if row.fields.get(name):
            raise InputError(f'field "{name}" is not understood', where=row.where, fix="Leave it out, if it may be.")
    if any(map(row.has, ASKED)) and any(map(row.has, ANSWERED)) and not any(map(row.has, LISTS)):
        found = _exchanged(row)
    elif any(map(row.has, TRANSCRIPTS)) and not any(map(row.has, LISTS)):
        found = _transcribed(row, next(filter(row.has, TRANSCRIPTS)))
    else:
        found = _listed(row, next(filter(row.has, LISTS), LISTS[0]))
    found = _results_in_order([*_told(row, found), *found], row.where)
    said = [place for place, message in enumerate(found) if message.role == "assistant"]
    if not said:
        raise InputError("the assistant says nothing", where=row.where, fix="Leave the conversation out.")
    if not (counting := [place for place in said if found[place].counts]):
        raise InputError("all that the assistant says has weight 0", where=row.where, fix="Leave the conversation out.")
    if not counting[-1]:
        fix = "Leave the conversation out."
        raise InputError("nobody says anything that the assistant could reply to", where=row.where, fix=fix)
    return Chat(tuple(found[: counting[-1] + 1]), row.where, _tools(row))


# ---------------------------------------------------------------------- lists of turns


def _listed(row: Row, name: str) -> list[Message]:
    turns = row.value(name)
    if not isinstance(turns, list) or not turns:
        raise InputError(f'field "{row.names.get(name, name)}" is not a list of messages', where=row.where)
    return [_message(turn, row.where, f"turn {number}") for number, turn in enumerate(turns, 1)]


def _message(turn: Any, where: str, place: str) -> Message:
    where = f"{where}, {place}"
    turn = {key: value for key, value in turn.items() if _holds(key, value)} if isinstance(turn, dict) else {}
    who, what = ("from", "value") if "from" in turn else ("role", "content")
    if who not in turn or not turn.keys() & {what, "tool_calls", "function_call"}:
        what = 'is not an object with "role" and "content", nor with "from" and "value"'
        raise InputError(what, where=where)
    if unknown := sorted(turn.keys() - {who, what, *KNOWN}):
        fix = f"Leave it out, if it may be: the keys of a turn are {', '.join((who, what, *KNOWN))}."
        raise InputError(f'"{unknown[0]}" is not understood', where=where, fix=fix)
    role = ROLES.get(turn[who].lower()) if isinstance(turn[who], str) else None
    if role is None:
        raise InputError(f"is spoken by {turn[who]!r}", where=where, fix=f"Roles are {', '.join(ROLES)}.")
    if turn[who].lower() in CALLING:
        called = _parsed(turn.pop(what, None), "the call", where)
        turn["tool_calls"] = called if isinstance(called, list) else [called]
    also = _besides(turn, role, where)
    if "tool_calls" in also and what not in turn:
        content = ""
    else:
        content = _content(turn.get(what), what, where, may_be_blank="tool_calls" in also or role == "tool")
    return Message(role, content, also, _counts(turn.get("weight"), role, where), place)


def _holds(key: str, value: Any) -> bool:
    return value not in (None, [], {}) and (value != "" or key in ("content", "value"))


def _content(value: Any, what: str, where: str, *, may_be_blank: bool) -> str:
    """Return a text, or the texts of a list of parts, put together as chat templates do: with nothing between."""
    if isinstance(value, list):
        for number, part in enumerate(value, 1):
            if (
                not isinstance(part, dict)
                or part.get("type") not in TEXT_PARTS
                or not isinstance(part.get("text"), str)
            ):
                kind = part.get("type") if isinstance(part, dict) else part
                raise InputError(f"part {number} is no text but {kind!r}", where=where, fix="Only texts are read.")
        value = "".join(part["text"] for part in value)
    if may_be_blank and isinstance(value, str) and not value.strip():
        return value
    return Row({what: value}, where).text(what)


def _counts(weight: Any, role: str, where: str) -> bool:
    if weight not in (None, 0, 1):
        raise InputError(f"has weight {weight!r}", where=where, fix="A turn counts (1) or it does not (0).")
    if weight and role != "assistant":
        raise InputError(
            f"has weight 1, but is the {role}'s", where=where, fix="Only what the assistant says is learned."
        )
    return role != "assistant" or weight is None or bool(weight)


def _besides(turn: Mapping[str, Any], role: str, where: str) -> dict[str, Any]:
    """Return what a turn has besides its content, in the form that chat templates know."""
    owners = {"tool_calls": "assistant", "function_call": "assistant", "tool_call_id": "tool"}
    owners |= dict.fromkeys(THOUGHTS, "assistant")
    for key, owner in owners.items():
        if key in turn and role != owner:
            raise InputError(f'"{key}" is for the {owner}, and this is the {role}\'s', where=where)
    also = {key: turn[key] for key in ("name", "tool_call_id") if key in turn}
    if thoughts := next((turn[key] for key in THOUGHTS if key in turn), None):
        also["reasoning_content"] = thoughts
    for key, value in also.items():
        if not isinstance(value, str):
            raise InputError(f'"{key}" holds a {type(value).__name__}, not a string', where=where)
    calls = turn.get("tool_calls") or [turn[key] for key in ("function_call",) if key in turn]
    if not isinstance(calls, list):
        raise InputError('"tool_calls" is not a list', where=where)
    if calls:
        also["tool_calls"] = [_call(call, where) for call in calls]
    return _whole(also, where)


def _call(call: Any, where: str) -> dict[str, Any]:
    """Return a call of a tool in OpenAI's form; the arguments are an object, or the JSON of one."""
    fix = 'Write {"type": "function", "function": {"name": …, "arguments": {…}}}.'
    if isinstance(call, dict) and "function" not in call:
        called = {key: call[key] for key in ("name", "arguments") if key in call}
        call = {key: value for key, value in call.items() if key not in called} | {"function": called}
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InputError("a call of a tool does not name it", where=where, fix=fix)
    unknown = [*(call.keys() - {"id", "type", "index", "function"}), *(function.keys() - {"name", "arguments"})]
    if unknown or call.get("type") not in (None, "function"):
        what = f'"{min(unknown)}"' if unknown else f"the type {call['type']!r}"
        raise InputError(f"{what} of a tool's call is not understood", where=where, fix=fix)
    arguments = function.get("arguments") or {}
    if not isinstance(_parsed(arguments, "what a tool is called with", where), dict):
        raise InputError(f"the tool {function['name']} is called with no object", where=where, fix=fix)
    known = {key: call[key] for key in ("id",) if call.get(key) is not None}
    return {**known, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _results_in_order(messages: list[Message], where: str) -> list[Message]:
    """Return the messages with the results of tools in the order of their calls, as few templates write which is whose."""
    found: list[Message] = []
    calls: list[Any] = []
    for message in messages:
        found.append(message)
        if message.role != "tool":
            calls, start = [call.get("id") for call in message.also.get("tool_calls", ())], len(found)
        elif any(calls) and (answered := message.also.get("tool_call_id")) is not None:
            if answered not in calls:
                raise InputError(f"{answered!r} is the id of no call before it", where=f"{where}, {message.place}")
            results = found[start:]
            if all(one.also.get("tool_call_id") in calls for one in results):
                found[start:] = sorted(results, key=lambda one: calls.index(one.also["tool_call_id"]))
    return found


def _parsed(value: Any, what: str, where: str) -> Any:
    """Return what a string of JSON says; anything else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{what} is not valid JSON ({error})", where=where) from None


def _whole(value: Any, where: str) -> Any:
    if SURROGATES.search(json.dumps(value, ensure_ascii=False, default=str)):
        raise InputError("holds half of a character (a lone surrogate)", where=where)
    return value


# ---------------------------------------------------------------------- what stands beside a conversation


def _told(row: Row, messages: list[Message]) -> list[Message]:
    """Return what the system says, if that stands beside the conversation and not in it."""
    name = next(filter(row.has, SYSTEM), None)
    if name is None or row.value(name) == "":
        return []
    said, first = row.text(name), messages[0]
    if first.role == "system" and first.content.strip() == said.strip():
        return []
    called = row.names.get(name, name)
    if first.role == "system":
        what = f'field "{called}" and {first.place} say different things for the system'
        raise InputError(what, where=row.where, fix="Leave one of them out.")
    return [Message("system", said, place=f'field "{called}"')]


def _tools(row: Row) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a row has beside its conversation, a list or the JSON of one, in OpenAI's form."""
    name = next(filter(row.has, TOOLS), None)
    if name is None or row.value(name) == "":
        return ()
    where = f'{row.where}, field "{row.names.get(name, name)}"'
    listed = _parsed(row.value(name), "the list of tools", where)
    if not isinstance(listed, list):
        raise InputError("is not a list of tools", where=where)
    found = []
    for number, tool in enumerate(listed, 1):
        if isinstance(tool, dict) and "name" in tool and "function" not in tool:
            tool = {"type": "function", "function": tool}
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            fix = 'Write {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}.'
            raise InputError(f"tool {number} is no function with a name", where=where, fix=fix)
        found.append(_whole(tool, where))
    return tuple(found)


# ---------------------------------------------------------------------- other forms


def _exchanged(row: Row) -> list[Message]:
    """Return a task and its answer, with what the task is about and the exchanges before it."""
    messages = []
    for number, exchange in enumerate(row.value("history") if row.has("history") else [], 1):
        where = f'{row.where}, field "history", exchange {number}'
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise InputError("is not a pair of texts", where=where, fix="Write [what is asked, the reply].")
        pair = zip(("user", "assistant"), exchange, strict=True)
        messages += [
            Message(role, Row({role: said}, where).text(role), place=f"exchange {number}") for role, said in pair
        ]
    asked, answered = (next(filter(row.has, names)) for names in (ASKED, ANSWERED))
    about = [row.text(name) for name in ABOUT if row.has(name) and row.value(name) != ""]
    task = "\n".join([row.text(asked), *about])
    place = [f'field "{row.names.get(name, name)}"' for name in (asked, answered)]
    return [*messages, Message("user", task, place=place[0]), Message("assistant", row.text(answered), place=place[1])]


def _transcribed(row: Row, name: str) -> list[Message]:
    """Return the turns of two speakers, a line each or several, the first of whom is the user."""
    text = row.text(name).strip()
    speakers: list[str] = []
    found: list[Message] = []
    marks = next((list(form.finditer(text)) for form in SPEAKERS if form.match(text)), [])
    if not marks:
        called = row.names.get(name, name)
        raise InputError(
            f'field "{called}" does not name who speaks', where=row.where, fix='Lines begin "#Person1#: ".'
        )
    for this, following in zip(marks, [*marks[1:], None], strict=True):
        if this[1] not in speakers:
            speakers.append(this[1])
        if len(speakers) > 2:
            raise InputError(
                f"{speakers[2]} is a third speaker", where=row.where, fix="Leave it out: conversations have two sides."
            )
        said = text[this.end() : following.start() if following else None].strip()
        if not said:
            raise InputError(f"a turn of {this[1]} is empty", where=row.where)
        role = ("user", "assistant")[speakers.index(this[1])]
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n{said}")
        else:
            found.append(Message(role, said))
    return found
