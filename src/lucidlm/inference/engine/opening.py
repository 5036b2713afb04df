"""Which backend runs a model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from typing import Literal

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.quantize import is_rounded
from lucidlm.core.devices import free_memory
from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.core.progress import log
from lucidlm.inference.config import EngineConfig
from lucidlm.inference.engine.backend import Backend, Direction
from lucidlm.inference.engine.cuda_backend import CudaBackend, why_not
from lucidlm.inference.engine.draft_model import DraftModel
from lucidlm.inference.engine.rounding_loss import nats, read_windows
from lucidlm.inference.engine.scheduler import FEW
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

LARGE = 50_000_000
"""Parameters from which on weights are in int8 by default: below, fp32 wrote 1,160 tokens a second where int8 wrote 1,310
(3.3 million parameters, two Zen 4 cores), and 42 where int8 wrote 67 with 135 million."""

MOST_LOSS = 0.005
"""Of the bits per byte of a text, what int8 may cost there to be chosen by measuring."""

CACHE_SHARE = 0.25
"""How much of the free memory the cache may take."""


def open_backend(
    model: LanguageModel,
    config: EngineConfig,
    sequences: int = 1,
    tokenizer: Tokenizer | None = None,
    directions: Sequence[Direction] = (),
    *,
    release_weights: bool = False,
) -> Backend:
    """Return what runs `model`, which says if it computes with other weights than the model's own.

    Parameters
    ----------
    sequences: for how many of them, as long as the model's context, there is to be room, as far as memory allows; there is
        for one.
    tokenizer: of the model; needed where the form of the weights is chosen by a text.
    directions: what sequences may ask to be steered by; the text that decides about int8 is read without them.
    release_weights: nothing else needs the model, so its weights are let go where OpenVINO has its own: as large as in fp32,
        they would be most of the memory that is taken.

    Raises
    ------
    InputError: OpenVINO is asked for and not installed, or the model is not on a CPU; int8 or int4 is asked for, and
        PyTorch computes; the text to choose by is none.
    """
    device = model.head.device
    if device.type == "cuda" and config.backend == "auto" and config.quantize in ("auto", "none"):
        return _on_gpu(model, config, sequences, directions)
    blocks = _blocks(model, sequences)
    installed = find_spec("openvino") is not None
    if config.backend == "torch" or (config.backend == "auto" and (device.type != "cpu" or not installed)):
        if config.quantize in ("int8", "int4"):
            fix = "pip install 'lucidlm[openvino]'" if config.backend == "auto" else "Leave out one of the two."
            raise InputError(f"PyTorch computes with the weights as they are, not in {config.quantize}", fix=fix)
        return TorchBackend(model, blocks, directions)
    require_package("openvino", "openvino")
    if device.type != "cpu":
        raise InputError(f"OpenVINO computes on CPUs; the model is on {device}", fix="Pass --device cpu.")
    from lucidlm.inference.engine.openvino_backend import OpenVINOBackend

    if config.quantize == "auto" and config.quantize_text is not None and tokenizer is not None:
        windows = read_windows(config.quantize_text, tokenizer, model.config.context_length)
        exact = nats(TorchBackend(model, _blocks(model, 1)), windows)  # its cache is gone before the other's is made
        rounded = OpenVINOBackend(model, blocks, "int8", directions)
        loss = nats(rounded, windows) / exact - 1
        chosen = loss < MOST_LOSS
        held = "in int8" if chosen else "left as they are"
        log(f"int8 costs {loss:+.2%} bits per byte on {config.quantize_text}, so weights are {held}")
        return (
            rounded if chosen else OpenVINOBackend(model, blocks, "none", directions, release_weights=release_weights)
        )
    form = _usual(model) if config.quantize == "auto" else config.quantize
    if form != "none":
        log(f"writing with OpenVINO, weights in {form} (--quantize none: as they are)")
    return OpenVINOBackend(model, blocks, form, directions, release_weights=release_weights)


def open_draft_model(model: LanguageModel, tokenizer: Tokenizer, config: EngineConfig) -> DraftModel | None:
    """Return what drafts for `model`; None: nothing is asked for.

    Raises
    ------
    InputError: there is no such model, or its tokenizer is another one; see `open_backend`.
    """
    if config.draft is None:
        return None
    small, its_tokenizer = load_model(config.draft, device=model.head.device).causal_lm()
    if its_tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(
            "has another tokenizer than the model that writes",
            where=config.draft,
            fix="Draft with a smaller model that was trained with the same tokenizer.",
        )
    alone = config.changed(draft=None, quantize_text=None)
    backend = open_backend(small, alone, FEW, tokenizer, release_weights=True)
    return DraftModel(backend, small.config.context_length)


def _usual(model: LanguageModel) -> Literal["none", "int8", "int4"]:
    """Return the form of weights that costs nothing, as they were stored in it, or else hardly anything for its speed."""
    if is_rounded(model):
        return "int4"
    return "int8" if count_parameters(model.config) >= LARGE else "none"


def _on_gpu(model: LanguageModel, config: EngineConfig, sequences: int, directions: Sequence[Direction]) -> Backend:
    """Return what runs `model` on a GPU: a copy in bf16, if the GPU multiplies that fast and nothing else is asked for."""
    if (
        config.quantize == "auto"
        and model.head.dtype is torch.float32
        and torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        log("writing with weights in bf16, which this GPU multiplies fast (--quantize none: as they are)")
        model = _copied(model, torch.bfloat16)
    blocks = _blocks(model, sequences)
    if (reason := "texts may be steered" if directions else why_not(model)) is not None:
        log(f"PyTorch writes token by token, without kernels of ours: {reason}")
        return TorchBackend(model, blocks, directions)
    return CudaBackend(model, blocks)


def _copied(model: LanguageModel, dtype: torch.dtype) -> LanguageModel:
    """Return a copy for evaluation with weights in `dtype`; what follows from the configuration stays as it is."""
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    copied = deepcopy(model).eval()
    copied.load_state_dict(state, assign=True)
    return copied


def _blocks(model: LanguageModel, sequences: int) -> int:
    """Return how many blocks hold so many sequences of full length, or as many as memory allows, one in any case."""
    shape, free = model.config, free_memory(model.head.device)
    of_token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * model.head.element_size()
    one = -(-shape.context_length // BLOCK)
    return max(one, min(sequences * one, int(CACHE_SHARE * free) // (of_token * BLOCK)))
