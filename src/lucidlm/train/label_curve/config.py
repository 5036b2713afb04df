"""What a label curve is told: the task, the numbers of examples, how often each is measured."""

from __future__ import annotations

import math

from pydantic import Field

from lucidlm.core.config import Config
from lucidlm.core.settings import Device, Precision
from lucidlm.data.cleaning.html import Html
from lucidlm.data.document import Encoding, OnError
from lucidlm.data.examples.config import FieldNames
from lucidlm.train.config import LoopConfig
from lucidlm.train.finetune.config import FinetuneConfig, Tuning


class LabelCurveConfig(Config):
    """What to measure.

    Nothing is held out of the few examples, so nothing chooses among weights: the last ones are judged. So that few
    examples give enough steps, batches are small (an eighth of the examples, 4 to 32) and there are `least_steps` of
    them at least; both are the same with and without pretraining.

    Parameters
    ----------
    other: a second pretrained model, which is compared on the same examples: one made elsewhere, say.
    data, test_data: sources of examples to draw from and to judge by; what is in both is judged by only. Without
        `test_data` the share `test` of `data` is judged by, the one that `finetune` holds out.
    limit: of examples to judge by, drawn at random once.
    scratch: whether fresh weights are trained too.
    seeds: a seed draws examples, fresh weights and batches, the same for all methods.
    tuning: without pretraining it is always all weights.
    epochs, least_steps: steps are as many as the greater of both gives.
    """

    task: str = Field(description="What to learn; `lucidlm tasks` lists what there is.")
    model: str = Field(description="The directory of a pretrained model.")
    other: str | None = Field(default=None, description="A second pretrained model, made elsewhere, say.")
    data: str = Field(description="Examples to draw from.")
    test_data: str | None = Field(default=None, description="Examples to judge by; a share of --data if left out.")
    test: float = Field(default=0.1, gt=0, lt=1, description="Share of --data to judge by, without --test-data.")
    limit: int | None = Field(default=None, ge=1, description="Judge by so many of them only.")
    scratch: bool = Field(default=True, description="Train fresh weights too.")
    fields: FieldNames = Field(default={})
    encoding: Encoding = "auto"
    html: Html = "auto"
    on_error: OnError = "stop"
    shots: tuple[int, ...] = Field(
        default=(8, 32, 128, 512), min_length=1, description="Numbers of examples (of each label): 8,32,128,512."
    )
    seeds: int = Field(default=3, ge=1, description="How many times each number is measured.")
    tuning: Tuning = Field(default="full", description="Which weights of the pretrained model are trained.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the examples, at least.")
    least_steps: int = Field(default=150, ge=1, description="Steps of training, at least.")
    max_length: int | None = Field(default=None, ge=8, description="Tokens that are read at once.")
    device: Device = "auto"
    precision: Precision = "auto"

    def finetuning(self, examples: int, seed: int) -> FinetuneConfig:
        """Return how a model is tuned on so many examples."""
        size = min(32, max(4, examples // 8))
        loop = FinetuneConfig.model_fields["loop"].default
        assert isinstance(loop, LoopConfig)
        steps = max(self.least_steps, math.ceil(self.epochs * math.ceil(examples / size)))
        # Without patience the last weights stay.
        plain = {**dict(loop), "patience": None, "evaluations": 1, "max_steps": steps, "seed": seed}
        return FinetuneConfig(
            task=self.task,
            model=self.model,
            data=self.data,
            validation_data=self.test_data,
            validation=0.0,
            test=0.0 if self.test_data else self.test,
            fields=self.fields,
            encoding=self.encoding,
            html=self.html,
            on_error=self.on_error,
            tuning=self.tuning,
            max_length=self.max_length,
            batch_size=size,
            device=self.device,
            precision=self.precision,
            loop=LoopConfig(**plain),
        )
