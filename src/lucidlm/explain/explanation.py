"""An explanation: a prediction, what each piece of the text adds to it, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.attribution.attribution import Completeness
from lucidlm.explain.attribution.methods import UNITS, Method, attribute, default_method, require_applicable
from lucidlm.explain.checks.faithfulness import Faithfulness, faithfulness
from lucidlm.explain.checks.likeness import Likeness, agreement, stability
from lucidlm.explain.pieces import Unit
from lucidlm.explain.predictions import predict


@dataclass(frozen=True)
class Explanation:
    """What each piece of a text adds to a prediction, and the checks of it.

    Parameters
    ----------
    logprob, blank_logprob: of the target in nats, less that of `rather_than` if there is one; and with every token blank.
    pieces: each piece, and its attribution: nats, but for the methods in `UNITS`.
    passage: which piece is the first of the passage, where the text is a question and a passage.
    part: where the passage is too long to be read at once: the first character that is explained and the one after the last.
    held: the pieces that the check of faithfulness leaves in the text: those of an answer, and of what it is compared with.
    completeness, agreement, stability: None where the method or the text has none.
    faithfulness: None where less than two pieces could be deleted.
    """

    kind: str
    target: str
    rather_than: str | None
    logprob: float
    blank_logprob: float
    method: Method
    blank: str
    pieces: tuple[tuple[str, float], ...]
    passage: int | None
    part: tuple[int, int] | None
    held: tuple[int, ...]
    completeness: Completeness | None
    faithfulness: Faithfulness | None
    agreement: Likeness | None
    stability: Likeness | None

    @property
    def unit(self) -> str:
        """What the attributions are measured in."""
        return UNITS.get(self.method, "in nats")

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        pieces = [{"text": text, "attribution": value} for text, value in self.pieces]
        found = {**asdict(self), "pieces": pieces, "unit": self.unit}
        if self.completeness is not None:
            found["completeness"]["reached"] = self.completeness.reached
        if self.faithfulness is not None:
            found["faithfulness"]["better_than_random"] = self.faithfulness.better
        return found

    def verdict(self) -> list[str]:
        """Return, a sentence each, what the checks say."""
        lines = []
        if self.part is not None:
            begin, end = self.part
            lines.append(
                f"passage: too long to be read at once, explained where the answer is found, characters {begin:,} to {end:,}"
            )
        if (check := self.completeness) is not None:
            steps = f" ({check.steps} steps)" if self.method == "integrated-gradients" else ""
            words = "complete"
            if not check.reached and self.method == "relevance":
                words = "NOT complete, softmax and biases give their share to no token"
            elif not check.reached:
                words = "NOT complete, read with care or use shapley"
            lines.append(f"{words}: attributions sum to {check.total:+.4f} of {check.explained:+.4f}{steps}")
        test = self.faithfulness
        if test is None:
            lines.append("faithfulness: not tested, less than two pieces could be deleted")
        else:
            lines.append(test.sentence() + ("; the answer itself stays" if self.held else ""))
        if (found := self.agreement) is not None:
            lines.append(f"agreement with {found.other}: rank correlation {found.written()}")
        if (found := self.stability) is not None:
            drawn = " and other draws" if self.method == "shapley" else ""
            lines.append(f"stability, with {found.other!r} for the blank{drawn}: rank correlation {found.written()}")
        return lines


def explain(
    loaded: LoadedModel,
    text: str,
    target: str | None = None,
    *,
    context: str | None = None,
    rather_than: str | None = None,
    by: Unit = "token",
    method: Method | None = None,
    steps: int = 50,
    seed: int = 0,
) -> Explanation:
    """Explain a model's prediction for `text`; see `predict` for `target`, `context`, `rather_than` and `by`.

    Parameters
    ----------
    method: None: the one that `default_method` chooses.
    steps: of integrated gradients, at least.

    Raises
    ------
    InputError: text, target or model cannot be explained, or not so.
    """
    if steps < 1:
        raise InputError("is less than 1", where="--steps", fix="Pass 50, say.")
    with frozen(loaded.model):
        prediction = predict(loaded, text, target, context=context, rather_than=rather_than, by=by)
        method = method or default_method(prediction)
        require_applicable(prediction, method)
        found = attribute(prediction, method, steps=steps, seed=seed)
        logprob, blank_logprob = prediction.scores([prediction.whole, prediction.blanked]).tolist()
        test = faithfulness(prediction, found.values, seed)
        agreed = agreement(prediction, method, found.values)
        stable = stability(prediction, method, found.values, steps=steps, seed=seed)
    return Explanation(
        prediction.kind,
        prediction.target,
        prediction.rather_than,
        logprob,
        blank_logprob,
        method,
        prediction.blank_text,
        tuple((piece.text, float(value)) for piece, value in zip(prediction.pieces, found.values, strict=True)),
        prediction.passage,
        prediction.part,
        tuple(sorted(prediction.held)),
        found.completeness,
        test,
        agreed,
        stable,
    )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
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
