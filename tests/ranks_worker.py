"""The command line as a rank of a test runs it: the gradients of every step are kept, and a rank may be killed.

`python tests/ranks_worker.py COMMAND … then COMMAND …`, by itself or under torchrun, leaves `gradients.pt` in each --out;
a command that did is not run again. With `KILL=NAME:RANK:STEP` in the environment a rank kills itself in the run whose --out
has that name, unless torchrun has restarted it; in an evaluation when it is to answer for the STEP-th time. With
`SPIKE=STEP` the gradient of that step is not finite in runs that may roll back. A rank that ends in its group fails.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lucidlm.cli.main import main
from lucidlm.predict.classifier import TextClassifier
from lucidlm.train import loop, optim
from lucidlm.train.step import clip_gradients

RANK = int(os.environ.get("RANK", 0))
kept: list[Tensor] = []
asked: list[int] = []
predict = TextClassifier.predict


def keep(model: nn.Module, largest: float) -> Tensor:
    """Clip the gradients, after a copy of them, whole, is kept as one vector."""
    with torch.no_grad():
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in gradients]  # pyright: ignore
        kept.append(torch.cat([one.flatten().double() for one in whole]))
    die_at(len(kept))
    norm = clip_gradients(model, largest)
    spikes = "roll-back" in sys.argv and os.environ.get("SPIKE") == str(len(kept))
    return norm * torch.nan if spikes else norm


def answer(self: TextClassifier, examples: Sequence[Any], label: str | None = None) -> list[Any]:
    """Answer, after the number of answers is kept."""
    asked.append(len(examples))
    die_at(len(asked))
    return predict(self, examples, label)


def die_at(step: int) -> None:
    """Kill this rank if it is the one to be killed, at this step."""
    if os.environ.get("KILL") == f"{out().name}:{RANK}:{step}" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


def out() -> Path:
    """Return the --out of the command that is being run."""
    return Path(sys.argv[sys.argv.index("--out") + 1])


def run(arguments: list[str]) -> None:
    """Run one command, and stop if it fails."""
    sys.argv[1:] = arguments
    if (out() / "gradients.pt").exists():
        return
    kept.clear()
    asked.clear()
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    if RANK == 0 and kept:
        torch.save(torch.stack(kept), out() / "gradients.pt")


def must_have_left() -> None:
    """Fail if Python ends while the threads of a group run: they may abort it, which shows once in a hundred times."""
    if distributed.is_initialized():
        print("this rank is still in its group", file=sys.stderr, flush=True)
        os._exit(9)


atexit.register(must_have_left)  # the first to be registered is the last to be called
loop.clip_gradients = keep
TextClassifier.predict = answer
optim.product_dtype = lambda device: torch.float32  # in bf16 a last bit may decide about the third digit
commands: list[list[str]] = [[]]
for argument in sys.argv[1:]:
    if argument == "then":
        commands.append([])
    else:
        commands[-1].append(argument)
for command in commands:
    run(command)
