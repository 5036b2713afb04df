"""Our figures beside lm-evaluation-harness's own backend for transformers: same weights, same tasks, same numbers."""

from __future__ import annotations

import json
import logging
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.unit.inference.test_end_of_text import DOG, IM_END, saying, tokenizer_with

from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import main
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install 'lucidlm[eval]'")
pytestmark = pytest.mark.filterwarnings("default")  # the harness and what it imports warn of each other

PAIRS, TOPICS, TEXTS = 40, 24, 4
OTHER_END = 286
"""A word, which some file says ends texts."""
TASKS = ["pairs", "topics", "topics_shots", "continued", "pages"]


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks with their data: minimal pairs, multiple choice with and without examples, rolling, writing."""
    folder = tmp_path_factory.mktemp("harness-tasks")
    pairs = read(shared_data / "benchmarks" / "blimp-100-each.jsonl")
    news = read(shared_data / "classification" / "ag-news-7600" / "test.jsonl")
    wiki = (shared_data / "pretraining" / "wikitext2.test.txt").read_text(encoding="utf-8")
    draw = random.Random(0)
    write(folder / "pairs.jsonl", draw.sample(pairs, PAIRS))
    write(folder / "news.jsonl", draw.sample(news, TOPICS))
    write(folder / "shots.jsonl", draw.sample(news, 8))
    write(folder / "pages.jsonl", [{"page": wiki[start : start + 1500]} for start in range(0, TEXTS * 1500, 1500)])
    topics = sorted({row["label"] for row in news})
    choice = {"output_type": "multiple_choice", "doc_to_choice": topics, "doc_to_target": "label"}
    choice["doc_to_text"] = "{{text}}\nTopic: "  # the space belongs to the choice
    rolling = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    shots = {"validation_split": "validation", "fewshot_split": "validation", "num_fewshot": 2}
    define(
        folder,
        "pairs",
        "pairs",
        output_type="multiple_choice",
        doc_to_text="",
        doc_to_target=0,
        doc_to_choice="{{[good, bad]}}",
    )
    define(folder, "topics", "news", **choice)
    define(folder, "topics_shots", "news", {"validation": str(folder / "shots.jsonl")}, **choice, **shots)
    define(
        folder,
        "pages",
        "pages",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{page}}",
        metric_list=rolling,
    )
    define(
        folder,
        "continued",
        "news",
        output_type="generate_until",
        doc_to_text="{{text}}",
        doc_to_target="label",
        generation_kwargs={"until": [" t", "\n\n"], "max_gen_toks": 24, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )
    return folder


def define(folder: Path, name: str, data: str, more: dict[str, str] | None = None, **fields: Any) -> None:
    """Write a task that reads a file of this folder."""
    files = {"test": str(folder / f"{data}.jsonl"), **(more or {})}
    base = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**base, **fields}), encoding="utf-8")


@pytest.fixture(scope="module")
def directory(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of a short context, whose predictions differ, with a tokenizer of real text."""
    directory = tmp_path_factory.mktemp("harness-model")
    wiki = (shared_data / "pretraining" / "wikitext2.valid.txt").read_text(encoding="utf-8")[:200_000]
    tokenizer = Tokenizer.train_bpe([wiki], 600)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=32, num_heads=2, num_layers=2, ff_dim=64, context_length=160
    )
    model = LanguageModel(shape, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    save_model(model, directory, tokenizer)
    return directory


def test_scores_and_likelihoods_are_those_of_the_harness(folder: Path, directory: Path, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from lucidlm.evaluate.harness import RESULTS, run_harness

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    ours = run_harness(directory, TASKS, include=folder, device="cpu", out=tmp_path)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    peer = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=8)
    theirs: Any = simple_evaluate(peer, tasks=TASKS, task_manager=manager, bootstrap_iters=0)
    for task in TASKS:
        for one, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert one["arguments"] == other["arguments"]
            if task == "continued":
                assert one["resps"] == other["resps"]
            else:
                assert flat(one["resps"]) == pytest.approx(flat(other["resps"]), abs=1e-4, rel=1e-6)
        for name, value in theirs["results"][task].items():
            if name.startswith(("acc,", "acc_norm,", "exact_match,")):
                assert ours["results"][task][name] == value
            elif isinstance(value, float) and "stderr" not in name:
                assert ours["results"][task][name] == pytest.approx(value, rel=1e-5)
    assert any("".join(flat_text) for sample in ours["samples"]["continued"] for flat_text in sample["resps"])
    written = json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))
    assert written["results"].keys() == set(TASKS)
    assert "samples" not in written


def flat(answers: Any) -> list[float]:
    """Return the numbers of nested answers: log-probabilities, and 1 for greedy ones."""
    return [float(answers)] if not isinstance(answers, list | tuple) else [x for part in answers for x in flat(part)]


def test_unknown_tasks_are_named_with_likely_ones(folder: Path, directory: Path) -> None:
    from lucidlm.evaluate.harness import run_harness

    with pytest.raises(InputError, match=r"no task 'topic'.*\n?.*topics"):
        run_harness(directory, ["topic"], include=folder, device="cpu")


def test_data_that_are_not_there_are_named(folder: Path, directory: Path, tmp_path: Path) -> None:
    from lucidlm.evaluate.harness import run_harness

    define(tmp_path, "nowhere", "nowhere", output_type="loglikelihood_rolling", doc_to_target="{{page}}")
    with warnings.catch_warnings(), pytest.raises(InputError, match="nowhere cannot be loaded"):
        run_harness(directory, ["nowhere"], include=tmp_path, device="cpu")


def test_the_command_prints_the_figures(
    folder: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--lm-eval", "pairs, pages", "--lm-eval-include", str(folder), "--limit", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["lucidlm", "evaluate", str(directory), *flags, "--device", "cpu"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    assert "|pairs" in printed
    assert "word_perplexity" in printed
    assert (tmp_path / "harness.json").is_file()


def test_without_the_harness_it_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lucidlm.evaluate.harness import run_harness

    monkeypatch.setattr("lucidlm.core.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lucidlm\[eval\]'"):
        run_harness(directory, ["pairs"])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("end", [IM_END, OTHER_END])
def test_each_end_of_a_text_ends_what_is_written(end: int, tmp_path: Path) -> None:
    """Also one that is no control token, which decoding would show, and a stop that is one, which it would not."""
    from lm_eval.api.instance import Instance

    from lucidlm.evaluate.harness_model import HarnessModel

    tokenizer = tokenizer_with(eos_token="<|im_end|>")
    word = tokenizer.encode(" fox")[0]
    save_model(saying(word, DOG, end, ends=(OTHER_END, IM_END)), tmp_path, tokenizer)
    model = HarnessModel(tmp_path, device="cpu")
    settings = {"until": ["\n\n"], "max_gen_toks": 9}
    request = Instance("generate_until", {}, ("the", settings), 0)
    assert model.generate_until([request], disable_tqdm=True) == [" fox dog"]
    stopped = Instance("generate_until", {}, ("the", {**settings, "until": ["dog<|im_end|>"]}), 0)
    assert model.generate_until([stopped], disable_tqdm=True) == [" fox " if end == IM_END else " fox dog"]
