"""Steering: a direction of the hidden states, found from two sets of texts, that is added while a model writes.

The direction is the difference of the mean states of their last tokens (contrastive activation addition, Rimsky et al.
2024, arXiv:2312.06681). It is added where a block writes to the residual stream, which is what a bias of the block's last
projection does: so every way of running the model knows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path
from lucidlm.core.seeds import numpy_generator
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

FEWEST = 8
"""Texts of each kind: a part of them is kept to choose the layer by."""

HELD_OUT = 0.25
METADATA = "lucidlm.steering"
LONGEST = 256
"""Tokens of a text that are read."""


@dataclass(frozen=True)
class SteeringVector:
    """A direction in the hidden states of one model.

    Parameters
    ----------
    direction: (D,) fp32, from the mean of one set of texts to that of the other.
    layer: behind which block, from 0, it is added.
    model: which model it is of.
    accuracy: the share of held-out texts that the direction tells apart there; 0.5 is chance.
    held_out: how many texts those are.
    """

    direction: Tensor
    layer: int
    model: str
    accuracy: float
    held_out: int

    def save(self, path: str | Path) -> None:
        """Write it, atomically."""
        fields = {"layer": self.layer, "model": self.model, "accuracy": self.accuracy, "held_out": self.held_out}
        with atomic_path(path) as temporary:
            save_file({"direction": self.direction.contiguous()}, temporary, {METADATA: json.dumps(fields)})

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read one.

        Raises
        ------
        InputError: the file is missing or is none.
        """
        try:
            with safe_open(path, "pt") as file:
                fields = json.loads((file.metadata() or {})[METADATA])
                return cls(file.get_tensor("direction"), **fields)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            fix = "Make one by `lucidlm steer`."
            raise InputError("there is no steering vector in this file", where=path, fix=fix) from None


def fit(
    model: LanguageModel,
    tokenizer: Tokenizer,
    wanted: Sequence[str],
    unwanted: Sequence[str],
    *,
    layer: int | None = None,
    seed: int = 0,
) -> SteeringVector:
    """Find the direction from `unwanted` texts to `wanted` ones.

    Parameters
    ----------
    layer: behind which block; None: in the middle half, where it tells held-out texts apart best. Earlier blocks know words
        more than what is meant, and what later ones are told changes little but the next word.
    seed: draws which texts are held out.

    Raises
    ------
    InputError: there are too few texts, or no such layer.
    """
    count = model.config.num_layers
    if layer is not None and not 0 <= layer < count:
        raise InputError(f"there are layers 0 to {count - 1}", where="--layer", fix="Pass one of them.")
    for texts, where in ((wanted, "WANTED"), (unwanted, "UNWANTED")):
        if len(texts) < FEWEST:
            raise InputError(f"has {len(texts)} texts, at least {FEWEST} are needed", where=where, fix="Pass more.")
    states = [_states(model, tokenizer, texts) for texts in (wanted, unwanted)]  # each (L, n, D)
    kept, held = zip(*(_split(part, seed) for part in states), strict=True)
    directions = kept[0].mean(1) - kept[1].mean(1)  # (L, D)
    middles = (kept[0].mean(1) + kept[1].mean(1)) / 2
    towards = [((part - middles[:, None]) @ directions[..., None])[..., 0] for part in held]  # each (L, n)
    # Both kinds count the same, however many there are of each.
    accuracies = ((towards[0] > 0).float().mean(1) + (towards[1] < 0).float().mean(1)) / 2  # (L,)
    first, end = count // 4, max(1, 3 * count // 4)
    chosen = first + int(accuracies[first:end].argmax()) if layer is None else layer
    direction = states[0][chosen].mean(0) - states[1][chosen].mean(0)
    size = sum(part.shape[1] for part in held)
    return SteeringVector(direction, chosen, identity(model), float(accuracies[chosen]), size)


def steer(model: LanguageModel, vector: SteeringVector, strength: float) -> None:
    """Add a vector, so many times, to the hidden states of `model` from now on.

    Raises
    ------
    InputError: the vector is of another model.
    """
    require_own(model, vector)
    projection = _last_projection(model, vector.layer)
    added = (strength * vector.direction).to(projection.weight)
    before = torch.zeros_like(added) if projection.bias is None else projection.bias.detach()
    projection.bias = nn.Parameter(before + added, requires_grad=False)


def require_own(model: LanguageModel, vector: SteeringVector) -> None:
    """Refuse a vector that is of another model.

    Raises
    ------
    InputError: it is.
    """
    if vector.model != identity(model):
        raise InputError("the steering vector is of another model", where="--steer", fix="Make one of this model.")


@contextmanager
def steered(model: LanguageModel, vector: SteeringVector, strength: float) -> Iterator[None]:
    """Steer `model` for as long as this is entered; see `steer`."""
    before = dict(model.named_parameters())
    steer(model, vector, strength)
    try:
        yield
    finally:
        name = f"model.layers.{vector.layer}.mlp.down_proj"
        model.get_submodule(name).register_parameter("bias", before.get(f"{name}.bias"))


def _last_projection(model: LanguageModel, layer: int) -> nn.Linear:
    found = model.get_submodule(f"model.layers.{layer}.mlp.down_proj")
    assert isinstance(found, nn.Linear)
    return found


def identity(model: LanguageModel) -> str:
    """Return what tells a model from others: its shape, and its norms, which no form of quantised weights rounds."""
    found = hashlib.sha256(repr((model.config.embedding_dim, model.config.num_layers)).encode())
    for name, parameter in sorted(model.model.named_parameters()):
        if "norm" in name:
            found.update(parameter.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


@torch.inference_mode()
def _states(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Return the state of each text's last token, which has read all of it, behind each block, (L, n, D) fp32."""
    rows: list[Tensor] = []
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _given, state: seen.append(state[0].float().cpu()))
        for layer in model.model.layers
    ]
    try:
        for text in texts:
            ids = tokenizer.encode_prompt(text)[: min(LONGEST, model.config.context_length)]
            seen.clear()
            model.model(torch.tensor([ids], device=model.head.device))
            rows.append(torch.stack([state[-1] for state in seen]))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(rows, 1)


def _split(states: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return states (L, n, D) to learn from, and some that are held out."""
    order = torch.from_numpy(numpy_generator(seed, "steering").permutation(states.shape[1]).astype(np.int64))
    held = max(2, round(HELD_OUT * len(order)))
    return states[:, order[held:]], states[:, order[:held]]
