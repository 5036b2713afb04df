"""The cache of keys and values: what each layer has computed for earlier tokens, so that no token is read twice.

Room is taken in advance and doubled when it runs out, so appending a token copies that token only.
"""

from __future__ import annotations

from torch import Tensor

SMALLEST = 64
"""Room, in tokens, below which a cache is never made."""


class KeyValueCache:
    """The keys and values (B, G, S, d) of one layer; satisfies `lucidlm.model.attention.LayerCache`."""

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append `keys` and `values` (B, G, T, d); return views of all that is held, each (B, G, S, d)."""
        end = self.length + keys.shape[2]
        held_keys = self._keys = self._with_room(self._keys, keys, end)
        held_values = self._values = self._with_room(self._values, values, end)
        held_keys[:, :, self.length : end] = keys
        held_values[:, :, self.length : end] = values
        self.length = end
        return held_keys[:, :, :end], held_values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but `rows` (int64)."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]

    def _with_room(self, held: Tensor | None, new: Tensor, length: int) -> Tensor:
        if held is not None and held.shape[2] >= length:
            return held
        rows, heads, _, width = new.shape
        larger = new.new_empty(rows, heads, max(SMALLEST, 2 * length), width)
        if held is not None:
            larger[:, :, : self.length] = held[:, :, : self.length]
        return larger
