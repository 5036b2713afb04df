"""A run on several ranks: what each of them holds and sends, how long a step takes, and how many are needed.

Nothing of it is measured. Communication is counted by what each rank of a ring sends: of an all-reduce 2 (n - 1) / n of what
is reduced, of an all-gather or a reduce-scatter (n - 1) / n (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
algorithms"). All of it is taken to happen after the step's products, though PyTorch hides a part of it behind them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lucidlm.core.amounts import size
from lucidlm.core.settings import Parallel
from lucidlm.distributed.placing import wants_shards
from lucidlm.plan.measure import Calibration
from lucidlm.plan.place import Place
from lucidlm.train.memory import StepMemory

WHOLE = "weights and gradients while they are whole"
"""What a rank holds of the model beside its shards, for a while."""

BLOCKS_WHOLE = 2
"""Blocks of a model in shards that are whole at a time: the one that is computed, and the next, which is gathered."""

ROOM = 0.95
"""Share of the memory there is that advice counts on."""

MORE = 8
"""Up to how many times the ranks that are planned it is told what more of them gain."""


@dataclass(frozen=True)
class Shape:
    """What ranks of a run differ by from one process.

    Parameters
    ----------
    batch_size: samples of a step, which ranks share evenly.
    ways: parts that a step has at least: a hybrid one reads half of its samples each way.
    blocks, layers: bytes of the weights of all blocks, and their number.
    rows: samples that one process takes at once; `several` is what a step then holds.
    memory: what a step holds with so many samples at once.
    """

    batch_size: int
    ways: int
    blocks: int
    layers: int
    rows: int
    several: StepMemory
    memory: Callable[[int], StepMemory]

    def activations(self, rows: int) -> int:
        """Return the bytes of activations of so many samples at once, on the line through one of them and `rows`."""
        return round(self.several.activations - self.each * (self.rows - rows))

    @cached_property
    def each(self) -> float:
        """Bytes of activations that one more sample takes."""
        if self.rows == 1:
            return float(self.several.activations)
        return max(0.0, (self.several.activations - self.memory(1).activations) / (self.rows - 1))


@dataclass(frozen=True)
class Share:
    """What each of several ranks does and holds.

    Parameters
    ----------
    count: of ranks.
    parallel: "ddp" has the model whole on each, "fsdp" in shards.
    rows: samples that a rank takes at once.
    memory: bytes, by part, at the moment of most need.
    computing: seconds of a step without what ranks tell each other.
    sent: bytes that a rank sends in a step.
    link: bytes a second that it sends.
    """

    count: int
    parallel: Literal["ddp", "fsdp"]
    rows: int
    memory: dict[str, int]
    computing: float
    sent: float
    link: float

    @property
    def exchanging(self) -> float:
        """Seconds of a step in which ranks wait for what they tell each other."""
        return self.sent / self.link

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.computing + self.exchanging

    @property
    def described(self) -> str:
        """The number of ranks, and how the model lies on them."""
        return f"{self.count}, the model {'whole on each (ddp)' if self.parallel == 'ddp' else 'in shards (fsdp)'}"

    def paced(self, rates: Calibration, place: Place) -> Calibration:
        """Return what the parts of a run take on these ranks, by what they take in one process."""
        faster = 1 if place.shared else self.count
        return rates.model_copy(
            update={
                "step": self.step,
                "first_step": rates.first_step - rates.step + self.step,
                "evaluated": rates.evaluated / faster,
                "final": rates.final / faster,
            }
        )

    def assumptions(self, place: Place) -> list[str]:
        """Return what this rests on, as sentences."""
        shared = (
            "they share its cores, and are no faster than one process" if place.shared else "each computes its part"
        )
        return [
            f"{self.count} ranks are planned from one process, and {shared}; this was never checked on several GPUs",
            f"each sends {size(self.sent)} a step round a ring at {self.link / 1e9:g} GB/s (--link-gb-per-second), all "
            "of it after the products; PyTorch hides a part of that behind them",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the memory as plain values, which JSON can hold."""
        return {
            "count": self.count,
            "parallel": self.parallel,
            "micro_batch": self.rows,
            "step_seconds": {"computing": self.computing, "exchanging": self.exchanging},
            "sent_bytes": round(self.sent),
            "link_bytes_per_second": self.link,
        }


@dataclass(frozen=True)
class Ranking:
    """Ranks of a run at a place: `share` says what each of so many does.

    Parameters
    ----------
    parts: micro-batches of a step of one process.
    rates: what its parts take there.
    link: bytes a second that a rank sends to the others.
    settable: whether a rank may take its samples in smaller parts than one process would.
    """

    shape: Shape
    parts: float
    place: Place
    rates: Calibration
    parallel: Parallel
    link: float
    settable: bool

    def share(self, count: int) -> Share:
        """Return what each of `count` ranks does and holds, samples in parts of the planned size at most."""
        rows = min(self.shape.rows, math.ceil(self.shape.batch_size / count / self.shape.ways))
        parts = max(self.shape.ways, self.parts / count)
        parallel = self._parallel(count)
        memory = self.memory(count, parallel, rows)
        held, around = self.shape.several, (count - 1) / count
        if parallel == "ddp":
            sent = 2 * around * held.gradients
        else:  # blocks are gathered for each pass, the rest once; gradients are reduced with every micro-batch
            sent = around * parts * (held.weights + self.shape.blocks + held.gradients)
        # Ranks on one CPU share its cores.
        computing = self.rates.step / (1 if self.place.shared else count)
        return Share(count, parallel, rows, memory, computing, sent, self.link)

    def memory(self, count: int, parallel: Literal["ddp", "fsdp"], rows: int) -> dict[str, int]:
        """Return bytes that a rank holds when it needs most, by part, what an allocator holds beside left out.

        In shards that is one of three moments: a step, in which the weights outside the blocks and some blocks are whole,
        and their gradients; an evaluation, for which all weights are; the beginning, when the model is copied to be cut.
        """
        held = self.shape.several
        activations = self.shape.activations(rows)
        lasting = {"weights": held.weights, "gradients": held.gradients, "optimizer state": held.optimizer}
        if parallel == "ddp":
            return {**lasting, "activations": activations}
        shards = {name: math.ceil(value / count) for name, value in lasting.items()}
        whole = held.weights - self.shape.blocks + BLOCKS_WHOLE * self.shape.blocks / self.shape.layers
        step = activations + whole * (1 + held.gradients / held.weights)
        most = max(step, held.weights, 2 * held.weights - sum(shards.values()))
        return {**shards, "activations": activations, WHOLE: round(most - activations)}

    def fewest(self) -> int | None:
        """Return the fewest ranks that have the memory; None: no number that the batch can be shared by.

        Samples may be taken one by one where that can be set. Ranks that share their memory have none more than one has.
        """
        if self.place.shared:
            return 1
        for count in self._counts(1):
            rows = 1 if self.settable else math.ceil(self.shape.rows / count)
            if sum(self.memory(count, self._parallel(count), rows).values()) <= ROOM * self.available(count):
                return count
        return None

    def gains(self, fewest: int | None, count: int) -> str:
        """Return which number of ranks is the `fewest` that fit, and what a step takes on more, as a sentence."""
        counts = {count, *(more for more in self._counts(fewest or count) if more <= MORE * count)}
        told = ", ".join(f"{self.share(more).step:.3g} s on {more}" for more in sorted(counts))
        room = "no number of ranks has room" if fewest is None else f"the fewest ranks that have room are {fewest}"
        return f"{room}; a step takes {told}"

    def available(self, count: int) -> float:
        """Return the bytes of memory that there are for each of `count` ranks."""
        return self.place.available / (count if self.place.shared else 1)

    def _parallel(self, count: int) -> Literal["ddp", "fsdp"]:
        """Return how the model lies on so many ranks, as a run decides it."""
        if count == 1 or self.parallel == "ddp":
            return "ddp"
        held = self.shape.several
        training = held.weights + 3 * held.gradients  # with both averages
        large = not self.place.shared and wants_shards(training, self.place.available)
        return "fsdp" if self.parallel == "fsdp" or large else "ddp"

    def _counts(self, first: int) -> Iterator[int]:
        """Yield numbers of ranks that the batch can be shared by, each twice the one before."""
        count = first
        while count <= self.shape.batch_size and self.shape.batch_size % count == 0:
            yield count
            count *= 2
