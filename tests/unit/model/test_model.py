"""The Transformer and its heads: shapes, what may see what, randomness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lucidlm.core.errors import InputError
from lucidlm.model.attention_backends import causal_mask
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier, SpanExtractor
from lucidlm.model.loss import IGNORE_INDEX

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "embedding_dim": 16,
    "num_heads": 4,
    "ff_dim": 24,
    "num_layers": 2,
    "context_length": 12,
}
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "grouped": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1},
    "wide heads": {"head_dim": 10},
    "layer norm": {"norm": "layer"},
    "learned positions": {"position": "learned"},
    "gelu": {"activation": "gelu"},
    "relu2": {"activation": "relu2"},
    "biases": {"bias": True},
    "no norm on queries": {"qk_norm": False},
    "untied": {"tied_embeddings": False},
    "gpt2": {"norm": "layer", "position": "learned", "activation": "gelu", "bias": True, "qk_norm": False},
}


def loud(model: torch.nn.Module) -> torch.nn.Module:
    """Enlarge fresh weights, so that every part of the model matters to what comes out."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


def tokens(rows: int = 2, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(SIZE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("options", ARRANGEMENTS.values(), ids=ARRANGEMENTS.keys())
def test_every_arrangement_maps_tokens_to_logits(options: dict[str, Any], causal: bool) -> None:
    model = LanguageModel(ModelConfig(**SIZE, **options, causal=causal))
    logits = model(tokens())
    assert logits.shape == (2, 12, 50)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("options", ARRANGEMENTS.values(), ids=ARRANGEMENTS.keys())
def test_causal_models_do_not_see_what_comes_later(options: dict[str, Any]) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE, **options)))
    ids = tokens()
    before = model(ids)
    for at in (0, 5, 11):
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 1) % 50
        after = model(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at], after[:, at])


def test_later_tokens_see_earlier_ones() -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE)))
    ids = tokens()
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 50
    assert ((model(ids) - model(changed)).abs().amax(-1) > 1e-4).all()


def test_bidirectional_models_see_both_ways() -> None:
    model = loud(LanguageModel(ModelConfig.masked(**SIZE)))
    ids = tokens()
    changed = ids.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 50
    assert ((model(ids) - model(changed)).abs().amax(-1) > 1e-4).all()


def test_order_matters_with_each_kind_of_position() -> None:
    for position in ("rotary", "learned"):
        model = loud(LanguageModel(ModelConfig.masked(**SIZE, position=position)))
        ids = tokens()
        turned = ids.flip(1)
        assert not torch.allclose(model(ids).flip(1), model(turned), atol=1e-3)


def test_rotary_attention_depends_on_distances_only() -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE)))
    ids = tokens(length=5)
    near = model(ids, positions=torch.arange(5)[None])
    far = model(ids, positions=torch.arange(7, 12)[None])
    torch.testing.assert_close(near, far, atol=1e-5, rtol=1e-4)


def test_positions_default_to_counting_from_zero() -> None:
    for position in ("rotary", "learned"):
        model = loud(LanguageModel(ModelConfig(**SIZE, position=position)))
        ids = tokens()
        assert torch.equal(model(ids), model(ids, positions=torch.arange(12).expand(2, 12)))


def test_a_causal_mask_is_what_causal_models_do_by_themselves() -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE)))
    ids = tokens()
    torch.testing.assert_close(model(ids), model(ids, mask=causal_mask(12).expand(2, 12, 12)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_changes_no_classification(causal: bool, pooling: Any) -> None:
    config = ModelConfig(**SIZE) if causal else ModelConfig.masked(**SIZE)
    model = loud(SequenceClassifier(config, ["a", "b", "c"], pooling))
    ids, lengths = tokens(3), torch.tensor([5, 12, 1])
    together = model(ids, lengths)
    assert together.shape == (3, 3)
    for row, length in enumerate(lengths.tolist()):
        alone = model(ids[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
    other = ids.clone()
    other[0, 5:] = 7
    torch.testing.assert_close(together, model(other, lengths), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_spans_end_where_the_text_ends(causal: bool) -> None:
    model = loud(SpanExtractor(ModelConfig(**SIZE) if causal else ModelConfig.masked(**SIZE)))
    ids, lengths = tokens(2), torch.tensor([5, 12])
    start, end = model(ids, lengths)
    assert start.shape == end.shape == (2, 12)
    for logits in (start, end):
        assert torch.isneginf(logits[0, 5:]).all()
        assert torch.isfinite(logits[0, :5]).all()
        assert torch.isfinite(logits[1]).all()
    alone, _ = model(ids[:1, :5], lengths[:1])
    torch.testing.assert_close(start[:1, :5], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_loss_is_the_sum_of_cross_entropies_that_count(causal: bool) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE) if causal else ModelConfig.masked(**SIZE)))
    ids, targets = tokens(), tokens(seed=1)
    targets[0, 3:9] = IGNORE_INDEX
    total, counted = model.loss(ids, targets)  # type: ignore[operator]
    assert counted.item() == 24 - 6
    probabilities = model(ids).log_softmax(-1)
    expected = -sum(
        probabilities[row, at, targets[row, at]]
        for row in range(2)
        for at in range(12)
        if targets[row, at] != IGNORE_INDEX
    )
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)


def test_loss_of_nothing_is_zero() -> None:
    for config in (ModelConfig(**SIZE), ModelConfig.masked(**SIZE)):
        total, counted = LanguageModel(config).loss(tokens(), torch.full((2, 12), IGNORE_INDEX))
        assert (total.item(), counted.item()) == (0.0, 0)


@pytest.mark.parametrize("causal", [True, False])
def test_the_loss_of_few_places_is_that_of_all(causal: bool) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE) if causal else ModelConfig.masked(**SIZE)))
    assert isinstance(model, LanguageModel)
    ids, targets = tokens(), torch.full((2, 12), IGNORE_INDEX)
    targets[0, 3:9] = tokens(seed=1)[0, 3:9]
    places = torch.arange(3, 9)
    total, counted = model.loss(ids, targets, bidirectional=True, places=places)
    assert counted == 6
    torch.testing.assert_close(total, model.loss(ids, targets, bidirectional=True)[0])


HEADS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied_embeddings": False},
    "transform and bias": {"causal": False, "head_transform": True},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS.keys())
def test_logits_losses_and_the_model_itself_have_one_head(options: dict[str, Any]) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE, **options)))
    assert isinstance(model, LanguageModel)
    ids, targets = tokens(), tokens(seed=1)
    hidden = model.model(ids)
    logits = model.logits(hidden)
    assert torch.equal(logits, model(ids))
    torch.testing.assert_close(logits[:, -1], model.logits(hidden[:, -1]))
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    found = model.token_nll(hidden.flatten(0, 1), targets.flatten())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.cross_entropy(hidden, targets)[0], expected.sum())
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(model.model(ids)).dtype == torch.bfloat16


def test_tied_embeddings_are_one_parameter() -> None:
    tied = LanguageModel(ModelConfig(**SIZE))
    assert tied.head is tied.model.embed_tokens.weight
    untied = LanguageModel(ModelConfig(**SIZE, tied_embeddings=False))
    assert untied.head is not untied.model.embed_tokens.weight


def test_dropout_acts_in_training_only() -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE, dropout=0.5)))
    ids = tokens()
    assert torch.equal(model(ids), model(ids))
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(ids), model(ids))


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (LanguageModel(ModelConfig(**SIZE), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_building_a_model_leaves_the_global_generator_alone_where_weights_are_to_be_loaded() -> None:
    with torch.random.fork_rng(), torch.device("meta"):
        before = torch.get_rng_state()
        LanguageModel(ModelConfig(**SIZE), seed=None)
        assert torch.equal(before, torch.get_rng_state())


def test_fresh_weights_have_the_scales_that_were_meant() -> None:
    config = ModelConfig(vocab_size=500, embedding_dim=128, num_heads=4, ff_dim=256, num_layers=8, bias=True)
    model = LanguageModel(config)
    block = model.model.layers[0]
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.get_parameter("self_attn.o_proj.weight").std().item() == pytest.approx(0.005, rel=0.05)
    assert block.get_parameter("mlp.down_proj.weight").std().item() == pytest.approx(0.005, rel=0.05)
    assert block.get_parameter("self_attn.q_proj.bias").abs().max() == 0
    assert (block.get_parameter("input_layernorm.weight") == 1).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"embedding_dim": 30}, ["embedding_dim (30)", "num_heads (4)", "28", "32"]),
        ({"num_kv_heads": 3}, ["num_heads (4)", "num_kv_heads (3)"]),
        ({"embedding_dim": 20}, ["even head width", "5"]),
        ({"vocab_size": 1}, ["vocab_size"]),
        ({"dropout": 1.0}, ["dropout"]),
        ({"activation": "tanh"}, ["activation", "tanh"]),
        ({"widht": 3}, ["widht"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        ModelConfig(**{**SIZE, **fields})
    for word in words:
        assert word in str(error.value)
