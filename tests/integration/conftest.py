"""A hub on this machine, for the tests of data sets and of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub_server import Hub, serve, turn_to


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(running: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub without anything on it, which this process and those it starts take for the hub."""
    running.reset()
    turn_to(running, tmp_path / "cache", monkeypatch)
    return running
