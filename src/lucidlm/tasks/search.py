"""Semantic search: the text that a query asks for; a question's paragraph, a sentence's translation, a summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lucidlm.data.examples.records import Match, Row
from lucidlm.tasks.base.retrieval import Retrieval
from lucidlm.tasks.base.task import tasks


@dataclass(frozen=True)
class SemanticSearch(Retrieval):
    """A query and the text it should find.

    A row without a query is its own positive pair: one can train on it (Gao et al. 2021, arXiv:2104.08821), but to
    evaluate on it is to ask whether a text finds itself.
    """

    fields: ClassVar[tuple[str, ...]] = ("query", "text")

    def read(self, row: Row) -> Match:
        """Turn a row with a text and a query, by default the text itself, into an example."""
        text = row.cleaned("text")
        query = row.cleaned("query") if "query" in row.fields or "query" in row.names else text
        return Match((query,), text, row.where)


SEMANTIC_SEARCH = tasks.register("semantic-search")(
    SemanticSearch(name="semantic-search", description="which of many texts a query asks for, by meaning")
)
