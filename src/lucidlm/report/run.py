"""The report of one or more runs: from their files to the blocks of a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lucidlm.core.amounts import count, size
from lucidlm.core.flat import flattened
from lucidlm.data.corpus.cards import DataCard
from lucidlm.model.flops import count_parameters
from lucidlm.report.energy import estimate_energy
from lucidlm.report.evaluation import evaluation_blocks, figure, key_figures, unknown_fact
from lucidlm.report.files import Run, RunKind, read_run
from lucidlm.report.label_curve import curve_blocks
from lucidlm.report.language import Language
from lucidlm.report.page import (
    Block,
    Cell,
    Facts,
    Heading,
    KeyFigure,
    KeyFigures,
    LineChart,
    Page,
    Samples,
    Series,
    Table,
)
from lucidlm.tokenize.unknown import Unknown
from lucidlm.train.metrics_log import ROLL_BACK, SPIKE
from lucidlm.version import __version__

RATIO = "update_ratio_"
"""How the figures of `lucidlm.train.update_ratio` begin, each followed by a part of the model."""


def report_run(
    directories: Sequence[str | Path], out: str | Path, language: Language | None = None, title: str | None = None
) -> None:
    """Write a report of one run, of a model's pretraining and fine-tuning, or of several runs side by side.

    Runs of the same kind share charts. Sections without data are left out.

    Raises
    ------
    InputError: a directory is not of a run, or a file in it is damaged.
    """
    language = language or Language()
    runs = [read_run(directory) for directory in directories]
    build_page(runs, language, title).write(out, language)


def build_page(runs: Sequence[Run], language: Language, title: str | None = None) -> Page:
    """Return the report page of `runs`, the most important blocks first."""
    t = language.text
    groups: dict[RunKind, list[Run]] = {
        "tuned": [run for run in runs if run.kind == "tuned"],
        "language": [run for run in runs if run.kind == "language"],
    }
    compared = any(sum(bool(run.steps or run.record) for run in group) > 1 for group in groups.values())
    blocks: list[Block] = []
    if not compared and (figures := list(_key_figures(runs, language))):
        blocks.append(KeyFigures(figures))
    if compared:
        blocks.append(_run_table(runs, language))
    for run in runs:
        if run.evaluation is not None:
            blocks += evaluation_blocks(run.name, run.evaluation, run.predictions, language)
    for run in runs:
        if run.curve is not None:
            lead = t("The same held-out examples judge what was learned from few labels and from more.")
            blocks += [Heading(t("What labels are worth"), lead), *curve_blocks(run.curve, language)]
    written = [(run, run.samples) for run in runs if run.samples]
    if written:
        blocks.append(
            Heading(t("What it writes"), t("Each text begins with the prompt, in bold; the rest is the model's."))
        )
        blocks += [Samples(run.name, [(row["prompt"], _rest(row)) for row in rows]) for run, rows in written]
    for kind in ("language", "tuned"):
        if charts := list(_charts(groups[kind], language)):
            stage = t("Pretraining") if kind == "language" else t("Fine-tuning")
            lead = t("Faint: each step. Bold: running mean. Dots: measured on held-out text.")
            blocks += [Heading(f"{t('How it learned')} · {stage}", lead), *charts]
            blocks += [_spikes(run, language) for run in groups[kind] if run.events]
    cards = {digest: card for run in runs for digest, card in run.cards.items()}
    if cards:
        blocks.append(Heading(t("What it learned from")))
        for card in cards.values():
            blocks += _data_card(card, language)
    blocks.append(Heading(t("Where it comes from")))
    for run in runs:
        blocks += _origin(run, language)
    for machine in _machines(runs):
        blocks.append(Facts(t("Machine"), [(name.replace("_", " "), _plain(value)) for name, value in machine.items()]))
    heading = title or (t("Comparison of {count} runs", count=len(runs)) if compared else t("Training report"))
    lead = t(
        "What was trained, on what, how well it does, and what it took. "
        "Every figure comes from files in the run's directory."
    )
    if machines := _machines(runs):
        lead += t(
            " Made on {machine}.", machine="; ".join(dict.fromkeys(_named(machine, language) for machine in machines))
        )
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Page(heading, lead, blocks, t("Written by lucidlm {version} on {date}.", version=__version__, date=date))


def _named(machine: Mapping[str, Any], language: Language) -> str:
    """Return what trained or judged: the accelerator, or else the processor and its cores."""
    accelerator = str(machine.get("accelerator", "none"))
    return language.processor(machine) if accelerator == "none" else accelerator


def _key_figures(runs: Sequence[Run], language: Language) -> Iterator[KeyFigure]:
    t = language.text
    for run in runs:
        if run.evaluation is not None:
            yield from key_figures(run.evaluation, language)
    for run in runs:
        if run.kind == "language":
            if (bits := run.latest("bits_per_byte")) is not None:
                yield KeyFigure(f"{bits:.3f}", t("bits per byte"), t("of held-out text; lower is better"))
            if (perplexity := run.latest("perplexity")) is not None:
                yield KeyFigure(f"{perplexity:,.1f}", t("perplexity"), t("per token of held-out text"))
            if (model := run.model) is not None:
                detail = t(
                    "{layers} layers, {width} wide, vocabulary of {vocabulary}",
                    layers=model.num_layers,
                    width=model.embedding_dim,
                    vocabulary=count(model.vocab_size),
                )
                yield KeyFigure(count(count_parameters(model)), t("parameters"), detail)
    if seconds := sum(run.seconds or 0 for run in runs):
        steps, tokens = (sum(run.latest(key) or 0 for run in runs) for key in ("step", "tokens"))
        detail = t("{tokens} tokens in {steps} steps", tokens=count(tokens), steps=count(steps))
        yield KeyFigure(language.duration(seconds), t("of training"), detail)
        timed = [(run.seconds, _machines([run])) for run in runs if run.seconds]
        if all(machines for _, machines in timed):
            energy = sum(estimate_energy(taken, machines[0]).watt_hours for taken, machines in timed)
            detail = t("not measured: assumes {watts} W at full load", watts=f"{3600 * energy / seconds:.0f}")
            yield KeyFigure(f"{energy:.1f} Wh", t("electricity (estimate)"), detail)


def _run_table(runs: Sequence[Run], language: Language) -> Table:
    t = language.text
    columns = (
        "run",
        "kind",
        "parameters",
        "steps",
        "tokens",
        "training time",
        "validation loss",
        "bits per byte",
        "perplexity",
        "validation result",
        "test result",
    )
    rows = []
    for run in runs:
        parameters = count_parameters(run.model) if run.model is not None and run.kind == "language" else None
        rows.append(
            [
                Cell(run.name),
                Cell(t("language model") if run.kind == "language" else t("fine-tuned model")),
                _cell(parameters, count),
                _cell(run.latest("step"), count),
                _cell(run.latest("tokens"), count),
                _cell(run.seconds, language.duration),
                _cell(run.latest("validation_loss"), "{:.4f}".format),
                _cell(run.latest("bits_per_byte"), "{:.4f}".format),
                _cell(run.latest("perplexity"), "{:,.2f}".format),
                _validated(run, language),
                _tested(run, language),
            ]
        )
    shared_kind = len({run.kind for run in runs}) == 1
    kept = [
        index
        for index, column in enumerate(columns)
        if any(row[index].text != "–" for row in rows) and not (column == "kind" and shared_kind)
    ]
    return Table(t("All runs"), [t(columns[index]) for index in kept], [[row[index] for index in kept] for row in rows])


def _validated(run: Run, language: Language) -> Cell:
    """Return the first of a run's validation metrics other than the loss."""
    for name in run.validated:
        if (value := run.latest(f"validation_{name}")) is not None:
            return Cell(f"{language.name(name)} {value:.3f}", value)
    return Cell("–", float("-inf"))


def _tested(run: Run, language: Language) -> Cell:
    if run.evaluation is None:
        return Cell("–", float("-inf"))
    first = run.evaluation.first
    value = run.evaluation.model.metrics[first.name].value
    return Cell(f"{language.name(first.name)} {figure(value, first)}", value)


def _cell(value: float | None, write: Any) -> Cell:
    return Cell("–", float("-inf")) if value is None else Cell(write(value), float(value))


def _rest(sample: Mapping[str, str]) -> str:
    """Return the generated text without the prompt, which may or may not be stored with it."""
    return sample["text"].removeprefix(sample["prompt"])


def _charts(runs: Sequence[Run], language: Language) -> Iterator[LineChart]:
    """Yield the charts of runs of one kind: a line per run, or training and validation together for a single run."""
    t = language.text
    alone = len(runs) == 1

    def series(
        key: str, name: str | None = None, *, logged: str = "steps", smooth: bool = False, marks: bool = False
    ) -> list[Series]:
        found = []
        for run in runs:
            rows = [row for row in getattr(run, logged) if row.get(key) is not None]
            if rows:
                x, y = [row["step"] for row in rows], [row[key] for row in rows]
                found.append(Series(name if name and alone else run.name, x, y, smooth, marks))
        return found

    training = series("train_loss", t("training"), smooth=True)
    validation = series("validation_loss", t("validation"), logged="evaluations", marks=True)
    losses = (
        [("Loss", [*training, *validation, *_marks(runs[0], language)])]
        if alone
        else [("Training loss", training), ("Validation loss", validation)]
    )
    for title, lines, unit in (
        *((title, lines, "nats") for title, lines in losses),
        ("Bits per byte of held-out text", series("bits_per_byte", logged="evaluations", marks=True), "bits"),
        ("Learning rate", series("learning_rate"), ""),
        ("Gradient norm", [*series("grad_norm", t("before clipping"), smooth=True), *_clip(runs, language)], "norm"),
        ("Throughput", series("tokens_per_second", smooth=True), "tokens per second"),
    ):
        if lines:
            yield LineChart(t(title), lines, t("step"), t(unit) if unit else "")
    parts = list(dict.fromkeys(key for run in runs for row in run.steps for key in row if key.startswith(RATIO)))
    for shown in [parts] if alone else [[part] for part in parts]:
        if lines := [line for part in shown for line in series(part, t(part.removeprefix(RATIO)))]:
            title = t("Update to weight") + ("" if alone else f" · {t(shown[0].removeprefix(RATIO))}")
            steps = [step for line in lines for step in line.x]
            usual = Series(t("rule of thumb"), [min(steps), max(steps)], [1e-3, 1e-3])
            caption = t("How far a step moves the weights: the norm of the update over that of the weights.")
            yield LineChart(title, [*lines, usual], t("step"), "", log=True, caption=caption)
    for name in dict.fromkeys(name for run in runs for name in run.validated):
        lines = series(f"validation_{name}", logged="evaluations", marks=True)
        yield LineChart(f"{t('Validation')} · {language.name(name)}", lines, t("step"), "")


def _marks(run: Run, language: Language) -> Iterator[Series]:
    """Yield the spikes of a run's loss as dots: those that it went through, and those that it went back from."""
    t = language.text
    for event, name, place in ((SPIKE, "spike", "step"), (ROLL_BACK, "went back from here", "at")):
        if rows := [row for row in run.events if row["event"] == event]:
            y = [row.get("loss", math.inf) for row in rows]
            yield Series(t(name), [row[place] for row in rows], y, scattered=True)


def _spikes(run: Run, language: Language) -> Table:
    """Return the spikes of a run, and what was done about each."""
    t = language.text
    rows = []
    for row in run.events:
        done = t("went on")
        if row["event"] == ROLL_BACK:
            to, first, last = (f"{number:,}" for number in (row["to"], *row["skipped"]))
            done = t("back to step {step}, batches {first} to {last} skipped", step=to, first=first, last=last)
        loss = _cell(row["loss"], "{:.4f}".format) if "loss" in row else Cell(t("not finite"), math.inf)
        rows.append([_cell(row.get("at", row["step"]), count), loss, Cell(done)])
    return Table(f"{t('Loss spikes')} · {run.name}", [t("step"), t("loss"), t("what was done")], rows)


def _clip(runs: Sequence[Run], language: Language) -> Iterator[Series]:
    """Yield the norm that gradients are clipped to as a line, where the runs have one and it was reached."""
    clips = {run.config.get("loop", {}).get("clip") for run in runs}
    rows = [row for run in runs for row in run.steps if row.get("grad_norm") is not None]
    clip = clips.pop() if len(clips) == 1 else None
    if clip is not None and any(row["grad_norm"] > clip for row in rows):
        steps = [row["step"] for row in rows]
        yield Series(language.text("clipped to"), [min(steps), max(steps)], [clip, clip])


def _data_card(card: DataCard, language: Language) -> Iterator[Block]:
    t = language.text
    rows = [
        [
            Cell(source.uri),
            Cell(source.licence or t("not stated")),
            _cell(source.documents, "{:,}".format),
            _cell(source.bytes, size),
            Cell(source.sha256[:16] + "…"),
        ]
        for source in card.sources
    ]
    columns = (t("source"), t("licence"), t("documents"), t("size"), "sha256")
    yield Table(f"{t('Sources')} · {card.name}", columns, rows)
    rows = [
        [
            Cell(step.name),
            _cell(step.documents_in, "{:,}".format),
            _cell(step.documents_out, "{:,}".format),
            _cell(step.documents_in - step.documents_out, "{:,}".format),
            Cell(", ".join(f"{name}: {number:,}" for name, number in step.counts.items())),
        ]
        for step in card.steps
    ]
    columns = ("name", "documents in", "documents out", "left out", "other counts")
    yield Table(t("What each step kept"), [t(column) for column in columns], rows)
    yield Facts(
        t("Splits"),
        [
            (
                t(name),
                f"{split.documents:,} {t('documents')} · {count(split.tokens)} {t('tokens')} · {size(split.bytes)}",
            )
            for name, split in card.splits.items()
        ]
        + [(t("split by"), card.split_by)],
    )
    tokenizer = card.tokenizer
    unknown = Unknown(
        characters=tokenizer.unknown,
        of=tokenizer.characters,
        first=tokenizer.first_unknown,
        where=tokenizer.first_unknown_at,
    )
    yield Facts(
        t("Tokenizer"),
        [
            (t("kind"), tokenizer.kind),
            (t("vocabulary"), f"{tokenizer.vocab_size:,}"),
            (t("bytes per token"), f"{tokenizer.bytes_per_token:.2f}"),
            *unknown_fact(unknown, language),
        ],
    )


def _origin(run: Run, language: Language) -> Iterator[Block]:
    """Yield the provenance of a run: its record and configuration."""
    t = language.text
    provenance = run.provenance
    known = [
        ("directory", str(run.directory)),
        ("version", run.record.get("version")),
        ("task", language.name(provenance.get("task", ""))),
        ("labels", ", ".join(run.record.get("labels", []))),
        ("data", provenance.get("data")),
        ("seed", provenance.get("seed")),
        ("evaluation data", run.evaluation and run.evaluation.data),
        ("sha256 of the evaluation data", run.evaluation and run.evaluation.data_sha256),
    ]
    facts = [(t(name), _plain(value)) for name, value in known if value not in (None, "")]
    facts += unknown_fact(Unknown(**provenance.get("unknown", {})), language)
    yield Facts(f"{t('Provenance')} · {run.name}", facts)
    if run.config:
        settings = [(name, _plain(value)) for name, value in flattened(run.config)]
        yield Facts(f"{t('Configuration')} · {run.name}", settings, folded=True)


def _machines(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Return the distinct machines that the runs used."""
    found: list[Mapping[str, Any]] = []
    for run in runs:
        machine = run.provenance.get("machine") or (run.evaluation and run.evaluation.machine)
        if machine and machine not in found:
            found.append(machine)
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
