"""`lucidlm steer`: a direction between two sets of texts, to steer what a model writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import Source

if TYPE_CHECKING:
    from lucidlm.core.config import Config

SHOWN = ("model", "wanted", "unwanted", "out", "layer", "seed", "device")


def register(app: typer.Typer) -> None:
    add_command(app, steer, _configurations, SHOWN)


def _configurations() -> Sequence[type[Config]]:
    from lucidlm.cli.using.settings import UseConfig

    return (UseConfig,)


def steer(
    model: Source,
    wanted: Annotated[Path, typer.Argument(help="Texts as they are to be, a line each.")],
    unwanted: Annotated[Path, typer.Argument(help="Texts as they are not to be, a line each.")],
    out: Annotated[Path, typer.Option(help="The file of the vector, .safetensors.")],
    layer: Annotated[
        int | None, typer.Option(help="Behind which block; left out: where it tells texts apart best.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Find the direction from unwanted texts to wanted ones in a model's hidden states, to write by it.

    Examples:

      lucidlm steer model glad.txt sad.txt --out glad.safetensors
      lucidlm generate model "The film was" --steer glad.safetensors=1.5
    """
    from lucidlm.checkpoint.load import load_model
    from lucidlm.control.steering import fit
    from lucidlm.core.devices import choose_compute

    device = choose_compute(settings.get("device", "auto")).device
    loaded, tokenizer = load_model(model, device=device).causal_lm()
    texts = [_lines(path, where) for path, where in ((wanted, "WANTED"), (unwanted, "UNWANTED"))]
    vector = fit(loaded, tokenizer, texts[0], texts[1], layer=layer, seed=settings.get("seed", 0))
    vector.save(out)
    print(
        f"{out}: added behind block {vector.layer} of {loaded.config.num_layers}; there it tells apart "
        f"{vector.accuracy:.0%} of {vector.held_out} texts that were held out (50% is chance)"
    )


def _lines(path: Path, where: str) -> list[str]:
    from lucidlm.core.errors import InputError

    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text in UTF-8", where=where, fix="Pass a file of texts.") from None
