"""A direction found from texts is added, in whatever runs the model, and taken away again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.serving import small_model, small_tokenizer

from lucidlm.control.steering import SteeringVector, fit, steer, steered
from lucidlm.core.errors import InputError
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer
from lucidlm.model.heads import LanguageModel

WANTED = [f"the {word} fox" for word in ("jumps", "over", "the", "lazy", "dog", "and", "then", "some", "more")]
UNWANTED = [f"lazy {word} dog" for word in ["brown", "the", "quick", "over", "fox", "then", "not", "at", "all"]]


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(small_model().config.changed(num_layers=3)).eval()


@pytest.fixture
def vector(model: LanguageModel) -> SteeringVector:
    return fit(model, small_tokenizer(), WANTED, UNWANTED, layer=1)


def states(model: LanguageModel, layer: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(f"model.layers.{layer}").register_forward_hook(lambda _a, _b, out: seen.append(out))
    with torch.inference_mode():
        model.model(torch.tensor([small_tokenizer().encode("the quick fox")]))
    hook.remove()
    return seen[0]


def test_it_is_added_to_the_states_behind_its_block_and_to_no_earlier_ones(
    model: LanguageModel, vector: SteeringVector
) -> None:
    before = [states(model, layer) for layer in range(3)]
    with steered(model, vector, 2.5):
        after = [states(model, layer) for layer in range(3)]
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(
        after[1] - before[1], (2.5 * vector.direction).expand_as(before[1]), atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(before[2], after[2])
    assert all(torch.equal(states(model, layer), state) for layer, state in enumerate(before))
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())


def test_texts_of_both_kinds_are_told_apart_where_it_is_chosen(model: LanguageModel) -> None:
    found = fit(model, small_tokenizer(), WANTED, UNWANTED)
    assert found.accuracy == 1.0
    assert found.held_out == 4


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_it_changes_what_is_written_whatever_computes(
    model: LanguageModel, vector: SteeringVector, backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    tokenizer, config = small_tokenizer(), SamplingConfig(length=12, temperature=0.0)
    engine = EngineConfig.parse({"backend": backend, "quantize": "none"}, "")
    plain = Writer(model, tokenizer, engine).generate(["the"], config)[0].tokens
    steer(model, vector, 400.0)
    assert (moved := Writer(model, tokenizer, engine).generate(["the"], config)[0].tokens) != plain
    steer(model, vector, -400.0)  # strengths add up
    assert Writer(model, tokenizer, engine).generate(["the"], config)[0].tokens == plain != moved


def test_it_is_the_same_from_a_file(vector: SteeringVector, tmp_path: Path) -> None:
    vector.save(tmp_path / "v.safetensors")
    again = SteeringVector.load(tmp_path / "v.safetensors")
    assert torch.equal(again.direction, vector.direction)
    assert (again.layer, again.model, again.accuracy) == (vector.layer, vector.model, vector.accuracy)


def test_what_cannot_be_used_is_refused(model: LanguageModel, vector: SteeringVector, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = LanguageModel(model.config.changed(num_layers=4))
    with pytest.raises(InputError, match="of another model"):
        steer(other, vector, 1.0)
    with pytest.raises(InputError, match="layers 0 to 2"):
        fit(model, small_tokenizer(), WANTED, UNWANTED, layer=3)
    with pytest.raises(InputError, match="WANTED: has 2 texts, at least 8"):
        fit(model, small_tokenizer(), WANTED[:2], UNWANTED)
    (tmp_path / "text").write_text("no tensors")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="no steering vector in this file"):
            SteeringVector.load(path)
