"""Which sequences are read in a step: those that write get their token, what is left of a step goes to prompts.

Prompts are read in chunks, so nobody who is being written to waits for a long prompt of another (Agrawal et al. 2023,
arXiv:2308.16369). Where the cache is full, the youngest sequence gives its blocks back and is read again later.

A sequence that is written by beam search has a branch for each beam. They share the blocks of what they have in common;
one that is not full is copied before another branch than its own writes to it (Kwon et al. 2023, arXiv:2309.06180, section
4.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from lucidlm.core.errors import InputError
from lucidlm.inference.beam import Beam, SequenceBeams
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.blocks import ROOT, BlockPool, Identity
from lucidlm.inference.engine.prompt_lookup import Drafter
from lucidlm.inference.sequence import SequenceState

FEW = 4
"""Sequences up to which tokens are drafted: with more of them a step has enough to do."""

_Planned = tuple[int, list[int], list[tuple[int, int]]]
"""How many tokens of each branch are read, the draft behind them, and which blocks are copied first, and where to."""


@dataclass(eq=False)
class Branch:
    """What follows a prompt, or may: its tokens so far, and the blocks that prompt and tokens were read into."""

    tokens: list[int]
    blocks: list[int] = field(default_factory=list)
    identity: Identity = ROOT
    """Of the beginning that its full blocks hold."""


@dataclass(eq=False)
class Entry:
    """A sequence in the scheduler: how much of it has been read, of each branch as much."""

    row: SequenceState
    drafters: list[Drafter] = field(default_factory=list)
    """Who is asked for a draft, one after the other."""
    drafter: Drafter | None = None
    """Who made the last one."""
    read: int = field(init=False)
    branches: list[Branch] = field(init=False)
    search: SequenceBeams | None = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Have nothing read yet. What was chosen stays; beam search begins again, and finds the same."""
        self.read, self.branches = 0, [Branch(self.row.tokens, identity=self.root)]
        self.search = SequenceBeams(self.row) if self.width > 1 else None

    @property
    def width(self) -> int:
        """The most branches it may have."""
        return self.row.config.num_beams

    @property
    def root(self) -> Identity:
        """The identity of its empty beginning."""
        return self.row.steering

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return len(self.row.prompt) + len(self.branches[0].tokens)

    @property
    def pending(self) -> int:
        """How many of them have not been read."""
        return len(self.row.prompt) + len(self.branches[0].tokens) - self.read

    def tokens(self, branch: Branch, start: int, end: int) -> list[int]:
        """Return the tokens of a branch from `start` to `end`."""
        prompt = len(self.row.prompt)
        if start >= prompt:
            return branch.tokens[start - prompt : end - prompt]
        return self.row.prompt[start:end] + branch.tokens[: max(0, end - prompt)]


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
        self.copies: list[tuple[int, int]] = []
        """Blocks that have to be copied, and where to, before what was planned last is read."""

    def refusal(self, row: SequenceState) -> InputError | None:
        """Return why the beams of a sequence never have room; None: they have."""
        beams, size = row.config.num_beams, self.pool.size
        if beams == 1:
            return None
        if beams > (most := min(self.most_running, self.most_tokens)):
            return InputError(f"{beams} beams are more than the {most} that are read at a time", fix="Ask for fewer.")
        if (needed := most_blocks(row, size)) > self.pool.count:
            what = (
                f"{beams} beams may fill a cache of {needed * size:,} tokens, this one has {self.pool.count * size:,}"
            )
            return InputError(what, fix="Ask for fewer beams, or for a shorter text.")
        return None

    def add(self, entry: Entry) -> None:
        """Let a sequence wait its turn."""
        self.waiting.append(entry)

    def plan(self) -> list[tuple[Entry, list[Stretch]]]:
        """Return what is read next, a stretch for each branch; nothing if there is nothing to read. The blocks for it are
        taken, and `copies` says which of them have to be filled first."""
        planned: dict[Entry, _Planned] = {}
        room, waiting = self.most_tokens, len(self.waiting)
        few = len(self.running) <= FEW and self._width <= FEW
        for entry in sorted(self.running, key=lambda one: one.pending > 1):
            count = self._chunk(entry, room)
            if not count or entry not in self.running:
                continue
            if (copies := self._take(entry, entry.read + count, planned)) is not None:
                draft = self._draft(entry, room - count) if few else []
                planned[entry] = count, draft, copies
                room -= count * len(entry.branches) + len(draft)
        if len(self.waiting) == waiting:  # nobody had to give blocks back
            while room > 1 and (entry := self._admit()) is not None:
                count = self._chunk(entry, room)
                self.pool.take(entry.branches[0].blocks, entry.read + count)
                planned[entry] = count, [], []
                room -= count
        self.copies = [pair for _, _, copies in planned.values() for pair in copies]
        return [(one, _stretches(one, count, draft)) for one, (count, draft, _) in planned.items()]

    @property
    def _width(self) -> int:
        """How many branches are read at a time, at most."""
        return sum(one.width for one in self.running)

    @staticmethod
    def _chunk(entry: Entry, room: int) -> int:
        """Return how many pending tokens are read next: as many as there is room for, but neither one nor all but one, so
        that where a prompt is cut changes nothing: backends may compute a token alone by other kernels."""
        if entry.pending * len(entry.branches) <= room:
            return entry.pending
        if len(entry.branches) > 1:
            return 0
        count = room - (entry.pending - room == 1)
        return count if count > 1 else 0

    def advance(self, entry: Entry, stretch: Stretch, accepted: int) -> None:
        """Note that a stretch has been read, of its draft the `accepted` first tokens, and make the blocks that are full by
        now known."""
        size, before = self.pool.size, entry.read // self.pool.size
        entry.read += len(stretch.tokens) - len(stretch.draft) + accepted
        for index in range(before, entry.read // size):
            for branch in entry.branches:
                tokens = entry.tokens(branch, index * size, (index + 1) * size)
                branch.identity = self.pool.remember(branch.blocks[index], branch.identity, tokens)
        if stretch.wanted > 1 and entry.drafter is not None:
            entry.drafter.learn(entry.length, stretch.wanted - 1, accepted)

    def fork(self, entry: Entry, beams: Sequence[Beam]) -> None:
        """Go on with `beams`, each a token more than one of the branches, whose blocks it shares."""
        before = entry.branches
        entry.branches = []
        for beam in beams:
            parent = before[beam.parent]
            entry.branches.append(Branch(beam.tokens, self.pool.share(parent.blocks), parent.identity))
        self._release(before)

    def remove(self, entry: Entry) -> None:
        """Forget a sequence that has ended or is no longer wanted."""
        if entry in self.running:
            self.running.remove(entry)
        else:
            self.waiting.remove(entry)
        self._release(entry.branches)

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
                return draft if self.pool.take(entry.branches[0].blocks, entry.length + len(draft)) else []
        return []

    def _take(self, entry: Entry, tokens: int, planned: dict[Entry, _Planned]) -> list[tuple[int, int]] | None:
        """Take blocks for so many tokens of each branch, from younger sequences if need be; return which have to be copied,
        and where to, or None if it could not."""
        copies: list[tuple[int, int]] = []
        for branch in entry.branches:
            while not (self.pool.own(branch.blocks, entry.read, copies) and self.pool.take(branch.blocks, tokens)):
                youngest = self.running.pop()
                planned.pop(youngest, None)
                self._release(youngest.branches)
                youngest.restart()
                self.waiting.appendleft(youngest)
                if youngest is entry:
                    return None
        return copies

    def _release(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            self.pool.release(branch.blocks)

    def _admit(self) -> Entry | None:
        """Return the sequence that has waited longest, running now; None if it has to wait longer or there is none."""
        if not self.waiting or self._width + self.waiting[0].width > self.most_running:
            return None
        entry = self.waiting[0]
        [branch] = entry.branches
        if any(self._is_reading_the_same(other, entry) for other in self.running):
            return None
        # The last token is read in any case: what follows it is not in the cache.
        known = entry.tokens(branch, 0, entry.length - 1)
        branch.blocks, branch.identity = self.pool.take_known(known, entry.root)
        entry.read = len(branch.blocks) * self.pool.size
        if self.pool.blocks_for(entry.length) - len(branch.blocks) > self.pool.available:
            self.pool.release(branch.blocks)
            return None
        self.running.append(self.waiting.popleft())
        return entry

    def _is_reading_the_same(self, other: Entry, entry: Entry) -> bool:
        """Return whether `other` is still reading a prompt that begins as this one, whose blocks will be known soon."""
        size, ours, theirs = self.pool.size, entry.row.prompt, other.row.prompt
        return other.pending > 1 and other.root == entry.root and len(ours) > size and ours[:size] == theirs[:size]


def most_blocks(row: SequenceState, size: int) -> int:
    """Return how many blocks of `size` tokens a sequence holds at most; its beams share the full ones of the prompt."""
    beams = row.config.num_beams
    shared = len(row.prompt) // size if beams > 1 else 0
    read = len(row.prompt) + row.limit - 1  # the last token never is
    return shared + beams * (-(-read // size) - shared)


def _stretches(entry: Entry, count: int, draft: list[int]) -> list[Stretch]:
    """Return the next `count` tokens of each branch of a sequence, and its draft, as they are to be read."""
    wanted = 1 + len(draft) if count == entry.pending else 0
    written = min(count + len(draft), max(0, entry.read + count + len(draft) - len(entry.row.prompt)))
    return [
        Stretch(
            entry.tokens(branch, entry.read, entry.read + count) + draft,
            entry.read,
            list(branch.blocks),
            wanted,
            written,
            entry.row.steering,
        )
        for branch in entry.branches
    ]
