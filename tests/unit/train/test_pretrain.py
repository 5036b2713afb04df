"""Pretraining: what is hidden, what is refused, what is left behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import tiny_pretraining

from lucidlm.checkpoint.load import load_model
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.data.corpus.cards import CARD
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.pretrain.config import PretrainConfig, ShapeConfig
from lucidlm.train.pretrain.run import mask_tokens, pretrain

# ---------------------------------------------------------------------- what a masked model sees


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_characters(["abcdefghijklmnopqrstuvwxyz" * 4])


def masked(tokenizer: Tokenizer, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(6, tokenizer.vocab_size, (200, 500), generator=torch.Generator().manual_seed(9))
    return tokens, *mask_tokens(tokens, share, tokenizer, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.15, 0.3, 0.9])
def test_a_share_is_hidden_and_only_that_is_asked_for(tokenizer: Tokenizer, share: float) -> None:
    tokens, seen, targets = masked(tokenizer, share)
    counted = targets != IGNORE_INDEX
    assert counted.float().mean().item() == pytest.approx(share, abs=0.01)
    assert torch.equal(targets[counted], tokens[counted])
    assert torch.equal(seen[~counted], tokens[~counted])


def test_of_the_hidden_8_in_10_become_the_mask_and_1_in_10_another_token(tokenizer: Tokenizer) -> None:
    tokens, seen, targets = masked(tokenizer, 0.3)
    counted = targets != IGNORE_INDEX
    mask = seen[counted] == tokenizer.mask_id
    same = seen[counted] == tokens[counted]
    vocabulary = tokenizer.vocab_size
    assert mask.float().mean().item() == pytest.approx(0.8 + 0.1 / vocabulary, abs=0.01)
    assert same.float().mean().item() == pytest.approx(0.1 + 0.1 / vocabulary, abs=0.01)
    assert len(seen[counted][~mask & ~same].unique()) > vocabulary / 2


def test_masks_repeat_with_their_generator(tokenizer: Tokenizer) -> None:
    assert torch.equal(masked(tokenizer, 0.3, 1)[1], masked(tokenizer, 0.3, 1)[1])
    assert not torch.equal(masked(tokenizer, 0.3, 1)[2], masked(tokenizer, 0.3, 2)[2])


def test_something_always_counts(tokenizer: Tokenizer) -> None:
    _, targets = mask_tokens(torch.full((1, 4), 7), 1e-9, tokenizer, torch.Generator().manual_seed(0))
    assert int((targets != IGNORE_INDEX).sum()) == 1


# ---------------------------------------------------------------------- a run


def test_a_run_leaves_a_model_that_knows_where_it_comes_from(tiny_model: Path, tiny_data: Path) -> None:
    loaded = load_model(tiny_model)
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.fingerprint == Tokenizer.load(tiny_data).fingerprint
    provenance = loaded.record["provenance"]
    assert provenance["task"] == "pretraining (causal)"
    assert provenance["data"] == {str(tiny_data): sha256(tiny_data / CARD)}
    assert provenance["seed"] == 0
    assert {"steps", "tokens", "training_seconds", "validation_loss", "bits_per_byte"} <= provenance["metrics"].keys()
    assert {"cpu", "cores", "torch"} <= provenance["machine"].keys()
    assert loaded.record["version"]
    saved = PretrainConfig.load(tiny_model / "config.yaml")
    assert PretrainConfig(**provenance["config"]) == saved
    assert saved.model == loaded.model.config
    assert len((tiny_model / "metrics.jsonl").read_text().splitlines()) == 12 + 2


def test_it_learns(tmp_path: Path, tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, batch_size=8, loop={"max_steps": 60, "evaluations": 3})
    outcome = pretrain(config, tmp_path / "model")
    rows = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    first = next(row["train_loss"] for row in rows)
    assert outcome.evaluation["validation_loss"] < 0.7 * first
    assert outcome.evaluation["bits_per_byte"] < 8


def test_the_same_run_gives_the_same_bits_and_another_seed_others(
    tmp_path: Path, tiny_data: Path, tiny_model: Path
) -> None:
    pretrain(tiny_pretraining(tiny_data), tmp_path / "same")
    pretrain(tiny_pretraining(tiny_data, loop={"seed": 1}), tmp_path / "other")
    weights = (tiny_model / "model.safetensors").read_bytes()
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights


def test_a_masked_model(tmp_path: Path, tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, objective="masked", micro_batch=3)
    outcome = pretrain(config, tmp_path / "model")
    assert outcome.evaluation["validation_loss"] > 0
    assert "bits_per_byte" not in outcome.evaluation
    loaded = load_model(tmp_path / "model")
    assert not loaded.model.config.causal


def test_a_model_of_both_kinds(tmp_path: Path, tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, objective="hybrid", batch_size=8, loop={"max_steps": 60, "evaluations": 1})
    outcome = pretrain(config, tmp_path / "model")
    assert outcome.evaluation["bits_per_byte"] < 8
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.tokenizer is not None
    assert loaded.model.config.causal
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "llama"
    # Seeing both ways it fills a gap, told from the place before, better than by chance.
    corpus = TokenCorpus.open(tiny_data, "train")
    tokens = torch.from_numpy(np.asarray(corpus.shards[0][:2048], dtype=np.int64)).reshape(-1, 32)
    seen, targets = tokens.clone(), torch.full_like(tokens, IGNORE_INDEX)
    seen[:, 9], targets[:, 8] = loaded.tokenizer.mask_id, tokens[:, 9]
    nats, counted = loaded.model.loss(seen, targets, bidirectional=True)
    assert nats / counted < 0.8 * math.log(loaded.tokenizer.vocab_size)


def test_a_mixture(tmp_path: Path, tiny_data: Path, reviews_zh_jsonl: Path) -> None:
    other = tmp_path / "other"
    prepare(PrepareConfig(sources=[str(reviews_zh_jsonl)], tokenizer_from=str(tiny_data)), other)
    config = tiny_pretraining(tiny_data).changed(data={str(tiny_data): 3, str(other): 1})
    pretrain(config, tmp_path / "model")
    assert load_model(tmp_path / "model").record["provenance"]["data"].keys() == {str(tiny_data), str(other)}


# ---------------------------------------------------------------------- what is refused


def refused(tmp_path: Path, config: PretrainConfig, message: str) -> None:
    """Check that the run is refused with `message`, and leaves nothing that would be in the way of a corrected one."""
    with pytest.raises(InputError, match=message):
        pretrain(config, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_corpora_of_different_tokenizers(tmp_path: Path, tiny_data: Path, reviews_zh_jsonl: Path) -> None:
    other = tmp_path / "other"
    prepare(PrepareConfig(sources=[str(reviews_zh_jsonl)]), other)
    config = tiny_pretraining(tiny_data).changed(data={str(tiny_data): 1, str(other): 1})
    refused(tmp_path, config, r"--data: .*prepared with different tokenizers.*--tokenizer-from")


def test_samples_longer_than_the_context(tmp_path: Path, tiny_data: Path) -> None:
    model = ModelConfig(vocab_size=512, embedding_dim=8, num_heads=2, ff_dim=8, num_layers=1, context_length=32)
    refused(tmp_path, tiny_pretraining(tiny_data, model=model), r"samples of 64 tokens are longer.*context of 32")


def test_samples_longer_than_the_corpus(tmp_path: Path, tiny_data: Path) -> None:
    refused(tmp_path, tiny_pretraining(tiny_data, context_length=10**6), r"fewer than a window.*--context")


def test_a_width_that_heads_cannot_share(tmp_path: Path, tiny_data: Path) -> None:
    shape = ShapeConfig(embedding_dim=30, num_heads=4, num_layers=1)
    refused(tmp_path, tiny_pretraining(tiny_data, shape=shape), r"\(30\) is not divisible by num_heads \(4\)")


def test_a_vocabulary_smaller_than_the_tokenizers(tmp_path: Path, tiny_data: Path) -> None:
    model = ModelConfig(vocab_size=8, embedding_dim=8, num_heads=2, ff_dim=8, num_layers=1)
    refused(tmp_path, tiny_pretraining(tiny_data, model=model), r"vocabulary \(8\) is smaller than the tokenizer's")


def test_an_objective_that_the_model_is_not_made_for(tmp_path: Path, tiny_data: Path) -> None:
    model = ModelConfig(vocab_size=512, embedding_dim=8, num_heads=2, ff_dim=8, num_layers=1)
    refused(tmp_path, tiny_pretraining(tiny_data, model=model, objective="masked"), "needs model.causal to be False")


def test_data_of_which_nothing_is_held_out(tmp_path: Path, reviews_csv: Path) -> None:
    data = tmp_path / "data"
    prepare(PrepareConfig(sources=[str(reviews_csv)], tokenizer="characters", validation=0), data)
    refused(tmp_path, tiny_pretraining(data), "its validation split is empty")


def test_no_such_data(tmp_path: Path) -> None:
    refused(tmp_path, tiny_pretraining(tmp_path / "nowhere"), "nowhere")


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_that_mean_nothing(weight: float) -> None:
    with pytest.raises(InputError, match=r"data\.x"):
        PretrainConfig(data={"x": weight})


def test_no_data_at_all() -> None:
    with pytest.raises(InputError, match=r"data: .*at least 1 item"):
        PretrainConfig(data={})


def test_a_directory_that_holds_another_run_is_left_alone(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lucidlm.json").write_text("mine")
    with pytest.raises(InputError, match="holds a model already"):
        pretrain(tiny_pretraining(tiny_data), tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["lucidlm.json"]
