"""Judge what a model directory holds: a classifier on labelled texts, a language model on prepared tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch

from lucidlm.core.config import Config
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.core.products import fast_products
from lucidlm.core.progress import say
from lucidlm.data.document import OnError
from lucidlm.data.loader import TokenCorpus
from lucidlm.data.split import Split
from lucidlm.data.tokenizer import Tokenizer
from lucidlm.evaluate.runner import Evaluation, Prediction, evaluate_classifier
from lucidlm.model.classify import TextClassifier
from lucidlm.model.directory import load_model
from lucidlm.model.heads import LanguageModel
from lucidlm.tasks import LabelledText
from lucidlm.train.finetune import FinetuneConfig, classification_task, read_split
from lucidlm.train.validation import validate

Part = Literal["auto", "all", "train", "validation", "test"]


class EvaluateConfig(Config):
    """What to judge on.

    Parameters
    ----------
    split: the part of `data` to judge on, as `split_of` cuts it with the shares the model was fine-tuned with. "auto" is
        "test" for the data that the model was fine-tuned on, and "all" for any other.
    baselines: also fit the baselines on the model's own training texts, which takes reading them again.
    """

    task: str
    data: str
    split: Part = "auto"
    text_field: str | None = None
    label_field: str | None = None
    encoding: str = "utf-8"
    on_error: OnError = "stop"
    baselines: bool = True
    device: str = "auto"
    seed: int = 0


def evaluate_directory(directory: str | Path, config: EvaluateConfig) -> tuple[Evaluation, list[Prediction]]:
    """Judge the classifier in `directory` on labelled texts.

    Raises
    ------
    InputError: model or data cannot be used, a label is unknown, or the part asked for is empty.
    """
    task = classification_task(config.task)
    classifier = TextClassifier.from_pretrained(directory, choose_compute(config.device).device)
    tuned = _finetuning(directory, config.task)
    own = _same_source(config.data, tuned.data)
    part = ("test" if own else "all") if config.split == "auto" else config.split
    reading = tuned.changed(
        data=config.data,
        text_field=config.text_field,
        label_field=config.label_field,
        encoding=config.encoding,
        on_error=config.on_error,
    )
    parts = read_split(reading, task)
    examples = [example for found in parts.values() for example in found] if part == "all" else parts[part]
    if not examples:
        raise InputError(
            f"its part {part!r} holds no texts",
            where=config.data,
            fix="Choose another --split; the model was fine-tuned with nothing held out there.",
        )
    say(
        f"{config.data}: {len(examples):,} texts ({part})"
        + (", held out when the model was fine-tuned" if own and part == "test" else "")
    )
    training: list[LabelledText] = []
    if config.baselines:
        training = parts["train"] if own else read_split(tuned, task)["train"]
    with fast_products(classifier.model.model.embed_tokens.weight.device):
        return evaluate_classifier(
            classifier,
            examples,
            task,
            name=Path(directory).name or str(directory),
            data=f"{config.data} ({part})",
            training=training,
            seed=config.seed,
        )


def _same_source(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def _finetuning(directory: str | Path, task: str) -> FinetuneConfig:
    """Return the configuration that the model in `directory` was fine-tuned with."""
    provenance = load_model(directory, verify=False).record["provenance"]
    if provenance.get("task") != task:
        raise InputError(f"was fine-tuned for {provenance.get('task', 'nothing')}, not for {task}", where=directory)
    return FinetuneConfig.parse(provenance["config"], where=directory)


def evaluate_language_model(
    directory: str | Path, data: str | Path, part: Split = "test", device: str = "auto"
) -> dict[str, Any]:
    """Measure the loss, perplexity and bits per byte of a causal model on one part of prepared data.

    Raises
    ------
    InputError: the model is of another kind, or the data were made with another tokenizer.
    """
    loaded = load_model(directory)
    if not isinstance(loaded.model, LanguageModel) or not loaded.model.config.causal:
        raise InputError("is not a causal language model", where=directory, fix="Pass --task to judge a classifier.")
    if loaded.tokenizer is None or loaded.tokenizer.fingerprint != Tokenizer.load(data).fingerprint:
        raise InputError(
            "was prepared with another tokenizer than the model's",
            where=data,
            fix=f"Prepare it again with --tokenizer-from {directory}.",
        )
    target = choose_compute(device).device
    corpus = TokenCorpus.open(data, part)
    with torch.inference_mode(), fast_products(target):
        found = validate(
            loaded.model.to(target), [corpus], loaded.model.config.context_length, corpus.tokens, target, None
        )
    names = {"validation_loss": "loss"}
    return {
        "data": str(data),
        "part": part,
        "tokens": corpus.tokens,
        "bytes": corpus.bytes,
        **{names.get(name, name): value for name, value in found.items()},
    }
