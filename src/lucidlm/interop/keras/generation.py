"""Generate text with the Keras model: KV caches have fixed sizes, so that the graph of a step is traced only once."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Keras and TensorFlow are an extra: types are checked where they are not installed too.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import torch
from keras import ops
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.interop.keras.layers import KeyValues
from lucidlm.model.config import ModelConfig
from lucidlm.model.generation import GenerationDefaults
from lucidlm.tokenize.tokenizer import Tokenizer

SMALLEST = 64
"""Tokens in the smallest cache; larger ones double in size, up to the model's context."""


class Decoder(Protocol):
    """The part of the Keras model that generation needs; see `lucidlm.interop.keras.model`."""

    config: ModelConfig
    generation: GenerationDefaults
    compute_dtype: Any

    def read(self, tokens: Any, caches: list[KeyValues] | None = None, start: Any = 0) -> tuple[Any, list[KeyValues]]:
        """Return hidden states (B, T, D) and each layer's keys and values."""
        ...

    def readout(self, hidden: Any) -> Any:
        """Return logits (…, V) of hidden states (…, D)."""
        ...


class Stepper:
    """Runs the model on tokens; on TensorFlow by a graph, traced once for each size of input and cache."""

    def __init__(self, model: Decoder) -> None:
        self.model, self._run = model, None

    def caches(self, room: int) -> list[KeyValues]:
        """Return empty caches for `room` tokens: for each layer keys and values, (1, G, 1, S, d) each."""
        config = self.model.config
        buffer = ops.zeros((1, config.num_kv_heads, 1, self._size(room), config.head_dim), self.model.compute_dtype)
        return [(buffer, buffer)] * config.num_layers

    def read(self, tokens: Sequence[int], caches: list[KeyValues], start: int) -> tuple[Tensor, list[KeyValues]]:
        """Read `tokens`, which follow the first `start` in `caches`; return the last one's logits (1, V), and caches."""
        # Padding comes after the last token, where no token attends to it before it is overwritten.
        width = 1 if len(tokens) == 1 else min(self._size(len(tokens)), caches[0][0].shape[-2] - start)
        padded = np.zeros((1, width), dtype=np.int32)
        padded[0, : len(tokens)] = tokens
        if self._run is None:
            self._run = self._compile()
        places = (ops.convert_to_tensor(place, "int32") for place in (start, len(tokens) - 1))
        logits, caches = self._run(ops.convert_to_tensor(padded), caches, *places)
        return torch.tensor(ops.convert_to_numpy(logits)), caches

    def _size(self, room: int) -> int:
        return min(self.model.config.context_length, max(SMALLEST, 1 << (room - 1).bit_length()))

    def _compile(self) -> Any:
        def step(tokens: Any, caches: list[KeyValues], start: Any, last: Any) -> tuple[Any, list[KeyValues]]:
            hidden, caches = self.model.read(tokens, caches, start)
            return self.model.readout(ops.take(hidden, last, axis=1)), caches

        if keras.backend.backend() != "tensorflow":
            return step
        import tensorflow as tf

        return tf.function(step)


def stream(
    stepper: Stepper, tokenizer: Tokenizer, prompt: str, config: SamplingConfig, special: bool = False
) -> Iterator[str]:
    """Yield `prompt` and its continuation piece by piece, the same as from the PyTorch model with these weights.

    If `special`, control tokens spelled out in the prompt are parsed as such.

    Raises
    ------
    InputError: the prompt is longer than the model's context, or the tokenizer is not the model's; beam search is asked for.
    """
    if config.num_beams > 1:
        raise InputError("Keras models write one text, not several beams", where="num_beams", fix="Leave it out.")
    read = tokenizer.encode_prompt(prompt, special=special)
    row = start_rows(stepper.model.config, tokenizer, [read], config, stepper.model.generation.ends)[0]
    sampler = Sampler(stepper.model.config.vocab_size, tokenizer)

    def pieces() -> Iterator[str]:
        yield prompt
        new, length = row.prompt, 0
        caches = stepper.caches(len(new) + row.limit - 1)
        while row.reason is None:
            logits, caches = stepper.read(new, caches, length)
            length += len(new)
            new = sampler.choose([row], logits)
            row.push(new[0])
            if piece := row.take():
                yield piece

    return pieces()
