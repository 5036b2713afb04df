"""What the functions that explain return."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lucidlm.api import html
from lucidlm.api.results import Result
from lucidlm.explain.explanation import Explanation
from lucidlm.explain.generation import GenerationExplanation
from lucidlm.explain.survey import Survey


@dataclass(frozen=True, repr=False)
class ExplanationResult(Result):
    """What a prediction rests on; `explanation` has the checks of whether to believe it."""

    explanation: Explanation

    @property
    def target(self) -> str:
        """The label or the continuation that is explained."""
        return self.explanation.target

    @property
    def pieces(self) -> tuple[tuple[str, float], ...]:
        """The pieces of the text, and what each adds; `explanation.unit` says in what."""
        return self.explanation.pieces

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as `lucidlm explain --json` prints it."""
        return self.explanation.as_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return the pieces in order, one a row."""
        return [{"piece": text, "attribution": value} for text, value in self.pieces]

    def __repr__(self) -> str:
        found = self.explanation
        target = json.dumps(found.target, ensure_ascii=False)
        return f"ExplanationResult({found.kind} {target}, log-probability {found.logprob:.4f}, {found.method})"

    def _repr_html_(self) -> str:
        return (
            html.paragraphs([repr(self)])
            + html.coloured(self.pieces, self.explanation.passage)
            + html.paragraphs(self.explanation.verdict())
        )


@dataclass(frozen=True, repr=False)
class GenerationExplanationResult(Result):
    """What each token of a text that was written rests on; `explanation` has all of it."""

    explanation: GenerationExplanation

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as `lucidlm explain --length --json` prints it."""
        return self.explanation.as_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each piece that was written and each before it: the cells of the heat map."""
        found = self.explanation
        return [
            {"piece": piece, "before": before, "attribution": value}
            for piece, row in zip(found.pieces[found.start :], found.attributions, strict=True)
            for before, value in zip(found.pieces[: len(row)], row, strict=True)
        ]

    def __repr__(self) -> str:
        found = self.explanation
        written = json.dumps(found.continuation, ensure_ascii=False)
        return f"GenerationExplanationResult({written}, {len(found.attributions)} pieces, {found.method})"


@dataclass(frozen=True, repr=False)
class SurveyResult(Result):
    """How faithful each method is over a data set, and what drives each label; `explanation` has all of it."""

    explanation: Survey

    @property
    def recommended(self) -> str:
        """The method to trust."""
        return self.explanation.recommended

    def to_dict(self) -> dict[str, Any]:
        """Return it as `lucidlm explain --data --json` prints it."""
        return self.explanation.as_dict()

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures of the methods, one a row."""
        names = ("comprehensiveness", "sufficiency", "deletion", "insertion", "better", "agreement")
        return [
            {
                "method": one.method,
                **{name: None if (found := getattr(one, name)) is None else found.value for name in names},
                "seconds": one.seconds,
            }
            for one in self.explanation.methods
        ]

    def __repr__(self) -> str:
        return f"SurveyResult({self.explanation.texts} texts, recommended {self.recommended})"
