"""Calls of tools in what a model writes, in the form that most are tuned for: `<tool_call>{"name": …}</tool_call>`."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

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
