"""Fields that several endpoints read, and how they are checked."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lucidlm.data.formats.rows import SURROGATES
from lucidlm.inference.config import SamplingConfig
from lucidlm.serve.errors import ApiError

MOST_CHOICES = 16
MOST_BEAMS = 16
MOST_STOPS = 16
LONGEST_STOP = 200
"""Characters: each token's text is compared with the beginnings of all stop strings."""
MOST_BIASES = 1024
MOST_LOGPROBS = 20
MOST_STEERING = 100
STEERING = "Strengths of the server's steering vectors, by name; 0: off. Others are as the server is set."
SEEDS = 2**31


def _whole(text: str) -> str:
    if SURROGATES.search(text):
        raise ValueError("holds half of a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Text that can be encoded."""


class Strict(BaseModel):
    """What is read: fields that are not known are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class Body(Strict):
    """A request's body."""

    model: Text | None = Field(default=None, description="A served model's name; may be left out where there is one.")
    user: Text | None = Field(default=None, description="Who asks; of no consequence.")


class StreamOptions(Strict):
    """What a stream holds beside the text."""

    include_usage: bool = Field(default=False, description="Send the counts of tokens at the end.")


Steering = dict[Text, Annotated[float, Field(ge=-MOST_STEERING, le=MOST_STEERING)]]
"""How strongly a text is steered, by the names of vectors."""


class SamplingBody(Body):
    """How texts are written; what is left out is as the model's generation_config.json has it."""

    n: int = Field(default=1, ge=1, le=MOST_CHOICES, description="How many texts to write.")
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, description="0 or -1: all tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop: Text | list[Text] | None = Field(default=None, description="Strings that end a text, at most 16.")
    num_beams: int = Field(default=1, ge=1, le=MOST_BEAMS, description="Above 1: beam search, which draws nothing.")
    length_penalty: float | None = Field(
        default=None, ge=0, le=10, description="Of beam search: the higher, the longer its texts."
    )
    seed: int | None = Field(default=None, description="The same seed gives the same text; left out: a new one.")
    logit_bias: dict[str, float] | None = Field(default=None, description="Numbers added to logits, by token id.")
    steer: Steering | None = Field(default=None, description=STEERING)
    stream: bool = Field(default=False, description="Send the text in pieces, as server-sent events.")
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _few_short_stops(cls, stop: str | list[str] | None, info: ValidationInfo) -> str | list[str] | None:
        given = [stop] if isinstance(stop, str) else stop or []
        if len(given) > MOST_STOPS:
            raise ValueError(f"at most {MOST_STOPS} strings, not {len(given):,}")
        if any(not 1 <= len(one) <= LONGEST_STOP for one in given):
            raise ValueError(f"each string has 1 to {LONGEST_STOP} characters")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _few_biases_of_tokens(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias is not None and len(bias) > MOST_BIASES:
            raise ValueError(f"at most {MOST_BIASES} tokens, not {len(bias):,}")
        if bias is not None and not all(token.isascii() and token.isdigit() and len(token) < 10 for token in bias):
            raise ValueError("the keys are ids of tokens")
        if bias is not None and any(abs(value) > 100 for value in bias.values()):
            raise ValueError("the values are from -100 to 100")
        return bias

    def sampling(self, defaults: SamplingConfig, length: int | None, logprobs: int | None = None) -> SamplingConfig:
        """Return how to write, for a model with these defaults.

        Parameters
        ----------
        length: most tokens; None: as long as the model's context allows, or its defaults say.

        Raises
        ------
        InputError: beam search is asked for beside what draws, or its length penalty without it.
        """
        if self.num_beams > 1:  # what the model's defaults say of drawing is of no consequence then
            penalty = defaults.repetition_penalty
            defaults = SamplingConfig(num_beams=self.num_beams, length=defaults.length, repetition_penalty=penalty)
        names = (
            "temperature",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "length_penalty",
        )
        changed: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.top_k is not None:
            changed["top_k"] = max(0, self.top_k)
        if self.stop is not None:
            changed["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.logit_bias:
            changed["logit_bias"] = tuple(sorted((int(token), bias) for token, bias in self.logit_bias.items()))
        if length is not None:
            changed["length"] = length
        seed = secrets.randbelow(SEEDS) if self.seed is None else self.seed % SEEDS
        return defaults.changed(**changed, seed=seed, logprobs=logprobs)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def refuse_useless_options(self) -> None:
        """Refuse options of a stream where there is none, and what cannot be had of beam search.

        Raises
        ------
        ApiError: there are some.
        """
        if self.num_beams > 1 and self.stream:
            raise ApiError("stream: beam search knows no part of its text before the whole of it", param="stream")
        if self.num_beams > 1 and self.n > 1:
            raise ApiError("n: beam search (num_beams) writes one text", param="n")
        if self.stream_options is not None and not self.stream:
            raise ApiError("stream_options: there is no stream", param="stream_options")
