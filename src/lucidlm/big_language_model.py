"""`BigLanguageModel`: a language model in one object, from its sizes to the text it writes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.checkpoint.sizes import check_sizes, infer_sizes
from lucidlm.checkpoint.weights import check_fit, load_weights
from lucidlm.core.arguments import require_count, require_text
from lucidlm.core.errors import InputError
from lucidlm.core.flat import require_known
from lucidlm.core.io import require_vacant
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.keras.directory import model_directory_of
from lucidlm.interop.keras.weights import load_h5
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

OPEN = "Open it with lucidlm.load_model."
"""What to do with a model that does not continue text."""


class BigLanguageModel(LanguageModel):
    """A causal language model with its tokenizer.

    >>> model = BigLanguageModel(vocab_size=10000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6)
    >>> model.load_weights("model")  # a directory that `lucidlm pretrain` made
    >>> print(model.generate("The quick brown fox", length=50))

    Parameters
    ----------
    vocab_size, embedding_dim, num_heads, ff_dim, num_layers: the model's size; see `ModelConfig`.
    tokenizer: what turns text into the model's token ids; `load_weights` brings the one that is with the weights.
    seed: what fresh weights are drawn from.
    fields: any other field of `ModelConfig`, such as `context_length=512`.

    Raises
    ------
    InputError: the sizes do not fit together.
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
        chosen = {
            "vocab_size": vocab_size,
            "embedding_dim": embedding_dim,
            "num_heads": num_heads,
            "ff_dim": ff_dim,
            "num_layers": num_layers,
            **fields,
        }
        require_known(fields, ModelConfig.model_fields)
        config = ModelConfig(**chosen)
        if not config.causal:
            raise InputError("a BigLanguageModel writes text, so it is causal", where="causal", fix="Leave it out.")
        super().__init__(config, seed)
        self.tokenizer = tokenizer
        self._chosen = frozenset(chosen)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> BigLanguageModel:
        """Open a model directory of ours, or one that transformers wrote for Qwen3 or Llama.

        Raises
        ------
        InputError: it is none, it is damaged, or it holds a model of another kind.
        """
        loaded = load_model(directory)
        written = loaded.require_causal(OPEN)
        config = written.config
        with torch.device("meta"):
            model = cls(**config.model_dump(), tokenizer=loaded.tokenizer, seed=None)
        model.load_state_dict(loaded.model.state_dict(), assign=True)
        model.generation = written.generation
        return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model and tokenizer as a new model directory, which transformers opens too.

        Raises
        ------
        InputError: something is there already.
        LucidError: the disk is full, or the weights are not finite.
        """
        save_model(self, require_vacant(directory, option="directory"), self.tokenizer)

    def load_weights(self, path: str | Path) -> None:
        """Take over the weights in a model directory, a safetensors file or Keras' HDF5, and the tokenizer with them.

        From a model directory come also the settings that the constructor was not given (`context_length`,
        `rope_theta`, …), as the weights were trained for them. The parameters are new objects: make optimisers after.

        Raises
        ------
        InputError: nothing is there, it is damaged or a pickle, or it is of a model of another shape; the message says
            with what arguments to construct that.
        """
        path = model_directory_of(Path(path))
        if path.is_dir():
            loaded = load_model(path)
            model = loaded.require_causal(OPEN)
            check_sizes(model.config.model_dump(), self.config, self._chosen, path)
            device = self.head.device
            self.config, self.model, self.lm_head = model.config, model.model, model.lm_head
            self.generation = model.generation
            self.to(device).train(self.training)
            tokenizer = loaded.tokenizer
        else:
            tensors = load_h5(path) if path.suffix == ".h5" else load_weights(path)
            sizes = infer_sizes(tensors)
            check_sizes(sizes, self.config, sizes, path)
            check_fit({name: value.shape for name, value in self.state_dict().items()}, tensors, path)
            self.load_state_dict(tensors)
            beside = path.with_name("tokenizer.json")
            tokenizer = Tokenizer.load(beside) if beside.exists() else None
        self.tokenizer = tokenizer or self.tokenizer

    def generate(self, start_string: str, length: int = 50, *, special: bool = False, **sampling: Any) -> str:
        """Return `start_string` and its continuation by at most `length` tokens.

        Parameters
        ----------
        special: read the control tokens that `start_string` spells out as such, not as the characters that they are.
        sampling: any other field of `SamplingConfig`: `temperature` (0 is greedy), `top_k`, `top_p`, `min_p`,
            `repetition_penalty`, `stop`, `seed`. The same seed gives the same text; pass another for another.

        Raises
        ------
        InputError: there is no tokenizer, a field is wrong, or the prompt is longer than the model's context.
        """
        config, tokenizer = _sampling(length, sampling), self._need_tokenizer()
        prompt = tokenizer.encode_prompt(require_text(start_string, "start_string"), special=special)
        return start_string + generate(self, tokenizer, [prompt], config)[0].text

    def stream(self, start_string: str, length: int = 50, *, special: bool = False, **sampling: Any) -> Iterator[str]:
        """Yield what `generate` returns in pieces, as they come: the start string first."""
        config, tokenizer = _sampling(length, sampling), self._need_tokenizer()
        prompt = tokenizer.encode_prompt(require_text(start_string, "start_string"), special=special)
        return chain([start_string], stream(self, tokenizer, prompt, config))

    def __repr__(self) -> str:
        size = self.config
        return (
            f"BigLanguageModel({size.num_layers} layers, {size.embedding_dim:,} wide, vocabulary of {size.vocab_size:,}; "
            f"{sum(parameter.numel() for parameter in self.parameters()) / 1e6:,.1f} M parameters)"
        )

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(
                "the model has no tokenizer, so it knows no text",
                fix='Pass tokenizer=lucidlm.load_tokenizer("…") to the constructor, or open a whole model '
                "directory with load_weights or from_pretrained.",
            )
        return self.tokenizer


def _sampling(length: int, fields: dict[str, Any]) -> SamplingConfig:
    """Return the settings of a call, checked."""
    require_known(fields, SamplingConfig.model_fields)
    return SamplingConfig(length=require_count(length, "length"), **fields)
