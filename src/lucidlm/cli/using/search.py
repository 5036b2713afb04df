"""`lucidlm search`: texts by meaning, or items like those that somebody chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command

if TYPE_CHECKING:
    from lucidlm.core.config import Config
    from lucidlm.predict.vector_index import Hit

WIDTH = 160
"""Characters of a text that are printed."""

SHOWN = (
    "model",
    "queries",
    "source",
    "like",
    "top",
    "index",
    "as_json",
    "text_field",
    "encoding",
    "on_error",
    "device",
)


def register(app: typer.Typer) -> None:
    add_command(app, search, _configurations, SHOWN)


def _configurations() -> Sequence[type[Config]]:
    from lucidlm.cli.using.settings import UseConfig

    return (UseConfig,)


def search(
    model: Annotated[Path, typer.Argument(help="A model directory: pretrained, or tuned for semantic-search.")],
    queries: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="What to search for.")] = None,
    source: Annotated[
        str | None, typer.Option("--in", metavar="SOURCE", help="The texts: a file, a folder, pypi:PACKAGE, hf:REPO.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="ITEM", help="Recommend by this item instead; may be given again.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many texts to find.")] = 5,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the vectors there, or take them from there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each query.")] = False,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    *,
    settings: dict[str, Any],
) -> None:
    """Find the texts that are closest in meaning to a query, or to items that somebody chose.

    Examples:

      lucidlm search finder "Who wrote it?" --in paragraphs.jsonl --index paragraphs-index
      lucidlm search finder "Who wrote it?" --index paragraphs-index --top 10 --json
      lucidlm search finder --like "A film of robots" --like "A film of space" --in films.jsonl
    """
    import json
    from collections import Counter
    from dataclasses import asdict

    from lucidlm.checkpoint.load import load_model
    from lucidlm.core.devices import choose_compute
    from lucidlm.core.errors import InputError
    from lucidlm.core.progress import log
    from lucidlm.data.sources.read import read_documents
    from lucidlm.model.pooling import PROMPTS_FOR
    from lucidlm.predict.embedder import TextEmbedder
    from lucidlm.predict.vector_index import SearchIndex, collect_items, open_index

    if bool(queries) == bool(like):
        what = "are given both" if queries else "are missing, one of them is needed"
        raise InputError(what, where="QUERY and --like", fix="Pass what to search for, or items to recommend by.")
    if any(not text.strip() for text in queries or like or ()):
        raise InputError("is empty", where="QUERY" if queries else "--like", fix="Say what to search for.")
    loaded = load_model(model, device=choose_compute(settings.get("device", "auto")).device)
    embedder = TextEmbedder.of(loaded)
    for purpose in PROMPTS_FOR:
        if prompt := embedder.sentence.prompt(purpose):
            log(f"{model}: before every {purpose} stands {prompt!r}")
    if source is not None:
        skipped: Counter[str] = Counter()
        documents = read_documents(
            source,
            text_field=text_field,
            encoding=settings.get("encoding", "auto"),
            on_error=settings.get("on_error", "stop"),
            skipped=skipped,
        )
        items = collect_items(documents, source)
        for reason, count in skipped.items():
            log(f"{source}: {count:,} skipped: {reason}")
        found = open_index(embedder, loaded.fingerprint, items, index)
    elif index is not None:
        found = SearchIndex.load(index, embedder, loaded.fingerprint)
    else:
        raise InputError("is needed", where="--in", fix="Pass the texts to search, or an --index made before.")
    answers: list[tuple[str | list[str], list[Hit]]] = [(like, found.recommend(like, top))] if like else []
    if queries:
        answers += zip(queries, found.search(queries, top), strict=True)
    for sought, hits in answers:
        if as_json:
            key = "query" if isinstance(sought, str) else "like"
            print(json.dumps({key: sought, "found": [asdict(hit) for hit in hits]}, ensure_ascii=False))
            continue
        if len(answers) > 1:
            print(sought)
        for hit in hits:
            print(f"{hit.score:7.4f}  {_shortened(hit.text)}  ({hit.where})")


def _shortened(text: str) -> str:
    """Return a text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
