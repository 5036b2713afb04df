"""Blocks are compiled with torch.compile.

Each block is compiled on its own ("regional" compilation): all blocks share one graph, so the cost does not grow with
depth.
"""

from __future__ import annotations

from lucidlm.core.progress import log
from lucidlm.model.transformer import Transformer


def compile_blocks(model: Transformer) -> None:
    """Compile the blocks of `model` in place, at the first step."""
    for block in model.layers:
        block.compile()
    log("blocks will be compiled at the first step (--compile off leaves that out)")
