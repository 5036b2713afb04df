"""Likelihoods of continuations: what is read once for several gives what each alone would."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucidlm.core.errors import InputError
from lucidlm.inference import scorer as likelihood
from lucidlm.inference.prefix_tree import merge
from lucidlm.inference.scorer import Likelihood, Request, Scorer, rolling
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

SHAPE = ModelConfig(vocab_size=300, embedding_dim=32, num_heads=4, num_layers=2, ff_dim=64, context_length=192)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = LanguageModel(SHAPE, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)  # so that predictions are not all alike
    return model.eval()


def alone(model: LanguageModel, context: list[int], continuation: list[int]) -> Likelihood:
    """Return the likelihood by the definition: one text, all logits."""
    whole = torch.tensor([*context, *continuation])[-SHAPE.context_length - 1 :]
    with torch.inference_mode():
        logits = model(whole[None, :-1])[0, -len(continuation) :]
    targets = whole[-len(continuation) :]
    found = logits.log_softmax(-1).gather(-1, targets[:, None]).sum()
    return Likelihood(float(found), bool((logits.argmax(-1) == targets).all()))


def requests() -> list[Request]:
    """Return questions with answers of unequal length, some of one token, some twice, some cut, few-shot prompts."""
    draw = np.random.default_rng(0)

    def ids(size: int) -> list[int]:
        return draw.integers(0, 300, size).tolist()

    found: list[Request] = []
    examples = ids(100)
    for size in (1, 3, 20, 60, 80):
        question = ids(size)
        answers = [ids(count) for count in (1, 1, 4, 9)]
        found += [(question, answer) for answer in [*answers, answers[0], [*answers[2], 7]]]
        found += [([*examples, *question], answer) for answer in answers]
    found += [(ids(250), ids(12)), (ids(190), ids(3)), (ids(5), ids(192))]
    return [found[index] for index in draw.permutation(len(found))]


def test_each_is_scored_as_if_it_were_alone(model: LanguageModel) -> None:
    asked = requests()
    found = Scorer(model).score(asked)
    for (context, continuation), one in zip(asked, found, strict=True):
        expected = alone(model, list(context), list(continuation))
        assert one.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert one.greedy == expected.greedy


def test_what_is_in_the_batch_changes_rounding_only(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests()
    together = Scorer(model).score(asked)
    monkeypatch.setattr(likelihood, "TOKENS_PER_BATCH", 1)
    apart = Scorer(model).score(asked)
    assert [one.logprob for one in together] == pytest.approx([one.logprob for one in apart], abs=1e-4)
    assert [one.greedy for one in together] == [one.greedy for one in apart]


def test_greedy_says_whether_the_model_would_have_written_it(model: LanguageModel) -> None:
    written = [5, 6, 7]
    for _ in range(4):
        with torch.inference_mode():
            written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
    context, continuation = written[:3], written[3:]
    wrong = [*continuation[:-1], (continuation[-1] + 1) % 300]
    assert [one.greedy for one in Scorer(model).score([(context, continuation), (context, wrong)])] == [True, False]


def test_a_shared_beginning_is_read_once() -> None:
    question = list(range(100))
    texts = [np.array([*question, *answer]) for answer in ([1, 2], [1, 3], [4], [1, 2], [])]
    (tree,) = merge(texts, width=64)
    assert len(tree.tokens) == 104
    assert tree.trunk == 100
    for number, path in tree.texts:
        assert np.array(tree.tokens)[path].tolist() == texts[number].tolist()
        assert np.array(tree.depths)[path].tolist() == list(range(len(path)))
        assert np.flatnonzero(tree.mask()[path[-1]]).tolist() == path.tolist()


def test_texts_that_share_little_stay_apart() -> None:
    draw = np.random.default_rng(0)
    texts = [np.concatenate([[1], draw.integers(2, 300, 400)]) for _ in range(5)]
    assert len(merge(texts, width=64)) == 5


def test_the_beginning_of_a_family_is_read_once_a_batch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    examples = draw.integers(0, 300, 120).tolist()
    asked = [([*examples, *draw.integers(0, 300, 60).tolist()], [1, 2]) for _ in range(12)]
    monkeypatch.setattr("lucidlm.inference.prefix_tree.LONGEST", 1)
    read: list[int] = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda tokens, **rest: read.append(tokens.numel()) or forward(tokens, **rest)
    )
    found = Scorer(model).score(asked)
    assert read == [120, 12 * 61]
    monkeypatch.undo()
    for (context, continuation), one in zip(asked, found, strict=True):
        assert one.logprob == pytest.approx(alone(model, context, continuation).logprob, abs=1e-4)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 8, 9, 23])
def test_windows_score_each_token_once_and_are_full(size: int) -> None:
    ids = list(range(size))
    windows = list(rolling(ids, prefix=-1, length=4))
    assert [token for _, continuation in windows for token in continuation] == ids
    for context, continuation in windows:
        assert len(context) + len(continuation) - 1 == min(4, max(size, 1))


def test_a_long_text_is_the_sum_of_its_windows(model: LanguageModel) -> None:
    ids = np.random.default_rng(0).integers(0, 300, 500).tolist()
    expected = sum(alone(model, *map(list, window)).logprob for window in rolling(ids, 0, SHAPE.context_length))
    long, none = Scorer(model).score_texts([ids, []], prefix=0)
    assert long == pytest.approx(expected, abs=1e-3)
    assert none == 0.0


@pytest.mark.parametrize("request_", [([], [1]), ([1], []), ([1], [1] * 193)])
def test_what_cannot_be_scored_is_refused(model: LanguageModel, request_: Request) -> None:
    with pytest.raises(InputError, match="request 2"):
        Scorer(model).score([([1], [1]), request_])


def test_masked_models_are_refused() -> None:
    with pytest.raises(InputError, match="masked"):
        Scorer(LanguageModel(SHAPE.model_copy(update={"causal": False})))
