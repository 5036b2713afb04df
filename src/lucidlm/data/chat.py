"""Conversations as token ids: by the tokenizer's own chat template, or by ours (`chat_template.CHATML`)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.data.chat_template import CHATML, STOP, ChatTemplate, own_template, template_of
from lucidlm.data.examples import Chat, Message
from lucidlm.data.framing import Framed
from lucidlm.data.tokenizer import Tokenizer

PROMPT_SHARE = 0.75
"""How much of the room what was said before may take; the rest is the reply's."""


def with_template(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer as other software has to know it: with a template, and turns that end its texts.

    One that has a template of its own stays as it is.

    Raises
    ------
    InputError: its template is none, or it cannot have ours.
    """
    template_of(tokenizer)
    if own_template(tokenizer) is not None:
        return tokenizer
    return Tokenizer(tokenizer.core, {**tokenizer.config, "eos_token": STOP, "chat_template": CHATML})


def frame_chats(chats: Sequence[Chat], tokenizer: Tokenizer, room: int) -> list[Framed]:
    """Frame conversations: all that the assistant says counts, and its last turn is what is to be written.

    If somebody else has the last word, the assistant's reply is still to be written. Of a conversation that does not
    fit, the oldest turns are dropped, but not what the system says; if that is not enough, the beginning is cut off.

    Raises
    ------
    InputError: the template refuses a conversation.
    """
    template = template_of(tokenizer)
    return [_frame(chat, template, room) for chat in chats]


def frame_prompt(messages: Sequence[Message], tokenizer: Tokenizer, room: int) -> Framed:
    """Frame a conversation in which the assistant is to speak next, with nothing that counts; see `frame_chats`.

    Raises
    ------
    InputError: nobody has said anything, or the assistant has spoken last; the template refuses the conversation.
    """
    if not messages or messages[-1].role == "assistant":
        raise InputError("there is nothing to reply to", fix="Let the user say something.")
    return _frame(Chat(tuple(messages), ""), template_of(tokenizer), room, counting=False)


def _frame(chat: Chat, template: ChatTemplate, room: int, counting: bool = True) -> Framed:
    messages = [Message(message.role, message.content.strip()) for message in chat.messages]
    first = int(messages[0].role == "system")
    turns = len(messages) - first - (messages[-1].role == "assistant")
    # A turn leaves together with its answer, so what is left begins with a question again.
    choices = sorted({*range(0, turns, 2), max(0, turns - 1)})

    def laid_out(dropped: int) -> _Layout:
        return _Layout.of([*messages[:first], *messages[first + dropped :]], template, counting, chat.where)

    found, dropped = laid_out(0), 0
    if found.excess(room) > 0 and len(choices) > 1:
        enough = bisect_left(choices[:-1], True, 1, key=lambda dropped: laid_out(dropped).excess(room) <= 0)
        dropped = choices[enough]
        found = laid_out(dropped)
    cut = max(0, found.excess(room))
    # The last token is predicted but never read, so it may stand just past the room.
    kept = slice(cut, max(cut + room + 1, found.prompt))
    return Framed(found.ids[kept], found.counted[kept], found.prompt - cut, dropped + (cut > 0))


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A whole conversation as ids.

    Parameters
    ----------
    ids: (T,) int32.
    counted: (T,) bool, the tokens of what the assistant says.
    prompt: how many tokens stand before what is to be written.
    header: how many of these begin the assistant's turn.
    """

    ids: np.ndarray
    counted: np.ndarray
    prompt: int
    header: int

    @classmethod
    def of(cls, messages: list[Message], template: ChatTemplate, counting: bool, where: str) -> _Layout:
        answered = messages[-1].role == "assistant"
        before = messages[:-1] if answered else messages
        bare = template.render(before, reply=False, where=where).text
        asked = template.render(before, reply=True, where=where)
        whole = template.render(messages, reply=not answered, mark=counting, where=where)
        ids, ends = template.encode(whole)
        # Some templates write a reply that stands in a conversation in another form than one that they ask for.
        start = len(asked.text) if whole.text.startswith(asked.text) else whole.replies[-1][0]
        prompt = bisect_right(ends, start)
        counted = np.zeros(len(ids), dtype=bool)
        for (begin, _), last in zip(whole.replies, template.closing(whole, ids, ends), strict=True):
            counted[bisect_right(ends, begin) : last + 1] = True
        if answered:
            counted[prompt : template.closing(whole, ids, ends)[-1] + 1] = True
        header = prompt - bisect_right(ends, len(bare)) if asked.text.startswith(bare) else 0
        return cls(np.array(ids, dtype=np.int32), counted, prompt, header)

    def excess(self, room: int) -> int:
        """Return how many tokens of the prompt are too many."""
        most = min(int(room * PROMPT_SHARE), room + 1 - (len(self.ids) - self.prompt)) - self.header
        return self.prompt - self.header - max(1, most)
