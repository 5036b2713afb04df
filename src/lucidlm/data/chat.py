"""Conversations as token ids: ChatML, `<|im_start|>role`, a new line, what is said, `<|im_end|>`, a new line.

The two marks are control tokens, so nobody can speak for somebody else by writing them into a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from lucidlm.core.errors import InputError
from lucidlm.data.examples import Chat, Message
from lucidlm.data.framing import Framed, frame
from lucidlm.data.tokenizer import Tokenizer

START, STOP = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same for transformers' `apply_chat_template`."""

PROMPT_SHARE = 0.75
"""How much of the room what was said before may take; the rest is the reply's."""

Parts = list[tuple[list[int], bool]]


def mark(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of START or STOP.

    Raises
    ------
    InputError: the tokenizer has none.
    """
    if (found := tokenizer.core.token_to_id(token)) is None:
        fix = "Choose a model whose tokenizer has it; those trained here do."
        raise InputError(f"the tokenizer has no token {token}, which conversations are marked by", fix=fix)
    return found


def with_template(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer as other software has to know it: with the template, and turns that end its texts."""
    for token in (START, STOP):
        mark(tokenizer, token)
    return Tokenizer(tokenizer.core, {**tokenizer.config, "eos_token": STOP, "chat_template": TEMPLATE})


def frame_chats(chats: Sequence[Chat], tokenizer: Tokenizer, room: int) -> list[Framed]:
    """Frame conversations: all that the assistant says counts, and its last turn is what is to be written.

    If somebody else has the last word, the assistant's reply is still to be written. Of a conversation that does not
    fit, the oldest turns are dropped, but not what the system says; if that is not enough, the beginning is cut off.
    """
    contents = [message.content.strip() for chat in chats for message in chat.messages]
    ids = iter(tokenizer.encode_batch(contents))
    return [_frame([(message, next(ids)) for message in chat.messages], tokenizer, room) for chat in chats]


def _frame(said: list[tuple[Message, list[int]]], tokenizer: Tokenizer, room: int) -> Framed:
    turns = [_turn(message.role, ids, tokenizer) for message, ids in said]
    header: list[int] = []
    if said[-1][0].role == "assistant":
        answer = [token for part, _ in turns[-1][1:] for token in part]
        before, header = turns[:-1], turns[-1][0][0]
    else:
        answer, before, header = [], turns, _turn("assistant", [], tokenizer)[0][0]
    most = max(1, min(int(room * PROMPT_SHARE), room + 1 - len(answer)) - len(header))
    first = int(said[0][0].role == "system")
    dropped = 0
    while _size(before) > most and len(before) - first > 1:
        # A turn leaves together with its answer, so what is left begins with a question again.
        gone = min(2, len(before) - first - 1)
        del before[first : first + gone]
        dropped += gone
    parts = [part for turn in before for part in turn]
    if (excess := _size([parts]) - most) > 0:
        parts, dropped = _without_beginning(parts, excess), dropped + 1
    prompt = [*parts, (header, False)]
    room -= _size([prompt]) - 1
    last = turns[-1][1:] if answer else []
    cut = [(part[: max(0, room - start)], counts) for (part, counts), start in zip(last, _starts(last), strict=True)]
    return frame([*prompt, *cut], len(prompt), dropped)


def _turn(role: str, ids: list[int], tokenizer: Tokenizer) -> Parts:
    own = role == "assistant"
    return [
        ([mark(tokenizer, START), *tokenizer.encode(f"{role}\n")], False),
        ([*ids, mark(tokenizer, STOP)], own),
        (tokenizer.encode("\n"), False),
    ]


def _size(turns: Sequence[Parts]) -> int:
    return sum(len(part) for turn in turns for part, _ in turn)


def _starts(parts: Parts) -> list[int]:
    return [sum(len(part) for part, _ in parts[:place]) for place in range(len(parts))]


def _without_beginning(parts: Parts, excess: int) -> Parts:
    return [
        (part[max(0, excess - start) :], counts) for (part, counts), start in zip(parts, _starts(parts), strict=True)
    ]
