"""How a plan is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lucidlm.core.config import Config

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PlanConfig(Config):
    """What a plan is for, and what it may measure.

    Parameters
    ----------
    on: the accelerator to plan for; None: this machine.
    calibration: "auto" takes what was measured here before for a run of the same shape, or measures; "new" measures
        anyhow; "off" works with assumptions alone, as a plan for another machine always does.
    price_per_hour, price_per_kwh: in any currency.
    """

    on: str | None = Field(default=None, description="Plan for this accelerator (h100, a100, …), not this machine.")
    calibration: Literal["auto", "new", "off"] = Field(
        default="auto", description="auto: measured once for a shape; new: measure again; off: assumptions only."
    )
    price_per_hour: Price | None = Field(default=None, description="What the machine costs an hour.")
    price_per_kwh: Price | None = Field(default=None, description="What electricity costs, a kWh.")
