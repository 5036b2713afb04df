"""`lucidlm generate`: text from a prompt; the text alone goes to standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import (
    CONSTRAINT,
    ENGINE,
    SAMPLING,
    SHIFT,
    Source,
    configurations,
    constraint_config,
    input_lines,
    open_writer,
    text_given,
)
from lucidlm.core.errors import InputError

if TYPE_CHECKING:
    from lucidlm.inference.decode import Pieces
    from lucidlm.inference.sequence import Generation

SHOWN = (
    "model",
    "prompts",
    "length",
    *SAMPLING,
    "num_beams",
    "length_penalty",
    *CONSTRAINT,
    *SHIFT,
    "guard",
    "special",
    "seed",
    "device",
    *ENGINE,
)


def register(app: typer.Typer) -> None:
    add_command(app, generate, configurations, SHOWN)


def generate(
    model: Source,
    prompts: Annotated[
        list[str] | None, typer.Argument(help="One or more prompts; standard input if left out.")
    ] = None,
    special: Annotated[
        bool, typer.Option("--special", help="Control tokens in a prompt, such as <|im_start|>, are control tokens.")
    ] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Write on from a prompt.

    Examples:

      lucidlm generate model "The quick brown fox"
      lucidlm generate model "This film" "The acting" --length 60 --temperature 0.7
      echo "Once upon a time" | lucidlm generate model --top-k 40 --stop "The end"
      lucidlm generate model "A dull film. Verdict:" --choices " good" --choices " bad"
      lucidlm generate model "A person as JSON: " --json-schema person.json
      lucidlm generate model "The film was" --steer glad.safetensors=1.5
      lucidlm generate model "In short:" --num-beams 4 --length-penalty 1
      lucidlm generate model "You are" --guard "toxicity:toxic<0.5"
    """
    from lucidlm.control.config import ShiftConfig
    from lucidlm.control.opening import processors_of
    from lucidlm.core.progress import log
    from lucidlm.inference.config import SamplingConfig
    from lucidlm.inference.guard import CUT

    if settings.get("num_beams", 1) > 1 and settings.get("draft") is not None:
        raise InputError("beam search makes no drafts", where="--draft", fix="Leave it out, or --num-beams.")
    held = constraint_config(settings)
    shifted = ShiftConfig(**{name: settings.pop(name) for name in SHIFT if name in settings})
    guided = shifted.negative_prompt is not None or shifted.amateur is not None
    writer, guard = open_writer(model, settings, shifted.steer, release_weights=not guided)
    processors = processors_of(writer.model, writer.tokenizer, held, shifted)
    texts = [text_given(prompt, "PROMPTS") for prompt in prompts or ()] or ["".join(input_lines()).rstrip("\n")]
    sampling = SamplingConfig(**settings)
    if guard is not None:
        guard.admit(texts)
    prompts_read = [writer.tokenizer.encode_prompt(text, special=special) for text in texts]
    if len(texts) > 1:
        found = writer.generate(prompts_read, sampling, processors=processors)
        for number, (text, written) in enumerate(zip(texts, found, strict=True), 1):
            print(text + written.text)
            if written.reason == "guarded":
                log(f"(text {number} is {CUT})")
        return
    pieces = writer.stream(
        prompts_read[0], sampling, processors=processors
    )  # refuses what it refuses before anything is printed
    print(texts[0], end="", flush=True)
    written = _printed(pieces)
    print()
    if written.reason == "guarded":
        log(f"({CUT})")


def _printed(pieces: Pieces) -> Generation:
    """Print a text as it comes, and return it whole."""
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            return end.value
