"""How a text is continued: how many tokens, and how each is chosen."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator, model_validator

from lucidlm.core.config import Config
from lucidlm.core.settings import Seed
from lucidlm.model.generation import MIN_P, TEMPERATURE

LENGTH_PENALTY = 0.6
"""The power of a text's length by which beams are compared, as Wu et al. (2016) have it: see `lucidlm.inference.beam`."""


class SamplingConfig(Config):
    """How to continue a prompt. The defaults are those of models that were trained here.

    Parameters
    ----------
    temperature: what the logits are divided by; 0 is greedy decoding. Near 0 is nearly greedy: of equally likely tokens
        one is drawn.
    top_k: 0: all tokens.
    top_p: the likeliest tokens that together have this probability; 1: all.
    min_p: 0: no token is left out.
    repetition_penalty: more than 1 makes tokens of the prompt and the text less likely; 1: no change.
    presence_penalty: taken off the logit of every token that was written, not of those of the prompt.
    frequency_penalty: taken off as often as the token was written.
    stop: strings that end a text; they are not part of it.
    logit_bias: pairs of a token's id and what is added to its logit.
    num_beams: more than 1: the likeliest text is looked for by beam search, which draws nothing, so the settings of drawing
        and stop strings are refused beside it.
    length_penalty: of beam search; 0: likely texts win, which are short ones; more favours longer ones.
    seed: the same seed and prompt give the same text.
    logprobs: for how many of the likeliest tokens, beside the one that is chosen, their log-probabilities are kept in each
        place; None: for none, nor for the chosen one. They are the model's own, before any of the settings above.
    """

    length: int = Field(default=100, ge=1, description="Most tokens to write.")
    temperature: float = Field(
        default=TEMPERATURE,
        ge=0,
        allow_inf_nan=False,
        description="0 always takes the likeliest token, 1 draws as the model says.",
    )
    top_k: int = Field(default=0, ge=0, description="Draw from the k likeliest tokens only; 0: from all.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Draw from the likeliest tokens that hold this share; 1: from all."
    )
    min_p: float = Field(
        default=MIN_P,
        ge=0,
        le=1,
        description="Leave out tokens below this share of the likeliest one's probability.",
    )
    repetition_penalty: float = Field(
        default=1.0, ge=1e-6, le=1e6, description="Above 1: avoid tokens that stand in the text already."
    )
    presence_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Above 0: avoid tokens that were written already."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Above 0: avoid them the more, the oftener they were written."
    )
    stop: tuple[str, ...] = Field(default=(), description="End before this string; may be given again.")
    logit_bias: tuple[tuple[int, float], ...] = Field(
        default=(), description="Numbers that are added to tokens' logits, by the tokens' ids."
    )
    num_beams: int = Field(default=1, ge=1, description="Above 1: beam search of so many beams; nothing is drawn.")
    length_penalty: float = Field(
        default=LENGTH_PENALTY, ge=0, le=10, description="Of beam search: the higher, the longer its texts."
    )
    seed: Seed = 0
    logprobs: int | None = Field(
        default=None, ge=0, description="Keep the log-probabilities of so many tokens a place."
    )

    @model_validator(mode="before")
    @classmethod
    def _beams_draw_nothing(cls, fields: Any) -> Any:
        """Turn off what is on by default: a value that somebody gave stays, and is refused below."""
        beams = fields.get("num_beams", 1) if isinstance(fields, dict) else 1
        return {"temperature": 0, "min_p": 0, **fields} if isinstance(beams, int) and beams > 1 else fields

    @model_validator(mode="after")
    def _beams_or_draws(self) -> SamplingConfig:
        off = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "stop": ()}
        if self.num_beams > 1 and (given := [name for name, value in off.items() if getattr(self, name) != value]):
            raise ValueError(f"{', '.join(given)}: beam search (num_beams above 1) has no such setting; leave it out")
        if self.num_beams == 1 and self.length_penalty != LENGTH_PENALTY:
            raise ValueError("length_penalty: is of beam search; give num_beams too")
        return self

    @field_validator("stop")
    @classmethod
    def _stops_are_not_empty(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty stop string would end every text before it begins")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _biases_are_numbers(cls, bias: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        if not all(math.isfinite(value) for _, value in bias):
            raise ValueError("every bias should be a finite number")
        return bias

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that nothing is random."""
        return self.temperature == 0


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig` but for length and log-probabilities, as keywords: for editors and type checkers."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: tuple[str, ...] | list[str]
    logit_bias: tuple[tuple[int, float], ...]
    num_beams: int
    length_penalty: float
    seed: int


class EngineConfig(Config):
    """What computes while texts are written.

    Parameters
    ----------
    backend: "torch" runs the model as it is, on any device; "openvino" a copy of it that is compiled for the CPU, with
        the extra of that name. "auto" takes OpenVINO for models on a CPU where it is installed, CUDA graphs of kernels
        of ours on NVIDIA GPUs, else PyTorch.
    quantize: how that copy holds weights: in fp32 ("none"), int8, or int4 (its embedding in int8). "auto" takes int4 for
        models that were stored in it (`lucidlm quantize --dtype int4`), int8 for those of 50 million parameters or more,
        and fp32 for smaller ones, which are hardly slower for it. On a GPU that multiplies bf16 fast it takes bf16, "none"
        the weights as they are.
    quantize_text: a text in a file, by which "auto" decides about int8 instead of by the size: it is taken if it costs less
        than 0.5 % of the bits per byte there. For OpenVINO.
    draft: a smaller model with the same tokenizer, which drafts a few tokens where up to four texts are written; what the
        model that writes would not have chosen is dropped, so the texts stay the same.
    """

    backend: Literal["auto", "torch", "openvino"] = Field(
        default="auto",
        description="What computes; auto: OpenVINO for CPUs if installed, own kernels on CUDA, else PyTorch.",
    )
    quantize: Literal["auto", "none", "int8", "int4"] = Field(
        default="auto",
        description="How weights are held; auto: int4 if stored so, int8 for large models, with OpenVINO; bf16 on CUDA.",
    )
    quantize_text: str | None = Field(
        default=None, description="A text file: auto takes int8 if that costs less than 0.5 % bits per byte there."
    )
    draft: str | None = Field(
        default=None, description="A smaller model of the same tokenizer that drafts: faster, the same text."
    )
