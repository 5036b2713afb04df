"""The configuration of an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucidlm.core.config import Config
from lucidlm.core.settings import Device, Seed
from lucidlm.data.cleaning.html import Html
from lucidlm.data.document import Encoding, OnError
from lucidlm.data.examples.config import FieldNames

Part = Literal["auto", "all", "train", "validation", "test"]


class EvaluateConfig(Config):
    """The task and data to evaluate on, and how.

    Parameters
    ----------
    split: the part of `data`, split as it was for fine-tuning.
    fields: names of columns; those left out are the same as in fine-tuning.
    encoding, html: None: as in fine-tuning, or "auto" without fine-tuning.
    baselines: fit baselines on the fine-tuning examples, which are read again for this.
    leakage: look for the test examples in the fine-tuning and pretraining data.
    """

    task: str
    data: str
    split: Part = Field(default="auto", description="auto: test of the data it was fine-tuned on, all of any other.")
    fields: FieldNames = Field(default={})
    limit: int | None = Field(default=None, ge=1, description="Judge on so many examples only, drawn at random.")
    encoding: Encoding | None = None
    html: Html | None = None
    on_error: OnError = "stop"
    baselines: bool = Field(default=True, description="Fit and judge the baselines.")
    training: str | None = Field(
        default=None, description="What baselines learn from, if the model was not fine-tuned for the task."
    )
    leakage: bool = Field(default=True, description="Look for the examples in the training data.")
    device: Device = "auto"
    seed: Seed = 0


class Suite(Config):
    """Several evaluations of one model; results are written to folders named by the keys."""

    evaluations: dict[str, EvaluateConfig] = Field(min_length=1)
