"""torch.compile, where the run is long enough to pay for it.

Each block is compiled on its own ("regional" compilation): all blocks share one graph, so the cost does not grow with
depth.
"""

from __future__ import annotations

from lucidlm.core.progress import log
from lucidlm.model.transformer import Transformer
from lucidlm.train.config import Compile

MINUTES_THAT_PAY = 20.0
"""Compiling costs about a minute, evaluation's graph included, and gains 5 to 35 %: it pays from some 20 minutes on."""


def is_compiled(choice: Compile, minutes: float | None) -> bool:
    """Return whether a run is compiled: if it is asked for, or if a run of `minutes` pays for it."""
    return choice == "on" or (choice == "auto" and minutes is not None and minutes >= MINUTES_THAT_PAY)


def compile_blocks(model: Transformer, choice: Compile, minutes: float | None) -> bool:
    """Compile the blocks of `model` in place if `is_compiled`; return whether it did."""
    if not is_compiled(choice, minutes):
        return False
    for block in model.layers:
        block.compile()
    log("blocks will be compiled at the first step (--compile off leaves that out)")
    return True
