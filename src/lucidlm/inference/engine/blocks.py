"""The blocks of the cache: who holds which, and which still hold a beginning that another text may share.

A block holds the keys and values of so many tokens. Full blocks are known by what they hold and all that stands before
it, so a text that begins like an earlier one takes its blocks as they are (Kwon et al. 2023, arXiv:2309.06180, section
4; prefix caching as in vLLM). What nobody holds is kept until the room is needed, the longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Identity = int | tuple[float, ...]
"""What tells a beginning from others. Of the empty one it is how strongly the texts are steered that go on from it: keys and
values depend on that, so texts that are steered otherwise share none."""

ROOT: Identity = ()
"""The identity of the empty beginning of texts that are not steered."""

Key = tuple[Identity, tuple[int, ...]]
"""The identity of what stands before a block, and the block's tokens: compared whole, so no two are taken for one."""


class BlockPool:
    """Blocks, by number.

    Parameters
    ----------
    count: how many there are.
    size: tokens a block.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self._free = list(range(count))[::-1]
        self._holders = [0] * count
        self._known: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._identities: dict[int, int] = {}  # of the beginning that ends with a known block
        self._idle: OrderedDict[int, None] = OrderedDict()  # known and held by nobody, the longest unused first
        self._next_identity = 1

    @property
    def available(self) -> int:
        """How many blocks can be taken."""
        return len(self._free) + len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks so many tokens need."""
        return -(-tokens // self.size)

    def take_known(self, tokens: Sequence[int], root: Identity = ROOT) -> tuple[list[int], Identity]:
        """Hold the known blocks that `tokens` begin with, behind `root`; return them and the identity of that beginning."""
        held, identity = [], root
        for start in range(0, len(tokens) - self.size + 1, self.size):
            block = self._known.get((identity, tuple(tokens[start : start + self.size])))
            if block is None:
                break
            self._holders[block] += 1
            self._idle.pop(block, None)
            held.append(block)
            identity = self._identities[block]
        return held, identity

    def take(self, blocks: list[int], tokens: int) -> bool:
        """Add blocks to `blocks` until they have room for `tokens` tokens; False, and nothing done, if there are too few."""
        missing = self.blocks_for(tokens) - len(blocks)
        if missing > self.available:
            return False
        for _ in range(missing):
            block = self._free.pop() if self._free else self._forget()
            self._holders[block] = 1
            blocks.append(block)
        return True

    def share(self, blocks: Sequence[int]) -> list[int]:
        """Hold `blocks` once more, for another text that begins with what they hold; return them."""
        for block in blocks:
            self._holders[block] += 1
        return list(blocks)

    def own(self, blocks: list[int], read: int, copies: list[tuple[int, int]]) -> bool:
        """Let nobody else hold the block that is filled next, after `read` tokens: where others do, take another for it, and
        note in `copies` which is to be copied to which. False, and nothing done, if there is none."""
        place = read // self.size
        if read % self.size == 0 or self._holders[blocks[place]] == 1:
            return True
        own: list[int] = []
        if not self.take(own, 1):
            return False
        copies.append((blocks[place], own[0]))
        self._holders[blocks[place]] -= 1
        blocks[place] = own[0]
        return True

    def remember(self, block: int, identity: Identity, tokens: Sequence[int]) -> int:
        """Make a full block known, with its tokens and the identity of what stands before; return that of both.

        Another block may hold the same already; then that one stays known.
        """
        key = identity, tuple(tokens)
        if key not in self._known:
            self._known[key], self._keys[block], self._identities[block] = block, key, self._next_identity
            self._next_identity += 1
        return self._identities[self._known[key]]

    def release(self, blocks: list[int]) -> None:
        """Hold `blocks` no longer. The last of them are forgotten first: nothing is found without its beginning."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if not self._holders[block]:
                if block in self._keys:
                    self._idle[block] = None
                else:
                    self._free.append(block)
        blocks.clear()

    def _forget(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._known[self._keys.pop(block)], self._identities[block]
        return block
