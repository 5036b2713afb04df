"""What a pretraining run is: its settings, whole, so that it can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lucidlm.core.config import Config
from lucidlm.core.settings import Device, TrainingPrecision
from lucidlm.model.config import ModelConfig
from lucidlm.train.config import Compile, Force, LoopConfig

DEFAULT_MINUTES = 10.0
"""How long a run takes where nothing says it."""

MINUTES_THAT_PAY = 20.0
"""Compiling costs about a minute, evaluation's graph included, and gains 5 to 35 %: it pays from some 20 minutes on."""

RESHAPING = ("data", "depth", "shape", "context_length", "objective")
"""Settings that the model's shape follows from."""


class ShapeConfig(Config):
    """Sizes set by hand; those left out follow from the depth. See `ModelConfig`."""

    embedding_dim: int | None = Field(default=None, description="Width, where not 64 times the depth.")
    num_heads: int | None = Field(default=None, description="Attention heads, where not one for every 64 of width.")
    ff_dim: int | None = Field(default=None, description="Width of the MLP, where not 8/3 of the width.")
    num_layers: int | None = Field(default=None, description="Layers, where not as many as the depth.")
    num_kv_heads: int | None = Field(default=None, description="Key and value heads, where fewer than query heads.")
    dropout: float | None = Field(default=None, description="Share of activations dropped in training.")


class PretrainConfig(Config):
    """A pretraining run, whole: saved as `config.yaml` beside what it makes, it can be replayed.

    Parameters
    ----------
    data: prepared directories and the share of samples drawn from each; shares need not sum to one.
    objective: "causal" predicts the next token, "masked" the hidden ones; "hybrid" does both with the same weights, half
        of the samples each way (Charpentier and Samuel 2024, "GPT or BERT: why not both?", arXiv:2410.24159): a causal
        model whose attention fine-tuning may make bidirectional.
    depth: the dial that sets all sizes: layers, and with them width (64 a layer) and heads; None: what the machine can
        train to good use in the time given.
    shape: sizes set by hand.
    model: the exact shape that follows from them, filled in when the run starts.
    mask_rate: 30 % serves better than BERT's 15 % (Wettig et al. 2022, arXiv:2202.08005).
    validation_tokens: of the evaluations on the way; the last one reads all held-out tokens.
    """

    data: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="A directory that `data prepare` made; DIR=WEIGHT in a mixture of several."
    )
    objective: Literal["causal", "masked", "hybrid"] = Field(
        default="causal", description="causal (GPT-style), masked (BERT-style), hybrid (both)."
    )
    depth: int | None = Field(
        default=None, ge=1, le=100, description="The dial for all sizes; set from the time given if left out."
    )
    shape: ShapeConfig = ShapeConfig()
    model: ModelConfig | None = None
    context_length: int = Field(default=256, ge=2, description="Tokens a sample, and the model's context.")
    batch_size: int = Field(default=16, ge=1, description="Samples a step.")
    micro_batch: int | None = Field(default=None, ge=1, description="Samples taken at once, where memory is short.")
    mask_rate: float = Field(default=0.3, gt=0, lt=1, description="Share of tokens hidden from a masked model.")
    validation_tokens: int = Field(
        default=50_000, ge=1, description="How many held-out tokens an evaluation on the way reads."
    )
    device: Device = "auto"
    precision: TrainingPrecision = "auto"
    compile: Compile = Field(default="auto", description="torch.compile; auto where the run is long enough to pay.")
    force: Force = False
    loop: LoopConfig = LoopConfig()

    @property
    def compile_pays_from(self) -> float:
        """Minutes of a run from which compiling wins back what it takes; rounding to fp8 pays in no other way."""
        return 0.0 if self.precision == "fp8" else MINUTES_THAT_PAY

    @property
    def compiled(self) -> bool:
        """Whether blocks are compiled: if it is asked for, or left open and the run is known to be long enough."""
        return self.compile == "on" or (self.compile == "auto" and (self.loop.minutes or 0.0) >= self.compile_pays_from)


def new_run(settings: Mapping[str, Any], *, replayed: bool) -> dict[str, Any]:
    """Return the settings of a run that begins, by their paths, with what follows from them.

    Parameters
    ----------
    replayed: they go over a saved configuration, which says how long the run takes.
    """
    found = dict(settings)
    if not replayed and found.get("loop.minutes") is None and found.get("loop.max_steps") is None:
        found["loop.minutes"] = DEFAULT_MINUTES
    if any(path.startswith(RESHAPING) for path in found):
        found["model"] = None  # the shape that a replayed file settled on no longer holds
    return found
