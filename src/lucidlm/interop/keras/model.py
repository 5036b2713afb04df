"""`BigLanguageModel` in Keras 3: constructed like the PyTorch one, trained by `fit`, saved by Keras."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Keras and TensorFlow are an extra: types are checked where they are not installed too.

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import torch
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.sizes import check_sizes, infer_sizes
from lucidlm.checkpoint.weights import check_fit, load_weights, weight_shapes
from lucidlm.core.errors import InputError
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.keras.directory import model_directory_of, require_portable, write_directory
from lucidlm.interop.keras.generation import Stepper, stream
from lucidlm.interop.keras.layers import Block, Initialisers, KeyValues, make_norm, ops, rotation_at
from lucidlm.interop.keras.weights import ATTRIBUTES, h5_shapes, is_kernel, load_h5, load_optimiser
from lucidlm.model.config import ModelConfig
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

ADOPTED = {"context_length", "rope_theta", "rope_scaling"}
"""Fields that do not change the weights, so that a model can adopt them after it was built."""


@keras.saving.register_keras_serializable(package="lucidlm")
class BigLanguageModel(keras.Model):
    """A causal language model with its tokenizer.

    >>> model = BigLanguageModel(vocab_size=10000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6)
    >>> model.load_weights("big_language_model_weights.weights.h5")
    >>> print(model.generate("The quick brown fox", length=50))

    Parameters
    ----------
    vocab_size, embedding_dim, num_heads, ff_dim, num_layers: the model's size; see `ModelConfig`.
    tokenizer: of the model; `load_weights` loads the one beside the weights.
    seed: for the initial weights; None: different each time.
    fields: any other field of `ModelConfig`, such as `context_length=512`.

    Raises
    ------
    InputError: the sizes do not fit together, or the model would not be causal.
    """

    def __init__(
        self,
        vocab_size: int = 10_000,
        embedding_dim: int = 512,
        num_heads: int = 8,
        ff_dim: int = 2048,
        num_layers: int = 6,
        *,
        tokenizer: Tokenizer | None = None,
        seed: int | None = 0,
        **fields: Any,
    ) -> None:
        super().__init__()
        chosen = {
            "vocab_size": vocab_size,
            "embedding_dim": embedding_dim,
            "num_heads": num_heads,
            "ff_dim": ff_dim,
            "num_layers": num_layers,
            **fields,
        }
        config = self.config = ModelConfig(**chosen)
        require_portable(config)
        self.tokenizer, self.seed, self._chosen = tokenizer, seed, frozenset(chosen)
        self.generation = GenerationDefaults()
        weights = Initialisers(config, seed)
        self.embed_tokens = _embedding(config.vocab_size, config, weights)
        learned = config.position == "learned"
        self.embed_positions = _embedding(config.context_length, config, weights) if learned else None
        self.dropout = keras.layers.Dropout(config.dropout, seed=seed)
        self.blocks = [Block(config, weights) for _ in range(config.num_layers)]
        self.final_norm = make_norm(config)
        self.head = None
        if not config.tied_embeddings:
            self.head = keras.layers.Dense(config.vocab_size, use_bias=False, kernel_initializer=weights.normal)
        self._stepper = Stepper(self)
        self(ops.zeros((1, 1), "int32"))  # creates the variables, so that weights can be loaded

    def call(self, tokens: Any, training: bool = False) -> Any:
        """Return logits (B, T, V) fp32 for integer `tokens` (B, T).

        Raises
        ------
        InputError: T is known and exceeds the model's context.
        """
        length = tokens.shape[1]
        if length is not None and length > self.config.context_length:
            raise InputError(
                f"the texts have {length:,} tokens, the model's context is {self.config.context_length:,}",
                fix="Cut them.",
            )
        return self.readout(self.read(tokens)[0])

    def read(self, tokens: Any, caches: list[KeyValues] | None = None, start: Any = 0) -> tuple[Any, list[KeyValues]]:
        """Return the final hidden states (B, T, D) of `tokens` (B, T), and each layer's keys and values.

        With `caches`, the tokens follow the first `start` ones in them.
        """
        length = ops.shape(tokens)[1]
        positions = start + ops.arange(length, dtype="int32")
        seen = length if caches is None else caches[0][0].shape[-2]
        mask = ops.arange(seen, dtype="int32") <= positions[:, None]  # (T, S)
        rotation = rotation_at(positions, self.config) if self.embed_positions is None else None
        x = self.embed_tokens(tokens)
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions)
        x = self.dropout(x)
        extended = []
        for index, block in enumerate(self.blocks):
            x, cache = block(x, rotation, mask, cache=None if caches is None else caches[index], start=start)
            extended.append(cache)
        return self.final_norm(x), extended

    def readout(self, hidden: Any) -> Any:
        """Return logits (…, V) fp32 of hidden states (…, D)."""
        if self.head is not None:
            return ops.cast(self.head(hidden), "float32")
        table = ops.cast(self.embed_tokens.embeddings, hidden.dtype)
        return ops.cast(ops.matmul(hidden, ops.transpose(table)), "float32")

    # ------------------------------------------------------------------ text

    def generate(self, start_string: str, length: int = 50, *, special: bool = False, **sampling: Any) -> str:
        """Return `start_string` and its continuation by at most `length` tokens.

        Parameters
        ----------
        special: parse control tokens spelled out in `start_string` as such, not as plain text.
        sampling: any other field of `SamplingConfig`: `temperature` (0 is greedy), `top_k`, `top_p`, `min_p`,
            `repetition_penalty`, `stop`, `seed`. The same seed gives the same text.

        Raises
        ------
        InputError: there is no tokenizer, a field is wrong, or the prompt is longer than the model's context.
        """
        return "".join(self.stream(start_string, length, special=special, **sampling))

    def stream(self, start_string: str, length: int = 50, *, special: bool = False, **sampling: Any) -> Iterator[str]:
        """Yield the result of `generate` piece by piece, the start string first."""
        if self.tokenizer is None:
            raise InputError(
                "the model has no tokenizer, so it knows no text",
                fix='Pass tokenizer=lucidlm.load_tokenizer("…") to the constructor, or load the weights from a directory '
                "that has one.",
            )
        config = SamplingConfig(length=length, **sampling)
        return stream(self._stepper, self.tokenizer, start_string, config, special)

    # ------------------------------------------------------------------ weights in files

    @classmethod
    def from_pretrained(cls, source: str | Path) -> BigLanguageModel:
        """Load any source that `lucidlm.load_model` opens: directories of `export --to keras` or `pretrain`, GGUF files, ….

        Raises
        ------
        InputError: it is not a model, is damaged, or is a model of another kind.
        """
        loaded = load_model(source)
        written = loaded.require_causal()
        model = cls(**written.config.model_dump(), tokenizer=loaded.tokenizer)
        model.assign_state(written.state_dict())
        model.generation = written.generation
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write weights, tokenizer and settings as `lucidlm export --to keras` does; `lucidlm import` reads them.

        Raises
        ------
        InputError: `directory` exists already.
        LucidError: the disk is full.
        """
        state = {name: torch.from_numpy(self._value(name)) for name in self._state()}
        write_directory(state, self.config, self.tokenizer, self.generation, Path(directory))

    def load_weights(self, filepath: str | Path) -> None:
        """Load weights saved by Keras in HDF5 (under any name), or those of a model directory or safetensors file.

        A tokenizer beside the weights is loaded too. From a directory come also those settings that the constructor was
        not given and that do not change the weights (`context_length`, `rope_theta`, `rope_scaling`). The optimiser's state
        is loaded if it fits the optimiser that the model was compiled with.

        Raises
        ------
        InputError: nothing is there, it is damaged, or the weights are of another shape; the message says how to
            construct a model that fits. This model stays unchanged.
        """
        path = model_directory_of(Path(filepath))
        if path.is_dir():
            self._adopt(load_model(path), path)
            return
        hdf5 = path.suffix != ".safetensors"
        shapes = h5_shapes(path) if hdf5 else weight_shapes(path)
        sizes = infer_sizes(shapes)
        check_sizes(sizes, self.config, sizes, path)
        check_fit({name: value.shape for name, value in self._state().items()}, shapes, path)
        state, optimiser = (load_h5(path), load_optimiser(path)) if hdf5 else (load_weights(path), {})
        beside = path.with_name("tokenizer.json")
        self.tokenizer = Tokenizer.load(beside) if beside.exists() else self.tokenizer
        self.assign_state(state)
        own = self.optimizer.variables if self.compiled else []
        if [optimiser[str(i)].shape for i in range(len(optimiser))] == [tuple(each.shape) for each in own]:
            for index, variable in enumerate(own):
                variable.assign(optimiser[str(index)])

    def _adopt(self, loaded: LoadedModel, where: Path) -> None:
        written = loaded.require_causal()
        theirs = written.config
        require_portable(theirs)
        free = ADOPTED if self.embed_positions is None else set()
        names = theirs.model_fields_set | set(ModelConfig.model_fields)
        check_sizes(theirs.model_dump(), self.config, names - {"dropout"} - (free - self._chosen), where)
        self.assign_state(written.state_dict())
        self.generation = written.generation
        self.tokenizer = loaded.tokenizer or self.tokenizer
        self.config = ModelConfig(**{**theirs.model_dump(), "dropout": self.config.dropout})
        # Compiled functions have the old settings in them.
        self._stepper = Stepper(self)
        self.train_function = self.test_function = self.predict_function = None

    def _state(self) -> dict[str, Tensor]:
        """Return the weights of the same model in PyTorch as meta tensors."""
        with torch.device("meta"):
            return LanguageModel(self.config, seed=None).state_dict()

    def _variable(self, name: str) -> Any:
        """Return the Keras variable for the weights that PyTorch calls `name`."""
        *modules, kind = name.removeprefix("model.").split(".")
        owner: Any = self
        for part in (ATTRIBUTES.get(modules[0], modules[0]), *modules[1:]):
            owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
        return owner.weights[kind == "bias"]

    def _value(self, name: str) -> Any:
        value = self._variable(name).numpy()
        return value.T if is_kernel(name) else value

    def assign_state(self, state: dict[str, Tensor]) -> None:
        """Set the weights from a PyTorch model's state, whose shapes have been checked."""
        for name, value in state.items():
            value = value.float().numpy()
            self._variable(name).assign(value.T if is_kernel(name) else value)

    # ------------------------------------------------------------------ what Keras saves in a .keras file

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON has them; the tokenizer is saved as an asset."""
        return {**self.config.model_dump(mode="json"), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> BigLanguageModel:
        """Construct from the result of `get_config`."""
        return cls(**config)

    def save_assets(self, inner_path: str) -> None:
        """Save the tokenizer in the archive."""
        if self.tokenizer is not None:
            self.tokenizer.save(inner_path)

    def load_assets(self, inner_path: str) -> None:
        """Load the tokenizer from the archive, if it has one."""
        if Path(inner_path, "tokenizer.json").exists():
            self.tokenizer = Tokenizer.load(inner_path)


def _embedding(rows: int, config: ModelConfig, weights: Initialisers) -> keras.layers.Embedding:
    return keras.layers.Embedding(rows, config.embedding_dim, embeddings_initializer=weights.normal)
