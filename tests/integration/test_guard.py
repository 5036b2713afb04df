"""A classifier that has learnt a word guards what is written: on the command line, in conversations, in Python, served."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import made_up_reviews
from tests.serving import TORCH, running, small_tokenizer
from tests.speaking_model import saying

import lucidlm
from lucidlm.checkpoint.save import save_model
from lucidlm.cli import main as cli
from lucidlm.core.errors import InputError
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.text_generator import TextGenerator
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import open_models

WORD = "wombat"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A classifier that was tuned to tell texts with a word in them from others."""
    directory = tmp_path_factory.mktemp("guard")
    with (directory / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number, row in enumerate(made_up_reviews(300)):
            words = row["text"].split()[: 1 + number % 9]
            planted = number % 2 == 1
            text = " ".join([*words[: number % 4], *([WORD] if planted else []), *words[number % 4 :]])
            writer.writerow([f"{text} {number}", "bad" if planted else "fine"])
    data, out = directory / "data.csv", directory / "judge"
    lucidlm.finetune("text-classification", model=tiny_model, data=data, out=out, epochs=4, device="cpu")
    judge = TextClassifier(directory / "judge")
    assert judge([f"a {WORD}", f"Hi. {WORD}"])[1].label == "bad"
    assert judge("Hi.").label == judge("the fox").label == "fine"
    return directory / "judge"


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says "Hi. wombat", whatever it has read."""
    directory, tokenizer = tmp_path_factory.mktemp("speaker") / "speaker", small_tokenizer()
    said = [token for letter in f"Hi. {WORD}" for token in tokenizer.encode(letter)]
    save_model(saying(*said, tokenizer.eos_id), directory, tokenizer)
    return directory


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run lucidlm; return its exit code, standard output and standard error."""

    def call(*arguments: object, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
        monkeypatch.setattr(sys, "argv", ["lucidlm", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


CUT = "cut off: what would have come next does not pass the guard"
GREEDY = ("--temperature", 0, "--backend", "torch")


def test_the_command_line(command: Command, speaker: Path, judge: Path) -> None:
    guard = ("--guard", f"{judge}:bad<0.5", *GREEDY)
    assert command("generate", speaker, "the", *GREEDY) == (0, f"theHi. {WORD}\n", "")
    assert command("generate", speaker, "the", *guard) == (0, "theHi.\n", f"({CUT})\n")
    both = command("generate", speaker, "the", "fox", *guard)
    assert both == (0, "theHi.\nfoxHi.\n", f"(text 1 is {CUT})\n(text 2 is {CUT})\n")
    code, out, err = command("generate", speaker, "the", f"a {WORD}", *guard)
    assert (code, out) == (2, "")
    assert f"prompt 2: does not pass the guard {judge}:bad<0.5: the probability of bad is" in err
    code, out, err = command("generate", speaker, "the", "--guard", f"{judge}:rude<0.5")
    assert (code, out) == (2, "")
    assert "has no label 'rude', but bad, fine" in err
    code, out, err = command("generate", speaker, "the", "--guard", f"{judge}:bad<5")
    assert (code, out) == (2, "")
    assert "should be a probability between 0 and 1" in err


def test_conversations(command: Command, speaker: Path, judge: Path) -> None:
    code, out, err = command("chat", speaker, "--guard", f"{judge}:bad<0.5", *GREEDY, typed=f"the fox\na {WORD}\nfox\n")
    assert (code, out) == (0, "Hi.\nHi.\n")
    assert err.count(f"({CUT})") == 2
    assert err.count("(not said: it does not pass the guard") == 1


def test_python(speaker: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write = TextGenerator(speaker, guard=f"{judge}:bad<0.5")
    assert write("the", temperature=0) == "Hi."
    assert write(["the", "fox"], temperature=0) == ["Hi.", "Hi."]
    assert list(write.stream("the", temperature=0)) == ["Hi."]
    assert capsys.readouterr().err.count(CUT) == 4
    for call in (write, write.stream):
        with pytest.raises(InputError, match=r"the prompt: does not pass the guard .*bad<0.5"):
            call(f"a {WORD}")
    assert TextGenerator(speaker)("the", temperature=0) == f"Hi. {WORD}"
    with pytest.raises(InputError, match="guard"):
        TextGenerator(speaker, guard="judge")


def test_a_form_that_is_cut(speaker: Path, judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write = TextGenerator(speaker, guard=f"{judge}:bad<0.5")
    assert write("the", choices=[f"a {WORD}"]) == ""
    assert CUT in capsys.readouterr().err


def test_served(speaker: Path, judge: Path) -> None:
    models = open_models([str(speaker)], ServeConfig(guard=(f"{judge}:bad<0.5",)), TORCH, "cpu")
    with running(models) as server, server.client() as client:
        asked = {"prompt": "the", "max_tokens": 20, "temperature": 0}
        (choice,) = client.post("/v1/completions", json=asked).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("Hi.", "content_filter")
        refused = client.post("/v1/completions", json={**asked, "prompt": f"a {WORD}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    with pytest.raises(InputError, match="has no label 'rude'"):
        open_models([str(speaker)], ServeConfig(guard=(f"{judge}:rude<0.5",)), TORCH, "cpu")
