"""The options of a command, made from the configuration that it fills in, where each is stated once, with its help.

A command names the settings that it shows by their paths in the configuration (`loop.optimizer.learning_rate`), in the
order of its help, among the parameters of its own function. The last part of a path is the flag (`--learning-rate`);
`FLAGS` has the others. Whether a value is right is checked by the configuration, for flags and files alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from lucidlm.core.config import Config

FLAGS = {
    "context_length": "context",
    "fields": "field",
    "loop.optimizer.name": "optimizer",
    "loop.schedule.name": "schedule",
    "near": "near_duplicates",
}
METAVARS = {"fields": "NAME=FIELD", "loop.track": "<tracker>", "model": "<path>", "tokenizer_from": "<path>"}


def add_command(
    app: typer.Typer,
    run: Callable[..., None],
    configurations: Callable[[], Sequence[type[Config]]],
    shown: Sequence[str],
    *,
    name: str | None = None,
    arguments: Collection[str] = (),
) -> None:
    """Add the command `run` to `app`; its keyword `settings` gets the settings that were given, by their paths.

    Parameters
    ----------
    configurations: imports and returns the classes that have the settings. It is called when the command is, or its
        help: `lucidlm --help` is not to wait for all of them.
    shown: paths of settings, and parameters of `run`, in the order of the help.
    arguments: those of the paths that are arguments, not options.
    """

    class ConfiguredCommand(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            if not self.params:
                inner = typer.Typer(add_completion=False)
                inner.command()(with_options(run, configurations(), shown, arguments))
                made = typer.main.get_command(inner)
                self.params, self.callback = made.params, made.callback
            return super().get_params(ctx)

    app.command(name or run.__name__, cls=ConfiguredCommand, help=inspect.getdoc(run))(lambda: None)


def with_options(
    run: Callable[..., None], kinds: Sequence[type[Config]], shown: Sequence[str], arguments: Collection[str] = ()
) -> Callable[..., None]:
    """Return `run` with a signature that typer reads: parameters for the settings `shown` stand for its `settings`."""
    own = inspect.signature(run, eval_str=True).parameters
    parameters, paths = [], {}
    for path in shown:
        if path in own:
            parameters.append(own[path].replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        name = FLAGS.get(path, path.rpartition(".")[2])
        paths[name] = path
        annotation = _option(kinds, path, typer.Argument if path in arguments else typer.Option)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def command(**values: Any) -> None:
        settings = {path: values.pop(name) for name, path in paths.items()}
        run(**values, settings={path: value for path, value in settings.items() if value not in (None, [])})

    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(kinds: Sequence[type[Config]], path: str, make: Callable[..., Any]) -> Any:
    """Return the annotation that typer makes an option or argument of, for the setting at `path`."""
    first, *rest = path.split(".")
    field = next(kind.model_fields[first] for kind in kinds if first in kind.model_fields)
    default = field.default
    for part in rest:
        field, default = type(default).model_fields[part], getattr(default, part)
    annotation, inner = _plain(field.annotation)
    text = field.description or inner or ""
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "auto":
        shown = default if isinstance(default, str) else f"{default:g}"
        text = f"{text.removesuffix('.')} \\[{shown}]."
    return Annotated[_typed(annotation) | None, make(help=text, metavar=METAVARS.get(path), show_default=False)]


def _plain(annotation: Any) -> tuple[Any, str | None]:
    """Return an annotation without None and metadata, and the help in the latter; what may be of several types is text.

    The configuration then makes of the text what it is.
    """
    text = None
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            text = next((found.description for found in metadata if hasattr(found, "description")), text)
        elif get_origin(annotation) in (Union, UnionType):
            members = [member for member in get_args(annotation) if member is not NoneType]
            if len(members) > 1:
                return str, text
            annotation = members[0]
        else:
            return annotation, text


def _typed(annotation: Any) -> Any:
    """Return the type that the command line reads: texts, names and pairs may be repeated, numbers stand in one text."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal:
        return annotation
    return list[str] if origin is dict or inner[0] is str or get_origin(inner[0]) is Literal else str
