"""`lucidlm explain`: which tokens of a text a prediction rests on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import Source, text_given

if TYPE_CHECKING:
    from lucidlm.core.config import Config
    from lucidlm.explain.explanation import Explanation

WIDTH = 24
"""Cells of the longest bar."""

SHOWN = ("model", "text", "target", "method", "steps", "as_json", "seed", "device")


class Method(StrEnum):
    """How credit is given."""

    gradients = "integrated-gradients"
    occlusion = "occlusion"


def register(app: typer.Typer) -> None:
    add_command(app, explain, _configurations, SHOWN)


def _configurations() -> Sequence[type[Config]]:
    from lucidlm.cli.using.settings import UseConfig

    return (UseConfig,)


def explain(
    model: Source,
    text: Annotated[str, typer.Argument(help="The text: a prompt, or what is classified.")],
    target: Annotated[
        str | None,
        typer.Option(help="A continuation (a new word begins with a space) or a label; the likeliest if left out."),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="How credit is given; occlusion if left out where the model counts n-grams, else gradients."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the integral, at least.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Explain a prediction: what each token of the text adds to the log-probability of the target, in nats.

    Examples:

      lucidlm explain judge "A dull film with a wonderful ending."
      lucidlm explain model "The capital of France is" --target " Paris"
      lucidlm explain judge "A dull film." --target positive --method occlusion --json
    """
    import json

    from lucidlm.checkpoint.load import load_model
    from lucidlm.core.devices import choose_compute
    from lucidlm.explain.explanation import explain as run

    text_given(text, "TEXT")
    text_given(target or "", "--target")
    place = choose_compute(settings.get("device", "auto")).device
    seed = settings.get("seed", 0)
    found = run(
        load_model(model),
        text,
        target,
        method=None if method is None else method.value,
        steps=steps,
        seed=seed,
        device=place,
    )
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        _show(found)


def _show(found: Explanation) -> None:
    """Print pieces in order with their bars: coloured on a terminal, plain elsewhere."""
    import json
    import math

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    name, blank = (json.dumps(part, ensure_ascii=False) for part in (found.target, found.blank))
    lines = [
        Text(
            f"{found.kind} {name}: log-probability {found.logprob:.4f} ({100 * math.exp(found.logprob):.1f} %); "
            f"{found.blank_logprob:.4f} with {blank} for every token; {found.method}"
        )
    ]
    largest = max(abs(value) for _, value in found.pieces) or 1.0
    for piece, value in found.pieces:
        bar = "█" * round(WIDTH * abs(value) / largest)
        line = Text(f"{value:+9.4f}  ")
        line.append(f"{bar:{WIDTH}}", style="green" if value > 0 else "red")
        lines.append(line.append(f"  {json.dumps(piece, ensure_ascii=False)}"))
    lines += [Text(line) for line in found.verdict()]
    for line in lines:
        console.print(line, soft_wrap=True)
