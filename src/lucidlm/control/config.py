"""What a text has to obey, what shifts its odds, and what guards it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from pydantic import AfterValidator, Field, field_validator

from lucidlm.core.config import Config

MOST_CHOICES = 10_000
LONGEST_PATTERN = 100_000
LONGEST_GRAMMAR = 1_000_000
"""Characters; what is longer takes seconds to compile."""


class ConstraintConfig(Config):
    """What a text has to be; all that is given holds at once.

    Parameters
    ----------
    choices: it is one of these texts.
    regex: it matches this pattern from end to end, in the syntax of Rust's crate regex: no look-around, no backreferences.
    json_schema: it is JSON that this schema, as text or as a mapping, finds valid.
    grammar: a grammar in Lark's syntax (as llguidance reads it) derives it from `start`.
    min_length: tokens before which it does not end.
    required, forbidden: words or phrases that it holds, and does not hold, in whatever case; words are meant whole.
    """

    choices: tuple[str, ...] = Field(default=(), description="The text is this, or another given so; may be repeated.")
    regex: str | None = Field(default=None, description="A regular expression that the whole text matches.")
    json_schema: str | None = Field(default=None, description="A JSON Schema the text is valid by: a file, or {…}.")
    grammar: str | None = Field(default=None, description="A file with a grammar, in Lark's syntax, of the text.")
    required: tuple[str, ...] = Field(default=(), description="A phrase that the text holds; may be repeated.")
    forbidden: tuple[str, ...] = Field(default=(), description="A phrase that it does not hold; may be repeated.")
    min_length: int = Field(default=0, ge=0, description="Fewest tokens to write.")

    @field_validator("choices", "required", "forbidden")
    @classmethod
    def _texts(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip() for text in texts):
            raise ValueError("an empty text says nothing")
        if len(texts) > MOST_CHOICES or sum(map(len, texts)) > LONGEST_GRAMMAR:
            raise ValueError(f"at most {MOST_CHOICES:,} texts, of {LONGEST_GRAMMAR:,} characters in all")
        return texts

    @field_validator("json_schema", mode="before")
    @classmethod
    def _as_text(cls, schema: Any) -> Any:
        return json.dumps(schema, ensure_ascii=False) if isinstance(schema, dict | bool) else schema

    @field_validator("regex")
    @classmethod
    def _short(cls, pattern: str | None) -> str | None:
        if pattern is not None and len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"has {len(pattern):,} characters, at most {LONGEST_PATTERN:,} are read")
        return pattern

    @field_validator("json_schema", "grammar")
    @classmethod
    def _not_too_long(cls, text: str | None) -> str | None:
        if text is not None and len(text) > LONGEST_GRAMMAR:
            raise ValueError(f"has {len(text):,} characters, at most {LONGEST_GRAMMAR:,} are read")
        return text

    @property
    def empty(self) -> bool:
        """Whether any text will do."""
        return self == ConstraintConfig()


class ConstraintSettings(TypedDict, total=False):
    """The fields of `ConstraintConfig` as keywords: for editors and type checkers."""

    choices: tuple[str, ...] | list[str]
    regex: str | None
    json_schema: str | dict[str, Any] | None
    grammar: str | None
    required: tuple[str, ...] | list[str]
    forbidden: tuple[str, ...] | list[str]
    min_length: int


def parse_steering(given: str) -> tuple[str, float]:
    """Return the file and the strength of `FILE=STRENGTH`.

    Raises
    ------
    ValueError: it is nothing of the kind.
    """
    path, separator, number = given.rpartition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not (path and separator and math.isfinite(strength)):
        raise ValueError(f"{given!r} should be FILE=STRENGTH, the strength a number")
    return path, strength


def _vectors(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        parse_steering(one)
    return given


Steering = Annotated[
    tuple[str, ...],
    AfterValidator(_vectors),
    Field(description="FILE=STRENGTH: add a vector of `lucidlm steer`; repeatable."),
]
"""Vectors that a model is steered by."""


class ShiftConfig(Config):
    """What shifts the odds of a text.

    Parameters
    ----------
    steer: files of steering vectors, each with how strongly it is added: `FILE=STRENGTH`.
    negative_prompt: a prompt that the text is moved away from.
    amateur: a weaker model with the same tokens that the text is moved away from.
    guidance: how far it is moved: 1 is as far again as the two readings lie apart.
    watermark: the key of a watermark.
    """

    steer: Steering = ()
    negative_prompt: str | None = Field(default=None, description="Write away from what would follow this prompt.")
    amateur: str | None = Field(default=None, description="Write away from what this weaker model would.")
    guidance: float = Field(default=0.5, ge=0, le=10, description="How far away from the two.")
    watermark: str | None = Field(
        default=None, description="A secret key: who has it can tell the text was written so."
    )


@dataclass(frozen=True, slots=True)
class GuardRule:
    """What a text has to be for a classifier: `MODEL:LABEL<BOUND`, or `MODEL:LABEL>BOUND`.

    Parameters
    ----------
    model: the source of the classifier.
    label: the label whose probability counts.
    below: whether it has to be below the `bound`; else above.
    bound: between 0 and 1, exclusive.
    """

    model: str
    label: str
    below: bool
    bound: float

    @classmethod
    def parse(cls, given: str) -> GuardRule:
        """Read a rule. The bound stands behind the last `<` or `>`, the label behind the last colon before that.

        Raises
        ------
        ValueError: it is nothing of the kind.
        """
        place = max(given.rfind("<"), given.rfind(">"))
        model, _, label = (part.strip() for part in given[: max(place, 0)].rpartition(":"))
        try:
            bound = float(given[place + 1 :])
        except ValueError:
            bound = math.nan
        if not (place > 0 and model and label) or math.isnan(bound):
            raise ValueError(f"{given!r} should be MODEL:LABEL<BOUND or MODEL:LABEL>BOUND, the bound a number")
        if not 0 < bound < 1:
            raise ValueError(f"the bound of {given!r} should be a probability between 0 and 1")
        return cls(model, label, given[place] == "<", bound)

    def passes(self, probability: float) -> bool:
        """Return whether a text passes whose label has this probability; NaN never does."""
        return probability < self.bound if self.below else probability > self.bound

    def __str__(self) -> str:
        return f"{self.model}:{self.label}{'<' if self.below else '>'}{self.bound}"


def _rules(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        GuardRule.parse(one)
    return given


Guards = Annotated[
    tuple[str, ...],
    AfterValidator(_rules),
    Field(description="MODEL:LABEL<BOUND or >: a classifier that prompts and texts have to pass; repeatable."),
]
"""Rules by which texts pass or not, all of which have to hold."""


class GuardConfig(Config):
    """What guards prompts and texts.

    Parameters
    ----------
    guard: rules, see `GuardRule`.
    """

    guard: Guards = ()
