"""The chat template of a tokenizer: a conversation as the text that its model was tuned to see, and that text as ids.

- A tokenizer without a template of its own gets ours, ChatML: `<|im_start|>role`, a new line, what is said,
  `<|im_end|>`, a new line.
- Control tokens that the template writes are control tokens. Messages inject none: `<|im_end|>` in a message, or in a
  tool call's arguments, is encoded as these characters.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any

from jinja2 import TemplateError

from lucidlm.core.errors import InputError
from lucidlm.tokenize.conversation import Message
from lucidlm.tokenize.template_sandbox import Sandbox
from lucidlm.tokenize.tokenizer import ROLES, Tokenizer

START, STOP = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Our template, which other software then applies as we do."""

TOOL_USE = "tool_use"
"""The name of the template that transformers takes for conversations with tools, of several."""

PRIVATE = range(0x100000, 0x10FFFE)
"""Characters of Unicode's last private-use plane; no text uses them all."""

Seen = dict[str, Any]
"""A message as a template sees it."""


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


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation as a template sees it, and the messages that it is of.

    Before a control token that a message spells out stands `flag`, so templates may still look for it (for the end of
    thoughts, say); what they write of it then gets its stand-in.
    """

    seen: list[Seen]
    tools: list[Any]
    messages: Sequence[Message]
    where: str | None
    flag: str = ""
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def first(self, count: int) -> _Talk:
        return replace(self, seen=self.seen[:count])

    def saying(self, contents: Mapping[int, str]) -> _Talk:
        seen = [{**one, "content": contents[n]} if n in contents else one for n, one in enumerate(self.seen)]
        return replace(self, seen=seen)


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
        with_tools = _named_templates(tokenizer).get(TOOL_USE, source)
        try:
            self._sandbox = Sandbox(CHATML if source is None else source)
            self._tool_sandbox = self._sandbox if with_tools in (source, None) else Sandbox(with_tools)
        except Exception as error:
            raise _refused(error, None) from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        reply: bool,
        mark: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        where: str | None = None,
    ) -> Rendered:
        """Return a conversation as text.

        Parameters
        ----------
        reply: whether the beginning of a reply by the assistant follows.
        mark: whether to find out where the assistant's messages are.
        tools: what the assistant may call.
        where: the place the conversation was read from, for messages.

        Raises
        ------
        InputError: the template refuses the conversation, fails, or, if `mark`, changes what the assistant says.
        """
        seen = [self._seen(message) for message in messages]
        said = "".join(strings([seen, tools]))
        free = free_characters(said)
        flag, marks = next(free), next(free) + next(free)
        stand_ins = dict(zip(self._control.values(), free, strict=False)) if self._commands.search(said) else {}

        def hidden(text: str) -> str:
            return self._commands.sub(lambda found: flag + found[0], text)

        shown = [{**_changed(one, hidden), "role": one["role"]} for one in seen]
        talk = _Talk(shown, _changed(list(tools), hidden), messages, where, flag, stand_ins)
        text = self._run(talk, reply=reply)
        spelt = {character: token for token, character in stand_ins.items()}
        return Rendered(text, spelt, self._replies(talk, text, marks) if mark else ())

    def _seen(self, message: Message) -> Seen:
        """Return a message as transformers hands it to templates, or as this template can read it.

        What tools are called with stays the text or the object that it is, unless the template writes only the other.
        """
        also = dict(message.also)
        if thoughts := also.get("reasoning_content"):
            also["thinking"] = thoughts
        if not (calls := also.get("tool_calls")):
            return {"role": message.role, "content": message.content, **also}
        forms = self._arguments_taken
        also["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _as_taken(call["function"]["arguments"], forms)}}
            for call in calls
        ]
        return {"role": message.role, **({"content": message.content} if message.content else {}), **also}

    @cached_property
    def _arguments_taken(self) -> tuple[type, ...]:
        """The forms in which the template writes what tools are called with, of `str` and `dict`."""
        return tuple(form for form in (str, dict) if self._takes(form))

    def _takes(self, form: type) -> bool:
        arguments = '{"kqx": "zqk"}'
        function = {"name": "qxq", "arguments": arguments if form is str else json.loads(arguments)}
        call = {"role": "assistant", "tool_calls": [{"id": "qxqqxqqxq", "type": "function", "function": function}]}
        tool = {"name": "qxq", "description": "", "parameters": {"type": "object", "properties": {}}}
        talk = [{"role": "user", "content": "a"}, call]
        try:
            text = self._run(_Talk(talk, [{"type": "function", "function": tool}], (), None), reply=False)
        except InputError:
            return False
        return (arguments if form is str else "zqk") in text

    # ------------------------------------------------------------------ where the assistant speaks

    def _replies(self, talk: _Talk, text: str, marks: str) -> tuple[tuple[int, int], ...]:
        spoken = [place for place, one in enumerate(talk.seen) if one["role"] == "assistant"]
        plain = [place for place in spoken if not talk.seen[place].keys() & {"tool_calls", "reasoning_content"}]
        found = dict(zip(plain, self._marked(talk, plain, text, marks), strict=True)) if plain else {}
        after = 0
        for place in spoken:
            if place not in found:
                found[place] = self._unmarked(talk, place, text, after)
            after = found[place][1]
        return tuple(found[place] for place in spoken)

    def _marked(self, talk: _Talk, places: list[int], text: str, marks: str) -> list[tuple[int, int]]:
        """Return where messages of nothing but content stand in `text`: shown marks around them, a template copies these."""
        for inside in (False, True):  # of the white space around, which the template may strip
            contents = {place: _between(talk.seen[place]["content"], marks, inside) for place in places}
            parts = re.split(f"([{marks}])", self._run(talk.saying(contents), reply=False))
            if "".join(parts[::2]) == text and "".join(parts[1::2]) == marks * len(places):
                ends = list(accumulate(map(len, parts[:-1:2])))
                return list(zip(ends[::2], ends[1::2], strict=True))
        if len(places) > 1:
            for place in places:
                self._marked(talk, [place], text, marks)
        raise InputError(
            "the chat template does not write what the assistant says as it stands, so what counts cannot be told",
            where=located(talk.where, talk.messages[places[0]]),
            fix="Leave out what it changes (thoughts between <think> and </think>, say).",
        )

    def _unmarked(self, talk: _Talk, place: int, text: str, after: int) -> tuple[int, int]:
        """Return where a message that calls tools, or thinks, stands in `text`: from its header to the end of its turn."""
        asked = self._run(talk.first(place), reply=True)
        start = len(asked)
        if not text.startswith(asked):  # some templates write the tools before the last turn of the user
            through = self._run(talk.first(place + 1), reply=False)
            written = through[len(asked) :] if through.startswith(asked) else ""
            start = text.find(written, after) if written else -1
        end = -1 if self.end is None else text.find(self._control[self.end], max(start, 0))
        if start < after or end < 0:
            raise InputError(
                "the chat template writes it in a form in which what counts cannot be told",
                where=located(talk.where, talk.messages[place]),
                fix="Leave the conversation out, or choose a model with another template.",
            )
        return start, end

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

    @cached_property
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

    def _run(self, talk: _Talk, *, reply: bool) -> str:
        variables = {
            "messages": talk.seen,
            "tools": talk.tools or None,
            "documents": None,
            "add_generation_prompt": reply,
            **self._roles,
        }
        sandbox = self._tool_sandbox if talk.tools else self._sandbox
        try:
            text = sandbox.render(sum(map(len, strings([talk.seen, talk.tools]))), variables)
        except Exception as error:
            raise _refused(error, talk.where) from None
        if not talk.stand_ins:
            return text
        flagged = f"{talk.flag}({self._commands.pattern})?"
        return re.sub(flagged, lambda found: talk.stand_ins.get(found[1], ""), text)


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
    named = _named_templates(tokenizer)
    found = named.get("default", "") if named else None
    if found is not None and not (isinstance(found, str) and found.strip()):
        raise InputError("the tokenizer's chat_template is neither a template nor several, one called default")
    return found


def _named_templates(tokenizer: Tokenizer) -> dict[Any, Any]:
    """Return the tokenizer's templates by their names, as transformers writes them; none if it has none."""
    found = tokenizer.config.get("chat_template")
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return {one.get("name"): one.get("template") for one in found} or {"default": ""}
    if isinstance(found, dict):
        return found or {"default": ""}
    return {} if found is None else {"default": found}


def located(where: str | None, message: Message) -> str | None:
    """Return the place a message was read from, for an error."""
    return ", ".join(filter(None, (where, message.place))) or None


def free_characters(text: str) -> Iterator[str]:
    """Yield private characters that `text` does not hold."""
    return (character for character in map(chr, PRIVATE) if character not in text)


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a value, however deep, the names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from strings([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with all its `strings` changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_changed(key, change): _changed(inner, change) for key, inner in value.items()}
    return [_changed(one, change) for one in value] if isinstance(value, list | tuple) else value


def _between(said: str, marks: str, inside: bool) -> str:
    core = said.strip() if inside else said
    before, after = said.split(core, 1) if core else (said, "")
    return f"{before}{marks[0]}{core}{marks[1]}{after}"


def _as_taken(arguments: Any, taken: tuple[type, ...]) -> Any:
    """Return what a tool is called with as it is, or as the other one of text and object if only that is `taken`."""
    if isinstance(arguments, taken) or not taken:
        return arguments
    return json.loads(arguments) if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


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
