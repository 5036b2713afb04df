"""A look inside a model as a file: a page, a picture, or data, as the file's name ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_json
from lucidlm.explain.inside.view import View
from lucidlm.report.heatmap import Drawing, heat_map, stack
from lucidlm.report.language import Language
from lucidlm.report.page import Block, Drawn, Notes, Page
from lucidlm.report.picture import write_png
from lucidlm.version import __version__

ENDINGS = (".html", ".png", ".json")
MANY = 20_000
"""Cells that a page shows with numbers and hints: some 300 bytes each."""


def check_ending(path: str | Path) -> Path:
    """Return `path` if it ends as one of the files that can be written.

    Raises
    ------
    InputError: it does not.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError("ends in none of " + ", ".join(ENDINGS), where=path, fix="Choose one of these endings.")
    return path


def write_view(view: View, path: str | Path) -> None:
    """Write a view as .html, .png or .json.

    Raises
    ------
    InputError: the name has another ending, or PNG is asked for and cannot be drawn: see `write_png`.
    LucidError: the disk is full.
    """
    path = check_ending(path)
    if path.suffix.lower() == ".json":
        write_json(path, view.as_dict())
    elif path.suffix.lower() == ".html":
        page(view).write(path, Language())
    else:
        write_png(stack(drawings(view), [view.title, *view.verdict]).svg(view.title), path)


def page(view: View) -> Page:
    """Return a view as a page."""
    blocks: list[Block] = [Notes("How far to trust it", view.verdict)]
    blocks += [
        Drawn(grid.title, drawing.svg(grid.title)) for grid, drawing in zip(view.grids, drawings(view), strict=True)
    ]
    footer = f"Written by lucidlm {__version__} on {datetime.now(UTC):%Y-%m-%d}."
    return Page(title=view.title, lead="", blocks=blocks, footer=footer)


def drawings(view: View) -> list[Drawing]:
    """Return the heat maps of a view, plain ones where they have more than `MANY` cells together."""
    plain = sum(grid.values.size for grid in view.grids) > MANY
    return [
        heat_map(grid.title, grid.rows, grid.columns, grid.values, texts=grid.texts, limits=grid.limits, plain=plain)
        for grid in view.grids
    ]
