"""`lucidlm search` as its users meet it: ranked texts, a kept index, and one clear message for bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import made_up_reviews

from lucidlm.cli import main as cli

Run = Callable[..., tuple[int, str, str]]
TEXTS = [row["text"] for row in made_up_reviews(20)]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lucidlm", "search", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        output, errors = capsys.readouterr()
        return code, output, errors

    return call


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_texts_are_ranked_and_the_index_is_kept(search: Run, tiny_model: Path, texts: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    code, output, errors = search(tiny_model, TEXTS[3], "--in", texts, "--top", 3, "--index", index)
    assert code == 0, errors
    lines = output.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(" 1.0000  ")
    assert lines[0].endswith(f"({texts}:4)")
    again, output, errors = search(tiny_model, TEXTS[3], TEXTS[5], "--index", index, "--json")
    assert again == 0, errors
    assert "embedding" not in errors
    first, second = map(json.loads, output.splitlines())
    assert (first["query"], first["found"][0]["text"], len(first["found"])) == (TEXTS[3], TEXTS[3], 5)
    assert second["found"][0]["where"] == f"{texts}:6"


def test_items_are_recommended_by_items(search: Run, tiny_model: Path, texts: Path) -> None:
    code, output, errors = search(
        tiny_model, "--like", TEXTS[0], "--like", TEXTS[1], "--in", texts, "--top", 20, "--json"
    )
    assert code == 0, errors
    answer = json.loads(output)
    assert answer["like"] == TEXTS[:2]
    assert {hit["text"] for hit in answer["found"]} == set(TEXTS[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "TEXTS"), "QUERY and --like: are missing, one of them is needed"),
        (("a", "--like", "b", "--in", "TEXTS"), "QUERY and --like: are given both"),
        (("a", " ", "--in", "TEXTS"), "QUERY: is empty. Say what to search for."),
        (("--like", "", "--in", "TEXTS"), "--like: is empty. Say what to search for."),
        (("a",), "--in: is needed"),
        (("a", "--index", "nowhere"), "nowhere: holds no index"),
        (("a", "--in", "nowhere"), "nowhere: there is no such file or folder"),
        (("a", "--in", "TEXTS", "--text-field", "body"), 'field "body" is missing'),
    ],
)
def test_bad_calls_are_one_message(
    search: Run, tiny_model: Path, texts: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, output, errors = search(tiny_model, *(texts if word == "TEXTS" else word for word in arguments))
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
