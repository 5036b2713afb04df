"""A smaller model drafts: the texts stay the same, and the larger model reads less often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.speaking_model import saying
from torch import Tensor

from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer, generate
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.draft_model import DraftModel, _common
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.prompt_lookup import PromptLookup
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 2}
GREEDY = SamplingConfig(temperature=0, length=40)
FREE = SamplingConfig(temperature=1.0, min_p=0, length=40)


class Counting(TorchBackend):
    """Counts how often it reads, and how many tokens."""

    steps = tokens = 0

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        self.steps += 1
        self.tokens += sum(len(one.tokens) for one in stretches)
        return super().read(stretches)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drafted by looking up what repeats itself."""
    monkeypatch.setattr(PromptLookup, "guess", lambda *_: [])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。" * 3], 290)


def make(seed: int, scale: float = 0.3, context: int = 128) -> LanguageModel:
    model = LanguageModel(ModelConfig(vocab_size=290, context_length=context, **SHAPE))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += scale * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(100 * seed + index)
            )
    return model.eval()


def write(
    model: LanguageModel, tokenizer: Tokenizer, prompts: list[str], config: SamplingConfig, drafting: DraftModel | None
) -> tuple[list[list[int]], int]:
    backend = Counting(model, 40)
    engine = Engine(backend, Sampler(290, tokenizer), drafts=drafting is not None, draft_model=drafting)
    rows = start_rows(model.config, tokenizer, prompts, config)
    for row in rows:
        engine.add(row)
        engine.step()
    while engine.running or engine.waiting:
        engine.step()
    return [row.tokens for row in rows], backend.steps


@pytest.mark.parametrize("config", [GREEDY, FREE, GREEDY.changed(repetition_penalty=1.3, stop=("q",))])
@pytest.mark.parametrize("context", [128, 24])
def test_texts_are_the_same_whoever_drafts(tokenizer: Tokenizer, config: SamplingConfig, context: int) -> None:
    model, prompts = make(0), ["the quick brown", "你好", "", "lazy", "the quick brown fox", "jumps"]
    expected, _ = write(model, tokenizer, prompts, config, None)
    for small in (make(0, context=context), make(1, context=context)):
        drafting = DraftModel(TorchBackend(small, 9), context)
        assert write(model, tokenizer, prompts, config, drafting)[0] == expected


@pytest.mark.usefixtures("alone")
def test_a_model_that_drafts_for_itself_is_always_right(tokenizer: Tokenizer) -> None:
    model = make(0)
    small = Counting(model, 8)
    expected, undrafted = write(model, tokenizer, ["the quick"], GREEDY.changed(length=90), None)
    found, steps = write(model, tokenizer, ["the quick"], GREEDY.changed(length=90), DraftModel(small, 128))
    assert found == expected
    assert undrafted == 90
    assert steps < 20
    assert small.tokens < 110  # each token is read once, but for those that came after a draft


@pytest.mark.usefixtures("alone")
def test_a_model_that_is_always_wrong_is_soon_asked_less(tokenizer: Tokenizer) -> None:
    words = [tokenizer.encode(letter)[0] for letter in "xqz"]
    small = Counting(saying(*words), 4)
    found, steps = write(make(0), tokenizer, ["the quick"], GREEDY.changed(length=90), DraftModel(small, 96))
    assert found == write(make(0), tokenizer, ["the quick"], GREEDY.changed(length=90), None)[0]
    assert steps == 90
    assert 0 < small.steps < 25


def test_what_was_read_is_found_again_and_texts_do_not_mix() -> None:
    model = make(0)
    backend = Counting(model, 8)
    drafting, fresh = DraftModel(backend, 128), DraftModel(TorchBackend(model, 4), 128)
    one, other = list(range(5, 45)), list(range(100, 130))
    for _ in range(3):
        for text in (one, other):
            assert drafting.draft(text, 4) == fresh.draft(list(text), 4)
    assert backend.tokens < 40 + 30 + 6 * 10
    assert drafting.draft(one * 4, 4) == []  # beyond its context
    assert len(drafting.draft(list(range(126)), 4)) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"), [("", "ab", 0), ("abc", "abd", 2), ("xbc", "abc", 0), ("ab", "abc", 2)]
)
def test_how_much_two_texts_have_in_common(one: str, other: str, same: int) -> None:
    assert _common([*map(ord, one)], [*map(ord, other)]) == same == _common([*map(ord, other)], [*map(ord, one)])


def test_a_draft_model_by_its_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make(0)
    save_model(make(1), tmp_path / "small", tokenizer)
    save_model(make(1), tmp_path / "other", Tokenizer.train_bpe(["another text " * 9], 265))
    config = EngineConfig(backend="torch", draft=str(tmp_path / "small"))
    writer = Writer(model, tokenizer, config)
    assert writer.generate(["the quick"], FREE)[0].text == generate(model, tokenizer, ["the quick"], FREE)[0].text
    with pytest.raises(InputError, match="other: has another tokenizer than the model that writes"):
        Writer(model, tokenizer, config.changed(draft=str(tmp_path / "other")))
