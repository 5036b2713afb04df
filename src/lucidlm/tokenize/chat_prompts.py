"""Conversations as token ids: by the tokenizer's own chat template, or by ours (`chat_template.CHATML`)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.tokenize.chat_check import refuse_unwritten
from lucidlm.tokenize.chat_template import CHATML, STOP, ChatTemplate, own_template, template_of
from lucidlm.tokenize.conversation import Chat, Message
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.tokenize.tokenizer import Tokenizer

PROMPT_SHARE = 0.75
"""How much of the room what was said before may take; the rest is the reply's."""


def with_template(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with a chat template, whose end of turn ends texts, as other software needs it.

    One that has a template of its own stays as it is.

    Raises
    ------
    InputError: its template is none, or it cannot have ours.
    """
    template_of(tokenizer)
    if own_template(tokenizer) is not None:
        return tokenizer
    return Tokenizer(tokenizer.core, {**tokenizer.config, "eos_token": STOP, "chat_template": CHATML})


def tokenize_chats(chats: Sequence[Chat], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
    """Tokenize conversations: all turns of the assistant count in the loss, and its last turn is the target.

    Turns that a message itself says do not count are read only. If somebody else has the last word, the assistant's reply
    is still to be written. Of a conversation that does not fit, the oldest turns are dropped, but not what the system
    says; if that is not enough, the beginning is cut off.

    Raises
    ------
    InputError: the template refuses a conversation, or would leave out something in it.
    """
    template = template_of(tokenizer)
    for chat in chats:
        refuse_unwritten(template, chat)
    return [_tokenize(chat, template, max_tokens) for chat in chats]


def tokenize_chat_prompt(messages: Sequence[Message], tokenizer: Tokenizer, max_tokens: int) -> TokenizedExample:
    """Tokenize a conversation up to the assistant's next turn; nothing counts in the loss; see `tokenize_chats`.

    Raises
    ------
    InputError: nobody has said anything, or the assistant has spoken last; the template refuses the conversation, or
        would leave out something in it.
    """
    if not messages or messages[-1].role == "assistant":
        raise InputError("there is nothing to reply to", fix="Let the user say something.")
    template, chat = template_of(tokenizer), Chat(tuple(messages), "")
    refuse_unwritten(template, chat)
    return _tokenize(chat, template, max_tokens, counting=False)


def _tokenize(chat: Chat, template: ChatTemplate, max_tokens: int, counting: bool = True) -> TokenizedExample:
    messages = chat.messages
    answered = messages[-1].role == "assistant"
    first = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    talk = messages[first : len(messages) - answered]
    # A turn leaves together with what answers it, so what is left begins with a question again.
    asked = [n for n in range(1, len(talk)) if talk[n].role == "user" and talk[n - 1].role != "user"]
    choices = [0, *asked]

    def laid_out(dropped: int) -> _Layout:
        return _Layout.of(replace(chat, messages=messages[:first] + messages[first + dropped :]), template, counting)

    found, dropped = laid_out(0), 0
    if found.excess(max_tokens) > 0 and len(choices) > 1:
        enough = bisect_left(choices[:-1], True, 1, key=lambda dropped: laid_out(dropped).excess(max_tokens) <= 0)
        dropped = choices[enough]
        found = laid_out(dropped)
    cut = max(0, found.excess(max_tokens))
    # The last token is predicted but never read, so it may stand just past the room.
    kept = slice(cut, max(cut + max_tokens + 1, found.prompt))
    return TokenizedExample(found.ids[kept], found.counted[kept], found.prompt - cut, dropped + (cut > 0))


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A whole conversation as ids.

    Parameters
    ----------
    ids: (T,) int32.
    counted: (T,) bool, the tokens of what the assistant says, where that counts.
    prompt: how many tokens stand before what is to be written.
    header: how many of these begin the assistant's turn.
    """

    ids: np.ndarray
    counted: np.ndarray
    prompt: int
    header: int

    @classmethod
    def of(cls, chat: Chat, template: ChatTemplate, counting: bool) -> _Layout:
        messages, render = chat.messages, partial(template.render, tools=chat.tools, where=chat.where)
        answered = messages[-1].role == "assistant"
        before = messages[:-1] if answered else messages
        bare = render(before, reply=False).text
        asked = render(before, reply=True)
        whole = render(messages, reply=not answered, mark=counting)
        ids, ends = template.encode(whole)
        # Some templates write a reply that stands in a conversation in another form than one that they ask for.
        start = len(asked.text) if whole.text.startswith(asked.text) else whole.replies[-1][0]
        prompt = bisect_right(ends, start)
        counted = np.zeros(len(ids), dtype=bool)
        if counting:
            said = [message for message in messages if message.role == "assistant"]
            closing = template.closing(whole, ids, ends)
            begins = [bisect_right(ends, begin) for begin, _ in whole.replies]
            if answered:
                begins[-1] = prompt
            for message, begin, last in zip(said, begins, closing, strict=True):
                counted[begin : last + 1] = message.counts
        header = prompt - bisect_right(ends, len(bare)) if asked.text.startswith(bare) else 0
        return cls(np.array(ids, dtype=np.int32), counted, prompt, header)

    def excess(self, max_tokens: int) -> int:
        """Return how many tokens of the prompt are too many."""
        most = min(int(max_tokens * PROMPT_SHARE), max_tokens + 1 - (len(self.ids) - self.prompt)) - self.header
        return self.prompt - self.header - max(1, most)
