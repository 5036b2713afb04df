"""The assistant's next turn: what it reads, where it ends."""

from __future__ import annotations

from typing import Any

import pytest
from tests.speaking_model import saying

from lucidlm.core.errors import InputError
from lucidlm.inference.chat import reply
from lucidlm.inference.config import EngineConfig
from lucidlm.inference.decode import Writer, generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.tasks import tasks
from lucidlm.tasks.dialogue import Dialogue
from lucidlm.tokenize.chat_template import CHATML
from lucidlm.tokenize.conversation import Chat, Message
from lucidlm.tokenize.tokenizer import END, Tokenizer

GREEDY = SamplingConfig(temperature=0, length=5)
TORCH = EngineConfig(backend="torch")
ASKED = [Message("user", "Who are you?")]


def tokenizer_with(**config: Any) -> Tokenizer:
    made = Tokenizer.train_bpe(["Who are you? I am. " * 3], 270)
    return Tokenizer(made.core, {**made.config, **config})


def test_a_reply_ends_with_the_turn_whatever_ends_a_text() -> None:
    """What ends a turn ends any text of such a model, though it pads with the same token, which is else never written."""
    tokenizer = tokenizer_with(chat_template=CHATML, pad_token="<|im_end|>")
    [word], end = tokenizer.encode("I"), tokenizer.pad_id
    assert tokenizer.core.id_to_token(end) == "<|im_end|>"
    assert tokenizer.eos_id != end
    heard: list[str] = []
    found = reply(Writer(saying(word, end), tokenizer, TORCH), ASKED, GREEDY, heard.append)
    assert (found.text, found.tokens, found.reason) == ("I", [word, end], "eos")
    assert heard == ["I"]
    [plain] = generate(saying(word, end), tokenizer, ["Who"], GREEDY)
    assert (plain.text, plain.reason) == ("I", "eos")
    [untaught] = generate(saying(word, end), tokenizer_with(), ["Who"], GREEDY)
    assert untaught.reason == "length"
    found = reply(Writer(saying(word, tokenizer.eos_id), tokenizer, TORCH), ASKED, GREEDY)
    assert (found.text, found.reason) == ("I", "eos")


def test_a_template_that_ends_no_turn_leaves_it_to_the_end_of_text() -> None:
    tokenizer = tokenizer_with(chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    [word] = tokenizer.encode("I")
    assert reply(Writer(saying(word, tokenizer.eos_id), tokenizer, TORCH), ASKED, GREEDY).tokens == [
        word,
        tokenizer.eos_id,
    ]
    assert reply(Writer(saying(word), tokenizer, TORCH), ASKED, GREEDY).reason == "length"
    with pytest.raises(InputError, match="ends no turn with a control token"):
        tasks.get("dialogue").end(tokenizer)  # type: ignore[attr-defined]


def test_long_conversations_leave_room_for_the_reply() -> None:
    tokenizer = tokenizer_with()
    [word] = tokenizer.encode("I")
    talk = [*ASKED, Message("assistant", "I am. " * 9)] * 9 + ASKED
    found = reply(Writer(saying(word), tokenizer, TORCH), talk, SamplingConfig(temperature=0, length=24))
    assert (found.reason, len(found.tokens)) == ("length", 24)


def test_a_tokenizer_with_a_template_keeps_it_when_it_is_tuned() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = tokenizer_with(chat_template=template)
    dialogue = tasks.get("dialogue")
    assert isinstance(dialogue, Dialogue)
    assert dialogue.prepare_tokenizer(tokenizer) is tokenizer
    assert dialogue.end(tokenizer) == tokenizer.eos_id
    [one] = dialogue.tokenize([Chat((*ASKED, Message("assistant", "I am.")), "")], tokenizer, 90)
    assert tokenizer.decode(one.ids, skip_special=False) == f"user: Who are you?{END}assistant: I am.{END}"
    assert tokenizer.decode(one.ids[one.counted], skip_special=False).endswith(f"I am.{END}")
