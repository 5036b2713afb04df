"""Heat maps: what is drawn is what was given, escaped, in any script; pages load nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as xml
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lucidlm.core import extras
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.view import Grid, View
from lucidlm.report import fonts
from lucidlm.report.heatmap import heat_map, stack
from lucidlm.report.inspection import write_view
from lucidlm.report.picture import write_png

needs_png = pytest.mark.skipif(
    find_spec("resvg_py") is None or find_spec("PIL") is None, reason="pictures need: pip install 'lucidlm[explain]'"
)
SVG = "{http://www.w3.org/2000/svg}"
VALUES = np.array([[0.0, 0.5], [1.0, np.nan]])


def view() -> View:
    texts = (("电影", "<b>&"), ("good", "坏"))
    grids = (
        Grid("first <map>", ("层 0", "layer 1"), ("the", "\n"), VALUES, texts, (0, 1)),
        Grid("second", ("a",), ("b",), np.array([[-2.0]])),
    )
    return View("lens", 'A "view" of 电影 <script>', grids, ("Trust it & no more.",), {"share": 0.5})


def test_cells_have_the_colours_of_their_values() -> None:
    drawing = heat_map("t", ["a", "b"], ["c", "d"], VALUES)
    cells = [rect.get("fill") for rect in xml.fromstring(drawing.svg()).iter(f"{SVG}rect")][1:]
    assert cells[0] == "#ffffff"
    assert cells[2] == "#1654a8"
    assert cells[3] == "#eeeeee"
    assert cells[1] not in (cells[0], cells[2])
    signed = heat_map("t", ["a"], ["b", "c", "d"], np.array([[-1.0, 0.0, 1.0]]))
    both = [rect.get("fill") for rect in xml.fromstring(signed.svg()).iter(f"{SVG}rect")][1:]
    assert both == ["#be3c28", "#ffffff", "#1654a8"]


def test_what_is_written_is_escaped_and_whole() -> None:
    grid = view().grids[0]
    drawing = heat_map(grid.title, grid.rows, grid.columns, grid.values, texts=grid.texts, limits=grid.limits)
    tree = xml.fromstring(drawing.svg("电影 <x>"))
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert {"电影", "<b>&", "坏", "层 0", "first <map>", "␊"} <= set(words)
    assert float(str(tree.get("width"))) >= drawing.width


def test_everything_lies_inside_the_picture() -> None:
    drawing = stack(
        [heat_map(f"grid {n}", ["row"] * 3, ["column"] * 40, np.ones((3, 40))) for n in range(2)], ["title"]
    )
    tree = xml.fromstring(drawing.svg())
    cells = [rect for rect in tree.iter(f"{SVG}rect") if "%" not in str(rect.get("width"))]
    right = [float(str(cell.get("x"))) + float(str(cell.get("width"))) for cell in cells]
    assert max(right) <= drawing.width


def test_many_cells_are_drawn_without_numbers() -> None:
    drawing = heat_map("t", [str(n) for n in range(70)], [str(n) for n in range(70)], np.zeros((70, 70)))
    assert drawing.elements.count("<rect") == 4900
    assert "0.00" not in drawing.elements


def test_a_plain_map_has_its_colours_alone() -> None:
    plain = heat_map("t", ["a", "b"], ["c", "d"], VALUES, plain=True)
    cells = [rect.get("fill") for rect in xml.fromstring(plain.svg()).iter(f"{SVG}rect")][1:]
    whole = xml.fromstring(heat_map("t", ["a", "b"], ["c", "d"], VALUES).svg())
    full = [rect.get("fill") for rect in whole.iter(f"{SVG}rect")][1:]
    assert cells == [colour for colour in full if colour != "#ffffff"]
    assert "<title></title>" in plain.svg()
    assert "0.50" not in plain.svg()


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.full((2, 2), -3.0)])
def test_values_of_one_kind_are_drawn_too(values: np.ndarray) -> None:
    xml.fromstring(heat_map("t", ["a", "b"], ["c", "d"], values).svg())


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    write_view(view(), tmp_path / "view.html")
    page = (tmp_path / "view.html").read_text(encoding="utf-8")
    assert "电影" in page
    assert "Trust it &amp; no more." in page
    assert "<script>A" not in page
    assert "of 电影 &lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert page.count("<svg") == 2


def test_data_are_json(tmp_path: Path) -> None:
    write_view(view(), tmp_path / "view.json")
    found = json.loads((tmp_path / "view.json").read_text(encoding="utf-8"))
    assert found["grids"][0]["values"] == [[0.0, 0.5], [1.0, None]]
    assert found["grids"][0]["texts"][0][0] == "电影"
    assert found["figures"] == {"share": 0.5}


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in none of \.html, \.png, \.json"):
        write_view(view(), tmp_path / "view.pdf")


@needs_png
def test_pictures_are_png(tmp_path: Path) -> None:
    grid = Grid("map", ("layer 1",), ("the", "\n"), np.array([[0.5, 1.0]]))
    write_view(View("lens", "A view", (grid,), (), {}), tmp_path / "view.png")
    picture = (tmp_path / "view.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") > 100


@needs_png
def test_pillows_own_font_draws_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(fonts, "_font_files", list)
    for name, words in (("words", "Hill"), ("none", "")):
        write_png(heat_map(words, ["a"], ["b"], np.zeros((1, 1))).svg(), tmp_path / name)
    inked = [
        sum(count for count, colour in image.convert("L").getcolors() or [] if isinstance(colour, int) and colour < 128)
        for image in (Image.open(tmp_path / name) for name in ("words", "none"))
    ]
    assert inked[0] > inked[1] > 0


@needs_png
def test_letters_without_a_font_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_font_files", list)
    with pytest.raises(InputError, match="no font of this system has all characters"):
        write_view(view(), tmp_path / "view.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "name"), [("resvg_py", "resvg-py"), ("PIL", "Pillow")])
def test_without_what_draws_a_picture_is_refused_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda one: None if one == module else find_spec(one) or one == "resvg_py")
    with pytest.raises(InputError, match=rf"--out: the package {name} is not installed.*lucidlm\[explain\]', or write"):
        write_view(view(), tmp_path / "view.png")
    assert not list(tmp_path.iterdir())
