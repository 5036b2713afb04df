"""Fine-tuning settings: each kind of task has its own, and refuses those of others by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lucidlm.core.errors import InputError
from lucidlm.data.examples.config import TunedOn
from lucidlm.train.finetune.config import (
    ClassificationConfig,
    FinetuneConfig,
    QuestionAnsweringConfig,
    RetrievalConfig,
    TextClassificationConfig,
    TextGenerationConfig,
)

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.yaml"))


def of(task: str, **fields: Any) -> FinetuneConfig:
    return FinetuneConfig(task=task, model="m", data="d", **fields)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("sentiment", TextClassificationConfig),
        ("text-classification", TextClassificationConfig),
        ("entailment", ClassificationConfig),
        ("multi-label", ClassificationConfig),
        ("translation", TextGenerationConfig),
        ("dialogue", TextGenerationConfig),
        ("question-answering", QuestionAnsweringConfig),
        ("semantic-search", RetrievalConfig),
        ("recommendation", RetrievalConfig),
        ("perplexity", FinetuneConfig),
    ],
)
def test_the_task_chooses_the_settings(task: str, kind: type[FinetuneConfig], tmp_path: Path) -> None:
    config = of(task)
    assert type(config) is kind
    config.save(tmp_path / "config.yaml")
    assert FinetuneConfig.load(tmp_path / "config.yaml") == config
    assert type(config.changed(batch_size=3)) is kind
    assert type(config.model_copy()) is kind


@pytest.mark.parametrize(
    ("task", "name", "value", "owner"),
    [
        ("sentiment", "temperature", 0.1, "search and recommendation"),
        ("sentiment", "synthetic", "a.txt", "question answering"),
        ("translation", "class_weights", "balanced", "text classification"),
        ("translation", "pooling", "mean", "text classification and similarity and search and recommendation"),
        ("translation", "on_conflict", "first", "text classification"),
        (
            "semantic-search",
            "label_smoothing",
            0.1,
            "text classification and text generation and question answering and token tagging",
        ),
        ("question-answering", "token_dropout", 0.1, "text classification and similarity"),
        ("perplexity", "temperature", 0.1, "search and recommendation"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(task: str, name: str, value: object, owner: str) -> None:
    with pytest.raises(InputError, match=f"{name} is a setting of {owner}, not of {task}"):
        of(task, **{name: value})


def test_what_is_no_setting_or_no_task_is_named() -> None:
    with pytest.raises(InputError, match="no_such: Extra inputs"):
        of("sentiment", no_such=1)
    with pytest.raises(InputError, match="nonsense"):
        of("nonsense")
    with pytest.raises(InputError, match="task: Field required"):
        FinetuneConfig(model="m", data="d", temperature=0.1)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_accepted(path: Path) -> None:
    if (fields := yaml.safe_load(path.read_text(encoding="utf-8")).get("finetune")) is not None:
        assert FinetuneConfig.parse({"model": "m", **fields}, where=path).task == fields["task"]


def test_a_run_of_an_earlier_version_is_still_evaluated() -> None:
    """Its record has the settings of all kinds of task, and names that are gone."""
    record = {**of("sentiment", shots=3).model_dump(mode="json"), "temperature": 0.05, "synthetic": None}
    tuned = TunedOn.from_run({**record, "strategy": "full"}, where="lucidlm.json")
    assert (tuned.task, tuned.shots, tuned.on_conflict) == ("sentiment", 3, "drop")
