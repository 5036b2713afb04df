"""What a run will take, before it is started; `lucidlm.plan` in Python, the commands of `lucidlm plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

from lucidlm.api.results import Result
from lucidlm.api.settings import FinetuneSettings, PretrainSettings
from lucidlm.api.training import Source, Texts, finetuning_config, pretraining_config
from lucidlm.core.arguments import require_path
from lucidlm.inference.config import EngineConfig
from lucidlm.plan.config import PlanConfig, ScalingConfig
from lucidlm.plan.finetune import plan_finetuning
from lucidlm.plan.plan import BasePlan, Plan
from lucidlm.plan.pretrain import plan_pretraining
from lucidlm.plan.scaling import Prediction, ScalingLaw
from lucidlm.plan.scaling_page import draw_scaling
from lucidlm.plan.scaling_runs import Scaling, fit_scaling
from lucidlm.plan.serve import ServingPlan, plan_serving

Calibrate = Literal["auto", "new", "off"]


class _Planned(Result):
    """What results of planning have in common."""

    plan: BasePlan

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as `lucidlm plan` writes it with `--json`."""
        return self.plan.to_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return names and values as they are printed."""
        return [{"of": name, "predicted": value} for name, value in self.plan.rows()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.plan.run}, {self.plan.machine}: {self.plan.takes})"


@dataclass(frozen=True, repr=False)
class PlanResult(_Planned):
    """What a run will take; `plan` has the numbers."""

    plan: Plan


@dataclass(frozen=True, repr=False)
class ServingResult(_Planned):
    """What serving a model will take; `plan` has the numbers."""

    plan: ServingPlan


@dataclass(frozen=True, repr=False)
class ScalingResult(Result):
    """A scaling law, and what it predicts; `scaling` has the numbers."""

    scaling: Scaling

    @property
    def law(self) -> ScalingLaw:
        """The curve."""
        return self.scaling.law

    @property
    def predicted(self) -> Prediction | None:
        """The loss that was asked for."""
        return self.scaling.predicted

    def to_dict(self) -> dict[str, Any]:
        """Return the law as `lucidlm plan scaling` writes it with `--json`."""
        return self.scaling.to_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return names and values as they are printed."""
        return [{"of": name, "value": value} for name, value in self.scaling.rows()]

    def __repr__(self) -> str:
        told = "" if self.predicted is None else f"; {self.predicted} nats predicted"
        return f"ScalingResult({self.law.formula}{told})"


def pretrain(
    data: Texts = None,
    *,
    config: Source | None = None,
    on: str | None = None,
    ranks: int = 1,
    link_gb_per_second: float | None = None,
    calibration: Calibrate = "auto",
    price_per_hour: float | None = None,
    price_per_kwh: float | None = None,
    **settings: Unpack[PretrainSettings],
) -> PlanResult:
    """Tell what `lucidlm.pretrain` with these arguments will take: `lucidlm plan pretrain`.

    >>> lucidlm.plan.pretrain("data", minutes=30, price_per_kwh=0.3)
    >>> lucidlm.plan.pretrain("data", depth=12, max_steps=20_000, on="h100")

    Parameters
    ----------
    data, config, settings: as for `lucidlm.pretrain`.
    on, ranks, link_gb_per_second, calibration, price_per_hour, price_per_kwh: see `PlanConfig`.

    Raises
    ------
    InputError: a setting is wrong, the data cannot be read, or there is no such accelerator.
    LucidError: the calibration failed.
    """
    how = PlanConfig(
        on=on,
        ranks=ranks,
        link_gb_per_second=link_gb_per_second,
        calibration=calibration,
        price_per_hour=price_per_hour,
        price_per_kwh=price_per_kwh,
    )
    return PlanResult(plan_pretraining(pretraining_config(data, config, settings), how))


def finetune(
    task: str | None = None,
    *,
    model: Source | None = None,
    data: Source | None = None,
    config: Source | None = None,
    on: str | None = None,
    ranks: int = 1,
    link_gb_per_second: float | None = None,
    calibration: Calibrate = "auto",
    price_per_hour: float | None = None,
    price_per_kwh: float | None = None,
    **settings: Unpack[FinetuneSettings],
) -> PlanResult:
    """Tell what `lucidlm.finetune` with these arguments will take: `lucidlm plan finetune`.

    >>> lucidlm.plan.finetune("sentiment", model="model", data="reviews.csv")

    Parameters
    ----------
    task, model, data, config, settings: as for `lucidlm.finetune`.
    on, ranks, link_gb_per_second, calibration, price_per_hour, price_per_kwh: see `PlanConfig`.

    Raises
    ------
    InputError: a setting is wrong, model or data cannot be used, or there is no such accelerator.
    LucidError: the calibration failed.
    """
    how = PlanConfig(
        on=on,
        ranks=ranks,
        link_gb_per_second=link_gb_per_second,
        calibration=calibration,
        price_per_hour=price_per_hour,
        price_per_kwh=price_per_kwh,
    )
    return PlanResult(plan_finetuning(finetuning_config(task, model, data, config, settings), how))


def serve(
    model: Source,
    *,
    max_running: int = 64,
    device: str = "auto",
    engine: EngineConfig | None = None,
    on: str | None = None,
    calibration: Calibrate = "auto",
    price_per_hour: float | None = None,
    price_per_kwh: float | None = None,
) -> ServingResult:
    """Tell what `lucidlm serve` with one model that writes will take: `lucidlm plan serve`.

    >>> lucidlm.plan.serve("model", max_running=16)

    Parameters
    ----------
    model: a model directory, or what `lucidlm import` takes.
    max_running: texts that are written at a time.
    engine: what computes.
    on, calibration, price_per_hour, price_per_kwh: see `PlanConfig`.

    Raises
    ------
    InputError: there is no such model or it does not write, a setting is wrong, or there is no such accelerator.
    """
    how = PlanConfig(on=on, calibration=calibration, price_per_hour=price_per_hour, price_per_kwh=price_per_kwh)
    source = str(require_path(model, "model"))
    return ServingResult(plan_serving(source, engine or EngineConfig(), max_running, device, how))


def scaling_law(
    runs: Sequence[Source],
    *,
    flops: float | None = None,
    tokens: float | None = None,
    parameters: float | None = None,
    hold_out: bool = False,
    out: Source | None = None,
) -> ScalingResult:
    """Tell what loss a larger budget will reach, by a curve through small pretraining runs: `lucidlm plan scaling`.

    >>> found = lucidlm.plan.scaling_law(["run-1", "run-2", "run-3", "run-4"], flops=1e16, out="scaling.html")
    >>> found.predicted, found.law.predict(1e17)

    Parameters
    ----------
    runs: directories that `lucidlm.pretrain` left; the runs should differ in nothing but their budget.
    flops, tokens, parameters, hold_out: see `ScalingConfig`.
    out: where the curve is drawn, an .html page or an .svg picture; None: nowhere.

    Raises
    ------
    InputError: a directory is not of a pretraining run that has ended, there are fewer than four budgets, or the losses
        cannot be compared.
    """
    how = ScalingConfig(flops=flops, tokens=tokens, parameters=parameters, hold_out=hold_out)
    found = fit_scaling([require_path(run, "runs") for run in runs], how)
    if out is not None:
        draw_scaling(found, Path(require_path(out, "out")))
    return ScalingResult(found)
