"""The blocks of the cache: what is held, what is known, what is forgotten."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lucidlm.inference.engine.blocks import ROOT, BlockPool


def known(pool: BlockPool, tokens: list[int]) -> list[int]:
    """Take blocks for `tokens` and make the full ones known."""
    blocks, identity = pool.take_known(tokens)
    assert pool.take(blocks, len(tokens))
    for index in range(len(tokens) // pool.size):
        identity = pool.remember(
            blocks[index], ROOT if index == 0 else identity, tokens[index * pool.size : (index + 1) * pool.size]
        )
    return blocks


def test_a_beginning_is_shared_and_nothing_else() -> None:
    pool = BlockPool(8, 2)
    first = known(pool, [1, 2, 3, 4, 5])
    assert first == [0, 1, 2]
    assert pool.take_known([1, 2, 3, 4, 5, 6])[0] == [0, 1]
    assert pool.take_known([1, 2, 9, 9])[0] == [0]
    assert pool.take_known([3, 4])[0] == []  # the same tokens, after something else
    assert pool.take_known([1])[0] == []
    assert pool.available == 5


def test_texts_that_are_steered_otherwise_share_no_beginning() -> None:
    pool = BlockPool(4, 2)
    steered = (0.5, -1.0)
    blocks: list[int] = []
    assert pool.take(blocks, 4)
    second = pool.remember(blocks[0], steered, [1, 2])
    pool.remember(blocks[1], second, [3, 4])
    assert pool.take_known([1, 2, 3, 4])[0] == []
    assert pool.take_known([1, 2, 3, 4], (0.5, 1.0))[0] == []
    assert pool.take_known([1, 2, 3, 4], steered)[0] == [0, 1]


def test_what_nobody_holds_is_kept_until_the_room_is_needed() -> None:
    pool = BlockPool(4, 2)
    old, new = known(pool, [1, 2, 3, 4]), known(pool, [5, 6])
    pool.release(old)
    pool.release(new)
    assert pool.available == 4
    taken: list[int] = []
    assert pool.take(taken, 4)  # the one that was never used, and the end of the oldest beginning
    assert pool.take_known([1, 2, 3, 4])[0] == [0]
    assert pool.take_known([5, 6])[0] == [2]
    assert not pool.take(taken, 6)
    assert len(taken) == 2


def test_twice_the_same_is_known_once() -> None:
    pool = BlockPool(4, 2)
    one: list[int] = []
    other: list[int] = []
    assert pool.take(one, 4)
    assert pool.take(other, 4)
    identity = pool.remember(one[0], ROOT, [1, 2])
    assert pool.remember(other[0], ROOT, [1, 2]) == identity
    assert pool.remember(other[1], identity, [3, 4]) != identity
    pool.release(one)
    pool.release(other)
    assert pool.take_known([1, 2, 3, 4])[0] == [0, 3]
    assert pool.available == 2


texts = st.lists(st.integers(0, 1), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts), max_size=40))
def test_no_block_is_lost_or_given_twice(moves: list[tuple[bool, list[int]]]) -> None:
    pool = BlockPool(9, 2)
    held: list[tuple[list[int], list[int]]] = []
    for add, tokens in moves:
        if add and pool.blocks_for(len(tokens)) <= pool.available:
            held.append((known(pool, tokens), tokens))
        elif held:
            pool.release(held.pop(len(tokens) % len(held))[0])
        in_use = {block for blocks, _ in held for block in blocks}
        assert pool.available == pool.count - len(in_use)
        for blocks, text in held:
            for other, its_text in held:
                for place in range(min(len(blocks), len(other))):
                    if blocks[place] == other[place]:  # only what is full and begins alike is shared
                        end = (place + 1) * pool.size
                        assert blocks is other or (text[:end] == its_text[:end] and len(text[:end]) == end)
