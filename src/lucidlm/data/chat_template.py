"""The chat template of a tokenizer: a conversation as the text that its model was tuned to see, and that text as ids.

- A tokenizer without a template of its own gets ours, ChatML: `<|im_start|>role`, a new line, what is said,
  `<|im_end|>`, a new line.
- Control tokens that the template writes are control tokens. What a message says is never a command: who writes
  `<|im_end|>` into one is read as having written these characters.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from jinja2 import TemplateError

from lucidlm.core.errors import InputError
from lucidlm.data.examples import Message
from lucidlm.data.template_sandbox import Sandbox
from lucidlm.data.tokenizer import ROLES, Tokenizer

START, STOP = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Our template, which other software then applies as we do."""

PRIVATE = range(0x100000, 0x10FFFE)
"""Characters of Unicode's last private-use plane: no text has a need of them all."""


@dataclass(frozen=True)
class Rendered:
    """What a template makes of a conversation.

    Parameters
    ----------
    text: with one private-use character for each control token that a message spells out.
    spelt: those characters, and what they stand for.
    replies: where in `text` each of the assistant's messages begins and ends, if that was asked for.
    """

    text: str
    spelt: dict[str, str]
    replies: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """A tokenizer's template, or ours.

    Raises
    ------
    InputError: it is no template; or there is none, and the tokenizer has not the marks of ours.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        source = own_template(tokenizer)
        if source is None:
            for token in (START, STOP):
                if tokenizer.core.token_to_id(token) is None:
                    raise InputError(
                        f"the tokenizer has no chat template, and no token {token}, which ours needs",
                        fix="Choose a model that was tuned for conversations, or whose tokenizer has it, as those "
                        "trained here do.",
                    )
        self.tokenizer = tokenizer
        added = tokenizer.core.get_added_tokens_decoder()
        self._control = {index: added[index].content for index in sorted(tokenizer.control) if added[index].content}
        longest_first = sorted(self._control.values(), key=len, reverse=True)
        self._commands = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._roles = _special_tokens(tokenizer)
        try:
            self._sandbox = Sandbox(CHATML if source is None else source)
        except Exception as error:
            raise _refused(error, None) from None

    def render(
        self, messages: Sequence[Message], *, reply: bool, mark: bool = False, where: str | None = None
    ) -> Rendered:
        """Return a conversation as text.

        Parameters
        ----------
        reply: whether the beginning of a reply by the assistant follows.
        mark: whether to find out where the assistant's messages are.
        where: the place the conversation was read from, for messages.

        Raises
        ------
        InputError: the template refuses the conversation, fails, or, if `mark`, changes what the assistant says.
        """
        said = "".join(message.content for message in messages)
        free = (character for character in map(chr, PRIVATE) if character not in said)
        left, right = next(free), next(free)
        stand_ins = dict(zip(self._control.values(), free, strict=False)) if self._commands.search(said) else {}
        hidden = [
            (message.role, self._commands.sub(lambda found: stand_ins[found[0]], message.content))
            for message in messages
        ]
        text = self._run(hidden, reply, where)
        spelt = {character: token for token, character in stand_ins.items()}
        if not mark:
            return Rendered(text, spelt)
        marked = [(role, left + said + right if role == "assistant" else said) for role, said in hidden]
        parts = re.split(f"([{left}{right}])", self._run(marked, reply, where))
        count = sum(role == "assistant" for role, _ in hidden)
        if "".join(parts[::2]) != text or parts[1::2] != [left, right] * count:
            raise InputError(
                "the chat template does not write what the assistant says as it stands, so what counts cannot be told",
                where=where,
                fix="Leave out what it changes (thoughts between <think> and </think>, say).",
            )
        places = list(accumulate(map(len, parts[:-1:2])))
        return Rendered(text, spelt, tuple(zip(places[::2], places[1::2], strict=True)))

    def encode(self, rendered: Rendered) -> tuple[list[int], list[int]]:
        """Return the ids of a text, and where in it each of their tokens ends."""
        found = self.tokenizer.obeying.encode(rendered.text, add_special_tokens=False)
        ids, ends = found.ids, [end for _, end in found.offsets]
        if not rendered.spelt:
            return ids, ends
        # Stretches between control tokens in which a message spells one out are encoded again, as plain text.
        unknown = self.tokenizer.unknown_id
        commands = [at for at, index in enumerate(ids) if index in self._control and index != unknown]
        borders = [(-1, 0, 0), *((at, *found.offsets[at]) for at in commands), (len(ids), *[len(rendered.text)] * 2)]
        new_ids: list[int] = []
        new_ends: list[int] = []
        for (before, _, start), (after, end, command_end) in pairwise(borders):
            stretch = rendered.text[start:end]
            if any(character in stretch for character in rendered.spelt):
                again, stops = self._encode_plainly(stretch, rendered.spelt)
                new_ids += again
                new_ends += [start + stop for stop in stops]
            else:
                new_ids += ids[before + 1 : after]
                new_ends += ends[before + 1 : after]
            if after < len(ids):
                new_ids.append(ids[after])
                new_ends.append(command_end)
        return new_ids, new_ends

    def _encode_plainly(self, text: str, spelt: dict[str, str]) -> tuple[list[int], list[int]]:
        parts = [spelt.get(character, character) for character in text]
        # For each character of the whole, how many of `text` have begun by then.
        places = [place for place, part in enumerate(parts, 1) for _ in part]
        found = self.tokenizer.encodings(["".join(parts)])[0]
        return found.ids, [places[end - 1] if end else 0 for _, end in found.offsets]

    @property
    def end(self) -> int | None:
        """The control token that the template ends the assistant's turns with, if it does."""
        rendered = self.render([Message("user", "a"), Message("assistant", "b")], reply=False, mark=True)
        ids, ends = self.encode(rendered)
        last = ids[self.closing(rendered, ids, ends)[-1]]
        return last if last in self._control else None

    def closing(self, rendered: Rendered, ids: list[int], ends: list[int]) -> list[int]:
        """Return, for each of the assistant's messages, the place among `ids` of the last token of its turn.

        That is the control token right behind it, spaces aside, or else the last token of what it says.
        """
        places = []
        for _, end in rendered.replies:
            behind = len(rendered.text) - len(rendered.text[end:].lstrip())
            following = bisect_right(ends, behind)
            closes = following < len(ids) and ids[following] in self._control
            places.append(following if closes else bisect_left(ends, end))
        return places

    def _run(self, messages: list[tuple[str, str]], reply: bool, where: str | None) -> str:
        variables = {
            "messages": [{"role": role, "content": content} for role, content in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": reply,
            **self._roles,
        }
        try:
            return self._sandbox.render(sum(len(content) for _, content in messages), variables)
        except Exception as error:
            raise _refused(error, where) from None


@lru_cache(maxsize=2)
def template_of(tokenizer: Tokenizer) -> ChatTemplate:
    """Return the template of a tokenizer, made once."""
    return ChatTemplate(tokenizer)


def own_template(tokenizer: Tokenizer) -> str | None:
    """Return the template that came with the tokenizer: of several with names, the one called default.

    Raises
    ------
    InputError: the field is of another form.
    """
    found = tokenizer.config.get("chat_template")
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        found = {one.get("name"): one.get("template") for one in found}
    if isinstance(found, dict):
        found = found.get("default", "")
    if found is not None and not (isinstance(found, str) and found.strip()):
        raise InputError("the tokenizer's chat_template is neither a template nor several, one called default")
    return found


def _special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Return what templates call bos_token, eos_token and so on, as the tokenizer's settings have them."""
    roles = (*ROLES, "sep_token", "cls_token")
    return {role: token for role in roles if (token := tokenizer.named(role)) is not None}


def _refused(error: Exception, where: str | None) -> InputError:
    reason = str(error) or type(error).__name__
    if not isinstance(error, TemplateError):
        reason = f"{type(error).__name__}: {reason}"
    fix = "It came with the model, and decides which conversations it takes."
    return InputError(f"the tokenizer's chat template fails: {reason}", where=where, fix=fix)
