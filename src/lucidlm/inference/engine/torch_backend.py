"""PyTorch computes: every model, every device, in the dtype of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from lucidlm.core.matmul import fast_matmul
from lucidlm.inference.engine.backend import Direction, Stretch, strengths_of
from lucidlm.inference.prompt_batch import MANY
from lucidlm.model.heads import LanguageModel, twin

BLOCK = 32
ALIKE = 0.75
"""Prompts are padded to the longest of those that are read in one pass, which the others have this much of at least."""


class TorchBackend:
    """A model as it is; see `Backend`.

    Parameters
    ----------
    blocks: room for so many times 32 tokens. On a CPU the system gives memory only once it is written to.
    directions: what is added to the states of sequences that ask for it. The model stays as it is: a twin of it is run.
    """

    block_size = BLOCK
    has_own_threads = False

    def __init__(self, model: LanguageModel, blocks: int, directions: Sequence[Direction] = ()) -> None:
        self.model, self.blocks, shape = twin(model) if directions else model, blocks, model.config
        self._steering = _Steering(self.model, directions) if directions else None
        self.token_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * model.head.element_size()
        self._layers = [_LayerPool(blocks) for _ in range(model.config.num_layers)]

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        """See `Backend.read`."""
        states: list[Tensor] = [torch.empty(0)] * len(stretches)
        for places in _passes(stretches):
            for place, state in zip(places, self._states([stretches[place] for place in places]), strict=True):
                count = len(stretches[place].tokens)
                states[place] = state[count - stretches[place].wanted : count]
        return self.model.logits(torch.cat(states)).float()

    def copy(self, blocks: Sequence[tuple[int, int]]) -> None:
        """See `Backend.copy`."""
        sources, targets = torch.tensor(blocks, device=self.model.head.device).T
        for held in (held for layer in self._layers for held in layer.held_on(self.model)):
            by_block = held.unflatten(1, (-1, BLOCK))
            by_block[:, targets] = by_block[:, sources]

    def _states(self, stretches: Sequence[Stretch]) -> Tensor:
        """Return the hidden states (n, T, D) of stretches, padding's too."""
        device, longest = self.model.head.device, max(len(one.tokens) for one in stretches)
        places = _places(stretches).to(device)
        tokens = torch.tensor([one.tokens + [0] * (longest - len(one.tokens)) for one in stretches], device=device)
        caches = [_LayerView(pool, places) for pool in self._layers]
        if self._steering is not None:
            self._steering.aim(stretches)
        with fast_matmul(device) if tokens.numel() >= MANY else nullcontext():
            return self.model.model(tokens, positions=places.positions, mask=places.mask, caches=caches)


class _Steering:
    """Adds directions to what blocks of a model write to the residual stream, to each row of a pass as strongly as its
    stretch asks for.

    One is added after the other, number by number: a sum that no other row, and no size of a pass, changes.
    """

    def __init__(self, model: LanguageModel, directions: Sequence[Direction]) -> None:
        self._directions = [Direction(one.layer, one.vector.to(model.head.device)) for one in directions]
        self._strengths = torch.zeros(0, len(directions))
        for place, one in enumerate(self._directions):
            projection = model.get_submodule(f"model.layers.{one.layer}.mlp.down_proj")
            projection.register_forward_hook(partial(self._add, place))

    def aim(self, stretches: Sequence[Stretch]) -> None:
        """Let the next pass be of these stretches, a row each."""
        strengths = strengths_of(stretches, self._directions)  # (n, directions)
        self._strengths = strengths.to(self._directions[0].vector.device)

    def _add(self, place: int, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added = self._strengths[:, place, None, None] * self._directions[place].vector  # (n, 1, D)
        return output + added.to(output.dtype)


def _passes(stretches: Sequence[Stretch]) -> Iterator[list[int]]:
    """Yield the places of stretches that are read in one pass: those of like length."""
    order = sorted(range(len(stretches)), key=lambda place: -len(stretches[place].tokens))
    start = 0
    for end in range(1, len(order) + 1):
        longest = len(stretches[order[start]].tokens)
        if end == len(order) or len(stretches[order[end]].tokens) < ALIKE * longest:
            yield order[start:end]
            start = end


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the tokens of a pass stand.

    Parameters
    ----------
    past: how many columns stand before the first new one, for the longest sequence.
    positions: (n, T) int64, of the tokens in their sequences; of padding 0.
    mask: (n, T, S) bool, the columns that a token sees; None: as the model has it.
    slots: (tokens,) int64, where the keys of the new tokens go, a token of the cache each.
    new: (tokens,) int64, which of the n * T tokens those are; None: all, there is no padding.
    columns: (n * S,) int64, the slots that are read; or a slice of the cache, where it is one.
    """

    past: int
    positions: Tensor
    mask: Tensor | None
    slots: Tensor
    new: Tensor | None
    columns: Tensor | slice

    def to(self, device: torch.device) -> _Places:
        """Move it to `device`."""
        moved = {name: value.to(device) for name in self.__slots__ if isinstance(value := getattr(self, name), Tensor)}
        return replace(self, **moved)


def _places(stretches: Sequence[Stretch]) -> _Places:
    counts = torch.tensor([len(one.tokens) for one in stretches])
    starts = torch.tensor([one.start for one in stretches])
    longest, ends = int(counts.max()), starts + counts
    width = int(ends.max())
    steps = torch.arange(longest)
    new = steps < counts[:, None]  # (n, T)
    positions = (starts[:, None] + steps).where(new, 0)
    used = -(-width // BLOCK)
    # A column past a sequence's end is its first one once more: it is never seen, but has to be a number.
    table = torch.tensor([one.blocks[:used] + one.blocks[:1] * (used - len(one.blocks)) for one in stretches])
    slots = (table[..., None] * BLOCK + torch.arange(BLOCK)).flatten(1)[:, :width]  # (n, S)
    columns = torch.arange(width)
    slots = slots.where(columns < ends[:, None], slots[:, :1])
    mask, read = None, slots.flatten()
    if bool((starts != starts[0]).any()) or bool((counts != counts[0]).any()):
        mask = columns <= positions[..., None]  # (n, T, S); padding sees the first column, as it has to see something
    if len(stretches) == 1 and bool((read.diff() == 1).all()):
        read = slice(int(read[0]), int(read[0]) + width)
    padded = None if bool(new.all()) else new.flatten().nonzero()[:, 0]
    return _Places(width - longest, positions, mask, slots.gather(1, positions)[new], padded, read)


class _LayerPool:
    """The keys and values of one layer, (G, slots, d): a slot a token, `BLOCK` of them a block."""

    def __init__(self, blocks: int) -> None:
        self.slots = blocks * BLOCK
        self._held: tuple[Tensor, Tensor] | None = None

    def held(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values; they are made for the first ones that come, (n, G, T, d)."""
        if self._held is None:
            shape = like.shape[1], self.slots, like.shape[3]
            self._held = like.new_empty(shape), like.new_empty(shape)
        return self._held

    def held_on(self, model: LanguageModel) -> tuple[Tensor, Tensor]:
        """Return keys and values, made for `model` if nothing has come yet."""
        return self.held(model.head.new_empty(1, model.config.num_kv_heads, 0, model.config.head_dim))


class _LayerView:
    """What one pass sees of a layer's pool; satisfies `lucidlm.model.attention.LayerCache`."""

    def __init__(self, pool: _LayerPool, places: _Places) -> None:
        self._pool, self._places, self.length = pool, places, places.past

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep `keys` and `values` (n, G, T, d); return those of the whole sequences, each (n, G, S, d)."""
        held = self._pool.held(keys)
        return self._put(held[0], keys), self._put(held[1], values)

    def _put(self, held: Tensor, new: Tensor) -> Tensor:
        places, rows = self._places, len(new)
        tokens = new.transpose(0, 1).flatten(1, 2)  # (G, n * T, d)
        held.index_copy_(1, places.slots, tokens if places.new is None else tokens[:, places.new])
        if isinstance(places.columns, slice):
            return held[None, :, places.columns]
        return held.index_select(1, places.columns).unflatten(1, (rows, -1)).transpose(0, 1)
