"""What the endpoints that write say of every text: why it ended, and how many tokens it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucidlm.inference.sequence import Reason, SequenceState
from lucidlm.serve.errors import FILTERED


def finish_reason(reason: Reason | None) -> str | None:
    """Return what OpenAI's endpoints call a reason; None while there is none."""
    if reason is None:
        return None
    if reason == "guarded":
        return FILTERED
    return "stop" if reason in ("eos", "stop", "complete") else "length"


def usage(read: int, rows: Sequence[SequenceState]) -> dict[str, Any]:
    """Return the counts of tokens: those of the prompts, which are `read` once each, and those written."""
    written = sum(len(row.tokens) for row in rows)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
