"""Recommendation: the next item after a history of items, each given by its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lucidlm.baselines.retrieval import Popularity, RandomOrder, TfidfSearch
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Match, Ranking, Row
from lucidlm.tasks.base.retrieval import Retrieval
from lucidlm.tasks.base.task import Baseline, tasks


@dataclass(frozen=True)
class Recommendation(Retrieval):
    """A history of items and the next one; items of the history are never recommended again."""

    fields: ClassVar[tuple[str, ...]] = ("history", "item")
    again: ClassVar[bool] = False

    def read(self, row: Row) -> Match:
        """Turn a row with a history, a list of items' texts (each counts once), and the next item's into an example."""
        called, history, item = row.names.get("history", "history"), row.value("history"), row.cleaned("item")
        if not isinstance(history, list) or not history:
            found = "an empty list" if history == [] else f"a {type(history).__name__}"
            raise InputError(f'field "{called}" holds {found}, not a list of texts', where=row.where)
        numbered = Row({f"{called}[{place}]": text for place, text in enumerate(history)}, row.where, clean=row.clean)
        query = tuple(dict.fromkeys(numbered.cleaned(name) for name in numbered.fields))
        if item in query:
            raise InputError("the next item is one of the history, which is never recommended again", where=row.where)
        return Match(query, item, row.where)

    def baselines(self) -> list[Baseline[Match, Ranking]]:
        """Return TF-IDF search, popularity and random order."""
        return [TfidfSearch(again=self.again), Popularity(), RandomOrder()]


RECOMMENDATION = tasks.register("recommendation")(
    Recommendation(name="recommendation", description="which item, told by its text, comes next after a history")
)
