"""`lucidlm chat`: turns from a pipe and from a terminal, what is remembered, what stops what."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lucidlm.checkpoint.save import save_model
from lucidlm.cli import main as cli
from lucidlm.inference.sequence import Generation
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.conversation import Message
from lucidlm.tokenize.tokenizer import Tokenizer

Chat = Callable[..., tuple[int, str, str]]
SHAPE: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "num_kv_heads": 2, "ff_dim": 16, "num_layers": 1}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = LanguageModel(ModelConfig(vocab_size=270, context_length=128, **SHAPE))
    save_model(model, path, Tokenizer.train_bpe(["Who are you? I am. " * 3], 270))
    return path


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Chat:
    """Run the command on some input; return its exit code, standard output and standard error."""

    def call(typed: str | bytes, *arguments: object, model: Path = directory) -> tuple[int, str, str]:
        data = typed.encode() if isinstance(typed, str) else typed
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        monkeypatch.setattr(sys, "argv", ["lucidlm", "chat", str(model), *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """What the model is given each time, with a model that counts its replies; it is interrupted at "stop"."""
    found: list[list[tuple[str, str]]] = []

    def reply(_: object, messages: Sequence[Message], config: Any, on_text: Callable[[str], None]) -> Any:
        found.append([(message.role, message.content) for message in messages])
        on_text(f"reply {len(found)}")
        if messages[-1].content == "stop":
            raise KeyboardInterrupt
        on_text("!")
        return Generation(f"reply {len(found)}!", [], "eos" if config.length > 1 else "length")

    monkeypatch.setattr("lucidlm.inference.chat.reply", reply)
    return found


def test_lines_are_turns_and_replies_go_to_standard_output(chat: Chat, heard: list[list[tuple[str, str]]]) -> None:
    code, out, err = chat("Hi\n\n  Who?  \n/reset\nAgain\n/quit\nnever read\n", "--system", "Be kind.")
    assert (code, out, err) == (0, "reply 1!\nreply 2!\nreply 3!\n", "")
    told, asked, replied = ("system", "Be kind."), ("user", "Hi"), ("assistant", "reply 1!")
    assert heard == [[told, asked], [told, asked, replied, ("user", "  Who?  ")], [told, ("user", "Again")]]


def test_a_reply_that_is_cut_off_says_so(chat: Chat, heard: list[list[tuple[str, str]]]) -> None:
    assert chat("Hi", "--length", 1) == (0, "reply 1!\n", "(cut off: --length is 1)\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_asked_until_its_end(
    directory: Path, heard: list[list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["Hi", KeyboardInterrupt, "stop", "And?", EOFError])

    def ask(prompt: str) -> str:
        print(prompt, end="")
        if isinstance(said := next(typed), str):
            return said
        raise said

    out = Terminal()
    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["lucidlm", "chat", str(directory)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert out.getvalue() == "> reply 1!\n> \n> reply 2\n> reply 3!\n> \n"
    assert heard[-1][2:] == [("user", "stop"), ("assistant", "reply 2"), ("user", "And?")]


def test_elsewhere_an_interrupt_ends_it(chat: Chat, heard: list[list[tuple[str, str]]]) -> None:
    code, out, _ = chat("stop\nAnd?\n")
    assert (code, out, len(heard)) == (130, "reply 1", 1)


def test_a_model_answers_and_the_same_way_each_time(chat: Chat) -> None:
    first = chat("Who are you?\nAnd you?\n", "--length", 7, "--seed", 3)
    assert first[0] == 0
    assert first[1].count("\n") >= 2
    assert chat("Who are you?\nAnd you?\n", "--length", 7, "--seed", 3) == first


def test_what_cannot_be_is_said_before_anybody_types(chat: Chat, tmp_path: Path) -> None:
    made = Tokenizer.train_bpe(["Who are you? I am. " * 3], 270)
    core = made.core.from_str(made.core.to_str().replace("<|im_end|>", "<|ends|>"))
    save_model(LanguageModel(ModelConfig(vocab_size=270, context_length=64, **SHAPE)), tmp_path, Tokenizer(core))
    code, out, err = chat("Hi\n", model=tmp_path)
    assert (code, out) == (2, "")
    assert "no chat template" in err
    code, out, err = chat("Hi\n", "--length", 0)
    assert (code, out) == (2, "")
    assert "length" in err


def test_input_that_is_no_text_is_refused(chat: Chat, heard: list[list[tuple[str, str]]]) -> None:
    code, out, err = chat(b"Hi \xff\n")
    assert (code, out, heard) == (2, "", [])
    assert "standard input: is not text in utf-8" in err
    code, _, err = chat("Hi\n", "--system", "\udcff")
    assert code == 2
    assert "--system: is not text" in err
