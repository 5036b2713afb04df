"""The models that a server has, by their names, and what each of them can do."""

from __future__ import annotations

import time
from asyncio import Lock, to_thread
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.control.opening import open_vectors
from lucidlm.control.steering import steer
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.explain.inside.reading import inspectable
from lucidlm.explain.predictions import explainable
from lucidlm.inference.config import EngineConfig
from lucidlm.inference.guard import Guard
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.predict.guard import open_guard
from lucidlm.predict.pair_classifier import PairScorer
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.errors import ApiError, not_passed, queue_full
from lucidlm.serve.task_kinds import TaskKind, kind_of
from lucidlm.serve.writing import ServedWriter
from lucidlm.tasks import tasks
from lucidlm.tasks.base.task import Predictor
from lucidlm.tokenize.chat_template import ChatTemplate, template_of
from lucidlm.tokenize.tokenizer import Tokenizer

T = TypeVar("T")

MOST_CALLS = 32
"""Calls of a model's predictor that are running or wait for it; they are answered one after the other."""


class _Turns:
    """Calls that are made one after the other, and how many are running or wait."""

    def __init__(self) -> None:
        self.taken, self._lock = 0, Lock()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """Wait until all that came before are done."""
        self.taken += 1
        try:
            async with self._lock:
                yield
        finally:
            self.taken -= 1


@dataclass(frozen=True)
class ServedModel:
    """A model and what it can do; what it cannot is None.

    Parameters
    ----------
    name: what requests call it.
    created: when it was loaded, in seconds since 1970.
    template: makes prompts of conversations.
    task: what it was tuned for, by the task's name, and how that is asked.
    predictor: answers that task.
    guard: what is written, and what that follows, has to pass.
    """

    name: str
    loaded: LoadedModel
    tokenizer: Tokenizer
    created: int
    writer: ServedWriter | None = None
    template: ChatTemplate | None = None
    embedder: TextEmbedder | None = None
    task: tuple[str, TaskKind] | None = None
    predictor: Predictor[Any, Any] | None = None
    guard: Guard | None = None
    _turns: _Turns = field(default_factory=_Turns)
    _explanations: _Turns = field(default_factory=_Turns)

    @property
    def abilities(self) -> list[str]:
        """What it can do, in words."""
        known = {
            "completions": self.writer,
            "chat": self.template,
            "embeddings": self.embedder,
            "rerank": self.embedder or (self.predictor if isinstance(self.predictor, PairScorer) else None),
        }
        found = [name for name, part in known.items() if part is not None]
        if self.task is not None:
            found.append(f"tasks/{self.task[0]}")
        found += ["explain"] if explainable(self.loaded) else []
        return [*found, "inspect"] if inspectable(self.loaded) else found

    @property
    def healthy(self) -> bool:
        """Whether it can answer."""
        return self.writer is None or self.writer.healthy

    async def admit(self, texts: Sequence[str], param: str | None) -> None:
        """Let texts pass the guard, if there is one.

        Parameters
        ----------
        param: the field of the request that they are from; None: they are answers.

        Raises
        ------
        ApiError: one does not pass.
        LucidError: they cannot be judged.
        """
        if self.guard is not None and any(await to_thread(self.guard.refusals, [(text, 0) for text in texts])):
            raise not_passed(param)

    async def call(self, answer: Callable[[], T], *, explains: bool = False) -> T:
        """Return what `answer`, which uses the model, gives; it runs in a thread, after those that came before it.

        Parameters
        ----------
        explains: it takes long, and so waits for others of its kind only, and they for it.

        Raises
        ------
        ApiError: too many are waiting already.
        """
        turns = self._explanations if explains else self._turns
        if turns.taken >= MOST_CALLS:
            raise queue_full(f"{turns.taken} calls of {self.name} are waiting: come again later", 1)
        async with turns.next():
            return await to_thread(answer)


class Models:
    """All models of a server.

    Parameters
    ----------
    served: them by their names.
    """

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        self._served = dict(served)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    def named(self, name: str | None) -> ServedModel:
        """Return a model by its name; without one the only model there is.

        Raises
        ------
        ApiError: there is none of this name, or no name and several models.
        """
        names = ", ".join(self._served)
        if name is None:
            if len(self._served) == 1:
                return next(iter(self._served.values()))
            raise ApiError(f"model: there are several, name one of {names}", param="model")
        if name not in self._served:
            message = f"there is no model {name[:100]!r} here, but {names}"
            raise ApiError(message, status=404, param="model", code="model_not_found")
        return self._served[name]

    def able(self, name: str | None, ability: str) -> ServedModel:
        """Return a model that can do something: the one of this name, or without one the first that can.

        Raises
        ------
        ApiError: there is none, or the one of this name cannot.
        """
        able = [one for one in self._served.values() if ability in one.abilities]
        if name is None and able:
            return able[0]
        found = self.named(name)
        if ability not in found.abilities:
            message = f"{found.name} cannot do this ({ability}); it can: {', '.join(found.abilities) or 'nothing'}"
            raise ApiError(message, param="model")
        return found

    @property
    def healthy(self) -> bool:
        """Whether all can answer."""
        return all(one.healthy for one in self)

    def close(self) -> None:
        """End what runs in threads."""
        for one in self:
            if one.writer is not None:
                one.writer.close()


def open_models(sources: Sequence[str], config: ServeConfig, engine: EngineConfig, device: str = "auto") -> Models:
    """Load models, each `SOURCE` or `NAME=SOURCE`; a name is else the last part of the source.

    Raises
    ------
    InputError: one is no model, has no tokenizer or can do nothing that is served; two have one name; the guard is none.
    """
    guard = open_guard(config.guard, device)
    served: dict[str, ServedModel] = {}
    for given in sources:
        name, source = _named(given)
        if name in served:
            what = f"two models are called {name}"
            raise InputError(what, where=source, fix="Name them apart: NAME=MODEL.")
        loaded = load_model(source, device=choose_compute(device).device)
        served[name] = one = serve_model(name, loaded, config, engine, guard)
        log(f"{name}: {', '.join(one.abilities)}")
    return Models(served)


def _named(given: str) -> tuple[str, str]:
    name, separator, source = given.partition("=")
    if separator and not Path(given).exists() and "/" not in name and ":" not in name:
        return name, source
    return given.rstrip("/").rsplit("/", 1)[-1].removeprefix("pypi:").partition("==")[0], given


def serve_model(
    name: str, loaded: LoadedModel, config: ServeConfig, engine: EngineConfig, guard: Guard | None = None
) -> ServedModel:
    """Make a model ready to be served, by all that it can do.

    Raises
    ------
    InputError: it has no tokenizer; see `open_backend` and `Task.predictor` for the rest.
    """
    tokenizer, task = loaded.require_tokenizer(), _task(loaded)
    writer = template = embedder = None
    predictor = None if task is None else tasks.get(task).predictor(loaded)
    if isinstance(loaded.model, LanguageModel):
        if loaded.model.config.causal:
            vectors = open_vectors(loaded.model, config.steer)
            limits = config.max_running, config.max_waiting
            writer = ServedWriter(loaded.model, tokenizer, engine, *limits, guard, vectors)
            # What else the model is asked is answered as the server is set; the writer has its own way.
            for vector, strength in vectors.values():
                steer(loaded.model, vector, strength)
            template = _template(tokenizer)
        embedder = _embedder(loaded)
    kind = None if task is None else kind_of(task, predictor)
    asked = None if task is None or kind is None else (task, kind)
    return ServedModel(name, loaded, tokenizer, int(time.time()), writer, template, embedder, asked, predictor, guard)


def _task(loaded: LoadedModel) -> str | None:
    """Return the task that a model was tuned for; of one that was tuned elsewhere the task of its kind."""
    known = loaded.record["provenance"].get("task")
    if known in set(tasks):
        return known
    model: Model = loaded.model
    if isinstance(model, LanguageModel):
        return None
    if isinstance(model, SequenceClassifier):
        return "multi-label" if model.problem_type == "multi_label_classification" else "text-classification"
    return "question-answering" if isinstance(model, SpanExtractor) else "token-tagging"


def _template(tokenizer: Tokenizer) -> ChatTemplate | None:
    """Return the template of a tokenizer, or None where it has none that can be used."""
    try:
        return template_of(tokenizer)
    except InputError:
        return None


def _embedder(loaded: LoadedModel) -> TextEmbedder | None:
    """Return what embeds with a language model, or None where its files ask for what is not supported."""
    try:
        return TextEmbedder.of(loaded)
    except InputError:
        return None
