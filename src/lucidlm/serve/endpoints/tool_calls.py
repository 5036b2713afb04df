"""Calls of tools in what a model writes, in the form that most are tuned for: `<tool_call>{"name": …}</tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lucidlm.control.grammars import json_rule

if TYPE_CHECKING:
    from lucidlm.serve.endpoints.chat_fields import Function

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ToolCallReader:
    """Takes a text in pieces, and tells what is said from what is called."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, piece: str, *, last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """Return the text that is certain by now, and the calls that are complete.

        Parameters
        ----------
        last: whether nothing follows: what was held back is text then.
        """
        self._held += piece
        said, calls = "", []
        while True:
            start = self._held.find(OPEN)
            if start < 0:
                kept = 0 if last else _beginning(self._held, OPEN)
                said += self._held[: len(self._held) - kept]
                self._held = self._held[len(self._held) - kept :]
                break
            end = self._held.find(CLOSE, start)
            if end < 0 and not last:
                said, self._held = said + self._held[:start], self._held[start:]
                break
            body = self._held[start + len(OPEN) : end if end >= 0 else None]
            after = end + len(CLOSE) if end >= 0 else len(self._held)
            call = _call(body)
            said += self._held[:start] if call is not None else self._held[:after]
            calls += [call] if call is not None else []
            self._held = self._held[after:]
        return (said.rstrip() if calls else said), calls


def call_grammar(tools: Sequence[Function], *, forced: bool, single: bool) -> str:
    """Return the grammar of replies that call these tools as they are described.

    Parameters
    ----------
    forced: whether a reply calls one, and says nothing else.
    single: whether it calls one at most.

    Raises
    ------
    InputError: what describes the arguments is no schema that a text can be held to.
    """
    begun = f"/\\s*{OPEN}/" if forced else "said"
    called = f'{begun} call "{CLOSE}"'
    lines = [f"TEXT: /(?s:.*)/ & ~/(?s:.*{OPEN}.*)/", f'said[lazy]: TEXT "{OPEN}"', r"SPACE: /[ \t\r\n]{0,40}/"]
    if forced:
        lines.append(f"start: {called}" if single else f"start: ({called})+")
    else:
        lines.append(f"start: ({called}){'?' if single else '*'} TEXT")
    lines.append(f"call: {' | '.join(f'call_{index}' for index, _ in enumerate(tools))}")
    for index, tool in enumerate(tools):
        name, where = json.dumps(tool.name, ensure_ascii=False), f"tools.{index}.function.parameters"
        arguments = json_rule(tool.parameters or {"type": "object"}, where)
        parts = ['"{"', '"\\"name\\""', '":"', json.dumps(name), '","', '"\\"arguments\\""', '":"', arguments, '"}"']
        lines.append(f"call_{index}: SPACE {' SPACE '.join(parts)} SPACE")
    return "\n".join(lines)


def _beginning(text: str, mark: str) -> int:
    """Return how many of the last characters of `text` may begin `mark`."""
    return next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)


def _call(body: str) -> dict[str, Any] | None:
    """Return a call as OpenAI's endpoints have it, or None if it is none."""
    try:
        found = json.loads(body)
        name, arguments = found["name"], found.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(name, str):
        return None
    said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": said}}
