"""The assistant's next turn in a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lucidlm.inference.decode import Writer
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.inference.sequence import Generation
from lucidlm.tokenize.chat_prompts import tokenize_chat_prompt
from lucidlm.tokenize.chat_template import template_of
from lucidlm.tokenize.conversation import Message


def reply(
    writer: Writer,
    messages: Sequence[Message],
    config: SamplingConfig,
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Return what the assistant says next, by the tokenizer's chat template, or ours if it has none.

    Of a conversation that leaves the reply too little of the model's context, the oldest turns are not read. The reply
    ends with the template's end of a turn, or with the end of a text.

    Parameters
    ----------
    on_text: called with each new piece of the reply.

    Raises
    ------
    InputError: there is nothing to reply to; the tokenizer has no template and cannot have ours; the template refuses
        the conversation; the model is not causal.
    """
    model, tokenizer = writer.model, writer.tokenizer
    prompt = tokenize_chat_prompt(messages, tokenizer, model.config.context_length).ids.tolist()
    end = template_of(tokenizer).end
    said = None if on_text is None else lambda _, piece: on_text(piece)
    return writer.generate([prompt], config, said, ends=() if end is None else (end,))[0]
