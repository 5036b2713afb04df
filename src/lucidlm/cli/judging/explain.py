"""`lucidlm explain`: which tokens of a text a prediction rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.using.sampling import Source, text_given

if TYPE_CHECKING:
    from lucidlm.core.config import Config
    from lucidlm.explain.explanation import Explanation
    from lucidlm.explain.generation import GenerationExplanation
    from lucidlm.explain.survey import Survey
    from lucidlm.metrics.statistics import Estimate

WIDTH = 24
"""Cells of the longest bar."""

MOST = 3
"""Pieces that are named for each token of a generated text."""

SHOWN = (
    "model", "text", "context", "target", "rather_than", "length", "data", "limit", "method", "by", "steps", "out",
    "as_json", "seed", "device",
)  # fmt: skip


class Method(StrEnum):
    """How credit is given."""

    gradient_x_input = "gradient-x-input"
    integrated_gradients = "integrated-gradients"
    relevance = "relevance"
    occlusion = "occlusion"
    erasure = "erasure"
    shapley = "shapley"
    rollout = "rollout"


class By(StrEnum):
    """What is explained as one."""

    token = "token"
    word = "word"
    sentence = "sentence"


def register(app: typer.Typer) -> None:
    add_command(app, explain, _configurations, SHOWN)


def _configurations() -> Sequence[type[Config]]:
    from lucidlm.cli.using.settings import UseConfig

    return (UseConfig,)


def explain(
    model: Source,
    text: Annotated[str | None, typer.Argument(help="The text: a prompt, what is classified, or a question.")] = None,
    context: Annotated[
        str | None, typer.Option(metavar="PASSAGE", help="The passage that a question is about, for such models.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A continuation (a new word begins with a space), a label, or an answer; the likeliest if left out."
        ),
    ] = None,
    rather_than: Annotated[
        str | None, typer.Option(help="Another continuation, label or answer: why the target rather than this.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Explain each token of a text that is written, so many, or of the target if there is one."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled texts: compare the methods on them, and show what drives each label.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Texts of the data that are explained, drawn at random.")] = 50,
    method: Annotated[
        Method | None,
        typer.Option(help="How credit is given; see the documentation for which is taken if this is left out."),
    ] = None,
    by: Annotated[By | None, typer.Option(help="What gets an attribution [token; with --data word].")] = None,
    steps: Annotated[int, typer.Option(help="Steps of integrated gradients, at least.")] = 50,
    out: Annotated[
        Path | None, typer.Option(help="Write it to FILE.html, FILE.png or FILE.json as well; with --data not as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Explain a prediction: what each token of the text adds to it, and whether that can be trusted.

    Examples:

      lucidlm explain judge "A dull film with a wonderful ending." --by word
      lucidlm explain model "The capital of France is" --target " Paris" --rather-than " London"
      lucidlm explain reader "Who wrote it?" --context "It was written by Ada." --by word
      lucidlm explain model "Once upon a time" --length 20 --out tokens.html
      lucidlm explain judge --data test.jsonl --limit 100 --out judge.html
    """
    from lucidlm.api.judging import explain as explain_text
    from lucidlm.api.judging import explain_data, explain_generated
    from lucidlm.core.errors import InputError
    from lucidlm.report.explanation import require_format, write_explanation

    for name, given in ("--context", context), ("--target", target), ("--rather-than", rather_than):
        text_given(given or "", name)
    if out is not None:
        require_format(out, pictured=data is None)
    common = {"steps": steps, "seed": settings.get("seed", 0), "device": settings.get("device", "auto")}
    chosen: dict[str, Any] = {**common, **({} if by is None else {"by": by.value})}
    if data is not None:
        for name, given in {
            "TEXT": text, "--context": context, "--target": target, "--rather-than": rather_than, "--length": length,
            "--method": method,
        }.items():  # fmt: skip
            if given is not None:
                raise InputError("does not go with --data, which compares all methods", where=name, fix="Leave it out.")
        found = explain_data(model, data, limit=limit, **chosen)
    elif text is None:
        raise InputError("is missing", where="TEXT", fix="Pass a text to explain, or --data.")
    else:
        text_given(text, "TEXT")
        if method is not None:
            chosen["method"] = method.value
        if length is None:
            found = explain_text(model, text, context=context, target=target, rather_than=rather_than, **chosen)
        elif rather_than is not None or context is not None:
            where = "--context" if rather_than is None else "--rather-than"
            raise InputError("does not go with --length", where=where, fix="Leave one of them out.")
        else:
            found = explain_generated(model, text, continuation=target, length=length, **chosen)
    if out is not None:
        write_explanation(found.explanation, out)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _show(found.explanation)


def _show(found: Explanation | GenerationExplanation | Survey) -> None:
    """Print it: coloured on a terminal, plain elsewhere."""
    from rich.console import Console

    from lucidlm.explain.explanation import Explanation
    from lucidlm.explain.survey import Survey

    console = Console(highlight=False)
    lines = (
        _survey(found)
        if isinstance(found, Survey)
        else (_text(found) if isinstance(found, Explanation) else _generated(found))
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def _text(found: Explanation) -> Iterable[Any]:
    """Return pieces in order with their bars."""
    from rich.text import Text

    name, blank = _quoted(found.target), _quoted(found.blank)
    if found.rather_than is None:
        head = f"{found.kind} {name}: log-probability {found.logprob:.4f} ({100 * math.exp(found.logprob):.1f} %); "
    else:
        head = f"{found.kind} {name} rather than {_quoted(found.rather_than)}: log-odds {found.logprob:.4f}; "
    yield Text(f"{head}{found.blank_logprob:.4f} with {blank} for every token; {found.method}, {found.unit}")
    largest = max(abs(value) for _, value in found.pieces) or 1.0
    for place, (piece, value) in enumerate(found.pieces):
        if found.passage is not None and place in (0, found.passage):
            yield Text("question" if place == 0 else "passage")
        bar = "█" * round(WIDTH * abs(value) / largest)
        line = Text(f"{value:+9.4f}  ")
        line.append(f"{bar:{WIDTH}}", style="green" if value > 0 else "red")
        yield line.append(f"  {_quoted(piece)}{'  ← answer' if place in found.held else ''}")
    yield from (Text(line) for line in found.verdict())


def _generated(found: GenerationExplanation) -> Iterable[Any]:
    """Return each token that was written, and the tokens that speak for it most."""
    from rich.text import Text

    yield Text(
        f"each token of {_quoted(found.continuation)}, and what speaks for it most; {found.method}, {found.unit}"
    )
    for piece, logprob, row in zip(found.pieces[found.start :], found.logprobs, found.attributions, strict=True):
        best = sorted(range(len(row)), key=lambda place: -row[place])[:MOST]
        named = ", ".join(f"{_quoted(found.pieces[place])} {row[place]:+.2f}" for place in best)
        yield Text(f"{100 * math.exp(logprob):5.1f} %  {_quoted(piece):16}  {named}")
    yield from (Text(line) for line in found.verdict())


def _survey(found: Survey) -> Iterable[Any]:
    """Return the table of the methods, and which to trust."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{found.texts} texts, in probabilities; 95 % intervals")
    columns = ("method", "comprehensiveness", "sufficiency", "deletion", "insertion", "beats random", "agrees", "s")
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    for one in found.methods:
        figures = (one.comprehensiveness, one.sufficiency, one.deletion, one.insertion, one.better, one.agreement)
        table.add_row(one.method, *(_interval(figure) for figure in figures), f"{one.seconds:.3f}")
    chance = found.random
    random = (chance.comprehensiveness, chance.sufficiency, chance.deletion, chance.insertion)
    table.add_row("random order", *(f"{value:.3f}" for value in random), "", "", "")
    yield table
    for label, words in found.words.items():
        yield Text(f"{label}: {', '.join(f'{word} {value:+.2f}' for word, value, _ in words)}")
    error = found.reliability.error
    yield Text(f"calibration error {_interval(error)}; {len(found.confusions)} of {found.texts} texts were mistaken")
    if found.left_out:
        yield Text(f"{found.left_out} texts were left out: longer than the model reads at once, or one piece")
    yield Text(found.verdict())


def _interval(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
