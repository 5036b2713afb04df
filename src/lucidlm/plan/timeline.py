"""How long a training command takes, part by part, and how many steps there are in it."""

from __future__ import annotations

from dataclasses import dataclass

from lucidlm.plan.measure import Calibration
from lucidlm.train.config import LoopConfig


@dataclass(frozen=True)
class Timeline:
    """A command from its start to its end.

    Parameters
    ----------
    steps: of training.
    seconds: of wall time, by part.
    """

    steps: int
    seconds: dict[str, float]


def timeline(loop: LoopConfig, rates: Calibration, evaluated: float, final: float, state_share: float) -> Timeline:
    """Return how a run goes whose parts take what `rates` says.

    Parameters
    ----------
    loop: with `max_steps` or `minutes`; the latter count from the loop's begin, evaluations and checkpoints included.
    evaluated, final: tokens (or examples) that an evaluation on the way reads, and the one at the end of the run.
    state_share: a checkpoint's size, as a share of the model's.
    """
    evaluation, checkpoint = rates.evaluated * evaluated, rates.saving * state_share
    steps = loop.max_steps
    if loop.minutes is not None:
        # The last evaluation comes after the time is up, so it is not among those that share it with the steps.
        left = 60 * loop.minutes - rates.first_step - (loop.evaluations - 1) * evaluation
        left -= checkpoint * _checkpoints(loop, 60 * loop.minutes, 0)
        most = 1 + max(0, int(left / rates.step))
        steps = most if steps is None else min(steps, most)
    assert steps is not None
    stepping = (steps - 1) * rates.step
    seconds = {
        "start": rates.start_up + rates.opening,
        "first step": rates.first_step,
        "steps": stepping,
        "evaluations": min(loop.evaluations, steps) * evaluation + rates.final * final,
        "checkpoints": checkpoint * _checkpoints(loop, rates.first_step + stepping, steps),
        "saving and report": rates.saving,
    }
    return Timeline(steps, seconds)


def _checkpoints(loop: LoopConfig, seconds: float, steps: int) -> int:
    """Return how many are saved on the way."""
    if loop.checkpoint_steps is not None:
        return max(0, steps - 1) // loop.checkpoint_steps
    return int(seconds / (60 * loop.checkpoint_minutes))
