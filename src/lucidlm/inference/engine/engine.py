"""The engine: takes requests at any time, reads and writes all of them together, a token each a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, count

import torch
from torch import Tensor

from lucidlm.core.errors import LucidError
from lucidlm.inference.engine.backend import Backend
from lucidlm.inference.engine.blocks import BlockPool
from lucidlm.inference.engine.draft_model import DraftModel, ModelDrafter
from lucidlm.inference.engine.prompt_lookup import Drafter, PromptLookup
from lucidlm.inference.engine.scheduler import Entry, Scheduler
from lucidlm.inference.guard import Guard
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import SequenceState

MOST_RUNNING = 128
"""Sequences read at a time: more of them are hardly faster on a CPU."""

MOST_TOKENS = 2048
"""Tokens read in a step: as many as keep a CPU busy."""


class Engine:
    """Sequences that are continued together, each by its own settings; what else runs does not change a text.

    Parameters
    ----------
    backend: what computes; its cache has room for the longest sequence at least.
    most_tokens: how many tokens are read in a step: fewer let those that are being written to wait less for the prompts
        of others.
    drafts: whether tokens are drafted where few sequences are written, see `PromptLookup`.
    draft_model: drafts them where nothing is found to repeat.
    guard: what all texts have to pass before they are released.
    """

    def __init__(
        self,
        backend: Backend,
        sampler: Sampler,
        *,
        most_running: int = MOST_RUNNING,
        most_tokens: int = MOST_TOKENS,
        drafts: bool = True,
        draft_model: DraftModel | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._backend, self._sampler, self._drafts, self._draft_model = backend, sampler, drafts, draft_model
        self._guard = guard
        self._scheduler = Scheduler(BlockPool(backend.blocks, backend.block_size), most_running, most_tokens)
        self._entries: dict[SequenceState, Entry] = {}

    @property
    def running(self) -> int:
        """How many sequences are being read and written."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._scheduler.waiting)

    @property
    def blocks(self) -> int:
        """How many blocks the cache has."""
        return self._backend.blocks

    @property
    def used_blocks(self) -> int:
        """How many blocks of the cache are held by sequences."""
        return self._scheduler.pool.count - self._scheduler.pool.available

    def add(self, row: SequenceState) -> None:
        """Take a sequence; it is read as soon as there is room. One whose beams never have room fails at once."""
        row.guarded = self._guard is not None
        if (error := self._scheduler.refusal(row)) is not None:
            row.fail(error)
            return
        entry = self._entries[row] = Entry(row, self._drafters(row))
        self._scheduler.add(entry)

    def _drafters(self, row: SequenceState) -> list[Drafter]:
        if not self._drafts or row.config.num_beams > 1:
            return []
        return [PromptLookup()] if self._draft_model is None else [PromptLookup(), ModelDrafter(self._draft_model)]

    def cancel(self, row: SequenceState) -> None:
        """Write no more of a sequence, and give its room to others; one that has ended stays as it is."""
        if (entry := self._entries.pop(row, None)) is not None:
            self._scheduler.remove(entry)
            row.reason = "cancelled"

    def __contains__(self, row: SequenceState) -> bool:
        """Return whether a sequence is being read or written, or waits for that."""
        return row in self._entries

    def drop_running(self) -> None:
        """Give up the sequences that were being read and written, as when a step has failed; those that wait stay."""
        for entry in self._scheduler.drop_running():
            self._entries.pop(entry.row, None)

    @torch.inference_mode()
    def step(self) -> list[SequenceState]:
        """Read once; return the sequences that got a token, or several; by beam search they get all at its end.

        Where nothing comes back, only parts of prompts were read, beams go on, or there is nothing to do.
        """
        plan = self._scheduler.plan()
        if not plan:
            return []
        if copies := self._scheduler.copies:
            self._backend.copy(copies)
        logits = self._backend.read([stretch for _, stretches in plan for stretch in stretches])
        accepted = dict.fromkeys((entry for entry, _ in plan), 0)  # how much of what was drafted the model chooses too
        places = accumulate((len(stretches) * stretches[0].wanted for _, stretches in plan), initial=0)
        answered = [
            (entry, stretches[0], place)
            for (entry, stretches), place in zip(plan, places, strict=False)
            if stretches[0].wanted
        ]
        going = [one for one in answered if one[0].search is None]
        written = [entry.row for entry, _, _ in going]
        for step in count():
            if not going:
                break
            rows = [entry.row for entry, _, _ in going]
            wanted = [place + step for _, _, place in going]
            tokens = self._choose(rows, logits if wanted == list(range(len(logits))) else logits[wanted])
            for row, token in zip(rows, tokens, strict=True):
                if row.reason is None:  # it fails where what it is held to cannot be met
                    row.push(token)
            going = [
                one
                for one, token in zip(going, tokens, strict=True)
                if step + 1 < one[1].wanted and one[0].row.reason is None and token == one[1].draft[step]
            ]
            for entry, _, _ in going:
                accepted[entry] += 1
        for entry, _, place in answered:
            if entry.search is not None:
                with self._threads():
                    entry.search.step(self._sampler, logits[place : place + len(entry.branches)])
                if entry.row.reason is not None:
                    written.append(entry.row)
        if self._guard is not None:
            self._judge(self._guard, written)
        for entry, stretches in plan:
            self._scheduler.advance(entry, stretches[0], accepted[entry])
            if entry.row.reason is not None:
                self._scheduler.remove(self._entries.pop(entry.row))
            elif entry.search is not None and stretches[0].wanted:
                self._scheduler.fork(entry, entry.search.beams)
        return written

    def _choose(self, rows: list[SequenceState], logits: Tensor) -> list[int]:
        with self._threads():
            return self._sampler.choose(rows, logits)

    def _judge(self, guard: Guard, rows: list[SequenceState]) -> None:
        """Release what passes of the texts that are due, all judged together, and end those that do not pass."""
        due = [(row, found) for row in rows if (found := row.due()) is not None]
        if not due:
            return
        with self._threads():
            verdicts = guard.verdicts([found for _, found in due])
        for (row, (text, _)), verdict in zip(due, verdicts, strict=True):
            if verdict is None:
                row.release(len(text))
            elif isinstance(verdict, LucidError):
                row.fail(verdict)
            else:
                row.refuse()

    def _threads(self) -> AbstractContextManager[None]:
        return _one_thread() if self._backend.has_own_threads else nullcontext()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread, for as long as this is entered: its others would go on waiting actively after
    that, on the cores that the backend needs for the next step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
