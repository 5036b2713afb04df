"""`lucidlm generate`: text from a prompt; the text alone goes to standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lucidlm.cli.options import Device, Seed


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="One or more prompts; standard input if left out.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Most tokens to write [100].")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the likeliest token, 1 draws as the model says [0.8].")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens that hold this share.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Leave out tokens below this share of the likeliest one's probability [0.05].")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: shun what was said already.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this string; may be given again.")] = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Write on from a prompt.

    Examples:

      lucidlm generate model "The quick brown fox"
      lucidlm generate model "This film" "The acting" --length 60 --temperature 0.7
      echo "Once upon a time" | lucidlm generate model --top-k 40 --stop "The end"
    """
    from lucidlm.cli.options import given
    from lucidlm.core.devices import choose_compute
    from lucidlm.core.errors import InputError
    from lucidlm.generate.decode import generate as run
    from lucidlm.generate.sampling import SamplingConfig
    from lucidlm.model.directory import load_model
    from lucidlm.model.heads import LanguageModel

    loaded = load_model(model)
    if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None or not loaded.model.config.causal:
        raise InputError("cannot write: it is not a causal language model with its tokenizer", where=model)
    texts = prompts or [sys.stdin.read().rstrip("\n")]
    flags = {
        "length": length,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": tuple(stop) if stop else None,
        "seed": seed,
    }
    sampling = SamplingConfig(**given(flags))
    network = loaded.model.to(choose_compute(device or "auto").device)
    if len(texts) > 1:
        for text, written in zip(texts, run(network, loaded.tokenizer, texts, sampling), strict=True):
            print(text + written.text)
        return
    print(texts[0], end="", flush=True)
    run(network, loaded.tokenizer, texts, sampling, on_text=lambda _, piece: print(piece, end="", flush=True))
    print()
