"""Dialogue: the assistant's next turn in a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lucidlm.baselines.replies import MostCommonReply, NearestReply
from lucidlm.core.errors import InputError
from lucidlm.data.examples.chat_forms import FIELDS, read_chat
from lucidlm.data.examples.records import GeneratedText, Row
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text_metrics import chrf, perplexity, rouge
from lucidlm.tasks.base.task import Baseline, tasks
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tokenize.chat_prompts import tokenize_chats, with_template
from lucidlm.tokenize.chat_template import template_of
from lucidlm.tokenize.conversation import Chat
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Dialogue(TextGeneration[Chat]):
    """Conversations between a user and an assistant, from rows of one of these forms.

    - messages (or conversations): a list of {"role": "system" | "user" | "assistant" | "tool", "content": …} (OpenAI's
      format), or of {"from": "system" | "human" | "gpt" | …, "value": …} (ShareGPT's).
    - instruction, input and output (Alpaca's); prompt and completion or response.
    - document or dialogue: a transcript of two speakers, a turn a line, `#Person1#: …`; the first speaker is the user.

    A row may also have `system` and `tools`. Conversations are cut after the assistant's last turn. The loss is over all
    turns of the assistant, except those with weight 0.
    """

    fields: ClassVar[tuple[str, ...]] = FIELDS

    def read(self, row: Row) -> Chat:
        """Turn a row into a conversation that ends with a turn of the assistant (see `read_chat`)."""
        return read_chat(row)

    def key(self, example: Chat) -> str:
        """Return the content of all turns, with tools and other fields if there are any."""
        besides = [*(message.also for message in example.messages), *example.tools]
        said = "\n".join(message.content for message in example.messages)
        return f"{said}\n{json.dumps(besides, sort_keys=True, default=str)}" if any(besides) else said

    def texts(self, example: Chat) -> tuple[str, ...]:
        """Return the text of each turn."""
        return tuple(message.text for message in example.messages)

    def metrics(self, examples: Sequence[Chat]) -> list[Metric]:
        """Return the perplexity of all turns of the assistant, and chrF++ and ROUGE-L of its last turn."""
        return [perplexity(), chrf(examples), rouge("rougeL", examples)]

    def baselines(self) -> list[Baseline[Chat, GeneratedText]]:
        """Return the most common reply, and the reply to the most similar user turn."""
        return [MostCommonReply(), NearestReply()]

    def show(self, example: Chat, prediction: GeneratedText) -> dict[str, Any]:
        """Return the last user turn, the reference reply and the generated one."""
        *before, last = example.messages
        asked = next((message for message in reversed(before) if message.role == "user"), before[-1])
        return {"user": asked.text, "assistant": last.text, "written": prediction.text}

    def tokenize(self, examples: Sequence[Chat], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
        """Return conversations in the tokenizer's chat template (see `tokenize_chats`)."""
        return tokenize_chats(examples, tokenizer, max_tokens)

    def end(self, tokenizer: Tokenizer) -> int:
        """Return the id of the token that ends an assistant turn.

        Raises
        ------
        InputError: the tokenizer has no chat template and ours does not fit it, or its template ends turns with no token.
        """
        if (end := template_of(tokenizer).end) is None:
            raise InputError(
                "the tokenizer's chat template ends no turn with a control token, so a model cannot learn to end one",
                fix="Choose another model.",
            )
        return end

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer with a chat template, its own or ours, which other software applies too."""
        return with_template(tokenizer)


DIALOGUE = tasks.register("dialogue")(
    Dialogue(name="dialogue", description="what an assistant says next in a conversation")
)
