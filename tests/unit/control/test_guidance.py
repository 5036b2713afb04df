"""Guidance moves logits by what they have over a companion's, and never makes the implausible likely."""

from __future__ import annotations

import math

import pytest
import torch
from tests.serving import small_model, small_tokenizer

from lucidlm.control.config import ConstraintConfig, ShiftConfig
from lucidlm.control.guidance import PLAUSIBLE, away_from_model, away_from_prompt
from lucidlm.control.opening import processors_of
from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

STRENGTH = 4.0


def heedful_model(seed: int) -> LanguageModel:
    """A model to which it matters what it has read."""
    model, generator = small_model(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return heedful_model(0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.mark.parametrize("kind", ["prompt", "model"])
def test_each_token_is_chosen_by_the_formula(model: LanguageModel, tokenizer: Tokenizer, kind: str) -> None:
    other = model if kind == "prompt" else heedful_model(1)
    prompt, negative = tokenizer.encode("the quick"), tokenizer.encode("lazy dog over")
    if kind == "prompt":
        make = away_from_prompt(model, tokenizer, "lazy dog over", STRENGTH)
    else:
        make, negative = away_from_model(other, tokenizer, tokenizer, STRENGTH), prompt
    config = SamplingConfig(length=12, temperature=0.0)
    written = generate(model, tokenizer, [prompt], config, processors=make)[0].tokens
    plain = generate(model, tokenizer, [prompt], config)[0].tokens
    assert written != plain
    for place in range(len(written)):
        with torch.inference_mode():
            own, theirs = (
                one.logits(one.model(torch.tensor([read + written[:place]])))[0, -1].log_softmax(-1)
                for one, read in ((model, prompt), (other, negative))
            )
        moved = own + STRENGTH * (own - theirs)
        moved[own < own.max() + math.log(PLAUSIBLE)] = -math.inf
        assert moved[: tokenizer.vocab_size].topk(2).values.diff().abs() > 1e-5
        assert int(moved[: tokenizer.vocab_size].argmax()) == written[place]


def test_no_strength_changes_nothing_but_the_implausible(model: LanguageModel, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(length=12, temperature=0.0)
    make = away_from_prompt(model, tokenizer, "lazy", 0.0)
    assert generate(model, tokenizer, ["the"], config, processors=make) == generate(model, tokenizer, ["the"], config)


@pytest.mark.parametrize("sure", [1.0, 400.0])
def test_a_form_holds_beside_what_shifts(model: LanguageModel, tokenizer: Tokenizer, sure: float) -> None:
    """However sure the model is of something else."""
    held, shifted = ConstraintConfig(regex="[0-9]{6}"), ShiftConfig(negative_prompt="the", watermark="secret")
    make = processors_of(model, tokenizer, held, shifted)
    config = SamplingConfig(length=20, temperature=1.0)
    with torch.no_grad():
        model.model.norm.weight.mul_(sure)
        found = generate(model, tokenizer, ["fox"], config, processors=make)[0].text
        model.model.norm.weight.div_(sure)
    assert len(found) == 6
    assert found.isdigit()
    assert processors_of(model, tokenizer, ConstraintConfig(), ShiftConfig()) is None


def test_fewest_tokens(model: LanguageModel, tokenizer: Tokenizer) -> None:
    ending = tuple((end, 100.0) for end in (tokenizer.eos_id,))
    config = SamplingConfig(length=20, temperature=0.0, logit_bias=ending)
    assert len(generate(model, tokenizer, ["the"], config)[0].tokens) == 1
    make = processors_of(model, tokenizer, ConstraintConfig(min_length=7), ShiftConfig())
    assert len(generate(model, tokenizer, ["the"], config, processors=make)[0].tokens) == 8


def test_what_contradicts_itself_says_so(model: LanguageModel, tokenizer: Tokenizer) -> None:
    """A text that may end only, and may not end yet."""
    make = processors_of(model, tokenizer, ConstraintConfig(min_length=9, regex="(ab){0}"), ShiftConfig())
    with pytest.raises(InputError, match="contradicts itself"):
        generate(model, tokenizer, ["the"], SamplingConfig(length=20), processors=make)


def test_what_cannot_be_used_is_refused(model: LanguageModel, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not those of the model"):
        away_from_model(model, Tokenizer.train_characters(["abc"]), tokenizer, 1.0)
    with pytest.raises(InputError, match="--negative-prompt: has"):
        away_from_prompt(model, tokenizer, "the " * 3000, 1.0)
    for given in ("file", "file=much", "=2", "file=nan"):
        with pytest.raises(InputError, match="FILE=STRENGTH"):
            ShiftConfig(steer=(given,))
