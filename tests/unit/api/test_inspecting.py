"""`lucidlm.inspect` and `lucidlm inspect`: a function a command, the same keywords, clear messages."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer.main

import lucidlm
from lucidlm.cli.main import app, main
from lucidlm.core.errors import InputError, InputTypeError

TEXT = "director calls film wonderful and"
COMMANDS = ("attention", "lens", "train-lens", "norms", "logits", "patch", "induction", "probe", "nearest")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lucidlm", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        found = capsys.readouterr()
        return int(code or 0), found.out, found.err

    return call


def test_every_command_has_a_function_with_its_flags() -> None:
    command = typer.main.get_command(app).commands["inspect"]  # type: ignore[attr-defined]
    assert set(command.commands) == set(COMMANDS)
    for name in COMMANDS:
        own = command.commands[name]
        flags = {parameter.name for parameter in own.get_params(typer.Context(own))} - {"as_json", "help"}
        flags -= {"out"} if name != "train-lens" else set()
        function = getattr(lucidlm.inspect, name.replace("-", "_"))
        assert flags == set(inspect.signature(function).parameters), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_examples(name: str, run: Run) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"lucidlm inspect {name}" in out


def test_results_are_data_that_show_and_save_themselves(tiny_model: Path, tmp_path: Path) -> None:
    found = lucidlm.inspect.norms(tiny_model, TEXT)
    assert repr(found) == f"InspectionResult('Norms of the residual stream: {TEXT}', 3 grids)"
    assert found.rows()[0].keys() == {"grid", "row", "column", "value"}
    assert len(found.rows()) == sum(np.size(grid.values) for grid in found.view.grids)
    assert "<svg" in found._repr_html_()
    assert json.loads(found.save(tmp_path / "norms.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_models_that_are_open_are_looked_into_as_they_are(tiny_model: Path) -> None:
    loaded = lucidlm.load_model(tiny_model)
    first, second = (lucidlm.inspect.lens(model, TEXT).to_dict() for model in (loaded, tiny_model))
    assert first == second


def test_commands_print_write_and_say_how_far_to_trust_them(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    code, out, err = run("attention", tiny_model, TEXT, "--layer", "1", "--out", tmp_path / "a.html")
    assert (code, "written to" in err) == (0, True)
    assert "Weights say where a head looks, not that it matters" in out
    assert "<svg" in (tmp_path / "a.html").read_text(encoding="utf-8")
    code, out, _ = run("lens", tiny_model, TEXT, "--json")
    assert (code, json.loads(out)["view"]) == (0, "lens")
    code, out, _ = run("induction", tiny_model, "--out", tmp_path / "i.json")
    assert (code, "prefix-matching score" in out) == (0, True)
    code, out, _ = run("logits", tiny_model, "f" * 60)
    assert (code, "The parts sum to" in out) == (0, True)


def test_a_lens_is_tuned_and_used(run: Run, tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> None:
    lens = tmp_path / "lens.safetensors"
    code, out, _ = run("train-lens", tiny_model, "--data", reviews_csv, "--out", lens, "--steps", "5")
    assert (code, "Tuned on" in out) == (0, True)
    code, out, _ = run("lens", tiny_model, TEXT, "--tuned", lens)
    assert (code, out.startswith("Tuned lens: ")) == (0, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("attention", TEXT, "--layer", "9"), "there is no layer 9. Choose 0 to"),
        (("attention", TEXT, "--head", "9"), "there is no head 9."),
        (("lens", "film " * 200), "the model reads 64 at once"),
        (("lens", TEXT, "--out", "lens.pdf"), "ends in none of .html, .png, .json"),
        (("patch", TEXT, TEXT + " film"), "position by position they have to match"),
        (("patch", TEXT), "clean and corrupted: are needed, two texts"),
        (("patch", TEXT, TEXT, "--pairs", "x.jsonl"), "pairs: holds all pairs, and their answers"),
        (("nearest", TEXT, "--data", "x.csv"), "is no classifier"),
        (("norms", " "), "text: is empty"),
    ],
)
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, run: Run, tiny_model: Path) -> None:
    code, out, err = run(words[0], tiny_model, *words[1:])
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_wrong_types_are_named(tiny_model: Path) -> None:
    with pytest.raises(InputTypeError, match="text: is 5"):
        lucidlm.inspect.lens(tiny_model, 5)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="data: is 5"):
        lucidlm.inspect.probe(tiny_model, 5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no such model"):
        lucidlm.inspect.norms("nowhere", TEXT)
