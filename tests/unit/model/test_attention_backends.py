"""Attention: all backends compute the same, and one place chooses between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lucidlm.core import matmul
from lucidlm.model import attention_backends
from lucidlm.model.attention_backends import (
    BACKENDS,
    AttentionContext,
    BackendName,
    attend,
    causal_mask,
    choose_backend,
)
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

CPU = torch.device("cpu")


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_the_book(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v, head by head, in float64."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1).double() for x in (k, v))
    scores = (q.double() @ k.mT) / q.shape[-1] ** 0.5
    return (scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v).float()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("pattern", ["all", "causal", "one mask", "a mask a row", "padding"])
def test_every_backend_computes_attention(backend: BackendName, groups: int, pattern: str) -> None:
    q, k, v = made(3, 4, 6, 8), made(3, groups, 6, 8, seed=1), made(3, groups, 6, 8, seed=2)
    rows = (
        torch.arange(6)[:, None] >= torch.tensor([[0, 1, 5], [0, 2, 3], [0, 0, 4]]).repeat(1, 2)[:, None]
    )  # (3, 6, 6)
    masks = {
        "all": None,
        "causal": None,
        "one mask": causal_mask(6)[None, None],
        "a mask a row": rows[:, None],
        "padding": (torch.arange(6) < torch.tensor([6, 2, 4])[:, None])[:, None, None],
    }
    mask = masks[pattern]
    allowed = causal_mask(6) if pattern == "causal" else torch.ones(6, 6, dtype=torch.bool) if mask is None else mask
    found = attend(q, k, v, AttentionContext(backend, pattern == "causal", mask, None))
    torch.testing.assert_close(found, by_the_book(q, k, v, allowed), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_the_same_gradients(backend: BackendName) -> None:
    q, k, v = made(2, 4, 5, 8), made(2, 2, 5, 8, seed=1), made(2, 2, 5, 8, seed=2)
    parts = [x.requires_grad_() for x in (q, k, v)]
    weights = made(2, 4, 5, 8, seed=3)
    found = torch.autograd.grad((attend(q, k, v, AttentionContext(backend, True, None, None)) * weights).sum(), parts)
    wanted = torch.autograd.grad((by_the_book(q, k, v, causal_mask(5)) * weights).sum(), parts)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_explicit_is_chosen_where_onednn_multiplies_and_the_scores_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend(CPU, 512, 512) == "sdpa"
    monkeypatch.setattr(attention_backends, "uses_onednn", lambda device: device.type == "cpu")
    assert choose_backend(CPU, 512, 512) == "explicit"
    assert choose_backend(CPU, 512, 513) == "sdpa"
    assert choose_backend(torch.device("cuda"), 8, 8) == "sdpa"


def test_the_choice_is_made_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(matmul, "SWITCH", None)

    def choose(device: torch.device, queries: int, keys: int) -> BackendName:
        asked.append((queries, keys))
        return "explicit"

    shape = ModelConfig(vocab_size=20, embedding_dim=16, num_heads=2, ff_dim=16, num_layers=3)
    model = LanguageModel(shape).eval()
    expected = model(torch.arange(12)[None])
    monkeypatch.setattr("lucidlm.model.transformer.choose_backend", choose)
    torch.testing.assert_close(model(torch.arange(12)[None]), expected, atol=1e-5, rtol=1e-4)
    assert asked == [(12, 12)]
