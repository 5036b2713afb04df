"""`lucidlm inspect`: looks inside a model, a command each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import Source, text_given

if TYPE_CHECKING:
    from lucidlm.api.inspecting import InspectionResult
    from lucidlm.core.config import Config
    from lucidlm.explain.inside.view import Grid, View

Text = Annotated[str, typer.Argument(metavar="TEXT", help="The text; for a masked model with its mask token in it.")]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help="A file, a folder, pypi:PACKAGE, hf:REPO.")]
Target = Annotated[str | None, typer.Option(help="The answer: one token (a new word begins with a space), or a label.")]
Foil = Annotated[str | None, typer.Option(help="The answer whose logit is taken off.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as .html, .png or .json.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TextField = Annotated[str | None, typer.Option(help="The field that holds the text.")]
LabelField = Annotated[str | None, typer.Option(help="The field that holds the label.")]

MOST_GRIDS, MOST_ROWS, STRONGEST, WIDTH = 4, 40, 8, 160
"""Of more grids the last is printed, the others' pictures being for --out; of larger ones the strongest cells; columns of
what is no terminal."""

app = typer.Typer(no_args_is_help=True, help="Look inside a model: attention, layers, heads, neurons.")


@app.callback()
def _inspect() -> None:
    """Look inside a model: attention, layers, heads, neurons. Each view says how far it can be trusted."""


def attention(
    model: Source,
    text: Text,
    layer: Annotated[int | None, typer.Option(help="One layer, from 0; all if left out.")] = None,
    head: Annotated[int | None, typer.Option(help="One head, from 0; all if left out.")] = None,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show where heads look, and what the answer loses without each of them.

    Examples:

      lucidlm inspect attention model "The cat sat on the mat" --layer 1 --out attention.html
      lucidlm inspect attention judge "A dull film." --layer 3 --head 0
    """
    from lucidlm.api import inspecting

    _show(out, as_json, lambda: inspecting.attention(model, _given(text), layer=layer, head=head, **settings))


def lens(
    model: Source,
    text: Text,
    tuned: Annotated[Path | None, typer.Option(metavar="FILE", help="A lens that train-lens left.")] = None,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show what each layer would answer, if the model ended there.

    Examples:

      lucidlm inspect lens model "The capital of France is"
      lucidlm inspect lens model "The capital of France is" --tuned lens.safetensors --out lens.html
    """
    from lucidlm.api import inspecting

    _show(out, as_json, lambda: inspecting.lens(model, _given(text), tuned=tuned, **settings))


def train_lens(
    model: Source,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The lens to write, .safetensors.")],
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 250,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Tune a lens for a language model on text: it translates each layer into the last one's terms.

    Examples:

      lucidlm inspect train-lens model --data books/ --out lens.safetensors
    """
    from lucidlm.api import inspecting

    _show(
        None,
        as_json,
        lambda: inspecting.train_lens(model, data, out=out, steps=steps, text_field=text_field, **settings),
    )


def norms(model: Source, text: Text, out: Out = None, as_json: Json = False, *, settings: dict[str, Any]) -> None:
    """Show how large the residual stream is after each layer, and what attention and MLPs add to it.

    Examples:

      lucidlm inspect norms model "The cat sat on the mat"
    """
    from lucidlm.api import inspecting

    _show(out, as_json, lambda: inspecting.norms(model, _given(text), **settings))


def logits(
    model: Source,
    text: Text,
    target: Target = None,
    foil: Foil = None,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show what each head, MLP and neuron adds to the logit of an answer; the likeliest if none is given.

    Examples:

      lucidlm inspect logits model "The capital of France is" --target " Paris" --foil " Rome"
    """
    from lucidlm.api import inspecting

    _show(out, as_json, lambda: inspecting.logits(model, _given(text), target=target, foil=foil, **settings))


def patch(
    model: Source,
    clean: Annotated[str | None, typer.Argument(metavar="CLEAN", help="A text.")] = None,
    corrupted: Annotated[
        str | None, typer.Argument(metavar="CORRUPTED", help="The same text with a change, in as many tokens.")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Several instead: rows with clean, corrupted, and perhaps target, foil."),
    ] = None,
    target: Target = None,
    foil: Foil = None,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show which activations of the clean text bring its answer back in the corrupted one.

    Examples:

      lucidlm inspect patch model "The capital of France is" "The capital of Italy is" --target " Paris" --foil " Rome"
      lucidlm inspect patch judge "A dull film." "A good film." --out patching.html
      lucidlm inspect patch model --pairs capitals.jsonl
    """
    from lucidlm.api import inspecting

    for text, where in ((clean, "CLEAN"), (corrupted, "CORRUPTED")):
        _given(text or "", where)
    given = {"pairs": pairs, "target": target, "foil": foil}
    _show(out, as_json, lambda: inspecting.patch(model, clean, corrupted, **given, **settings))


def induction(model: Source, out: Out = None, as_json: Json = False, *, settings: dict[str, Any]) -> None:
    """Look for the heads that copy what followed the last time.

    Examples:

      lucidlm inspect induction model
    """
    from lucidlm.api import inspecting

    _show(out, as_json, lambda: inspecting.induction(model, **settings))


def probe(
    model: Source,
    data: Data,
    words: Annotated[bool, typer.Option("--words", help="Read the tags of words, as token-tagging has them.")] = False,
    text_field: TextField = None,
    label_field: LabelField = None,
    limit: Annotated[int, typer.Option(min=1, help="Most texts that are read.")] = 2000,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show what a linear probe reads of labels from each layer, beside a control task.

    Examples:

      lucidlm inspect probe model --data reviews.csv
      lucidlm inspect probe model --data entities.conll --words
    """
    from lucidlm.api import inspecting

    fields = {"text_field": text_field, "label_field": label_field}
    _show(out, as_json, lambda: inspecting.probe(model, data, words=words, limit=limit, **fields, **settings))


def nearest(
    model: Source,
    text: Text,
    data: Data,
    count: Annotated[int, typer.Option(help="How many examples.")] = 10,
    text_field: TextField = None,
    label_field: LabelField = None,
    out: Out = None,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show the training examples that a classifier takes for most like a text.

    Examples:

      lucidlm inspect nearest judge "A dull film with a wonderful ending." --data reviews.csv
    """
    from lucidlm.api import inspecting

    fields = {"text_field": text_field, "label_field": label_field}
    _show(out, as_json, lambda: inspecting.nearest(model, _given(text), data, count=count, **fields, **settings))


def _configurations() -> Sequence[type[Config]]:
    from lucidlm.cli.using.settings import UseConfig

    return (UseConfig,)


ENDS = ("out", "as_json", "device")
SHOWN: dict[Callable[..., None], tuple[str, ...]] = {
    attention: ("model", "text", "layer", "head", *ENDS),
    lens: ("model", "text", "tuned", *ENDS),
    train_lens: ("model", "data", "out", "steps", "text_field", "as_json", "device", "seed"),
    norms: ("model", "text", *ENDS),
    logits: ("model", "text", "target", "foil", *ENDS),
    patch: ("model", "clean", "corrupted", "pairs", "target", "foil", *ENDS),
    induction: ("model", *ENDS, "seed"),
    probe: ("model", "data", "words", "text_field", "label_field", "limit", *ENDS, "seed"),
    nearest: ("model", "text", "data", "count", "text_field", "label_field", *ENDS, "seed"),
}
for command, shown in SHOWN.items():
    add_command(app, command, _configurations, shown, name=command.__name__.replace("_", "-"))


def _given(text: str, where: str = "TEXT") -> str:
    return text_given(text, where)


def _show(out: Path | None, as_json: bool, look: Callable[[], InspectionResult]) -> None:
    """Take a look, write it to `out` if that is asked for, and print it."""
    import json

    from lucidlm.core.progress import log
    from lucidlm.report.inspection import check_ending

    if out is not None:
        check_ending(out)  # before anything is computed
    found = look()
    if out is not None:
        log(f"written to {found.save(out)}")
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _print(found.view)


def _print(view: View) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
    console.print(view.title, markup=False, soft_wrap=True, style="bold")
    shown = view.grids if len(view.grids) <= MOST_GRIDS else view.grids[-1:]
    if len(shown) < len(view.grids):
        console.print(f"({len(view.grids) - 1} pictures more with --out)", markup=False)
    for grid in shown:
        console.print(f"\n{grid.title}", markup=False, soft_wrap=True)
        _print_grid(grid, console)
    console.print()
    for line in view.verdict:
        console.print(line, markup=False, soft_wrap=True)


def _print_grid(grid: Grid, console: Any) -> None:
    """Print a grid as a table where it fits, else its strongest cells."""
    from rich.table import Table
    from rich.text import Text as Line

    table = Table(box=None, pad_edge=False, show_header=len(grid.columns) > 1)
    table.add_column("")
    for name in grid.columns:
        table.add_column(Line(" ".join(name.split()) or "␣"), justify="left" if grid.texts else "right", no_wrap=True)
    cells = grid.texts or [[f"{value:.3f}" for value in row] for row in grid.values.tolist()]
    for name, row in zip(grid.rows, cells, strict=True):
        table.add_row(Line(name), *(Line(" ".join(cell.split()) or "␣") for cell in row))
    if len(grid.rows) <= MOST_ROWS and console.measure(table).maximum <= console.width:
        console.print(table)
        return
    for row, column, value in grid.strongest(STRONGEST):
        console.print(f"{value:9.4f}  {row} · {column}", markup=False, soft_wrap=True)
