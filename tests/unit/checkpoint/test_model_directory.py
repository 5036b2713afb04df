"""Model directories: what is saved is what is loaded, and what is damaged is refused with one clear message."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lucidlm.checkpoint import save, shards
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.checkpoint.weights import load_weights
from lucidlm.core.errors import InputError, LucidError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

SIZE: dict[str, Any] = {"embedding_dim": 16, "num_heads": 2, "ff_dim": 24, "num_layers": 2, "context_length": 16}
CAUSAL = ModelConfig(vocab_size=280, **SIZE)
MASKED = ModelConfig.masked(vocab_size=280, **SIZE)
GPT2 = ModelConfig(
    vocab_size=280, **SIZE, norm="layer", position="learned", activation="gelu", bias=True, qk_norm=False
)
MODELS: dict[str, Callable[[], Model]] = {
    "language": lambda: LanguageModel(CAUSAL),
    "untied": lambda: LanguageModel(CAUSAL.changed(tied_embeddings=False)),
    "masked": lambda: LanguageModel(MASKED),
    "gpt2": lambda: LanguageModel(GPT2),
    "classifier": lambda: SequenceClassifier(CAUSAL, ["bad", "good", "好"], "mean"),
    "masked classifier": lambda: SequenceClassifier(MASKED, ["bad", "good"], "mean"),
    "tagger": lambda: TokenClassifier(CAUSAL, ["O", "B-人", "I-人"]),
    "masked tagger": lambda: TokenClassifier(MASKED, ["O", "B-X"]),
    "span": lambda: SpanExtractor(CAUSAL),
    "masked span": lambda: SpanExtractor(MASKED),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。" * 3], 270)


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(LanguageModel(CAUSAL), tmp_path / "model", tokenizer, provenance={"seed": 1, "data": "books"})
    return tmp_path / "model"


def refused(path: Path, *words: str, error: type[LucidError] = InputError) -> None:
    """Check that loading fails with one message that holds every word."""
    with pytest.raises(error) as caught:
        load_model(path)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_what_is_saved_is_what_is_loaded(make: Callable[[], Model], tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make()
    save_model(model, tmp_path, tokenizer, provenance={"seed": 7})
    loaded = load_model(tmp_path)
    assert type(loaded.model) is type(model)
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.record["provenance"] == {"seed": 7}
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("the lazy 世界") == tokenizer.encode("the lazy 世界")
    state = model.state_dict()
    assert loaded.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
    if isinstance(model, SequenceClassifier) and isinstance(loaded.model, SequenceClassifier):
        assert (loaded.model.labels, loaded.model.pooling) == (model.labels, model.pooling)
    if isinstance(model, TokenClassifier) and isinstance(loaded.model, TokenClassifier):
        assert loaded.model.labels == model.labels


def test_saving_twice_gives_the_same_files(saved: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    loaded = load_model(saved)
    save_model(loaded.model, tmp_path / "again", loaded.tokenizer, provenance=loaded.record["provenance"])
    assert sorted(path.name for path in saved.iterdir()) == sorted(path.name for path in (tmp_path / "again").iterdir())
    for path in saved.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_large_models_are_saved_in_shards(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 8_000)
    model = LanguageModel(CAUSAL)
    save_model(model, tmp_path, tokenizer)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    state = load_model(tmp_path).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    monkeypatch.undo()
    # A smaller model saved over it leaves none of the shards behind, and the other way round.
    save_model(LanguageModel(CAUSAL, seed=3), tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert not (tmp_path / "tokenizer.json").exists()
    names = sorted(load_model(tmp_path).model.state_dict())
    monkeypatch.setattr(shards, "SHARD_BYTES", 8_000)
    save_model(model, tmp_path, tokenizer)
    assert not (tmp_path / "model.safetensors").exists()
    assert sorted(load_model(tmp_path).model.state_dict()) == names


def test_places_that_are_no_model(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "no such model directory")
    (tmp_path / "file").write_text("text")
    refused(tmp_path / "file", "file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is not a model directory", "lucidlm.json", "--out")


def test_a_truncated_file(saved: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        data = (saved / name).read_bytes()
        (saved / name).write_bytes(data[:-10])
        refused(saved, name, "truncated")
        (saved / name).write_bytes(data)
    load_model(saved)


def test_a_flipped_byte_anywhere(saved: Path) -> None:
    chance = random.Random(0)
    for path in sorted(saved.iterdir()):
        if path.name == "generation_config.json":
            continue  # read by transformers only
        data = bytearray(path.read_bytes())
        for at in chance.sample(range(len(data)), 12):
            data[at] ^= 1
            path.write_bytes(data)
            refused(saved, path.name)
            data[at] ^= 1
        path.write_bytes(data)
    load_model(saved)


def test_a_missing_file(saved: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        (saved / name).rename(saved / "elsewhere")
        refused(saved, name, "missing")
        (saved / "elsewhere").rename(saved / name)


def test_a_newer_format(saved: Path) -> None:
    record = json.loads((saved / "lucidlm.json").read_text())
    (saved / "lucidlm.json").write_text(json.dumps({**record, "format": 2, "version": "9.0"}))
    refused(saved, "lucidlm.json", "format 2", "9.0", "Install")


def test_a_record_that_is_not_json(saved: Path) -> None:
    (saved / "lucidlm.json").write_text("{")
    refused(saved, "lucidlm.json", "JSON")
    (saved / "lucidlm.json").write_text("{}")
    refused(saved, "lucidlm.json", "format")


def test_pickles_are_refused(tmp_path: Path, saved: Path) -> None:
    with open(tmp_path / "weights.pkl", "wb") as file:
        pickle.dump({"a": 1}, file)
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("weights.pkl", "weights.pt", "old.safetensors"):
        with pytest.raises(InputError, match="pickle"):
            load_weights(tmp_path / name)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(saved / "config.json", theirs)
    shutil.copy(tmp_path / "weights.pt", theirs / "pytorch_model.bin")
    refused(theirs, "pickled weights", "pytorch_model.bin", "safetensors")
    shutil.copy(tmp_path / "weights.pt", theirs / "model.safetensors")
    refused(theirs, "is a pickle")


@pytest.fixture
def theirs(saved: Path) -> Path:
    """A directory as transformers writes it: without a record, and so without checksums."""
    (saved / "lucidlm.json").unlink()
    load_model(saved)
    return saved


def test_damaged_weights_without_checksums(theirs: Path) -> None:
    weights = theirs / "model.safetensors"
    data = weights.read_bytes()
    for damaged in (data[:-1], data[:100], data[:4], b"", b"\xff" * len(data), b"not weights at all"):
        weights.write_bytes(damaged)
        refused(theirs, "model.safetensors", "damaged")
    weights.unlink()
    refused(theirs, "has no model.safetensors")


def test_weights_of_another_shape(theirs: Path) -> None:
    state = load_file(theirs / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**state, name: torch.ones(23, 16)}, theirs / "model.safetensors")
    refused(theirs, name, "(23, 16)", "(24, 16)")
    save_file({**state, "model.layers.2.mlp.up_proj.weight": torch.ones(24, 16)}, theirs / "model.safetensors")
    refused(theirs, "unknown", "model.layers.2.mlp.up_proj.weight")
    save_file({key: value for key, value in state.items() if key != name}, theirs / "model.safetensors")
    refused(theirs, "missing", name)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(theirs: Path, tmp_path: Path, bad: float) -> None:
    state = load_file(theirs / "model.safetensors")
    state["model.norm.weight"][3] = bad
    save_file(state, theirs / "model.safetensors")
    refused(theirs, "model.norm.weight", "NaN")
    model = LanguageModel(CAUSAL)
    with torch.no_grad():
        model.model.norm.weight[3] = bad  # type: ignore[index, operator]
    with pytest.raises(LucidError, match=r"model\.norm\.weight"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "a\\b", "x" * 256]
)
def test_shards_outside_the_directory_are_refused(theirs: Path, name: str) -> None:
    shutil.copy(theirs / "model.safetensors", theirs.parent / "secret.safetensors")
    (theirs / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": name}}
    (theirs / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(theirs, "index.json", "not in the model directory")


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_shards(theirs: Path, index: str) -> None:
    (theirs / "model.safetensors").unlink()
    (theirs / "model.safetensors.index.json").write_text(index)
    refused(theirs, "index.json", "weight_map")


def test_families_and_features_that_are_not_known(theirs: Path) -> None:
    fields = json.loads((theirs / "config.json").read_text())
    for change, word in (
        ({"model_type": "mamba"}, "mamba"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rotary"),
        ({"use_sliding_window": True}, "sliding"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ):
        (theirs / "config.json").write_text(json.dumps({**fields, **change}))
        refused(theirs, "config.json", word)


def test_a_crash_while_saving_leaves_nothing_that_loads_as_something_else(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop the second of two saves before each of its writes: what then loads is the second model, or nothing."""
    first, second = LanguageModel(CAUSAL, seed=1), LanguageModel(CAUSAL, seed=2)
    writes = 0

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal writes
            writes -= 1
            if writes < 0:
                raise RuntimeError("the power went out")
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, write)

    for module, name in ((save, "write_json"), (shards, "atomic_path"), (save, "save_weights")):
        counted(module, name)
    for stop in range(20):
        path = tmp_path / str(stop)
        writes = 100
        save_model(first, path, tokenizer)
        writes = stop
        try:
            save_model(second, path, tokenizer)
        except RuntimeError:
            pass
        else:
            break
        try:
            loaded = load_model(path).model
        except InputError:
            continue
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), (stop, name)
    assert stop >= 5


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(LucidError, match="free") as error:
        save_model(LanguageModel(CAUSAL), tmp_path / "model")
    assert error.value.exit_code == 1
