"""Continuation of texts: prompts in, what a causal language model writes after them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Unpack, overload

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.control.config import ConstraintConfig, ConstraintSettings
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.core.arguments import require_count, require_text, require_texts
from lucidlm.core.flat import require_known
from lucidlm.inference.config import SamplingConfig, SamplingSettings
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.logits_processor import MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.text_model import TextModel


class WritingSettings(SamplingSettings, ConstraintSettings, total=False):
    """How the next token is chosen, and what the text has to be."""


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
        self._constraints = ConstraintCompiler(self.tokenizer, self.model.config.vocab_size)

    @overload
    def __call__(self, prompts: str, *, max_new_tokens: int = 100, **settings: Unpack[WritingSettings]) -> str: ...

    @overload
    def __call__(
        self, prompts: Sequence[str], *, max_new_tokens: int = 100, **settings: Unpack[WritingSettings]
    ) -> list[str]: ...

    def __call__(
        self, prompts: str | Sequence[str], *, max_new_tokens: int = 100, **settings: Unpack[WritingSettings]
    ) -> str | list[str]:
        """Return what follows a prompt, or each of several, which are continued together.

        Parameters
        ----------
        max_new_tokens: most tokens to write for each prompt.
        settings: how the next token is drawn, see `SamplingConfig`, the same seed giving the same text; and what the text
            has to be, see `ConstraintConfig`.

        Raises
        ------
        InputError: what is passed is no text and no list of them, a setting is wrong, a prompt is longer than the
            model's context, or no text can be what is asked for.
        """
        config, processors = self._read(max_new_tokens, settings)
        texts = [prompts] if isinstance(prompts, str) else require_texts(prompts, "prompts")
        found = generate(self.model, self.tokenizer, texts, config, processors=processors)
        return found[0].text if isinstance(prompts, str) else [one.text for one in found]

    def stream(self, prompt: str, *, max_new_tokens: int = 100, **settings: Unpack[WritingSettings]) -> Iterator[str]:
        """Yield what a call on `prompt` returns in pieces, as they come."""
        text, (config, processors) = require_text(prompt, "prompt"), self._read(max_new_tokens, settings)
        return stream(self.model, self.tokenizer, text, config, processors=processors)

    def __repr__(self) -> str:
        return self._shown(f"context of {self.model.config.context_length:,} tokens")

    def _read(self, max_new_tokens: int, settings: WritingSettings) -> tuple[SamplingConfig, MakeProcessors | None]:
        """Return the settings of a call, checked."""
        fields: dict[str, Any] = {**settings}
        # Texts are all that is returned, so nothing is kept beside them.
        sampling = SamplingConfig.model_fields.keys() - {"length", "logprobs"}
        constraint = ConstraintConfig.model_fields.keys()
        require_known(fields, sampling | constraint | {"max_new_tokens"})
        held = ConstraintConfig(**{name: fields.pop(name) for name in constraint & fields.keys()})
        config = SamplingConfig(length=require_count(max_new_tokens, "max_new_tokens"), **fields)
        return config, self._constraints.processors(held)
