"""What preparing a corpus is told: sources, cleaning, held-out shares, tokenizer."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lucidlm.core.config import Config
from lucidlm.core.settings import Seed
from lucidlm.data.cleaning.config import CleanConfig
from lucidlm.data.document import Encoding, OnError


class PrepareConfig(Config):
    """How a corpus is prepared.

    `validation` and `test` are shares of the documents, drawn by a hash of each (cleaned) text; where documents are so
    few and large that this would leave a split empty or far from its share (one book, say), "auto" cuts the corpus by
    position instead: training first, validation and test at the end.
    """

    sources: list[str] = Field(min_length=1, description="Files, folders, pypi:PACKAGE, hf:REPO or URLs.")
    text_field: str | list[str] = Field(default="text", description="The field of json, csv and parquet rows to read.")
    encoding: Encoding = "auto"
    on_error: OnError = "stop"
    clean: CleanConfig = CleanConfig()
    exact: bool = Field(default=True, description="Remove documents that are equal to an earlier one.")
    near: Literal["off"] | float = Field(default=0.8, description="Remove documents this alike (0 to 1), or off.")
    exclude: dict[str, str] = Field(default={}, description="Test data to keep out: sources and their text fields.")
    pii: bool = Field(default=False, description="Mask e-mail addresses, phone numbers and the like.")
    split_by: Literal["auto", "hash", "position"] = Field(default="auto", description="How documents are held out.")
    validation: float = Field(default=0.05, ge=0, lt=1, description="Share of the documents held out for validation.")
    test: float = Field(default=0.05, ge=0, lt=1, description="Share of the documents held out for testing.")
    tokenizer: Literal["auto", "bpe", "characters"] = Field(default="auto", description="auto, bpe or characters.")
    tokenizer_from: str | None = Field(default=None, description="Use the tokenizer of this data or model directory.")
    vocab_size: int | Literal["auto"] = Field(default="auto", description="Number of tokens to learn, or auto.")
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on: their sum has to be less than 1")
        if self.near != "off" and not 0 < self.near <= 1:
            raise ValueError(f"near is a similarity between 0 and 1, or off, not {self.near}")
        if self.tokenizer_from is not None and (self.tokenizer, self.vocab_size) != ("auto", "auto"):
            raise ValueError("tokenizer_from brings its own tokenizer and vocab_size: leave those out")
        if self.tokenizer == "characters" and self.vocab_size != "auto":
            raise ValueError("a tokenizer of characters has as many tokens as there are: leave vocab_size out")
        return self

    @property
    def near_threshold(self) -> float | None:
        """The similarity from which on documents are near copies; None if none are looked for."""
        return None if self.near == "off" else float(self.near)
