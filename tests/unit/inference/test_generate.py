"""Decoding: batches, stop strings, streams, ends, and the cache underneath."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.gguf_models import characters_without_bytes
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.kv_cache import SMALLEST, KeyValueCache
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

SIZE: dict[str, Any] = {"embedding_dim": 32, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 48, "num_layers": 2}
PROMPTS = ["the quick", "", "你好，世界", "the lazy dog jumps over the quick brown fox", "x", "the quick"]
GREEDY = SamplingConfig(temperature=0, length=30)
FREE = SamplingConfig(temperature=1.0, min_p=0, length=30)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。🙂" * 3], 290)


def make(**fields: Any) -> LanguageModel:
    """Return a model whose weights are large enough to say something else at every step."""
    model = LanguageModel(ModelConfig(**{"vocab_size": 320, "context_length": 128, **SIZE, **fields}))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return make(tied_embeddings=False)


class Script(LanguageModel):
    """A model that says what it is told: after n tokens, the n-th of `says`."""

    def __init__(self, says: Sequence[int], vocab_size: int = 320) -> None:
        super().__init__(
            ModelConfig(
                vocab_size=vocab_size,
                embedding_dim=vocab_size,
                num_heads=1,
                ff_dim=1,
                num_layers=1,
                tied_embeddings=False,
            )
        )
        assert self.lm_head is not None
        with torch.no_grad():
            self.lm_head.weight.copy_(torch.eye(vocab_size))
        self.says = list(says)
        self.model.forward = self.say  # type: ignore[method-assign]

    def say(self, tokens: Tensor, *, positions: Tensor, mask: Tensor | None, caches: list[KeyValueCache]) -> Tensor:
        nothing = torch.zeros(len(tokens), 1, tokens.shape[1], 1)
        for cache in caches:
            cache.extend(nothing, nothing)
        following = [[self.says[min(at, len(self.says) - 1)] for at in row] for row in positions.tolist()]
        return 50.0 * torch.nn.functional.one_hot(torch.tensor(following), self.config.vocab_size).float()


def script(tokenizer: Tokenizer, text: str, *, end: bool = False) -> Script:
    """Return a model that continues a prompt of one token by `text`."""
    return Script(tokenizer.encode(text, add_eos=end))


# ---------------------------------------------------------------------- right tokens


@pytest.mark.parametrize("fields", [{}, {"position": "learned"}, {"num_kv_heads": 4}, {"qk_norm": False}])
def test_the_cache_changes_nothing(tokenizer: Tokenizer, fields: dict[str, Any]) -> None:
    model = make(**fields)
    [found] = generate(model, tokenizer, [PROMPTS[0]], GREEDY)
    ids = tokenizer.encode(PROMPTS[0])
    with torch.inference_mode():
        for token in found.tokens:
            logits = model(torch.tensor([ids]))[0, -1]
            logits[[tokenizer.pad_id, tokenizer.mask_id]] = -torch.inf
            assert logits[: tokenizer.vocab_size].argmax() == token
            ids.append(token)
    assert len(set(found.tokens)) > 3


@pytest.mark.parametrize("config", [GREEDY, FREE, FREE.changed(top_k=20, top_p=0.9, repetition_penalty=1.3)])
@pytest.mark.parametrize("fields", [{}, {"position": "learned", "norm": "layer"}])
def test_company_changes_no_text(tokenizer: Tokenizer, config: SamplingConfig, fields: dict[str, Any]) -> None:
    model = make(**fields, tied_embeddings=False)
    together = generate(model, tokenizer, PROMPTS, config)
    for prompt, found in zip(PROMPTS[:-1], together, strict=False):
        assert [found] == generate(model, tokenizer, [prompt], config)
    backwards = generate(model, tokenizer, PROMPTS[:-1][::-1], config)
    assert backwards[::-1] == together[:-1]
    # The same prompt again is another sample, unless there is no chance in it.
    assert (together[-1] == together[0]) == config.greedy


def test_the_seed_decides(model: LanguageModel, tokenizer: Tokenizer) -> None:
    first = generate(model, tokenizer, PROMPTS, FREE)
    assert first == generate(model, tokenizer, PROMPTS, FREE)
    assert first != generate(model, tokenizer, PROMPTS, FREE.changed(seed=1))


def test_a_longer_text_begins_as_the_shorter_one(model: LanguageModel, tokenizer: Tokenizer) -> None:
    short, long = (generate(model, tokenizer, PROMPTS, FREE.changed(length=length)) for length in (7, 25))
    for few, many in zip(short, long, strict=True):
        assert many.tokens[:7] == few.tokens


def test_the_global_generator_and_the_mode_stay_as_they_are(tokenizer: Tokenizer) -> None:
    model = make(dropout=0.5).train()
    before = torch.get_rng_state()
    found = generate(model, tokenizer, PROMPTS, FREE)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert found == generate(model.eval(), tokenizer, PROMPTS, FREE)
    assert not model.training


def test_tokens_that_stand_for_nothing_are_never_chosen(tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        model = make(tied_embeddings=False)
        assert model.lm_head is not None
        hidden = model.model(torch.tensor([tokenizer.encode("x")]))[0, -1]
        for token in (tokenizer.pad_id, tokenizer.mask_id, *range(tokenizer.vocab_size, 320)):
            model.lm_head.weight[token] = hidden
    hot = SamplingConfig(temperature=50.0, min_p=0, length=100)
    for config in (GREEDY, hot):
        for found in generate(model, tokenizer, ["x", "the quick"], config):
            assert max(found.tokens) < tokenizer.vocab_size
            assert not {tokenizer.pad_id, tokenizer.mask_id} & set(found.tokens)


def test_characters_that_are_not_in_the_vocabulary_are_never_written() -> None:
    tokenizer = characters_without_bytes("abc")
    assert tokenizer.unknown_id is not None
    [found] = generate(make(vocab_size=tokenizer.vocab_size), tokenizer, ["a"], FREE.changed(length=100))
    assert tokenizer.unknown_id not in found.tokens


def test_an_empty_prompt_begins_a_document(model: LanguageModel, tokenizer: Tokenizer) -> None:
    [found] = generate(model, tokenizer, [""], GREEDY)
    with torch.inference_mode():
        assert found.tokens[0] == model(torch.tensor([[tokenizer.eos_id]]))[0, -1, : tokenizer.vocab_size].argmax()


def test_no_prompts_no_texts(model: LanguageModel, tokenizer: Tokenizer) -> None:
    assert generate(model, tokenizer, [], FREE) == []


# ---------------------------------------------------------------------- ends


def test_the_end_of_text_ends_it(tokenizer: Tokenizer) -> None:
    [found] = generate(script(tokenizer, "over the lazy dog", end=True), tokenizer, ["x"], GREEDY)
    assert (found.text, found.reason) == ("over the lazy dog", "eos")
    assert found.tokens[-1] == tokenizer.eos_id


def test_the_length_ends_it(model: LanguageModel, tokenizer: Tokenizer) -> None:
    for length in (1, 2, 9):
        for found in generate(model, tokenizer, PROMPTS, GREEDY.changed(length=length)):
            assert (len(found.tokens), found.reason) == (length, "length") or found.reason == "eos"


def test_the_context_ends_it(tokenizer: Tokenizer) -> None:
    model = make(context_length=20)
    for prompt in ("the quick", "x"):
        size = len(tokenizer.encode(prompt))
        [found] = generate(model, tokenizer, [prompt], GREEDY.changed(length=500))
        assert found.reason == "eos" or (len(found.tokens), found.reason) == (20 - size + 1, "context")
    full = "x" * 20
    [found] = generate(model, tokenizer, [full], GREEDY)
    assert len(found.tokens) == 1
    both = generate(model, tokenizer, ["x", full], GREEDY)
    assert both[1] == found
    assert len(both[0].tokens) == 20


def test_a_prompt_longer_than_the_context(tokenizer: Tokenizer) -> None:
    model = make(context_length=20)
    with pytest.raises(InputError, match=r"prompt has 21 tokens.* context 20"):
        generate(model, tokenizer, ["x" * 21], GREEDY)
    with pytest.raises(InputError, match=r"^prompt 2: .*21 tokens"):
        generate(model, tokenizer, ["x", "x" * 21], GREEDY)
    with pytest.raises(InputError, match="21 tokens"):
        stream(model, tokenizer, "x" * 21, GREEDY)


def test_models_and_tokenizers_that_cannot_do_it(tokenizer: Tokenizer, model: LanguageModel) -> None:
    with pytest.raises(InputError, match="masked"):
        generate(LanguageModel(ModelConfig.masked(vocab_size=320, **SIZE)), tokenizer, ["x"], GREEDY)
    with pytest.raises(TypeError, match="list"):
        generate(model, tokenizer, "x", GREEDY)


# ---------------------------------------------------------------------- stop strings and streams


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("lazy",), "quick brown fox jumps over the "),
        (("x jumps o",), "quick brown fo"),
        (("fox", "brown"), "quick "),
        (("own fox", "brown fo"), "quick "),
        (("q",), ""),
        (("dog.",), "quick brown fox jumps over the lazy "),
        (("cat", "dog!"), "quick brown fox jumps over the lazy dog."),
    ],
)
def test_stop_strings_cut_exactly_wherever_tokens_end(tokenizer: Tokenizer, stop: tuple[str, ...], text: str) -> None:
    model = script(tokenizer, "quick brown fox jumps over the lazy dog.", end=True)
    pieces: list[str] = []
    [found] = generate(
        model, tokenizer, ["x"], GREEDY.changed(stop=stop, length=100), lambda _, piece: pieces.append(piece)
    )
    assert (found.text, found.reason) == (text, "eos" if "cat" in stop else "stop")
    assert "".join(pieces) == text
    assert all(pieces)


def test_what_might_have_been_a_stop_string_is_told_in_the_end(tokenizer: Tokenizer) -> None:
    model = script(tokenizer, "lazy do", end=True)
    for length in (100, len(tokenizer.encode("lazy do"))):
        config = GREEDY.changed(stop=("dog",), length=length)
        assert "".join(stream(model, tokenizer, "x", config)) == "lazy do"


def test_a_stop_string_in_the_prompt_does_not_count(tokenizer: Tokenizer) -> None:
    model = Script([tokenizer.eos_id, *tokenizer.encode("og", add_eos=True)])
    [found] = generate(model, tokenizer, ["xd"], GREEDY.changed(stop=("dog",)))
    assert (found.text, found.reason) == ("og", "eos")


def test_streams_hold_whole_characters(tokenizer: Tokenizer) -> None:
    text = "🙂 naïve 世界 𝔘"
    model = script(tokenizer, text, end=True)
    pieces = list(stream(model, tokenizer, "x", GREEDY.changed(length=100)))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_cut_in_half_by_the_length_is_left_out(tokenizer: Tokenizer) -> None:
    model = script(tokenizer, "ab𝔘")
    found = [generate(model, tokenizer, ["x"], GREEDY.changed(length=length))[0] for length in (2, 3, 4, 5, 6)]
    assert [generation.text for generation in found] == ["ab", "ab", "ab", "ab", "ab𝔘"]
    assert [len(generation.tokens) for generation in found] == [2, 3, 4, 5, 6]


def test_pieces_come_with_the_number_of_their_prompt(model: LanguageModel, tokenizer: Tokenizer) -> None:
    texts = [""] * len(PROMPTS)

    def add(index: int, piece: str) -> None:
        texts[index] += piece

    found = generate(model, tokenizer, PROMPTS, FREE, add)
    assert texts == [generation.text for generation in found]
    for prompt, text in zip(PROMPTS[:-1], texts, strict=False):
        assert "".join(stream(model, tokenizer, prompt, FREE)) == text


def test_a_stream_may_be_left_early(tokenizer: Tokenizer) -> None:
    model = make().train()
    pieces = stream(model, tokenizer, "x", FREE)
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    del pieces
    assert model.training


# ---------------------------------------------------------------------- the cache


def test_the_cache_holds_what_it_was_given_and_grows_seldom() -> None:
    cache = KeyValueCache()
    generator = torch.Generator().manual_seed(0)
    given_keys, given_values = (torch.randn(3, 2, 500, 4, generator=generator) for _ in range(2))
    places, start = set(), 0
    for size in (5, *[1] * 495):
        part = slice(start, start + size)
        keys, values = cache.extend(given_keys[:, :, part], given_values[:, :, part])
        start += size
        assert keys.shape == values.shape == (3, 2, start, 4)
        places.add(keys.data_ptr())
    assert torch.equal(keys, given_keys)
    assert torch.equal(values, given_values)
    assert len(places) <= 5  # SMALLEST, then doubled whenever it is full
    assert given_keys.nbytes <= keys.untyped_storage().nbytes() <= 2.5 * given_keys.nbytes
    cache.keep(torch.tensor([2, 0]))
    keys, values = cache.extend(given_keys[:2, :, :1], given_values[:2, :, :1])
    assert torch.equal(keys[:, :, :-1], given_keys[[2, 0]])
    assert torch.equal(values[:, :, :-1], given_values[[2, 0]])


def test_a_small_cache_has_room_from_the_start() -> None:
    cache = KeyValueCache()
    keys, _ = cache.extend(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert keys.untyped_storage().nbytes() == SMALLEST * 2 * 4
    again, _ = cache.extend(torch.zeros(1, 1, SMALLEST - 1, 2), torch.zeros(1, 1, SMALLEST - 1, 2))
    assert again.data_ptr() == keys.data_ptr()
