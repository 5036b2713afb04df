"""`lucidlm`: the commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys

import typer

from lucidlm.cli.judging import compare, evaluate, explain, inspect_, report, results, tasks
from lucidlm.cli.training import data, demo, finetune, label_curve, plan, pretrain, recipe, watch
from lucidlm.cli.using import chat, export, generate, import_, quantize, search, serve, steer, watermark
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.memory import configure_memory
from lucidlm.version import __version__

ON_RANKS = ("pretrain", "finetune", "evaluate")
"""Commands that several processes run together."""

app = typer.Typer(
    name="lucidlm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(inspect_.app, name="inspect")
app.add_typer(plan.app, name="plan")
for command in (
    pretrain,
    finetune,
    label_curve,
    watch,
    evaluate,
    compare,
    generate,
    chat,
    explain,
    search,
    serve,
    steer,
    watermark,
    tasks,
    report,
    results,
    recipe,
    import_,
    export,
    quantize,
    demo,
):
    command.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"lucidlm {__version__}")
        raise typer.Exit


@app.callback()
def _lucidlm(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """From raw text to an evaluated language model, on one machine.

    [bold]lucidlm demo[/bold] shows all of it in a quarter of an hour. Step by step:

      lucidlm data prepare books/ --out data
      lucidlm pretrain --data data --out model --minutes 30
      lucidlm generate model "Once upon a time"
      lucidlm finetune sentiment --model model --data reviews.jsonl --out judge
      lucidlm evaluate judge --task sentiment --data test.jsonl
    """
    if _ranks() > 1 and context.invoked_subcommand not in ON_RANKS:
        raise InputError(
            f"{context.invoked_subcommand} runs in one process, and torchrun has started {_ranks()}",
            fix=f"Start it without torchrun; {', '.join(ON_RANKS)} run on several ranks.",
        )


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 the call or its input is wrong, 128 + n stopped by signal n."""
    configure_memory()
    try:
        app()
    except LucidError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has what they wanted; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _ranks() -> int:
    """Return how many processes torchrun has started for this call."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdecimal() else 1


def _fail(message: str, code: int) -> None:
    if _ranks() > 1:
        from lucidlm.distributed.failure import speaks_for_all

        if not speaks_for_all():
            sys.exit(code)
    print(f"lucidlm: {message}", file=sys.stderr)
    sys.exit(code)
