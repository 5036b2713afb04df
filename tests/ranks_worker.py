"""The command line as a rank of a test runs it: the gradients of every step are kept, and a rank may be killed.

`python tests/ranks_worker.py COMMAND … then COMMAND …`, by itself or under torchrun, leaves `gradients.pt` in each --out;
a command that did is not run again. With `KILL=NAME:RANK:STEP` in the environment a rank kills itself in the run whose --out
has that name, unless torchrun has restarted it. With `SPIKE=STEP` the gradient of that step is not finite in runs that may
roll back.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lucidlm.cli.main import main
from lucidlm.train import loop, optim
from lucidlm.train.step import clip_gradients

RANK = int(os.environ.get("RANK", 0))
kept: list[Tensor] = []


def keep(model: nn.Module, largest: float) -> Tensor:
    """Clip the gradients, after a copy of them, whole, is kept as one vector."""
    with torch.no_grad():
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in gradients]  # pyright: ignore
        kept.append(torch.cat([one.flatten().double() for one in whole]))
    if os.environ.get("KILL") == f"{out().name}:{RANK}:{len(kept)}" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    norm = clip_gradients(model, largest)
    spikes = "roll-back" in sys.argv and os.environ.get("SPIKE") == str(len(kept))
    return norm * torch.nan if spikes else norm


def out() -> Path:
    """Return the --out of the command that is being run."""
    return Path(sys.argv[sys.argv.index("--out") + 1])


def run(arguments: list[str]) -> None:
    """Run one command, and stop if it fails."""
    sys.argv[1:] = arguments
    if (out() / "gradients.pt").exists():
        return
    kept.clear()
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    if RANK == 0:
        torch.save(torch.stack(kept), out() / "gradients.pt")


loop.clip_gradients = keep
optim.product_dtype = lambda device: torch.float32  # in bf16 a last bit may decide about the third digit
commands: list[list[str]] = [[]]
for argument in sys.argv[1:]:
    if argument == "then":
        commands.append([])
    else:
        commands[-1].append(argument)
for command in commands:
    run(command)
