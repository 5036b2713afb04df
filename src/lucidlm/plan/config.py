"""How a plan is made, and what a scaling law is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lucidlm.core.config import Config

Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PlanConfig(Config):
    """What a plan is for, and what it may measure.

    Parameters
    ----------
    on: the accelerator to plan for; None: this machine.
    ranks: of torchrun, to plan for.
    link_gb_per_second: what a rank sends to the others; None: what the accelerator's data sheet says, or what is assumed.
    calibration: "auto" takes what was measured here before for a run of the same shape, or measures; "new" measures
        anyhow; "off" works with assumptions alone, as a plan for another machine always does.
    price_per_hour, price_per_kwh: in any currency.
    """

    on: str | None = Field(default=None, description="Plan for this accelerator (h100, a100, …), not this machine.")
    calibration: Literal["auto", "new", "off"] = Field(
        default="auto", description="auto: measured once for a shape; new: measure again; off: assumptions only."
    )
    ranks: int = Field(default=1, ge=1, description="Plan for so many ranks (torchrun), with one GPU each.")
    link_gb_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="What a rank sends to the others, GB a second."
    )
    price_per_hour: Price | None = Field(default=None, description="What the machine costs an hour.")
    price_per_kwh: Price | None = Field(default=None, description="What electricity costs, a kWh.")


class ScalingConfig(Config):
    """What a scaling law is asked for.

    Parameters
    ----------
    flops: the budget in FLOPs of training, as plans count them.
    tokens, parameters: the budget in one of these, of runs that differ in nothing else; or in both together.
    hold_out: check the law by the largest run: what a curve through the others predicts for it.
    """

    flops: Budget | None = Field(default=None, description="Predict the loss at so many FLOPs of training.")
    tokens: Budget | None = Field(default=None, description="Predict the loss after so many tokens.")
    parameters: Budget | None = Field(default=None, description="Predict the loss of a model of so many parameters.")
    hold_out: bool = Field(default=False, description="Check the curve: predict the largest run from the others.")
