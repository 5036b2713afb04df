"""Continuation of texts: prompts in, what a causal language model writes after them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, overload

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.control.config import ConstraintConfig, ConstraintSettings, GuardConfig
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.core.arguments import require_count, require_text, require_texts
from lucidlm.core.flat import require_known
from lucidlm.core.progress import log
from lucidlm.inference.config import SamplingConfig, SamplingSettings
from lucidlm.inference.decode import Pieces, generate, stream
from lucidlm.inference.guard import CUT, Guard
from lucidlm.inference.logits_processor import MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.guard import open_guard
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
    guard: what prompts and texts have to pass, by a classifier: `MODEL:LABEL<BOUND`, or `>`, or several. A text ends before
        what does not pass, which is said on standard error.

    Raises
    ------
    InputError: there is no such model, or it does not continue text; a guard is none.
    """

    _guard: Guard | None = None

    def __init__(self, source: str | Path, *, device: str = "auto", guard: str | Sequence[str] = ()) -> None:
        given = require_texts([guard] if isinstance(guard, str) else guard, "guard")
        rules = GuardConfig(guard=tuple(given)).guard
        super().__init__(source, device=device)
        self._guard = open_guard(rules, device)

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
            model's context or does not pass the guard, or no text can be what is asked for.
        LucidError: the guard fails.
        """
        config, processors = self._read(max_new_tokens, settings)
        texts = self._admitted([prompts] if isinstance(prompts, str) else require_texts(prompts, "prompts"))
        found = generate(self.model, self.tokenizer, texts, config, processors=processors, guard=self._guard)
        for number, one in enumerate(found, 1):
            if one.reason == "guarded":
                log(f"(text {number} of {len(found)} is {CUT})")
        return found[0].text if isinstance(prompts, str) else [one.text for one in found]

    def stream(self, prompt: str, *, max_new_tokens: int = 100, **settings: Unpack[WritingSettings]) -> Iterator[str]:
        """Yield what a call on `prompt` returns in pieces, as they come."""
        (text,) = self._admitted([require_text(prompt, "prompt")])
        config, processors = self._read(max_new_tokens, settings)
        return _told(stream(self.model, self.tokenizer, text, config, processors=processors, guard=self._guard))

    def __repr__(self) -> str:
        return self._shown(f"context of {self.model.config.context_length:,} tokens")

    def _admitted(self, prompts: list[str]) -> list[str]:
        """Return prompts, which have passed."""
        if self._guard is not None:
            self._guard.admit(prompts)
        return prompts

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


def _told(pieces: Pieces) -> Iterator[str]:
    if (yield from pieces).reason == "guarded":
        log(f"({CUT})")
