"""Dialogue: what an assistant says next in a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lucidlm.baselines.dialogue import MostCommonReply, NearestReply
from lucidlm.core.errors import InputError
from lucidlm.data.chat import frame_chats, with_template
from lucidlm.data.chat_template import template_of
from lucidlm.data.examples import Chat, Message, Row, Written
from lucidlm.data.framing import Framed
from lucidlm.data.tokenizer import Tokenizer
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text import chrf, perplexity, rouge
from lucidlm.tasks.base import Baseline, tasks
from lucidlm.tasks.sequences import Writing

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
"""The roles, by the names that data have for them."""

SPEAKERS = tuple(
    re.compile(pattern, re.MULTILINE) for pattern in (r"^#(\w+)#[ \t]*[:：][ \t]*", r"^(\w[\w .'-]{0,30})[:：][ \t]*")
)
"""Who says a line of a transcript, `#Person1#: …` or `Amanda: …`: the form of the first line is that of all."""


@dataclass(frozen=True)
class Dialogue(Writing[Chat]):
    """Conversations between a user and an assistant, from rows of one of three forms.

    - messages: a list of {"role": "system" | "user" | "assistant", "content": …}.
    - conversations: a list of {"from": "system" | "human" | "gpt", "value": …}.
    - document or dialogue: a transcript of two, a turn a line, `#Person1#: …`; who speaks first is the user.

    A conversation is learned up to the assistant's last turn. All that the assistant says counts.
    """

    fields: ClassVar[tuple[str, ...]] = ("messages", "conversations", "document", "dialogue")

    def read(self, row: Row) -> Chat:
        """Turn a row into a conversation in which user and assistant take turns, the assistant having the last word."""
        name = next((name for name in self.fields if row.has(name)), "messages")
        transcript = name in ("document", "dialogue")
        found = _from_transcript(row, name) if transcript else _from_list(row, name)
        talk = found[1:] if found and found[0].role == "system" else found
        for number, message in enumerate(talk):
            if message.role != (expected := ("user", "assistant")[number % 2]):
                what = f"turn {number + 1 + len(found) - len(talk)} is the {message.role}'s, not the {expected}'s"
                fix = "A conversation has a system message or none, then user and assistant in turn."
                raise InputError(what, where=row.where, fix=fix)
        if len(talk) < 2:
            raise InputError("the assistant says nothing", where=row.where, fix="Leave the conversation out.")
        return Chat(tuple(found if talk[-1].role == "assistant" else found[:-1]), row.where)

    def key(self, example: Chat) -> str:
        """Return all that is said."""
        return "\n".join(self.texts(example))

    def texts(self, example: Chat) -> tuple[str, ...]:
        """Return what is said, turn by turn."""
        return tuple(message.content for message in example.messages)

    def metrics(self, examples: Sequence[Chat]) -> list[Metric]:
        """Return the perplexity of all that the assistant says, chrF++ and ROUGE-L of its last turn."""
        return [perplexity(), chrf(examples), rouge("rougeL", examples)]

    def baselines(self) -> list[Baseline[Chat, Written]]:
        """Return the commonest reply, and the reply to the most similar turn."""
        return [MostCommonReply(), NearestReply()]

    def show(self, example: Chat, prediction: Written) -> dict[str, Any]:
        """Return the last exchange, and the reply that was written."""
        *before, last = example.messages
        return {"user": before[-1].content, "assistant": last.content, "written": prediction.text}

    def frame(self, examples: Sequence[Chat], tokenizer: Tokenizer, room: int) -> list[Framed]:
        """Return conversations as the tokenizer's template lays them out (see `frame_chats`)."""
        return frame_chats(examples, tokenizer, room)

    def end(self, tokenizer: Tokenizer) -> int:
        """Return the id that ends a turn of the assistant's.

        Raises
        ------
        InputError: the tokenizer has no template and cannot have ours, or one that leaves the end of turns open.
        """
        if (end := template_of(tokenizer).end) is None:
            raise InputError(
                "the tokenizer's chat template ends no turn with a control token, so a model cannot learn to end one",
                fix="Choose another model.",
            )
        return end

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer with a template of conversations, its own or ours, which other software applies too."""
        return with_template(tokenizer)


def _from_list(row: Row, name: str) -> list[Message]:
    who, what = ("role", "content") if name == "messages" else ("from", "value")
    called, turns = row.names.get(name, name), row.value(name)
    if not isinstance(turns, list) or not turns:
        raise InputError(f'field "{called}" is not a list of messages', where=row.where)
    found = []
    for number, turn in enumerate(turns, 1):
        place = f'field "{called}", turn {number}'
        if not isinstance(turn, dict) or not {who, what} <= turn.keys():
            raise InputError(f'{place} is not an object with "{who}" and "{what}"', where=row.where)
        if turn[who] not in ROLES:
            raise InputError(
                f"{place} is spoken by {turn[who]!r}", where=row.where, fix=f"Roles are {', '.join(ROLES)}."
            )
        said = Row(turn, f"{row.where}, turn {number}").text(what).strip()
        found.append(Message(ROLES[turn[who]], said))
    return found


def _from_transcript(row: Row, name: str) -> list[Message]:
    text = row.text(name).strip()
    speakers: list[str] = []
    found: list[Message] = []
    marks = next((list(form.finditer(text)) for form in SPEAKERS if form.match(text)), [])
    if not marks:
        called = row.names.get(name, name)
        raise InputError(
            f'field "{called}" does not name who speaks', where=row.where, fix='Lines begin "#Person1#: ".'
        )
    for this, following in zip(marks, [*marks[1:], None], strict=True):
        if this[1] not in speakers:
            speakers.append(this[1])
        if len(speakers) > 2:
            raise InputError(
                f"{speakers[2]} is a third speaker", where=row.where, fix="Leave it out: conversations have two sides."
            )
        said = text[this.end() : following.start() if following else None].strip()
        if not said:
            raise InputError(f"a turn of {this[1]} is empty", where=row.where)
        role = ("user", "assistant")[speakers.index(this[1])]
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n{said}")
        else:
            found.append(Message(role, said))
    return found


DIALOGUE = tasks.register("dialogue")(
    Dialogue(name="dialogue", description="what an assistant says next in a conversation")
)
