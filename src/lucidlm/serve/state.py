"""What all endpoints of a server share: its models, settings and measures."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from lucidlm.inference.sequence import SequenceState
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.measures import Measures
from lucidlm.serve.models import Models, ServedModel
from lucidlm.serve.writing import Written


@dataclass(frozen=True)
class ServerState:
    """See the fields' own classes."""

    models: Models
    config: ServeConfig
    measures: Measures

    async def watched(
        self, request: Request, model: ServedModel, rows: Sequence[SequenceState], read: int
    ) -> AsyncGenerator[Written, None]:
        """Yield what `ServedWriter.write` does, and measure it.

        Parameters
        ----------
        read: tokens of the prompts.
        """
        assert model.writer is not None
        note, begun = note_of(request), time.perf_counter()
        note |= {"model": model.name, "prompt_tokens": read, "texts": len(rows)}
        self.measures.prompt_tokens.labels(model.name).inc(read)
        try:
            async with aclosing(model.writer.write(rows)) as written:
                async for one in written:
                    if "first_token_s" not in note:
                        note["first_token_s"] = round(time.perf_counter() - begun, 4)
                        self.measures.first_token.labels(model.name).observe(note["first_token_s"])
                    self.measures.tokens.labels(model.name).inc(one.end - one.first)
                    yield one
        finally:
            note["tokens"] = sum(len(row.tokens) for row in rows)
            if self.config.log_texts:
                texts = [row.text for row in rows]
                note |= {"prompts": [model.tokenizer.decode(row.prompt, False) for row in rows], "written": texts}


def state_of(request: Request) -> ServerState:
    """Return the state of the server that `request` came to."""
    return request.app.state.server


def note_of(request: Request) -> dict[str, Any]:
    """Return what will be logged of a request; endpoints add to it."""
    return request.state.note
