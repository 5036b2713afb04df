"""The functions of `import lucidlm`: they do what the commands do, and name what is wrong with a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.api.conftest import Made

import lucidlm
from lucidlm import InputError, InputTypeError
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.pretrain.run import PretrainConfig

SHAPE: dict[str, Any] = {"num_layers": 2, "embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "context": 64}


def test_keywords_reach_their_fields(made: Made) -> None:
    pretrained = PretrainConfig.load(made.model.path / "config.yaml")
    assert (pretrained.shape.ff_dim, pretrained.context_length, pretrained.loop.max_steps) == (64, 64, 12)
    tuned = FinetuneConfig.load(made.judge.path / "config.yaml")
    assert (tuned.loop.optimizer.learning_rate, tuned.loop.seed, tuned.loop.max_steps) == (1e-3, 3, 4)
    assert tuned.loop.evaluations == 3  # what is not given stays as fine-tuning has it


def test_every_run_leaves_its_report(made: Made) -> None:
    for report in (made.model.report, made.judge.report, made.judged.report):
        assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_saved_configuration_is_replayed_and_what_is_given_wins(made: Made, tmp_path: Path) -> None:
    lucidlm.finetune(config=made.judge.path / "config.yaml", out=tmp_path / "again", max_steps=2)
    again = FinetuneConfig.load(tmp_path / "again" / "config.yaml")
    assert (again.loop.max_steps, again.loop.seed, again.task) == (2, 3, "sentiment")


def test_fields_of_the_data_are_named_as_by_flags(made: Made, tmp_path: Path) -> None:
    data = tmp_path / "renamed.csv"
    data.write_text(made.reviews.read_text(encoding="utf-8").replace("text,label", "review,mood", 1), encoding="utf-8")
    names = {"text_field": "review", "label_field": "mood"}
    lucidlm.finetune("sentiment", model=made.model.path, data=data, out=tmp_path / "judge", max_steps=1, **names)
    saved = yaml.safe_load((tmp_path / "judge" / "config.yaml").read_text(encoding="utf-8"))
    assert saved["fields"] == {"text": "review", "label": "mood"}


def test_a_finished_run_is_not_resumed_under_other_settings(made: Made) -> None:
    with pytest.raises(InputError, match="other settings"):
        lucidlm.finetune(out=made.judge.path, resume=True, seed=4)


def test_several_corpora_are_mixed(made: Made, tmp_path: Path) -> None:
    shares = {str(made.data.path): 0.5}
    lucidlm.pretrain(shares, out=tmp_path / "mixed", **SHAPE, batch_size=2, max_steps=1)
    assert PretrainConfig.load(tmp_path / "mixed" / "config.yaml").data == shares


def test_models_are_exported_and_compared(made: Made, tmp_path: Path) -> None:
    out = lucidlm.export(made.model.path, to="hf", out=tmp_path / "hf", dtype="bf16")
    assert (out / "config.json").exists()
    with pytest.raises(InputError, match="there is no exporter called 'gguff'"):
        lucidlm.export(made.model.path, to="gguff", out=tmp_path / "other")
    lucidlm.evaluate(made.judge.path, task="sentiment", data=made.reviews, out=tmp_path / "judged", baselines=False)
    found = lucidlm.compare(made.judge.path, tmp_path / "judged")
    assert found.differences[0].comparison.difference.value == 0
    with pytest.raises(InputError, match="two evaluations or more"):
        lucidlm.compare(made.judge.path)


def test_models_that_are_open_are_explained_as_they_are(made: Made) -> None:
    loaded = lucidlm.load_model(made.judge.path)
    open_, closed = (lucidlm.explain(model, "A dull film", method="occlusion") for model in (loaded, made.judge.path))
    assert open_.to_dict() == closed.to_dict()


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "finetune",
        {"task": "sentiment", "lerning_rate": 1},
        InputError,
        r"lerning_rate: .* Did you mean learning_rate\?",
    ),
    ("finetune", {"task": 5}, InputTypeError, r"task: is 5, of type int"),
    ("finetune", {"task": "sentiment", "model": None}, InputError, r"model: is needed"),
    ("finetune", {"task": "sentiment", "epochs": "many"}, InputError, r"epochs: .* \(given: 'many'\)"),
    ("finetune", {"task": "sentiment", "data": ["a.csv"]}, InputTypeError, r"data: is \['a.csv'\], of type list"),
    ("pretrain", {"model": None, "data": 5}, InputTypeError, r"data: is 5"),
    ("prepare", {"model": None, "data": None, "sources": 5}, InputTypeError, r"sources: is 5"),
    (
        "prepare",
        {"model": None, "data": None, "sources": "a", "vocabsize": 5},
        InputError,
        r"Did you mean vocab_size\?",
    ),
    ("label_curve", {"task": "sentiment", "test_data": "a", "shots": "8,32"}, InputTypeError, r"shots: is '8,32'"),
    ("evaluate", {"task": "sentiment", "splitt": "all", "out": None}, InputError, r"Did you mean split\?"),
    ("evaluate", {"limit": 5, "out": None}, InputError, r"limit: is a setting of tasks"),
    ("explain", {"text": 5, "data": None, "out": None}, InputTypeError, r"text: is 5"),
    ("explain", {"text": "a", "method": "magic", "data": None, "out": None}, InputError, r"no method 'magic'"),
]


@pytest.mark.parametrize(("name", "arguments", "kind", "message"), WRONG)
def test_what_is_wrong_with_a_call_is_named(
    name: str, arguments: dict[str, Any], kind: type[Exception], message: str, made: Made, tmp_path: Path
) -> None:
    usual = {"model": made.model.path, "data": made.reviews, "out": tmp_path / "out"}
    called = {key: value for key, value in {**usual, **arguments}.items() if value is not None}
    with pytest.raises(kind, match=message):
        getattr(lucidlm, name)(**called)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["load_model", "load_tokenizer"])
def test_a_source_is_a_path(name: str) -> None:
    with pytest.raises(InputTypeError, match="is 5, of type int"):
        getattr(lucidlm, name)(5)


def test_one_list_of_evaluations_is_taken_apart_by_the_caller() -> None:
    with pytest.raises(InputTypeError, match=r"compare\('a', 'b'\)"):
        lucidlm.compare(["a", "b"])  # type: ignore[arg-type]
