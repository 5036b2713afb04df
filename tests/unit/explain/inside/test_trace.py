"""The recorder: it sees what flows, changes what it is told to, and leaves nothing behind."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.trace import PARTS, Edit, Part, Site, trace
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor

SHAPE: dict[str, Any] = {
    "vocab_size": 30,
    "embedding_dim": 16,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ff_dim": 24,
    "num_layers": 3,
}
TOKENS = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))


def strong(model: Model) -> Model:
    """Draw larger weights, in which a mistake shows."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


MODELS: dict[str, Model] = {
    "causal": strong(LanguageModel(ModelConfig(**SHAPE))),
    "masked": strong(LanguageModel(ModelConfig.masked(**SHAPE))),
    "post-norm": strong(LanguageModel(ModelConfig.masked(**SHAPE, post_norm=True, norm="layer", bias=True))),
    "classifier": strong(SequenceClassifier(ModelConfig.masked(**SHAPE), ["a", "b"], "mean")),
    "span": strong(SpanExtractor(ModelConfig.masked(**SHAPE))),
}


def run(model: Model) -> Tensor:
    if isinstance(model, LanguageModel):
        return model(TOKENS)
    found = model(TOKENS, torch.tensor([7, 7]))
    return torch.stack(found) if isinstance(found, tuple) else found


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


def test_heads_and_neurons_make_what_their_parts_put_out(model: Model) -> None:
    backbone: Any = model.transformer if isinstance(model, SpanExtractor) else model.model
    with trace(model, [*PARTS, "weights"]) as found:
        run(model)
    for index, block in enumerate(backbone.layers):
        heads, weights = found["heads", index], found["weights", index]
        assert heads.shape == (2, 7, 4, 4)
        torch.testing.assert_close(block.self_attn.o_proj(heads.flatten(2)), found["attention", index])
        torch.testing.assert_close(block.mlp.down_proj(found["neurons", index]), found["mlp", index])
        # The weights are those that the values were weighed with.
        seen = found["input", index] if model.config.post_norm else block.input_layernorm(found["input", index])
        values = block.self_attn.v_proj(seen).unflatten(-1, (2, 4)).repeat_interleave(2, dim=2)  # (B, T, H, d)
        torch.testing.assert_close(torch.einsum("bhts,bshd->bthd", weights, values), heads, atol=1e-5, rtol=1e-5)
        if not model.config.post_norm:
            added = found["input", index] + found["attention", index] + found["mlp", index]
            torch.testing.assert_close(added, found["residual", index])
        if index:
            assert torch.equal(found["input", index], found["residual", index - 1])


def test_recording_changes_nothing_and_leaves_nothing(model: Model) -> None:
    model.train()
    before = {name: len(part._forward_hooks) + len(part._forward_pre_hooks) for name, part in model.named_modules()}
    with trace(model, [*PARTS, "weights"]):
        assert not model.training
        assert not torch.is_grad_enabled()
        recorded = run(model)
    assert model.training
    assert torch.is_grad_enabled()
    assert before == {n: len(p._forward_hooks) + len(p._forward_pre_hooks) for n, p in model.named_modules()}
    model.eval()
    torch.testing.assert_close(recorded, run(model))


def test_hooks_come_off_after_an_error(model: Model) -> None:
    with pytest.raises(RuntimeError, match="stop"), trace(model, PARTS):
        raise RuntimeError("stop")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("part", PARTS)
def test_a_part_can_be_replaced_at_one_place(part: Part, model: Model) -> None:
    """Only the position and unit that are meant change; what comes after is computed from the new value."""
    unit = 2 if part in ("heads", "neurons") else None
    with trace(model, PARTS) as before:
        plain = run(model)

    def edit(value: Tensor) -> Tensor:
        return value + torch.linspace(2.0, 5.0, value.shape[-1])  # a norm would take out the same number everywhere

    with trace(model, PARTS, [(Site(part, 1, position=4, unit=unit), edit)]) as after:
        changed = run(model)
    difference = (after[part, 1] - before[part, 1]).abs() > 1
    chosen = difference[:, 4] if unit is None else difference[:, 4, unit]
    assert bool(chosen.all())
    assert int(difference.sum()) == chosen.numel()
    assert not torch.allclose(plain, changed)
    assert torch.equal(before[part, 0], after[part, 0])


def test_causal_models_see_no_change_in_the_past() -> None:
    model = MODELS["causal"]
    plain = run(model)
    with trace(model, [], [(Site("residual", 0, position=4), torch.zeros_like)]):
        changed = run(model)
    torch.testing.assert_close(changed[:, :4], plain[:, :4])
    assert not torch.allclose(changed[:, 4:], plain[:, 4:])


def test_edits_follow_each_other() -> None:
    model = MODELS["causal"]
    edits: list[tuple[Site, Edit]] = [
        (Site("mlp", 1), torch.zeros_like),
        (Site("mlp", 1, position=2), lambda value: value + 1.0),
    ]
    with trace(model, ["mlp"], edits) as found:
        run(model)
    assert found["mlp", 1][:, 2].eq(1).all()
    assert found["mlp", 1].sum() == 2 * SHAPE["embedding_dim"]


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("residual", 3), r"--layer: there is no layer 3. Choose 0 to 2."),
        (Site("residual", -1), r"there is no layer -1"),
        (Site("heads", 0, unit=4), r"--head: there is no head 4. Choose 0 to 3."),
        (Site("neurons", 0, unit=24), r"there is no neuron 24"),
        (Site("mlp", 0, unit=1), r"mlp has no heads or neurons"),
        (Site("weights", 0), r"recorded, not replaced"),
        (Site("mlp", 0, position=7), r"there is no position 7"),
    ],
)
def test_a_place_that_is_not_there_is_named(site: Site, message: str) -> None:
    with pytest.raises(InputError, match=message), trace(MODELS["causal"], [], [(site, torch.zeros_like)]):
        run(MODELS["causal"])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in MODELS["causal"].modules())


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(InputError, match="there is no part 'values'"), trace(MODELS["causal"], [cast(Part, "values")]):
        pass
