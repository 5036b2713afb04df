"""Looks inside a model, a function each; `lucidlm.inspect` in Python, the commands of `lucidlm inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucidlm.api import html
from lucidlm.api.opening import Model, opened
from lucidlm.api.results import Result
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_count, require_path, require_text
from lucidlm.core.errors import InputError
from lucidlm.explain.inside import attention as attentions
from lucidlm.explain.inside import induction as inductions
from lucidlm.explain.inside import lens as lenses
from lucidlm.explain.inside import logits as logit_parts
from lucidlm.explain.inside import nearest as neighbours
from lucidlm.explain.inside import norms as sizes
from lucidlm.explain.inside import patching, probes, tuned_lens
from lucidlm.explain.inside.reading import Reading, read
from lucidlm.explain.inside.view import View
from lucidlm.report.inspection import drawings, write_view


@dataclass(frozen=True, repr=False)
class InspectionResult(Result):
    """A look inside a model; `view` has the numbers, `view.verdict` says how far to trust them."""

    view: View

    def to_dict(self) -> dict[str, Any]:
        """Return the view as `lucidlm inspect` writes it with `--json`."""
        return self.view.as_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers, a cell of a grid a row."""
        return [
            {"grid": grid.title, "row": row, "column": column, "value": float(value)}
            for grid in self.view.grids
            for row, values in zip(grid.rows, grid.values, strict=True)
            for column, value in zip(grid.columns, values, strict=True)
        ]

    def save(self, path: str | Path) -> Path:
        """Write it as .html (a page), .png (a picture) or .json, and return the path.

        Raises
        ------
        InputError: the name has another ending, or PNG is asked for and a package or a font for it is missing.
        """
        write_view(self.view, path)
        return Path(path)

    def __repr__(self) -> str:
        return f"InspectionResult({self.view.title!r}, {len(self.view.grids)} grids)"

    def _repr_html_(self) -> str:
        pictures = "".join(drawing.svg() for drawing in drawings(self.view))
        return html.paragraphs([repr(self), *self.view.verdict]) + pictures


def attention(
    model: Model, text: str, *, layer: int | None = None, head: int | None = None, device: str = "auto"
) -> InspectionResult:
    """Show where heads look: their attention weights, of all layers and heads that are not chosen.

    >>> lucidlm.inspect.attention("model", "The cat sat on the mat", layer=1).save("attention.html")

    Raises
    ------
    InputError: there is no such layer or head, or model or text cannot be looked into.
    """
    return _of_text(model, text, device, lambda reading: attentions.attention(reading, layer, head))


def lens(model: Model, text: str, *, tuned: str | Path | None = None, device: str = "auto") -> InspectionResult:
    """Show what each layer would answer, by the logit lens, or by one that `train_lens` left.

    >>> lucidlm.inspect.lens("model", "The capital of France is", tuned="lens.safetensors")

    Raises
    ------
    InputError: the tuned lens is another model's, or model or text cannot be looked into.
    """
    with opened(model, device) as loaded:
        translate = None if tuned is None else tuned_lens.TunedLens.load(require_path(tuned, "tuned"), loaded)
        return InspectionResult(lenses.lens(_reading(loaded, text, "text"), translate))


def train_lens(
    model: Model,
    data: str | Path,
    *,
    out: str | Path,
    steps: int = 250,
    text_field: str = "text",
    seed: int = 0,
    device: str = "auto",
) -> InspectionResult:
    """Tune a lens on the text of a source, write it to `out` (.safetensors), and judge it on a part that was held out.

    >>> lucidlm.inspect.train_lens("model", "books/", out="lens.safetensors")

    Raises
    ------
    InputError: the model is no language model, or the data are too few.
    """
    source, place = require_path(data, "data"), require_path(out, "out")
    with opened(model, device) as loaded:
        found, view = tuned_lens.train_lens(
            loaded,
            source,
            steps=require_count(steps, "steps"),
            text_field=text_field,
            seed=require_count(seed, "seed"),
        )
        found.save(place, loaded.fingerprint)
    return InspectionResult(view)


def norms(model: Model, text: str, *, device: str = "auto") -> InspectionResult:
    """Show how large the residual stream is after each layer, and what attention and MLPs add to it.

    Raises
    ------
    InputError: model or text cannot be looked into.
    """
    return _of_text(model, text, device, sizes.norms)


def logits(
    model: Model, text: str, *, target: str | None = None, foil: str | None = None, device: str = "auto"
) -> InspectionResult:
    """Show what each head, MLP and neuron adds to the logit of the target, less that of the foil if there is one.

    >>> lucidlm.inspect.logits("model", "The capital of France is", target=" Paris", foil=" Rome")

    Raises
    ------
    InputError: target or foil is no single token or no label, or the model's logits are no sum of its parts.
    """
    return _of_text(model, text, device, lambda reading: logit_parts.logit_attribution(reading, target, foil))


def patch(
    model: Model,
    clean: str | None = None,
    corrupted: str | None = None,
    *,
    pairs: str | Path | None = None,
    target: str | None = None,
    foil: str | None = None,
    device: str = "auto",
) -> InspectionResult:
    """Show which activations of a clean text bring its answer back in a corrupted one.

    >>> lucidlm.inspect.patch("model", "The capital of France is", "The capital of Italy is", target=" Paris", foil=" Rome")
    >>> lucidlm.inspect.patch("model", pairs="capitals.jsonl")

    Parameters
    ----------
    pairs: a source of several pairs, in place of one: rows with the fields clean and corrupted, and perhaps target and foil.

    Raises
    ------
    InputError: the texts differ in their number of tokens or are answered alike, or model or answers cannot be used.
    """
    with opened(model, device) as loaded:
        if pairs is not None:
            if (clean, corrupted, target, foil) != (None,) * 4:
                raise InputError("holds all pairs, and their answers", where="pairs", fix="Pass nothing else.")
            return InspectionResult(patching.patching(patching.read_pairs(loaded, require_path(pairs, "pairs"))))
        if clean is None or corrupted is None:
            raise InputError("are needed, two texts", where="clean and corrupted", fix="Pass both, or pairs.")
        readings = _reading(loaded, clean, "clean"), _reading(loaded, corrupted, "corrupted")
        return InspectionResult(patching.patching([patching.Pair(*readings, target, foil)]))


def induction(model: Model, *, seed: int = 0, device: str = "auto") -> InspectionResult:
    """Look for the heads that copy what followed the last time, on random tokens that are repeated.

    Raises
    ------
    InputError: the model is no causal language model.
    """
    with opened(model, device) as loaded:
        return InspectionResult(inductions.induction(loaded, seed=require_count(seed, "seed")))


def probe(
    model: Model,
    data: str | Path,
    *,
    words: bool = False,
    text_field: str | None = None,
    label_field: str | None = None,
    limit: int = probes.LIMIT,
    seed: int = 0,
    device: str = "auto",
) -> InspectionResult:
    """Show what a linear probe reads of labels from each layer, beside a control task that it can only learn by heart.

    >>> lucidlm.inspect.probe("model", "reviews.csv")

    Parameters
    ----------
    words: the data are sentences whose words have tags, as for token-tagging, and it is these that are read.

    Raises
    ------
    InputError: the data are too few or have one label, or the model cannot be looked into.
    """
    source, fields = require_path(data, "data"), _fields(text_field, label_field)
    count, number = require_count(limit, "limit"), require_count(seed, "seed")
    with opened(model, device) as loaded:
        return InspectionResult(probes.probe(loaded, source, words=words, fields=fields, limit=count, seed=number))


def nearest(
    model: Model,
    text: str,
    data: str | Path,
    *,
    count: int = neighbours.COUNT,
    text_field: str | None = None,
    label_field: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> InspectionResult:
    """Show the training examples that a classifier takes for most like a text.

    >>> lucidlm.inspect.nearest("judge", "A dull film with a wonderful ending.", "reviews.csv")

    Raises
    ------
    InputError: the model is no classifier of texts, or the data cannot be read or are too few.
    """
    source, fields = require_path(data, "data"), _fields(text_field, label_field)
    many, number = require_count(count, "count"), require_count(seed, "seed")
    with opened(model, device) as loaded:
        return InspectionResult(
            neighbours.nearest(loaded, require_text(text, "text"), source, count=many, fields=fields, seed=number)
        )


def _of_text(model: Model, text: str, device: str, look: Callable[[Reading], View]) -> InspectionResult:
    with opened(model, device) as loaded:
        return InspectionResult(look(_reading(loaded, text, "text")))


def _reading(loaded: LoadedModel, text: str, name: str) -> Reading:
    return read(loaded, require_text(text, name), where=name)


def _fields(text: str | None, label: str | None) -> dict[str, str]:
    return {name: field for name, field in (("text", text), ("label", label)) if field is not None}
