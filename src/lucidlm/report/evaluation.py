"""The evaluation section of a report: metrics, baselines, verdicts, leakage, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lucidlm.core.amounts import percent
from lucidlm.evaluate.comparison import VERDICTS, sign
from lucidlm.evaluate.leakage import Leak
from lucidlm.evaluate.record import Evaluation, Measure, Score
from lucidlm.metrics.statistics import Comparison, Estimate
from lucidlm.report.language import Language
from lucidlm.report.page import Bar, BarChart, Block, Cell, ConfusionMatrix, Facts, Heading, KeyFigure, Table
from lucidlm.tokenize.unknown import Unknown

MISTAKES = 8
"""Most mistakes of a classifier shown, the most confident ones."""
ANSWERS = 500
"""Most predictions shown."""
EXCERPT = 280
"""Characters of a text shown in the table of mistakes; that of predictions shows `LONGEST`."""
LONGEST = 1000


def key_figures(evaluation: Evaluation, language: Language) -> Iterator[KeyFigure]:
    """Yield the headline numbers: the first metric, and its difference from the best baseline."""
    t = language.text
    first = evaluation.first
    found = evaluation.model.metrics[first.name]
    shares = are_shares(evaluation, first)
    low, high = (figure(value, first, shares=shares) for value in (found.low, found.high))
    detail = t("{low} to {high} with 95 % confidence", low=low, high=high)
    yield KeyFigure(figure(found.value, first, shares=shares), language.name(first.name), detail)
    if (best := evaluation.best_baseline) is not None:
        assert best.comparison is not None
        scale, unit = (100, 1) if shares and not first.percent else (1, 1 if first.percent else 3)
        difference = best.comparison.difference
        value, low, high = (
            f"{scale * number:+.{unit}f}".replace("-", "−")
            for number in (difference.value, difference.low, difference.high)
        )
        words = {
            "name": language.name(best.name),
            "low": low,
            "high": high,
            "verdict": short_verdict(best.comparison, first, language),
        }
        if scale == 100:
            detail = t("percentage points against {name}: {verdict}; {low} to {high} with 95 % confidence", **words)
        else:
            detail = t("against {name}: {verdict}; {low} to {high} with 95 % confidence", **words)
        yield KeyFigure(value, t("against the best baseline"), detail)


def are_shares(evaluation: Evaluation, measure: Measure) -> bool:
    """Return whether all values of a metric are in [0, 1], or [0, 100] for percentages, so that bars can show them."""
    most = 100.0 if measure.percent else 1.0
    found = [score.metrics.get(measure.name) for score in (evaluation.model, *evaluation.baselines)]
    return all(estimate is None or 0 <= estimate.value <= most for estimate in found)


def figure(value: float, measure: Measure, *, shares: bool = False) -> str:
    """Format a value of a metric: as is usual for it (27.3 BLEU), as a percentage, or with three decimals."""
    if measure.percent:
        return f"{value:.1f}"
    return percent(value) if shares else f"{value:,.3f}"


def evaluation_blocks(
    name: str, evaluation: Evaluation, predictions: Sequence[Mapping[str, Any]], language: Language
) -> Iterator[Block]:
    """Yield the blocks for the evaluation of the model called `name`."""
    t = language.text
    first, scores = evaluation.first, [evaluation.model, *evaluation.baselines]
    task, number = language.name(evaluation.task), f"{evaluation.examples:,}"
    about = t("{task} on {examples} examples from {data}", task=task, examples=number, data=evaluation.data)
    yield Heading(f"{t('How good it is')} · {name}", about)
    if are_shares(evaluation, first):
        bars = [
            _bar(score, first, language, primary=score is evaluation.model)
            for score in scores
            if first.name in score.metrics
        ]
        title = t("{metric} beside the baselines", metric=language.name(first.name))
        yield BarChart(title, bars, t("Whiskers are 95 % bootstrap intervals."))
    if evaluation.confusion is not None and evaluation.labels is not None:
        caption = t("Rows: true label. Columns: predicted label. Percentages are of the row.")
        yield ConfusionMatrix(t("Confusion matrix"), evaluation.labels, evaluation.confusion, caption)
    yield _scores(evaluation, scores, language)
    notes = [*_leaks(evaluation.leakage, language), *unknown_fact(evaluation.unknown, language)]
    notes += [(language.name(what), f"{count:,}") for what, count in evaluation.counts.items()]
    notes += [(measure.name, measure.signature) for measure in evaluation.measures if measure.signature]
    if notes:
        yield Facts(t("What to know of these figures"), notes)
    if evaluation.confusion is not None and (mistakes := _mistakes(predictions, language)) is not None:
        yield mistakes
    if predictions:
        yield _answers(predictions, language)


def _scores(evaluation: Evaluation, scores: Sequence[Score], language: Language) -> Table:
    t = language.text
    compared = any(score.comparison is not None for score in scores)
    columns = [t("model"), *(language.name(measure.name) for measure in evaluation.measures)]
    columns += [t("the model against it")] * compared + [t("seconds")]
    rows = []
    for score in scores:
        row = [Cell(language.name(score.name))]
        row += [_interval(score.metrics.get(measure.name), measure) for measure in evaluation.measures]
        if compared:
            found = score.comparison
            row.append(Cell("–") if found is None else Cell(short_verdict(found, evaluation.first, language)))
        rows.append([*row, Cell(f"{score.seconds:,.1f}", score.seconds)])
    caption = t(
        "In brackets: 95 % bootstrap intervals. The verdict is that of a paired test on the first metric. "
        "Seconds: to answer all examples, and for the baselines to fit as well."
    )
    return Table(t("All metrics"), columns, rows, caption)


def short_verdict(comparison: Comparison, measure: Measure, language: Language) -> str:
    """Return how the model compares with a baseline, in a few words."""
    return f"{language.text(VERDICTS[sign(comparison, measure)])} (p = {comparison.p_value:.2g})"


def _bar(score: Score, measure: Measure, language: Language, *, primary: bool) -> Bar:
    found, most = score.metrics[measure.name], 100.0 if measure.percent else 1.0
    low, high = max(0.0, found.low / most), min(1.0, found.high / most)
    return Bar(language.name(score.name), found.value / most, low, high, primary)


def _interval(estimate: Estimate | None, measure: Measure) -> Cell:
    if estimate is None:
        return Cell("–")
    value, low, high = (figure(number, measure) for number in (estimate.value, estimate.low, estimate.high))
    return Cell(f"{value} ({low} – {high})", estimate.value)


def _leaks(leaks: Sequence[Leak], language: Language) -> Iterator[tuple[str, str]]:
    t = language.text
    for leak in leaks:
        title = t("seen in fine-tuning") if leak.against == "fine-tuning" else t("seen in pretraining")
        if not leak.checked:
            yield title, t("not checked: {reason}", reason=leak.reason)
            continue
        text = t(
            "{count} of {examples} examples ({share}) share half of their n-grams or more with the training texts; "
            "{copies} are copies",
            count=f"{leak.overlapping:,}",
            examples=f"{leak.examples:,}",
            share=percent(leak.share),
            copies=f"{leak.copies:,}",
        )
        places = ", ".join(found.where.rsplit("/", 1)[-1] for found in leak.named)
        yield title, text + (f" ({places})" if places else "")


def unknown_fact(unknown: Unknown | None, language: Language) -> list[tuple[str, str]]:
    """Return a fact on characters without a token in the tokenizer; an empty list if there are none."""
    if unknown is None or not unknown.characters:
        return []
    t = language.text
    place = unknown.where.rsplit("/", 1)[-1]
    text = t(
        "{count} of {all} characters ({share}), first: {first}",
        count=f"{unknown.characters:,}",
        all=f"{unknown.of:,}",
        share=percent(unknown.characters / max(1, unknown.of)),
        first=unknown.first,
    )
    return [(t("unknown to the tokenizer"), f"{text} ({place})" if place else text)]


def _mistakes(predictions: Sequence[Mapping[str, Any]], language: Language) -> Table | None:
    """Return a table of the classifier's most confident mistakes."""
    t = language.text
    needed = {"text", "label", "predicted", "probabilities"}
    wrong = [row for row in predictions if needed <= row.keys() and row["predicted"] != row["label"]]
    if not wrong:
        return None
    wrong.sort(key=lambda row: -max(row["probabilities"].values()))
    columns = ("text", "label", "predicted", "confidence", "where")
    rows = [
        [
            Cell(_cut(row["text"], EXCERPT)),
            Cell(str(row["label"])),
            Cell(row["predicted"]),
            Cell(percent(max(row["probabilities"].values())), max(row["probabilities"].values())),
            Cell(_place(row)),
        ]
        for row in wrong[:MISTAKES]
    ]
    return Table(t("Most confident mistakes"), [t(column) for column in columns], rows)


def _answers(predictions: Sequence[Mapping[str, Any]], language: Language) -> Table:
    t = language.text
    columns = list(dict.fromkeys(name for row in predictions[:ANSWERS] for name in row if name != "where"))
    rows = [[*(_value(row.get(name)) for name in columns), Cell(_place(row))] for row in predictions[:ANSWERS]]
    caption = ""
    if len(predictions) > ANSWERS:
        caption = t(
            "The first {count} of {all}; predictions.jsonl has all of them.",
            count=ANSWERS,
            all=f"{len(predictions):,}",
        )
    names = [language.name(name) for name in columns]
    return Table(t("Answers to single examples"), [*names, t("where")], rows, caption, filtered=True)


def _value(value: Any) -> Cell:
    if isinstance(value, bool | None):
        return Cell("–" if value is None else str(value))
    if isinstance(value, int | float):
        return Cell(f"{value:.4g}", float(value))
    if isinstance(value, dict):
        return Cell(_cut(", ".join(f"{name} {_value(item).text}" for name, item in value.items()), LONGEST))
    if isinstance(value, list):
        return Cell(_cut(" · ".join(_value(item).text for item in value), LONGEST))
    return Cell(_cut(str(value), LONGEST))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest].rstrip() + " …"


def _place(row: Mapping[str, Any]) -> str:
    return row["where"].rsplit("/", 1)[-1]  # the file and line; predictions.jsonl has the whole path
