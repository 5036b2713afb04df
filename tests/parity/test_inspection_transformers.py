"""What is recorded inside a model is what transformers gives out: attention weights and hidden states, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.parity.test_families import LANGUAGE
from tests.parity.tiny_models import ids, their

from lucidlm.checkpoint.load import load_model
from lucidlm.core.matmul import fast_matmul
from lucidlm.explain.inside.trace import Site, trace
from lucidlm.model.heads import LanguageModel


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize("fast", [False, True], ids=["", "oneDNN where there is"])
def test_it_records_what_transformers_outputs(name: str, fast: bool, tmp_path: Path) -> None:
    kind, fields = LANGUAGE[name]
    head = {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM", "EuroBert": "ForMaskedLM"}.get(kind, "ForCausalLM")
    peer = their(kind, head, {**fields, "attn_implementation": "eager"}, tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, LanguageModel)
    tokens = ids()
    with torch.no_grad():
        expected = peer(tokens, output_attentions=True, output_hidden_states=True)
    parts = ("input", "residual", "weights")
    if fast:
        with fast_matmul(tokens.device), trace(ours, parts) as found:
            last = ours.model(tokens)
    else:
        with trace(ours, parts) as found:
            last = ours.model(tokens)
    torch.testing.assert_close(found.stacked("weights"), torch.stack(expected.attentions), atol=1e-4, rtol=1e-4)
    stream = [found["input", 0], *found.stacked("residual")[:-1], last]
    torch.testing.assert_close(torch.stack(stream), torch.stack(expected.hidden_states), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "smollm", "qwen3", "bert"])
def test_a_replaced_stream_is_read_as_transformers_reads_it(name: str, tmp_path: Path) -> None:
    """A hook of ours that puts something else in place of a layer's output does what one on their layer does."""
    kind, fields = LANGUAGE[name]
    peer = their(kind, {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM"}.get(kind, "ForCausalLM"), fields, tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, LanguageModel)
    tokens, put = ids(), torch.randn(24, generator=torch.Generator().manual_seed(7))
    body = peer.transformer.h if name == "gpt2" else peer.bert.encoder.layer if name == "bert" else peer.model.layers

    def replace(_: object, __: object, output: object) -> object:
        states = output[0] if isinstance(output, tuple) else output
        assert isinstance(states, torch.Tensor)
        states = states.clone()
        states[:, 3] = put
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = body[1].register_forward_hook(replace)
    with torch.no_grad():
        expected = peer(tokens).logits
    handle.remove()
    with trace(ours, [], [(Site("residual", 1, position=3), lambda value: put.expand_as(value))]):
        found = ours(tokens)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (ours(tokens) - found).abs().max() > 1e-2
