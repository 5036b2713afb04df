"""Commands made from configurations: flags, types, choices and help come from the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from lucidlm.cli.from_config import add_command
from lucidlm.core.config import Config


class Inner(Config):
    rate: float | None = Field(default=None, description="How fast.")
    name: Literal["a", "b"] = Field(default="a", description="Which of both.")


class Outer(Config):
    what: str = Field(description="What to do.")
    steps: int = Field(default=3, ge=1, description="How many.")
    either: int | Literal["auto"] = Field(default="auto", description="A number, or auto.")
    on: bool = Field(default=False, description="Whether.")
    stop: tuple[str, ...] = Field(default=(), description="Where to end.")
    names: tuple[Literal["a", "b"], ...] = Field(default=(), description="Some of them.")
    sizes: tuple[int, ...] = Field(default=(1, 2), description="Sizes.")
    fields: dict[str, str] = Field(default={}, description="Names.")
    choice: Annotated[Literal["x", "y"], Field(description="One of two.")] | None = None
    inner: Inner = Inner(name="b")


SHOWN = (
    "what",
    "steps",
    "own",
    "either",
    "on",
    "stop",
    "names",
    "sizes",
    "fields",
    "choice",
    "inner.rate",
    "inner.name",
)
found: dict[str, Any] = {}


def do(own: Annotated[str | None, typer.Option(help="Of the command.")] = None, *, settings: dict[str, Any]) -> None:
    """Do it."""
    found.update(own=own, settings=settings)


@pytest.fixture
def app() -> typer.Typer:
    found.clear()
    app = typer.Typer()
    app.callback()(lambda: None)
    add_command(app, do, lambda: (Outer,), SHOWN, arguments=("what",))
    return app


def test_settings_that_are_given_come_by_their_paths(app: typer.Typer) -> None:
    flags = [
        "--steps",
        "0",
        "--own",
        "mine",
        "--either",
        "7",
        "--on",
        "--stop",
        "p",
        "--stop",
        "q",
        "--names",
        "b",
        "--sizes",
        "8,9",
    ]
    more = ["--field", "a=b", "--choice", "y", "--rate", "0.5", "--name", "a"]
    assert CliRunner().invoke(app, ["do", "it", *flags, *more]).exit_code == 0
    assert found["own"] == "mine"
    # The range of `steps` is checked by the configuration, whose message names the field.
    assert found["settings"] == {
        "what": "it",
        "steps": 0,
        "either": "7",
        "on": True,
        "stop": ["p", "q"],
        "names": ["b"],
        "sizes": "8,9",
        "fields": ["a=b"],
        "choice": "y",
        "inner.rate": 0.5,
        "inner.name": "a",
    }


def test_what_is_left_out_is_not_there(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["do"]).exit_code == 0
    assert found == {"own": None, "settings": {}}
    assert CliRunner().invoke(app, ["do", "--no-on"]).exit_code == 0
    assert found["settings"] == {"on": False}


@pytest.mark.parametrize(("flags", "message"), [(["--steps", "many"], "integer"), (["--choice", "z"], "'x', 'y'")])
def test_wrong_types_and_choices_are_named(app: typer.Typer, flags: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["do", *flags])
    assert result.exit_code == 2
    assert flags[0] in result.output
    assert message in result.output


def test_help_has_the_order_asked_for_choices_and_defaults(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["do", "--help"], env={"COLUMNS": "200"}).output
    places = [text.index(flag) for flag in ("--steps", "--own", "--either", "--on", "--stop", "--field", "--rate")]
    assert places == sorted(places)
    for part in ("Do it.", "How many [3].", "Which of both [b].", "A number, or auto.", "One of two.", "NAME=FIELD"):
        assert part in text


def test_configurations_wait_until_they_are_needed() -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    def load() -> tuple[type[Config], ...]:
        raise AssertionError

    add_command(app, do, load, SHOWN)
    assert "Do it." in CliRunner().invoke(app, ["--help"]).output
