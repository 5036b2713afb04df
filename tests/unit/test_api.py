"""`BigLanguageModel`: from its sizes to the text it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lucidlm
from lucidlm import BigLanguageModel, InputError, ModelConfig
from lucidlm.checkpoint.save import save_model
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SIZE = (300, 32, 4, 48, 2)
FIELDS: dict[str, Any] = dict(
    zip(("vocab_size", "embedding_dim", "num_heads", "ff_dim", "num_layers"), SIZE, strict=True)
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["The quick brown fox jumps over the lazy dog. 你好，世界。" * 3], 280)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model directory as training leaves it, with a context and a base of the rotations that are not the default."""
    path = tmp_path_factory.mktemp("model")
    save_model(LanguageModel(ModelConfig(**FIELDS, context_length=100, rope_theta=500.0), seed=5), path, tokenizer)
    return path


def test_the_sizes_are_those_of_the_arguments() -> None:
    with torch.device("meta"):
        model = BigLanguageModel(seed=None)
        by_name = BigLanguageModel(
            vocab_size=10000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6, seed=None
        )
        other = BigLanguageModel(*SIZE, seed=None)
    assert (
        model.config
        == by_name.config
        == ModelConfig(vocab_size=10_000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(model.config)
    assert other.config == ModelConfig(**FIELDS)


def test_further_fields_are_those_of_the_configuration() -> None:
    model = BigLanguageModel(*SIZE, num_kv_heads=2, context_length=50, position="learned")
    assert model.config == ModelConfig(**FIELDS, num_kv_heads=2, context_length=50, position="learned")
    with pytest.raises(InputError, match="not divisible"):
        BigLanguageModel(300, 30, 4, 48, 2)
    with pytest.raises(InputError, match="widht"):
        BigLanguageModel(widht=3)
    with pytest.raises(InputError, match="causal"):
        BigLanguageModel(*SIZE, causal=False)


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (BigLanguageModel(*SIZE, seed=seed).head for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_generate_returns_prompt_and_continuation(tokenizer: Tokenizer) -> None:
    model = BigLanguageModel(*SIZE, tokenizer=tokenizer)
    text = model.generate("The quick brown fox", length=50)
    assert text.startswith("The quick brown fox")
    assert len(text) > len("The quick brown fox")
    assert text == model.generate("The quick brown fox", 50)
    assert text != model.generate("The quick brown fox", 50, seed=1)
    assert text == "".join(model.stream("The quick brown fox", length=50))
    assert next(model.stream("The quick brown fox")) == "The quick brown fox"
    cut = model.generate("The", length=50, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, stop=("a", "e"))
    assert not set("ae") & set(cut.removeprefix("The"))


def test_control_tokens_may_be_typed_where_that_is_asked_for(tokenizer: Tokenizer) -> None:
    model = BigLanguageModel(*SIZE, tokenizer=tokenizer)
    typed = "<|im_start|>The"
    prompt = [tokenizer.core.token_to_id("<|im_start|>"), *tokenizer.encode("The")]
    expected = typed + generate(model, tokenizer, [prompt], SamplingConfig(length=20))[0].text
    assert model.generate(typed, length=20, special=True) == expected
    assert "".join(model.stream(typed, length=20, special=True)) == expected
    assert model.generate(typed, length=20) != expected


def test_generate_needs_a_tokenizer() -> None:
    model = BigLanguageModel(*SIZE)
    for call in (model.generate, model.stream):
        with pytest.raises(InputError, match=r"load_tokenizer.*load_weights"):
            call("The quick brown fox")


def test_wrong_settings_are_named(tokenizer: Tokenizer) -> None:
    model = BigLanguageModel(*SIZE, tokenizer=tokenizer)
    for call in (model.generate, model.stream):
        with pytest.raises(InputError, match="top_p"):
            call("The", top_p=3)
        with pytest.raises(InputError, match="lenght"):
            call("The", lenght=3)
        with pytest.raises(InputError, match="length"):
            call("The", length=0)


def test_weights_from_a_model_directory(directory: Path) -> None:
    expected = BigLanguageModel.from_pretrained(directory)
    assert not expected.training
    for path in (directory, str(directory), directory / "model.safetensors"):
        model = BigLanguageModel(*SIZE)
        model.load_weights(path)
        assert model.config == expected.config  # the context and the rotations came along
        assert (model.config.context_length, model.config.rope_theta) == (100, 500.0)
        assert model.generate("The quick", length=20) == expected.generate("The quick", length=20)
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_from_a_file_alone(directory: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = tmp_path / "weights.safetensors"
    shutil.copy(directory / "model.safetensors", file)
    model = BigLanguageModel(*SIZE, rope_theta=500.0, context_length=100)
    model.load_weights(file)
    assert model.tokenizer is None
    shutil.copy(directory / "tokenizer.json", tmp_path)
    model.load_weights(file)
    expected = BigLanguageModel.from_pretrained(directory)
    assert model.generate("The quick", length=20) == expected.generate("The quick", length=20)
    # One that was passed stays, where there is none with the weights.
    (tmp_path / "tokenizer.json").unlink()
    own = BigLanguageModel(*SIZE, tokenizer=tokenizer)
    own.load_weights(file)
    assert own.tokenizer is tokenizer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vocab_size": 301}, ["vocab_size=300, not 301"]),
        ({"embedding_dim": 40}, ["embedding_dim=32, not 40"]),
        ({"num_heads": 2}, ["num_heads=4, not 2"]),
        ({"ff_dim": 50, "num_layers": 3}, ["ff_dim=48, not 50", "num_layers=2, not 3"]),
    ],
)
def test_weights_of_another_shape(directory: Path, tmp_path: Path, arguments: dict[str, int], words: list[str]) -> None:
    alone = tmp_path / "weights.safetensors"
    shutil.copy(directory / "model.safetensors", alone)
    model = BigLanguageModel(**{**FIELDS, **arguments})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for path in (directory, alone):
        with pytest.raises(InputError) as error:
            model.load_weights(path)
        for word in [*words, "BigLanguageModel(vocab_size=300, embedding_dim=32, num_heads=4, ff_dim=48, num_layers=2"]:
            assert word in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_settings_that_were_chosen_are_not_replaced_in_silence(directory: Path) -> None:
    with pytest.raises(InputError, match="context_length=100, not 64"):
        BigLanguageModel(*SIZE, context_length=64).load_weights(directory)
    BigLanguageModel(*SIZE, num_kv_heads=4, head_dim=8).load_weights(directory)  # what they are anyway


def test_weights_that_cannot_be_used(directory: Path, tmp_path: Path) -> None:
    model = BigLanguageModel(*SIZE)
    with pytest.raises(InputError, match="file not found"):
        model.load_weights(tmp_path / "nowhere")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="pickle"):
        model.load_weights(tmp_path / "weights.pt")
    data = (directory / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        model.load_weights(tmp_path / "half.safetensors")
    state = load_file(directory / "model.safetensors")
    save_file({f"other.{name}": value for name, value in state.items()}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="missing"):
        model.load_weights(tmp_path / "other.safetensors")
    save_file({**state, "model.norm.weight": torch.full((32,), torch.nan)}, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="NaN"):
        model.load_weights(tmp_path / "nan.safetensors")


def test_models_of_another_kind(tmp_path: Path) -> None:
    save_model(SequenceClassifier(ModelConfig(**FIELDS), ["a", "b"], "mean"), tmp_path / "classifier")
    save_model(LanguageModel(ModelConfig.masked(**FIELDS)), tmp_path / "masked")
    for name in ("classifier", "masked"):
        with pytest.raises(InputError, match="does not continue text"):
            BigLanguageModel.from_pretrained(tmp_path / name)
        with pytest.raises(InputError, match="does not continue text"):
            BigLanguageModel(*SIZE).load_weights(tmp_path / name)


def test_saved_and_opened_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = BigLanguageModel(*SIZE, tokenizer=tokenizer, num_kv_heads=2, tied_embeddings=False)
    model.save_pretrained(tmp_path / "model")
    again = BigLanguageModel.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    assert again.generate("The", length=20) == model.generate("The", length=20)
    assert isinstance(lucidlm.load_model(tmp_path / "model").model, LanguageModel)
    with pytest.raises(InputError, match="holds a model already"):
        model.save_pretrained(tmp_path / "model")


def test_a_model_can_be_trained_further(directory: Path) -> None:
    model = BigLanguageModel.from_pretrained(directory).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.arange(20)[None]
    losses = []
    for _ in range(3):
        total, counted = model.loss(ids[:, :-1], ids[:, 1:])
        losses.append((total / counted).item())
        optimizer.zero_grad()
        (total / counted).backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def python(*arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_example(directory: Path) -> None:
    streamed, generated = BigLanguageModel.from_pretrained(directory), BigLanguageModel.from_pretrained(directory)
    prompt = "The quick brown fox"
    expected = "".join(streamed.stream(prompt, length=50)) + "\n" + generated.generate(prompt, length=50) + "\n"
    assert python(str(ROOT / "examples" / "big_language_model.py"), str(directory)) == expected
