"""Continuation of texts: prompts in, what a causal language model writes after them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Unpack, overload

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_count, require_text, require_texts
from lucidlm.core.flat import require_known
from lucidlm.inference.config import SamplingConfig, SamplingSettings
from lucidlm.inference.decode import generate, stream
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.text_model import TextModel


class TextGenerator(TextModel[LanguageModel]):
    """A causal language model that continues texts.

    >>> write = TextGenerator("model")
    >>> write("The quick brown", max_new_tokens=20, temperature=0)
    ' fox jumps over the lazy dog.'

    Parameters
    ----------
    source: a model directory, or another source of a causal language model with its tokenizer.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it does not continue text.
    """

    def _open(self, loaded: LoadedModel) -> None:
        self.model, self.tokenizer = loaded.causal_lm()

    @overload
    def __call__(self, prompts: str, *, max_new_tokens: int = 100, **sampling: Unpack[SamplingSettings]) -> str: ...

    @overload
    def __call__(
        self, prompts: Sequence[str], *, max_new_tokens: int = 100, **sampling: Unpack[SamplingSettings]
    ) -> list[str]: ...

    def __call__(
        self, prompts: str | Sequence[str], *, max_new_tokens: int = 100, **sampling: Unpack[SamplingSettings]
    ) -> str | list[str]:
        """Return what follows a prompt, or each of several, which are continued together.

        Parameters
        ----------
        max_new_tokens: most tokens to write for each prompt.
        sampling: how the next token is drawn, see `SamplingConfig`; the same seed gives the same text.

        Raises
        ------
        InputError: what is passed is no text and no list of them, a setting is wrong, or a prompt is longer than the
            model's context.
        """
        config = _sampling(max_new_tokens, sampling)
        if isinstance(prompts, str):
            return generate(self.model, self.tokenizer, [prompts], config)[0].text
        return [one.text for one in generate(self.model, self.tokenizer, require_texts(prompts, "prompts"), config)]

    def stream(self, prompt: str, *, max_new_tokens: int = 100, **sampling: Unpack[SamplingSettings]) -> Iterator[str]:
        """Yield what a call on `prompt` returns in pieces, as they come."""
        text, config = require_text(prompt, "prompt"), _sampling(max_new_tokens, sampling)
        return stream(self.model, self.tokenizer, text, config)

    def __repr__(self) -> str:
        return self._shown(f"context of {self.model.config.context_length:,} tokens")


def _sampling(max_new_tokens: int, settings: SamplingSettings) -> SamplingConfig:
    """Return the settings of a call, checked."""
    fields: dict[str, Any] = {**settings}
    # Texts are all that is returned, so nothing is kept beside them.
    known = SamplingConfig.model_fields.keys() - {"length", "logprobs"} | {"max_new_tokens"}
    require_known(fields, known)
    return SamplingConfig(length=require_count(max_new_tokens, "max_new_tokens"), **fields)
