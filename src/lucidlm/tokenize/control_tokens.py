"""Which of a tokenizer's added tokens are control tokens, and how a text that spells one out is kept from injecting it.

Tokens are added to a vocabulary for two reasons: to control a model (end of text, start of a user's turn), and to be
matched in texts (a term of the domain, a mark around a name). A text never injects the first kind, which enters a sequence
by id only; the second is matched as the tokenizer does it. The flag "special" is only a hint: some tokens that chat
templates write lack it, and some that mark names in a text have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers

from lucidlm.tokenize.added_tokens import NAMES, additional, content

END, PAD, MASK, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|mask|>", "<|unk|>"
CONTROL = (END, PAD, MASK, "<|im_start|>", "<|im_end|>")
"""The control tokens every tokenizer trained here has, with ids 0 to 4; `END` both ends and begins a document."""

ROLES = {
    "eos_token": (END, "[SEP]", "</s>"),
    "bos_token": (END, "[CLS]", "<s>"),
    "pad_token": (PAD, "[PAD]", "<pad>"),
    "mask_token": (MASK, "[MASK]", "<mask>"),
    "unk_token": (UNKNOWN, "[UNK]", "<unk>"),
}
"""Roles of special tokens, and the tokens looked for where a tokenizer's settings do not name them."""

MARKED = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
"""How control tokens are written by most who make them."""

SAID = "\U0010fffd"
"""A text that no token is part of."""


def control_ids(core: tokenizers.Tokenizer, config: Mapping[str, Any], around: Collection[int]) -> frozenset[int]:
    """Return the ids of the added tokens that are control tokens.

    These have a role (BOS, EOS, padding, mask), or the chat template writes them. Other special tokens are control tokens
    too, unless they are to be matched in texts: those listed as additional, and those of an encoder, which generates
    nothing. What looks like `<|…|>` counts as control in any case.

    Parameters
    ----------
    config: what `tokenizer_config.json` says.
    around: the ids that are put before and after a text.
    """
    added = core.get_added_tokens_decoder()
    fallbacks = (name for names in ROLES.values() for name in names)
    playing = {*CONTROL, *fallbacks, *(content(config.get(name)) for name in NAMES)}
    open_ones = {index: token for index, token in added.items() if index not in around and token.content not in playing}
    listed = set(additional(config))
    encoder = content(config.get("cls_token")) is not None
    found = {
        index
        for index, token in open_ones.items()
        if token.special and (MARKED.fullmatch(token.content) or not (encoder or token.content in listed))
    }
    undecided = {index: token.content for index, token in open_ones.items() if index not in found}
    if undecided and config.get("chat_template"):
        written = "\0".join(_written(config))
        # Templates are full of new lines and spaces, which are tokens of some tokenizers.
        found |= {index for index, token in undecided.items() if token.strip() and token in written}
    return frozenset((added.keys() - open_ones.keys()) | found)


def _written(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the literals of the chat templates, and what they render: some put tokens together from parts."""
    from lucidlm.tokenize.template_sandbox import Sandbox  # loads jinja2, which few have a need of

    named = {name: token for name in NAMES if (token := content(config.get(name))) is not None}
    said = [{"role": role, "content": SAID} for role in ("system", "user", "assistant", "user")]
    for source in _templates(config["chat_template"]):
        try:
            sandbox = Sandbox(source)
        except Exception:  # it is none, which is told to who wants a conversation
            yield source
            continue
        yield from sandbox.literals()
        for messages, reply in ((said, True), (said[1:2], True), (said[1:3], False)):
            # Not every template takes every conversation, and one can raise everything.
            with suppress(Exception):
                variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": reply}
                yield sandbox.render(len(messages), {**variables, **named})


def _templates(found: Any) -> Iterator[str]:
    """Yield the templates in a setting that holds one, or several by name or in a list."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, Mapping | list):
        for one in found.values() if isinstance(found, Mapping) else found:
            yield from _templates(one.get("template") if isinstance(one, Mapping) else one)


def reader(core: tokenizers.Tokenizer, control: Collection[int]) -> tokenizers.Tokenizer:
    """Return the tokenizer for plain text: the tokens `control` are not matched in it, all other added ones are."""
    added = core.get_added_tokens_decoder()
    if any(token.special != (index in control) for index, token in added.items()):
        state = json.loads(core.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["id"] in control
        core = tokenizers.Tokenizer.from_str(json.dumps(state))
    core.encode_special_tokens = True  # `tokenizers`' name for "control tokens in a text are only text"
    # To the vocabulary of some, Unigram's above all, a control token is a piece like any other, and a likely one.
    texts = [(index, token.content) for index, token in added.items() if index in control and len(token.content) > 1]
    read = core.encode_batch_fast([text for _, text in texts], add_special_tokens=False)
    whole = [text for (index, text), found in zip(texts, read, strict=True) if index in found.ids]
    if whole:
        core = tokenizers.Tokenizer.from_str(core.to_str())
        core.encode_special_tokens = True
        inside = "|".join(f"(?<={re.escape(text[0])}){re.escape(text[1:])}" for text in whole)
        cut = pre_tokenizers.Split(Regex(inside), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([core.pre_tokenizer, cut]) if core.pre_tokenizer else cut
    return core
