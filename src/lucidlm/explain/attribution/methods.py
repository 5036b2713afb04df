"""The methods by name, what each needs, and which one a prediction is explained by unless another is asked for."""

from __future__ import annotations

from typing import Literal, get_args

from lucidlm.core.errors import InputError
from lucidlm.explain.attribution.attribution import Attribution
from lucidlm.explain.attribution.erasure import erasure, one_by_one
from lucidlm.explain.attribution.gradients import gradient_times_input, integrated_gradients
from lucidlm.explain.attribution.occlusion import occlusion
from lucidlm.explain.attribution.relevance import relevance
from lucidlm.explain.attribution.rollout import rollout
from lucidlm.explain.attribution.shapley import shapley
from lucidlm.explain.prediction import Prediction

Method = Literal["gradient-x-input", "integrated-gradients", "relevance", "occlusion", "erasure", "shapley", "rollout"]
METHODS: tuple[Method, ...] = get_args(Method)

UNITS: dict[Method, str] = {"relevance": "in the target's logit", "rollout": "as shares of attention"}
"""What attributions are measured in, where it is not nats of the log-probability."""

ANY_MODEL: frozenset[Method] = frozenset({"occlusion", "erasure", "shapley"})
"""Those that only ask the model, and so see its n-grams too."""

BLANKED: frozenset[Method] = frozenset({"integrated-gradients", "occlusion", "erasure", "shapley"})
"""Those that compare with the blank."""


def attribute(prediction: Prediction, method: Method, *, steps: int = 50, seed: int = 0) -> Attribution:
    """Return what each piece adds to a prediction, by one of the methods."""
    match method:
        case "gradient-x-input":
            return gradient_times_input(prediction)
        case "integrated-gradients":
            return integrated_gradients(prediction, steps)
        case "relevance":
            return relevance(prediction)
        case "occlusion":
            return occlusion(prediction)
        case "erasure":
            return erasure(prediction)
        case "shapley":
            return shapley(prediction, seed)
        case "rollout":
            return rollout(prediction)


def default_method(prediction: Prediction) -> Method:
    """Return the method that a prediction is explained by unless another is asked for; docs/explanation.md says why."""
    if prediction.kind == "label" and one_by_one(prediction):
        return "erasure"
    return "relevance" if prediction.differentiable and not prediction.hints else "shapley"


def applicable(prediction: Prediction) -> list[Method]:
    """Return the methods that apply to a prediction."""
    return [method for method in METHODS if refusal(prediction, method) is None]


def require_applicable(prediction: Prediction, method: Method) -> None:
    """Raise an InputError that says why, if the method does not apply to the prediction."""
    if (found := refusal(prediction, method)) is not None:
        raise found


def refusal(prediction: Prediction, method: Method) -> InputError | None:
    """Return why a method does not apply to a prediction; None if it does."""
    if not prediction.differentiable and method not in ANY_MODEL:
        what = "attention does" if method == "rollout" else "gradients do"
        return InputError(
            f"{what} not reach the n-grams that this model counts beside its Transformer",
            where="--method",
            fix="Pass --method occlusion, erasure or shapley, or leave it out.",
        )
    if prediction.rather_than is not None and method == "rollout":
        return InputError(
            "rollout is the same whatever the target, so it cannot say why it is one rather than another",
            where="--method",
            fix="Leave out --rather-than, or pass another method.",
        )
    return None
