"""An explanation: a prediction, what each piece of the text adds to it, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.explain.faithfulness import Faithfulness, faithfulness
from lucidlm.explain.integrated_gradients import Completeness, integrated_gradients
from lucidlm.explain.occlusion import occlusion
from lucidlm.explain.predictions import predict

Method = Literal["integrated-gradients", "occlusion"]


@dataclass(frozen=True)
class Explanation:
    """What each piece of a text adds to the target's log-probability, in nats."""

    kind: str
    target: str
    logprob: float
    blank_logprob: float
    method: Method
    blank: str
    pieces: tuple[tuple[str, float], ...]
    completeness: Completeness | None
    faithfulness: Faithfulness | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        pieces = [{"text": text, "attribution": value} for text, value in self.pieces]
        found = {**asdict(self), "pieces": pieces}
        if self.faithfulness is not None:
            found["faithfulness"]["better_than_random"] = self.faithfulness.better
        return found

    def verdict(self) -> list[str]:
        """Return, in sentences, what the checks say."""
        lines = []
        if (check := self.completeness) is not None:
            words = "complete" if check.reached else "NOT complete, read with care or use occlusion"
            lines.append(
                f"{words}: attributions sum to {check.difference + check.delta:+.4f} of {check.difference:+.4f} nats "
                f"({check.steps} steps)"
            )
        if (test := self.faithfulness) is None:
            lines.append("faithfulness: not tested, the text is one piece")
        else:
            words = "better than random" if test.better else "NOT SHOWN to be better than random"
            lines.append(
                f"{words}: deleting the most attributed pieces costs {test.drop:+.4f} nats, random ones "
                f"{test.random:+.4f} (sizes {', '.join(map(str, test.sizes))}; {test.draws} draws, seed {test.seed}, "
                f"p = {test.p_value:.3f})"
            )
        return lines


def explain(
    loaded: LoadedModel,
    text: str,
    target: str | None = None,
    *,
    method: Method | None = None,
    steps: int = 50,
    seed: int = 0,
    device: torch.device | None = None,
) -> Explanation:
    """Explain a model's prediction for `text`; see `predict` for `target`.

    Parameters
    ----------
    method: None: integrated gradients, or occlusion where the model counts n-grams too, which gradients do not reach.

    Raises
    ------
    InputError: text, target or model cannot be explained (so), or captum is not installed.
    """
    if steps < 1:
        raise InputError("is less than 1", where="--steps", fix="Pass 50, say.")
    with _frozen(loaded.model):
        prediction = predict(loaded, text, target, device)
        if method == "integrated-gradients" and not prediction.differentiable:
            raise InputError(
                "gradients do not reach the n-grams that this model counts beside its Transformer",
                where="--method",
                fix="Pass --method occlusion, or leave it out.",
            )
        method = method or ("integrated-gradients" if prediction.differentiable else "occlusion")
        with fast_matmul(prediction.ids.device):
            check = None
            if method == "integrated-gradients":
                values, check = integrated_gradients(prediction, steps)
            else:
                values = occlusion(prediction)
            logprob, blank_logprob = prediction.scores([prediction.ids, prediction.blanked]).tolist()
            test = faithfulness(prediction, values, seed)
    pieces = tuple((piece.text, float(value)) for piece, value in zip(prediction.pieces, values, strict=True))
    found = (prediction.kind, prediction.target, logprob, blank_logprob, method, prediction.blank_text)
    return Explanation(*found, pieces, check, test)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keep the weights out of the gradients, whose activations need not be kept then; leave all as it was."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training = model.training
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter, needed in before:
            parameter.requires_grad_(needed)
