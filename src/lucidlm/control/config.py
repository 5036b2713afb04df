"""What a text has to obey."""

from __future__ import annotations

import json
from typing import Any, TypedDict

from pydantic import Field, field_validator

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
    required, forbidden: words or phrases that it holds, and does not hold, in whatever case; words are meant whole.
    """

    choices: tuple[str, ...] = Field(default=(), description="The text is this, or another given so; may be repeated.")
    regex: str | None = Field(default=None, description="A regular expression that the whole text matches.")
    json_schema: str | None = Field(default=None, description="A JSON Schema the text is valid by: a file, or {…}.")
    grammar: str | None = Field(default=None, description="A file with a grammar, in Lark's syntax, of the text.")
    required: tuple[str, ...] = Field(default=(), description="A phrase that the text holds; may be repeated.")
    forbidden: tuple[str, ...] = Field(default=(), description="A phrase that it does not hold; may be repeated.")

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
