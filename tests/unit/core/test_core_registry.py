"""Plug-ins: by decorator here, by entry point elsewhere."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.core.registry import Registry


def test_what_is_registered_is_found_by_name() -> None:
    shapes: Registry[object] = Registry("shape")
    circle = shapes.register("circle")(object())
    shapes.register("angle")(object())
    assert shapes.get("circle") is circle
    assert list(shapes) == ["angle", "circle"]


def test_an_unknown_name_lists_those_there_are() -> None:
    shapes: Registry[str] = Registry("shape")
    shapes.register("circle")("○")
    shapes.register("square")("□")
    with pytest.raises(InputError, match=r"there is no shape called 'disc'\. Choose one of: circle, square\."):
        shapes.get("disc")


def test_a_name_is_taken_once() -> None:
    shapes: Registry[str] = Registry("shape")
    shapes.register("circle")("○")
    with pytest.raises(ValueError, match="two shapes are called 'circle'"):
        shapes.register("circle")("o")


def test_entry_points_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hexagons.py").write_text("HEXAGON = 'six sides'\n")
    metadata = tmp_path / "hexagons-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hexagons\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[lucidlm.shape]\nhexagon = hexagons:HEXAGON\n")
    monkeypatch.syspath_prepend(tmp_path)
    shapes: Registry[str] = Registry("shape")
    assert list(shapes) == ["hexagon"]
    assert "hexagons" not in sys.modules  # listed, but not imported before it is asked for
    assert shapes.get("hexagon") == "six sides"
    monkeypatch.delitem(sys.modules, "hexagons")


def test_what_is_built_in_is_imported_when_it_is_asked_for() -> None:
    registry: Registry[object] = Registry("thing", {"numbers": "fractions:Fraction", "gone": "no_such_module:x"})
    assert list(registry) == ["gone", "numbers"]
    assert registry.get("numbers") is Fraction
    with pytest.raises(ModuleNotFoundError):
        registry.get("gone")
