"""How a run is trained, whatever it learns: its length, the optimiser, the schedule of the learning rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lucidlm.core.config import Config
from lucidlm.core.settings import Parallel, Seed

Compile = Literal["auto", "on", "off"]
OptimizerName = Literal["muon", "adamw"]
TrackerName = Literal["tensorboard", "mlflow"]
OnSpike = Literal["warn", "roll-back"]
Force = Annotated[bool, Field(description="Start even if memory is too short by the plan.")]

MUON_RATIO = 10 / 3
"""How much further Muon moves a matrix than AdamW moves the rest, where nothing else is asked for."""


class OptimizerConfig(Config):
    """What updates the weights. What is None is chosen by the kind of training, see `completed`.

    Parameters
    ----------
    name: "muon" for Muon on the blocks' matrices and AdamW on the rest, or "adamw" for AdamW on everything.
    muon_learning_rate: in units in which AdamW's typical rate is right (see `lucidlm.train.optim.Muon`).
    """

    name: OptimizerName | None = Field(default=None, description="muon (with AdamW for what is no matrix) or adamw.")
    learning_rate: float | None = Field(
        default=None, gt=0, description="Peak learning rate; Muon moves matrices 10/3 times as far."
    )
    muon_learning_rate: float | None = Field(
        default=None, gt=0, description="Muon's peak learning rate; 10/3 of the other if left out."
    )
    weight_decay: float = Field(
        default=0.1, ge=0, description="Share of a weight lost per unit of learning rate; not of norms and biases."
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's averaging constants.")
    eps: float = Field(default=1e-10, gt=0, description="The floor under AdamW's denominator.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's averaging constant.")
    newton_schulz_steps: int = Field(
        default=5, ge=1, le=20, description="Steps by which Muon approaches the orthogonal matrix."
    )

    def completed(self, name: OptimizerName = "muon", learning_rate: float = 3e-3) -> OptimizerConfig:
        """Return the settings with `name` and `learning_rate`, by default pretraining's, where none is set."""
        rate = self.learning_rate or learning_rate
        chosen = {"name": self.name or name, "learning_rate": rate}
        return self.changed(**chosen, muon_learning_rate=self.muon_learning_rate or MUON_RATIO * rate)


class ScheduleConfig(Config):
    """How the learning rate rises and falls.

    Parameters
    ----------
    name: "trapezoid" warms up, stays, and decays linearly (warm-up–stable–decay: Hu et al. 2024, arXiv:2404.06395;
        Hägele et al. 2024, arXiv:2405.18392); "cosine" warms up and follows half a cosine (Loshchilov & Hutter 2017).
    """

    name: Literal["trapezoid", "cosine"] = Field(default="trapezoid", description="trapezoid or cosine.")
    warmup: float = Field(default=0.02, ge=0, le=1, description="Share of the run that warms up.")
    decay: float = Field(default=0.5, ge=0, le=1, description="Share of the run in which the trapezoid decays.")
    floor: float = Field(default=0.0, ge=0, le=1, description="What the learning rate ends at, as a share of its peak.")


class LoopConfig(Config):
    """How long to train and what to do on the way.

    The run ends with `max_steps` or `minutes` (wall time), whichever comes first; at least one of them is needed.

    Parameters
    ----------
    on_spike: what a loss that stands far above its past, or is not finite, leads to (see `lucidlm.train.spikes`). "warn"
        says so and goes on, or stops where the loss is not finite; "roll-back" goes back to a checkpoint before it and on
        from there with the batches after it, as PaLM did (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1).
    """

    max_steps: int | None = Field(default=None, ge=1, description="Stop after so many steps.")
    minutes: float | None = Field(
        default=None, gt=0, description="Stop after so many minutes, the learning rate timed to it."
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: float = Field(default=1.0, gt=0, description="The greatest norm of the gradient.")
    evaluations: int = Field(default=10, ge=1, description="How often to evaluate over the run, the end included.")
    patience: int | None = Field(
        default=None, ge=1, description="Stop after so many evaluations without a better loss."
    )
    checkpoint_minutes: float = Field(default=5.0, gt=0, description="Save the state every so many minutes.")
    checkpoint_steps: int | None = Field(
        default=None, ge=1, description="Save the state every so many steps, not every 5 minutes."
    )
    keep: int = Field(default=2, ge=1, description="How many checkpoints to keep.")
    track: tuple[TrackerName, ...] = Field(
        default=(), description="Show the run's figures in tensorboard or mlflow too; may be given twice."
    )
    on_spike: OnSpike = Field(
        default="warn", description="A loss spike: warn, or roll-back to a checkpoint and past the batches since."
    )
    roll_backs: int = Field(default=5, ge=1, description="How often a run may go back; then it only warns.")
    parallel: Parallel = "auto"
    seed: Seed = 0
