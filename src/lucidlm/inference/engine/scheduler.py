"""Which sequences are read in a step: those that write get their token, what is left of a step goes to prompts.

Prompts are read in chunks, so nobody who is being written to waits for a long prompt of another (Agrawal et al. 2023,
arXiv:2308.16369). Where the cache is full, the youngest sequence gives its blocks back and is read again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.blocks import ROOT, BlockPool, Identity
from lucidlm.inference.engine.prompt_lookup import Drafter
from lucidlm.inference.sequence import SequenceState

FEW = 4
"""Sequences up to which tokens are drafted: with more of them a step has enough to do."""


@dataclass(eq=False)
class Entry:
    """A sequence in the scheduler: how much of it has been read, and into which blocks."""

    row: SequenceState
    read: int = 0
    blocks: list[int] = field(default_factory=list)
    identity: Identity = ROOT
    """Of the beginning that its full blocks hold."""
    drafters: list[Drafter] = field(default_factory=list)
    """Who is asked for a draft, one after the other."""
    drafter: Drafter | None = None
    """Who made the last one."""

    @property
    def root(self) -> Identity:
        """The identity of its empty beginning."""
        return self.row.steering

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return len(self.row.prompt) + len(self.row.tokens)

    @property
    def pending(self) -> int:
        """How many of them have not been read."""
        return len(self.row.prompt) + len(self.row.tokens) - self.read

    def tokens(self, start: int, end: int) -> list[int]:
        """Return its tokens from `start` to `end`."""
        prompt = len(self.row.prompt)
        if start >= prompt:
            return self.row.tokens[start - prompt : end - prompt]
        return self.row.prompt[start:end] + self.row.tokens[: max(0, end - prompt)]


class Scheduler:
    """The sequences that are read, in the order they came, and those that wait.

    Parameters
    ----------
    pool: with room for the longest sequence at least, so that one by itself can always go on.
    most_running: how many sequences are read at a time.
    most_tokens: how many tokens are read in a step.
    """

    def __init__(self, pool: BlockPool, most_running: int, most_tokens: int) -> None:
        self.pool, self.most_running, self.most_tokens = pool, most_running, most_tokens
        self.waiting: deque[Entry] = deque()
        self.running: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Let a sequence wait its turn."""
        self.waiting.append(entry)

    def plan(self) -> list[tuple[Entry, Stretch]]:
        """Return what is read next, nothing if there is nothing to read; the blocks for it are taken."""
        planned: dict[Entry, tuple[int, list[int]]] = {}
        room, waiting = self.most_tokens, len(self.waiting)
        for entry in sorted(self.running, key=lambda one: one.pending > 1):
            count = self._chunk(entry, room)
            if count and entry in self.running and self._take(entry, entry.read + count, planned):
                draft = self._draft(entry, room - count) if len(self.running) <= FEW else []
                planned[entry] = count, draft
                room -= count + len(draft)
        if len(self.waiting) == waiting:  # nobody had to give blocks back
            while room > 1 and (entry := self._admit()) is not None:
                count = self._chunk(entry, room)
                self.pool.take(entry.blocks, entry.read + count)
                planned[entry] = count, []
                room -= count
        return [(one, _stretch(one, count, draft)) for one, (count, draft) in planned.items()]

    @staticmethod
    def _chunk(entry: Entry, room: int) -> int:
        """Return how many pending tokens are read next: as many as there is room for, but neither one nor all but one, so
        that where a prompt is cut changes nothing: backends may compute a token alone by other kernels."""
        if entry.pending <= room:
            return entry.pending
        count = room - (entry.pending - room == 1)
        return count if count > 1 else 0

    def advance(self, entry: Entry, stretch: Stretch, accepted: int) -> None:
        """Note that a stretch has been read, of its draft the `accepted` first tokens, and make the blocks that are full by
        now known."""
        size, before = self.pool.size, entry.read // self.pool.size
        entry.read += len(stretch.tokens) - len(stretch.draft) + accepted
        for index in range(before, entry.read // size):
            tokens = entry.tokens(index * size, (index + 1) * size)
            entry.identity = self.pool.remember(entry.blocks[index], entry.identity, tokens)
        if stretch.wanted > 1 and entry.drafter is not None:
            entry.drafter.learn(entry.length, stretch.wanted - 1, accepted)

    def remove(self, entry: Entry) -> None:
        """Forget a sequence that has ended or is no longer wanted."""
        if entry in self.running:
            self.running.remove(entry)
        else:
            self.waiting.remove(entry)
        self.pool.release(entry.blocks)

    def drop_running(self) -> list[Entry]:
        """Forget the running sequences, and all that blocks hold: what was last written to them may be wrong."""
        dropped, self.running = self.running, []
        self.pool = BlockPool(self.pool.count, self.pool.size)
        return dropped

    def _draft(self, entry: Entry, most: int) -> list[int]:
        """Return tokens that may follow a sequence that is being written, and take the blocks for them, if there are any."""
        row = entry.row
        if entry.pending > 1 or not row.tokens:
            return []
        tokens, most = row.prompt + row.tokens, min(most, row.limit - len(row.tokens) - 1)
        for drafter in entry.drafters:
            if draft := drafter.draft(tokens, most):
                entry.drafter = drafter
                return draft if self.pool.take(entry.blocks, entry.length + len(draft)) else []
        return []

    def _take(self, entry: Entry, tokens: int, planned: dict[Entry, tuple[int, list[int]]]) -> bool:
        """Take blocks for so many tokens, from younger sequences if need be; return whether it could."""
        while not self.pool.take(entry.blocks, tokens):
            youngest = self.running.pop()
            planned.pop(youngest, None)
            self.pool.release(youngest.blocks)
            youngest.read, youngest.identity = 0, youngest.root
            self.waiting.appendleft(youngest)
            if youngest is entry:
                return False
        return True

    def _admit(self) -> Entry | None:
        """Return the sequence that has waited longest, running now; None if it has to wait longer or there is none."""
        if not self.waiting or len(self.running) == self.most_running:
            return None
        entry = self.waiting[0]
        if any(self._is_reading_the_same(other, entry) for other in self.running):
            return None
        # The last token is read in any case: what follows it is not in the cache.
        entry.blocks, entry.identity = self.pool.take_known(entry.tokens(0, entry.length - 1), entry.root)
        entry.read = len(entry.blocks) * self.pool.size
        if self.pool.blocks_for(entry.length) - len(entry.blocks) > self.pool.available:
            self.pool.release(entry.blocks)
            return None
        self.running.append(self.waiting.popleft())
        return entry

    def _is_reading_the_same(self, other: Entry, entry: Entry) -> bool:
        """Return whether `other` is still reading a prompt that begins as this one, whose blocks will be known soon."""
        size, ours, theirs = self.pool.size, entry.row.prompt, other.row.prompt
        return other.pending > 1 and other.root == entry.root and len(ours) > size and ours[:size] == theirs[:size]


def _stretch(entry: Entry, count: int, draft: list[int]) -> Stretch:
    """Return the next `count` tokens of a sequence and its draft, as they are to be read."""
    tokens = entry.tokens(entry.read, entry.read + count) + draft
    wanted = 1 + len(draft) if count == entry.pending else 0
    written = min(len(tokens), max(0, entry.read + len(tokens) - len(entry.row.prompt)))
    return Stretch(tokens, entry.read, list(entry.blocks), wanted, written, entry.row.steering)
