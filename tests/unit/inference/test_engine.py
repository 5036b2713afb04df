"""The engine: requests that come and go, prompts in chunks, a cache that is full, shared beginnings, cancelling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.engine_model import varied_model
from torch import Tensor

from lucidlm.inference.config import EngineConfig
from lucidlm.inference.decode import Writer, generate
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.prompt_lookup import PromptLookup
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.sampler import Sampler, SamplingConfig
from lucidlm.inference.sequence import Generation, SequenceState, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

GREEDY = SamplingConfig(temperature=0, length=40)
FREE = SamplingConfig(temperature=1.0, min_p=0, length=30)
LONG = "the quick brown fox jumps over the lazy dog. " * 4
PROMPTS = ["the quick", LONG, "x", LONG + "你好", "the lazy dog", LONG]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。🙂" * 3], 270)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    return varied_model(tokenizer)


class Recorder(TorchBackend):
    """A backend that notes what it is given to read."""

    def __init__(self, model: LanguageModel, blocks: int) -> None:
        super().__init__(model, blocks)
        self.steps: list[list[Stretch]] = []

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        self.steps.append(list(stretches))
        return super().read(stretches)

    @property
    def tokens(self) -> int:
        return sum(len(one.tokens) for step in self.steps for one in step)


def engine_of(model: LanguageModel, tokenizer: Tokenizer, blocks: int = 80, **settings: Any) -> tuple[Engine, Recorder]:
    backend = Recorder(model, blocks)
    return Engine(backend, Sampler(model.config.vocab_size, tokenizer), **settings), backend


def finish(engine: Engine) -> None:
    for _ in range(2000):
        if not engine.running and not engine.waiting:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")


def rows_of(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], config: SamplingConfig = GREEDY
) -> list[SequenceState]:
    return start_rows(model.config, tokenizer, prompts, config)


def alone(model: LanguageModel, tokenizer: Tokenizer, prompt: str, config: SamplingConfig) -> Generation:
    return generate(model, tokenizer, [prompt], config)[0]


@pytest.mark.parametrize(
    "settings",
    [{}, {"most_tokens": 7}, {"most_running": 2}, {"blocks": 10}, {"blocks": 10, "most_tokens": 33, "most_running": 3}],
)
def test_requests_at_any_time_with_settings_of_their_own(
    model: LanguageModel, tokenizer: Tokenizer, settings: dict[str, int]
) -> None:
    engine, _ = engine_of(model, tokenizer, **settings)
    configs = [GREEDY, FREE, FREE.changed(seed=3, top_k=9), GREEDY.changed(repetition_penalty=1.4), GREEDY, FREE]
    configs[2] = configs[2].changed(stop=("q",))
    rows = [rows_of(model, tokenizer, [text], config)[0] for text, config in zip(PROMPTS, configs, strict=True)]
    for row in rows:
        engine.add(row)
        engine.step()
    finish(engine)
    for row, prompt, config in zip(rows, PROMPTS, configs, strict=True):
        assert row.generation() == alone(model, tokenizer, prompt, config)
    assert engine.used_blocks == 0


def test_a_full_cache_delays_the_youngest_and_changes_nothing(model: LanguageModel, tokenizer: Tokenizer) -> None:
    config = GREEDY.changed(length=120)
    needed = -(-(len(tokenizer.encode(LONG)) + 120) // BLOCK)
    engine, _ = engine_of(model, tokenizer, blocks=needed + 2)
    rows = rows_of(model, tokenizer, [LONG + str(number) for number in range(3)], config)
    for row in rows:
        engine.add(row)
    most = gave_way = 0
    while engine.running or engine.waiting:
        gave_way += engine.running < most and all(row.reason is None for row in rows)
        engine.step()
        most = max(most, engine.running)
    assert (most, gave_way > 0) == (3, True)
    for number, row in enumerate(rows):
        assert row.generation() == alone(model, tokenizer, LONG + str(number), config)
    assert engine.used_blocks == 0


def test_what_was_read_is_not_read_again(model: LanguageModel, tokenizer: Tokenizer) -> None:
    engine, backend = engine_of(model, tokenizer, drafts=False)
    [first] = rows_of(model, tokenizer, [LONG])
    engine.add(first)
    finish(engine)
    before = backend.tokens
    # The conversation goes on: prompt and answer are a beginning that is known.
    ids = [*first.prompt, *first.tokens, *tokenizer.encode("the lazy dog")]
    [second] = start_rows(model.config, tokenizer, [ids], GREEDY)
    engine.add(second)
    finish(engine)
    known = (len(first.prompt) + len(first.tokens) - 1) // BLOCK * BLOCK
    assert backend.tokens - before == len(ids) - known + len(second.tokens) - 1
    assert second.generation() == generate(model, tokenizer, [ids], GREEDY)[0]


def test_several_texts_for_a_prompt_read_it_once(model: LanguageModel, tokenizer: Tokenizer) -> None:
    engine, backend = engine_of(model, tokenizer, most_tokens=40, drafts=False)
    rows = rows_of(model, tokenizer, [LONG] * 3, FREE)
    for row in rows:
        engine.add(row)
    finish(engine)
    assert [row.generation() for row in rows] == generate(model, tokenizer, [LONG] * 3, FREE)
    assert len({tuple(row.tokens) for row in rows}) == 3
    size = len(rows[0].prompt)
    written = sum(len(row.tokens) - 1 for row in rows)
    assert backend.tokens == size + 2 * (size - (size - 1) // BLOCK * BLOCK) + written


def test_a_long_prompt_lets_others_write_on(model: LanguageModel, tokenizer: Tokenizer) -> None:
    engine, backend = engine_of(model, tokenizer, most_tokens=16, drafts=False)
    writer, reader = rows_of(model, tokenizer, ["x", LONG + LONG])
    engine.add(writer)
    engine.step()
    engine.add(reader)
    steps = 0
    while not reader.tokens:
        before = len(writer.tokens)
        engine.step()
        steps += 1
        assert len(writer.tokens) == before + 1
        assert sum(len(one.tokens) for one in backend.steps[-1]) <= 16
    assert steps == -(-len(reader.prompt) // 15)


def test_cancelling_frees_room_at_once_and_harms_nobody(model: LanguageModel, tokenizer: Tokenizer) -> None:
    engine, backend = engine_of(model, tokenizer, most_running=2, most_tokens=64, drafts=False)
    writing, kept, waiting, reading = rows_of(model, tokenizer, ["the quick", "x", "the lazy dog", LONG])
    for row in (writing, kept, waiting):
        engine.add(row)
    engine.step()
    engine.step()
    assert (engine.running, engine.waiting) == (2, 1)
    engine.cancel(waiting)
    engine.cancel(writing)
    assert (engine.running, engine.waiting, engine.used_blocks) == (1, 0, 1)
    engine.add(reading)
    engine.step()  # a part of its prompt
    assert not reading.tokens
    engine.cancel(reading)
    finish(engine)
    assert engine.used_blocks == 0
    assert [row.reason for row in (writing, waiting, reading)] == ["cancelled"] * 3
    assert len(writing.tokens) == 2
    assert kept.generation() == alone(model, tokenizer, "x", GREEDY)
    engine.cancel(kept)  # it has ended: nothing to do
    assert kept.reason == "length"
    assert not engine.step()
    assert backend.steps


# ---------------------------------------------------------------------- drafts


class Repeating(TorchBackend):
    """A model that says one text again and again, whatever it is given."""

    def __init__(self, model: LanguageModel, blocks: int, text: list[int]) -> None:
        super().__init__(model, blocks)
        self.text, self.steps, self.drafted = text, 0, 0

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        super().read(stretches)
        self.steps += 1
        self.drafted += sum(len(one.draft) for one in stretches)
        ends = [one.start + len(one.tokens) for one in stretches]
        places = [place for end, one in zip(ends, stretches, strict=True) for place in range(end - one.wanted, end)]
        following = [self.text[place % len(self.text)] for place in places]
        return 50.0 * torch.nn.functional.one_hot(torch.tensor(following), 300).float()


def test_what_repeats_itself_is_written_in_fewer_steps(model: LanguageModel, tokenizer: Tokenizer) -> None:
    text = tokenizer.encode("the quick brown fox jumps")[:7]
    found = {}
    for drafts in (True, False):
        backend = Repeating(model, 10, text)
        engine = Engine(backend, Sampler(300, tokenizer), drafts=drafts)
        [row] = start_rows(model.config, tokenizer, ["x"], GREEDY.changed(length=100))
        engine.add(row)
        finish(engine)
        found[drafts] = row.tokens, backend.steps
        assert engine.used_blocks == 0
    assert found[True][0] == found[False][0] == [text[place % 7] for place in range(100)]
    assert found[False][1] == 100
    assert found[True][1] < 30


@pytest.mark.parametrize(
    "config",
    [
        GREEDY,
        FREE,
        FREE.changed(repetition_penalty=1.2),
        GREEDY.changed(frequency_penalty=1.0),
        GREEDY.changed(stop=("fox",)),
    ],
)
@pytest.mark.parametrize("length", [1, 5, 90])
def test_drafts_change_no_text(model: LanguageModel, tokenizer: Tokenizer, config: SamplingConfig, length: int) -> None:
    prompts = [LONG + "the quick", "你好，" * 9, "the the the the the"]
    config = config.changed(length=length, temperature=config.temperature * 0.5)
    texts = {}
    for drafts in (True, False):
        engine, backend = engine_of(model, tokenizer, drafts=drafts)
        rows = rows_of(model, tokenizer, prompts, config)
        for row in rows:
            engine.add(row)
        finish(engine)
        texts[drafts] = [row.generation() for row in rows]
        drafted = sum(len(one.draft) for step in backend.steps for one in step)
        assert (drafted > 0) == (drafts and length == 90)
    assert texts[True] == texts[False]


def test_drafts_end_where_the_text_has_to(model: LanguageModel, tokenizer: Tokenizer) -> None:
    text = tokenizer.encode("the quick brown fox jumps")[:3]
    backend = Repeating(model, 10, text)
    engine = Engine(backend, Sampler(300, tokenizer))
    [row] = start_rows(model.config, tokenizer, ["x"], GREEDY.changed(length=1000))
    engine.add(row)
    finish(engine)
    assert row.reason == "context"
    assert len(row.prompt) + len(row.tokens) == model.config.context_length + 1


def test_wrong_drafts_are_made_ever_less() -> None:
    lookup = PromptLookup()
    tokens, made = [1, 2, 3, 4] * 2, []
    while len(tokens) < 400:
        draft = lookup.draft(tokens, 8)
        if draft:
            made.append(len(tokens))
            lookup.learn(len(tokens), len(draft), 0)
        tokens += [1, 2, 3, 4]
    gaps = [after - before for before, after in pairwise(made)]
    assert gaps == [8, 16, 32, 64, 64, 64, 64, 64]
    assert len(lookup.draft([*tokens, *[1, 2, 3, 4] * 20], 8)) == 2


def test_streams_of_one_writer_do_not_mix(model: LanguageModel, tokenizer: Tokenizer) -> None:
    writer = Writer(model, tokenizer, EngineConfig(backend="torch"))
    prompts = ["the quick", "the quick", LONG, "x"]
    streams = [writer.stream(prompt, GREEDY.changed(length=10 + number)) for number, prompt in enumerate(prompts)]
    texts = [""] * len(prompts)
    for _ in range(30):
        for number, pieces in enumerate(streams):
            texts[number] += next(pieces, "")
    for number, prompt in enumerate(prompts):
        assert texts[number] == alone(model, tokenizer, prompt, GREEDY.changed(length=10 + number)).text
