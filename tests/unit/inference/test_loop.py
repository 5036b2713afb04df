"""The engine in its thread: requests from many threads, cancelled ones, failing steps and listeners, a step that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.inference.decode import generate
from lucidlm.inference.engine import loop as loop_module
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.loop import EngineLoop, News
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler, SamplingConfig
from lucidlm.inference.sequence import SequenceState, start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

GREEDY = SamplingConfig(temperature=0, length=30)
ENDLESS = SamplingConfig(temperature=1.0, min_p=0, length=100_000)
WAIT = 60
"""Seconds after which a test has failed."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog." * 3], 270)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1}
    return LanguageModel(ModelConfig(vocab_size=300, context_length=4096, **shape)).eval()


class Controlled(TorchBackend):
    """A backend whose next step can be made to fail or to hang."""

    fails = False

    def __init__(self, model: LanguageModel, blocks: int) -> None:
        super().__init__(model, blocks)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.hangs = threading.Event()

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        if not self.may_go_on.is_set():
            self.hangs.set()
            self.may_go_on.wait(WAIT)
        if self.fails:
            self.fails = False
            raise RuntimeError("out of memory, say")
        return super().read(stretches)


@pytest.fixture
def backend(model: LanguageModel) -> Controlled:
    return Controlled(model, 200)


@pytest.fixture
def loop(backend: Controlled, tokenizer: Tokenizer) -> Iterator[EngineLoop]:
    loop = EngineLoop(Engine(backend, Sampler(300, tokenizer), most_running=8))
    yield loop
    backend.may_go_on.set()
    loop.stop()
    assert not loop.healthy


class Heard:
    """What one request heard."""

    def __init__(self) -> None:
        self.news: SimpleQueue[News] = SimpleQueue()

    def end(self) -> tuple[str, News]:
        text = ""
        while not (news := self.news.get(timeout=WAIT)).last:
            text += news.piece
        return text + news.piece, news


def row_of(model: LanguageModel, tokenizer: Tokenizer, prompt: str, config: SamplingConfig = GREEDY) -> SequenceState:
    return start_rows(model.config, tokenizer, [prompt], config)[0]


def submit(loop: EngineLoop, row: SequenceState) -> Heard:
    heard = Heard()
    loop.submit(row, heard.news.put)
    return heard


def test_requests_from_many_threads(loop: EngineLoop, model: LanguageModel, tokenizer: Tokenizer) -> None:
    texts: dict[str, str] = {}

    def ask(number: int) -> None:
        prompt = "the lazy dog" * (number % 5 + 1) + str(number)
        texts[prompt], _ = submit(loop, row_of(model, tokenizer, prompt)).end()

    threads = [threading.Thread(target=ask, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(texts) == 24
    for prompt, text in texts.items():
        assert text == generate(model, tokenizer, [prompt], GREEDY)[0].text
    assert loop.healthy


def test_what_nobody_wants_is_not_written(loop: EngineLoop, model: LanguageModel, tokenizer: Tokenizer) -> None:
    row = row_of(model, tokenizer, "the", ENDLESS)
    heard = submit(loop, row)
    heard.news.get(timeout=WAIT)
    loop.cancel(row)
    _, news = heard.end()
    assert (news.reason, news.failure) == ("cancelled", None)
    assert len(row.tokens) < row.limit
    loop.cancel(row)  # once more does no harm
    assert submit(loop, row_of(model, tokenizer, "x")).end()[1].reason == "length"
    assert not heard.news.qsize()


def test_a_step_that_fails_ends_those_in_it_and_no_others(
    loop: EngineLoop, backend: Controlled, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    backend.may_go_on.clear()
    in_it = [submit(loop, row_of(model, tokenizer, f"the {number}")) for number in range(3)]
    assert backend.hangs.wait(WAIT)
    waiting = [submit(loop, row_of(model, tokenizer, f"dog {number}")) for number in range(2)]
    backend.fails = True
    backend.may_go_on.set()
    failed = [heard.end()[1] for heard in in_it]
    assert any(str(news.failure) == "out of memory, say" for news in failed)
    for number, heard in enumerate(waiting):
        text, news = heard.end()
        if news.failure is None:
            assert text == generate(model, tokenizer, [f"dog {number}"], GREEDY)[0].text
    assert submit(loop, row_of(model, tokenizer, "the")).end()[0] == generate(model, tokenizer, ["the"], GREEDY)[0].text
    assert loop.healthy


def test_a_listener_that_fails_is_its_own_trouble(loop: EngineLoop, model: LanguageModel, tokenizer: Tokenizer) -> None:
    def gone(_: News) -> None:
        raise ConnectionError("the client went away")

    row = row_of(model, tokenizer, "the", ENDLESS)
    loop.submit(row, gone)
    assert submit(loop, row_of(model, tokenizer, "x")).end()[1].failure is None
    assert row.reason == "cancelled"


def test_a_thread_that_hangs_is_not_healthy(
    loop: EngineLoop,
    backend: Controlled,
    model: LanguageModel,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert loop.healthy
    backend.may_go_on.clear()
    heard = submit(loop, row_of(model, tokenizer, "the"))
    assert backend.hangs.wait(WAIT)
    monkeypatch.setattr(loop_module, "STUCK", 0.0)
    assert not loop.healthy
    backend.may_go_on.set()
    heard.end()
    monkeypatch.setattr(loop_module, "STUCK", 60.0)
    assert loop.healthy
    assert torch.is_grad_enabled()
