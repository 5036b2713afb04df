"""Beam search: what it finds, and that the engine finds the same among other requests, in a small cache, cut into chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.control.min_length import MinLength
from lucidlm.core.errors import InputError
from lucidlm.inference.beam import Beam, BeamSearch, beam_search
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.engine.blocks import BlockPool
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.loop import EngineLoop, News
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.logits_processor import LogitsProcessor
from lucidlm.inference.sampler import Sampler, SamplingConfig, suppressed_tokens
from lucidlm.inference.sequence import SequenceState, start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

LONG = "the quick brown fox jumps over the lazy dog. " * 4
PROMPTS = ["the quick", LONG, LONG + "你好", "x"]
BEAMS = SamplingConfig(num_beams=4, length=45, logprobs=0)
FREE = SamplingConfig(temperature=1.0, min_p=0, length=30)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。🙂" * 3], 270)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Return a model that says something else at every step, and ends some texts."""
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 48, "num_layers": 2}
    model = LanguageModel(ModelConfig(vocab_size=300, context_length=320, tied_embeddings=False, **shape))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return model.eval()


def engine_of(model: LanguageModel, tokenizer: Tokenizer, blocks: int = 80, **settings: Any) -> Engine:
    return Engine(TorchBackend(model, blocks), Sampler(model.config.vocab_size, tokenizer), **settings)


def rows_of(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], config: SamplingConfig = BEAMS
) -> list[SequenceState]:
    return start_rows(model.config, tokenizer, prompts, config)


def by_themselves(model: LanguageModel, tokenizer: Tokenizer, rows: Sequence[SequenceState]) -> list[Beam]:
    """Return what the tasks' search, which knows no engine and no blocks, finds for the same prompts."""
    ends = rows[0].ends
    return beam_search(
        model,
        [row.prompt for row in rows],
        [row.limit for row in rows],
        ends=ends,
        suppressed=suppressed_tokens(model.config.vocab_size, tokenizer, ends),
        beams=rows[0].config.num_beams,
    )


def endless(tokenizer: Tokenizer, config: SamplingConfig, length: int) -> SamplingConfig:
    """Return settings by which all texts have `length` tokens."""
    ends = sorted(ends_of(tokenizer, (), tokenizer.vocab_size))
    return config.changed(length=length, logit_bias=tuple((end, -100.0) for end in ends))


def agree(rows: Sequence[SequenceState], found: Sequence[Beam]) -> None:
    for row, one in zip(rows, found, strict=True):
        assert row.tokens == one.tokens + ([] if one.end is None else [one.end])
        assert row.reason == ("length" if one.end is None else "eos")
        assert sum(each.logprob for each in row.likelihoods) == pytest.approx(one.log_probability, abs=1e-3)


def finish(engine: Engine) -> None:
    for _ in range(4000):
        if not engine.running and not engine.waiting:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")


# ---------------------------------------------------------------------- the search


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_beams_of_all_texts_find_the_best_of_all(alpha: float) -> None:
    """With as many beams as there are texts nothing is lost, so the best is that of trying all of them."""
    size, limit, end = 4, 4, 0
    for seed in range(20):
        costs = (2 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))).log_softmax(-1).tolist()

        def score(text: Sequence[int], costs: list[list[float]] = costs) -> float:
            total = sum(costs[before][token] for before, token in itertools.pairwise([1, *text]))
            return total / ((5 + len(text)) / 6) ** alpha

        search = BeamSearch(limit, size**limit, [end], alpha)
        while search.beams:
            last = [beam.tokens[-1] if beam.tokens else 1 for beam in search.beams]
            search.step([costs[token] for token in last], [list(range(size))] * len(last))
        bodies = [body for n in range(1, limit) for body in itertools.product(range(1, size), repeat=n)]
        best = max(([*body, end] for body in bodies), key=score)
        assert search.best is not None
        assert [*search.best.tokens, search.best.end] == best
        assert search.best.log_probability == pytest.approx(score(best) * ((5 + len(best)) / 6) ** alpha)


def test_what_is_impossible_is_no_beam() -> None:
    search = BeamSearch(3, 4, [0])
    search.step([[0.0, -1.0, -math.inf]], [[0, 1, 2]])
    assert [beam.tokens for beam in search.beams] == [[1]]  # no text is empty
    search.step([[-math.inf]], [[1]])
    assert (search.beams, search.best) == ([], None)


# ---------------------------------------------------------------------- in the engine


@pytest.mark.parametrize("beams", [2, 4, 7])
def test_the_engine_finds_what_the_tasks_search_does(model: LanguageModel, tokenizer: Tokenizer, beams: int) -> None:
    rows = rows_of(model, tokenizer, PROMPTS, BEAMS.changed(num_beams=beams))
    engine = engine_of(model, tokenizer)
    for row in rows:
        engine.add(row)
    finish(engine)
    found = by_themselves(model, tokenizer, rows)
    agree(rows, found)
    assert {one.end is None for one in found} == {False, True}  # some come to an end, some do not
    assert engine.used_blocks == 0


@pytest.mark.parametrize(
    "settings",
    [{"most_tokens": 9}, {"most_running": 5}, {"blocks": 16}, {"blocks": 16, "most_tokens": 33, "most_running": 8}],
)
def test_company_changes_nothing(model: LanguageModel, tokenizer: Tokenizer, settings: dict[str, int]) -> None:
    engine = engine_of(model, tokenizer, **settings)
    searched = rows_of(model, tokenizer, PROMPTS)
    sampled = rows_of(model, tokenizer, [*PROMPTS, "the lazy dog"], FREE)
    for row in itertools.chain(*itertools.zip_longest(sampled, searched)):
        if row is not None:
            engine.add(row)
            engine.step()
    finish(engine)
    agree(searched, by_themselves(model, tokenizer, searched))
    assert [row.generation() for row in sampled] == [
        generate(model, tokenizer, [prompt], FREE)[0] for prompt in [*PROMPTS, "the lazy dog"]
    ]
    assert engine.used_blocks == 0


def test_beams_that_give_way_begin_again(model: LanguageModel, tokenizer: Tokenizer) -> None:
    [older] = rows_of(model, tokenizer, [LONG], endless(tokenizer, FREE, length=150))
    config = endless(tokenizer, BEAMS, length=70)
    searched = rows_of(model, tokenizer, [LONG, "x"], config)
    engine = engine_of(model, tokenizer, blocks=18)
    gave_way = 0
    for row in (older, *searched):
        engine.add(row)
    while engine.running or engine.waiting:
        before = engine.waiting
        engine.step()
        gave_way += engine.waiting > before
    assert gave_way
    assert len(older.tokens) == 150
    expected = generate(model, tokenizer, [LONG, "x"], config)
    assert [row.tokens for row in searched] == [one.tokens for one in expected]
    assert engine.used_blocks == 0


def test_beams_share_what_they_have_in_common(model: LanguageModel, tokenizer: Tokenizer) -> None:
    [row] = rows_of(model, tokenizer, [LONG], BEAMS.changed(num_beams=8, length=20))
    engine = engine_of(model, tokenizer)
    engine.add(row)
    full = len(row.prompt) // BLOCK
    assert full > 0
    most = 0
    while row.reason is None:
        engine.step()
        most = max(most, engine.used_blocks)
    assert full + 2 <= most <= full + 8 * 2
    assert engine.used_blocks == 0


def test_cancelling_at_any_step_frees_all_beams(model: LanguageModel, tokenizer: Tokenizer) -> None:
    for steps in range(0, 40, 3):
        engine = engine_of(model, tokenizer, most_tokens=40)
        [row] = rows_of(model, tokenizer, [LONG], endless(tokenizer, BEAMS, length=60))
        engine.add(row)
        for _ in range(steps):
            engine.step()
        engine.cancel(row)
        assert (row.reason, row.tokens, engine.used_blocks, engine.running) == ("cancelled", [], 0, 0)


def test_generate_and_stream_write_the_same(model: LanguageModel, tokenizer: Tokenizer) -> None:
    rows = rows_of(model, tokenizer, PROMPTS)
    found = generate(model, tokenizer, PROMPTS, BEAMS)
    assert [one.tokens for one in found] == [
        one.tokens + ([] if one.end is None else [one.end]) for one in by_themselves(model, tokenizer, rows)
    ]
    assert list(stream(model, tokenizer, PROMPTS[0], BEAMS)) == [found[0].text]
    assert generate(model, tokenizer, PROMPTS, BEAMS.changed(seed=5)) == found


def test_settings_count_for_every_beam(model: LanguageModel, tokenizer: Tokenizer) -> None:
    plain = generate(model, tokenizer, PROMPTS, BEAMS)
    longer = generate(model, tokenizer, PROMPTS, BEAMS.changed(length_penalty=4))
    assert sum(len(one.tokens) for one in longer) > sum(len(one.tokens) for one in plain)
    (banned,) = {plain[0].tokens[0]}
    without = generate(model, tokenizer, PROMPTS[:1], BEAMS.changed(logit_bias=((banned, -100),)))
    assert banned not in without[0].tokens
    once = generate(model, tokenizer, PROMPTS[:1], BEAMS.changed(repetition_penalty=1e6, length=20))
    assert len(set(once[0].tokens)) == len(once[0].tokens)


def test_texts_have_a_least_length(model: LanguageModel, tokenizer: Tokenizer) -> None:
    short = [one for one in generate(model, tokenizer, PROMPTS, BEAMS) if one.reason == "eos"]
    assert short
    least = max(len(one.tokens) for one in short)

    def at_least(_: list[int], ends: frozenset[int]) -> list[LogitsProcessor]:
        return [MinLength(least, ends)]

    for one in generate(model, tokenizer, PROMPTS, BEAMS, processors=at_least):
        assert len(one.tokens) > least or one.reason == "length"


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_beams": 4, "temperature": 0.7}, "temperature"),
        ({"num_beams": 4, "top_k": 3, "min_p": 0.1}, "top_k, min_p"),
        ({"num_beams": 4, "top_p": 0.9}, "top_p"),
        ({"num_beams": 4, "stop": ("x",)}, "stop"),
        ({"length_penalty": 1.0}, "length_penalty"),
        ({"num_beams": 0}, "num_beams"),
    ],
)
def test_settings_that_beams_do_not_have(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        SamplingConfig(**settings)


def test_settings_of_beams_can_be_changed() -> None:
    assert SamplingConfig(num_beams=4).changed(length=7) == SamplingConfig(num_beams=4, length=7)
    assert SamplingConfig(num_beams=4, temperature=0).greedy


def test_what_cannot_be_told_of_several_texts_is_refused(model: LanguageModel, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="num_beams"):
        generate(model, tokenizer, ["x"], BEAMS, processors=lambda _prompt, _ends: [LogitsProcessor()])


class _NothingAfter(MinLength):
    """Rules out all tokens behind the first ones."""

    def process(self, logits: Tensor) -> None:
        if self._left <= 0:
            logits.fill_(-math.inf)


def test_a_contradiction_is_told(model: LanguageModel, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no token may follow"):
        generate(model, tokenizer, ["x"], BEAMS, processors=lambda _, ends: [_NothingAfter(2, ends)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"most_running": 3}, "more than the 3"),
        ({"most_tokens": 2}, "more than the 2"),
        ({"blocks": 7}, "a cache of 256 tokens, this one has 224"),
    ],
)
def test_beams_that_never_have_room_are_refused(
    model: LanguageModel, tokenizer: Tokenizer, settings: dict[str, int], message: str
) -> None:
    engine = engine_of(model, tokenizer, **settings)
    heard: list[News] = []
    loop = EngineLoop(engine)
    [row] = rows_of(model, tokenizer, ["x"], BEAMS.changed(length=64))
    loop.submit(row, heard.append)
    loop.stop()
    [news] = heard
    assert isinstance(news.failure, InputError)
    assert message in str(news.failure)
    assert (row.reason, row in engine) == ("failed", False)


# ---------------------------------------------------------------------- blocks


def test_a_shared_block_is_copied_before_it_is_written_to() -> None:
    pool = BlockPool(4, 4)
    first: list[int] = []
    copies: list[tuple[int, int]] = []
    assert pool.take(first, 6)
    second = pool.share(first)
    assert pool.own(first, 4, copies)  # a block begins: there is nothing to copy
    assert not copies
    assert pool.own(first, 6, copies)
    assert copies == [(second[1], first[1])]
    assert first[0] == second[0]
    assert pool.own(second, 6, copies)  # nobody else holds it now
    assert len(copies) == 1
    third = pool.share(second)
    assert pool.take([], 4)
    assert not pool.own(third, 6, copies)
    assert third == second
    pool.release(first)
    assert pool.own(third, 6, copies)
    for blocks in (second, third):
        pool.release(blocks)
    assert pool.available == 3


def test_blocks_are_copied_whole(model: LanguageModel) -> None:
    backend = TorchBackend(model, 6)
    with torch.inference_mode():
        for layer in backend._layers:
            for held in layer.held_on(model):
                held.copy_(torch.arange(6 * BLOCK)[None, :, None] // BLOCK)
        backend.copy([(1, 4), (4, 0), (1, 5)])
        for layer in backend._layers:
            for held in layer.held_on(model):
                assert held[0, ::BLOCK, 0].tolist() == [4, 1, 2, 3, 1, 1]
