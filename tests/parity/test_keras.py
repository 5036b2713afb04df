"""The Keras port beside our PyTorch model: equal logits and texts, files that each reads of the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.interop.keras.directory import WEIGHTS, export_keras, load_keras
from lucidlm.interop.keras.saved_model import export_saved_model
from lucidlm.interop.keras.weights import h5_path
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),  # Keras' own
]
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'lucidlm[tensorflow]'")
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

from lucidlm.interop.keras import BigLanguageModel  # noqa: E402

SIZE: dict[str, Any] = {"vocab_size": 300, "embedding_dim": 32, "num_heads": 4, "ff_dim": 48, "num_layers": 2}
LONG = {"kind": "llama3", "factor": 8.0, "original_context": 64}
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "grouped and untied": {"num_kv_heads": 2, "head_dim": 6, "tied_embeddings": False, "rope_theta": 5e5},
    "gpt2": {"norm": "layer", "position": "learned", "activation": "gelu_tanh", "bias": True, "qk_norm": False},
    "qwen2": {"qkv_bias": True, "qk_norm": False, "dropout": 0.1, "rope_scaling": LONG},
    "plain": {"norm": "layer", "activation": "gelu", "norm_eps": 1e-5},
    "squares": {"activation": "relu2", "context_length": 100},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["The quick brown fox jumps over the lazy dog. " * 20], 280, exact=False)


def peer(tokenizer: Tokenizer | None = None, **fields: Any) -> lucidlm.BigLanguageModel:
    """Return a PyTorch model whose every weight, biases and norms too, is moved off its first value."""
    model = lucidlm.BigLanguageModel(**SIZE, **fields, tokenizer=tokenizer).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A directory of `export --to keras`: nobody may write into it."""
    directory = tmp_path_factory.mktemp("keras") / "model"
    export_keras(LoadedModel(peer(tokenizer), tokenizer, {}), directory, None)
    return directory


def logits_of(model: Any, tokens: np.ndarray) -> np.ndarray:
    return model(tokens).numpy()


def some_tokens(rows: int = 3, length: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 300, (rows, length))


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_logits_texts_and_files_are_those_of_pytorch(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    fields, tokens = ARRANGEMENTS[name], some_tokens()
    theirs = peer(tokenizer, **fields)
    export_keras(LoadedModel(theirs, tokenizer, {}), tmp_path / "exported", None)
    ours = BigLanguageModel(**SIZE, **fields)
    ours.load_weights(tmp_path / "exported")
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(tokens)).numpy()
    assert np.abs(logits_of(ours, tokens) - expected).max() < 1e-4
    choices: tuple[dict[str, Any], ...] = (
        {"temperature": 0},
        {},
        {"top_k": 20, "repetition_penalty": 1.3, "seed": 3, "stop": (" ",)},
    )
    for sampling in choices:
        assert ours.generate("The quick", 70, **sampling) == theirs.generate("The quick", 70, **sampling)

    again = load_keras(tmp_path / "exported").model
    assert again.config == theirs.config
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in again.state_dict().items())

    by_keras = BigLanguageModel(**SIZE, **fields, seed=5)
    keras.Model.load_weights(by_keras, str(tmp_path / "exported" / WEIGHTS))
    np.testing.assert_array_equal(logits_of(by_keras, tokens), logits_of(ours, tokens))

    ours.save_weights(tmp_path / "own.weights.h5")
    shutil.copy(tmp_path / "own.weights.h5", tmp_path / "plain.h5")
    for file in ("own.weights.h5", "plain.h5"):
        fresh = BigLanguageModel(**SIZE, **fields, seed=6)
        fresh.load_weights(tmp_path / file)
        np.testing.assert_array_equal(logits_of(fresh, tokens), logits_of(ours, tokens))


def test_fresh_weights_come_from_the_seed() -> None:
    one, same, other = (BigLanguageModel(**SIZE, seed=seed) for seed in (1, 1, 2))
    for mine, yours in zip(one.weights, same.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())
    kernels = [model.blocks[index].self_attn.q_proj.kernel.numpy() for model in (one, other) for index in (0, 1)]
    assert len({kernel.tobytes() for kernel in kernels}) == 4
    assert np.std(kernels[0]) == pytest.approx(0.02, rel=0.1)
    assert np.std(one.blocks[0].mlp.down_proj.kernel.numpy()) == pytest.approx(0.01, rel=0.1)


def test_training_saves_goes_on_and_comes_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = BigLanguageModel(**SIZE, tokenizer=tokenizer, dropout=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    tokens = np.tile(np.arange(17), (32, 1))
    history = model.fit(tokens[:, :-1], tokens[:, 1:], epochs=4, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < history[0] - 1
    model.save_weights(tmp_path / "trained.weights.h5")
    fresh = BigLanguageModel(**SIZE, tokenizer=tokenizer, dropout=0.1)
    fresh.compile(keras.optimizers.Adam(0.01), loss)
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "trained.weights.h5")
    for mine, yours in zip(fresh.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())

    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits_of(opened, tokens), logits_of(model, tokens))
    assert opened.generate("The", 10) == model.generate("The", 10)

    model.save_pretrained(tmp_path / "pretrained")
    in_pytorch = load_model(tmp_path / "pretrained").model.eval()
    with torch.inference_mode():
        assert np.abs(in_pytorch(torch.from_numpy(tokens)).numpy() - logits_of(model, tokens)).max() < 1e-4


def test_model_directories_and_safetensors(tiny_model: Path) -> None:
    theirs = lucidlm.BigLanguageModel.from_pretrained(tiny_model)
    size = {name: getattr(theirs.config, name) for name in SIZE}
    expected = theirs.generate("the film", 20, temperature=0)
    for source in (tiny_model, tiny_model / "model.safetensors"):
        ours = BigLanguageModel(**size)
        ours.load_weights(source)
        assert ours.config.context_length == 64
        assert ours.generate("the film", 20, temperature=0) == expected
    assert BigLanguageModel.from_pretrained(tiny_model).generate("the film", 20, temperature=0) == expected


def test_a_long_text_ends_at_the_context_and_is_not_retraced(tokenizer: Tokenizer) -> None:
    theirs = peer(tokenizer, context_length=80)
    ours = BigLanguageModel(**SIZE, context_length=80, tokenizer=tokenizer)
    ours.assign_state(theirs.state_dict())
    assert ours.generate("", 500, seed=4) == theirs.generate("", 500, seed=4)
    ours.generate("The quick", 500)
    graphs = ours._stepper._run.experimental_get_tracing_count()
    ours.generate("The quick brown", 500)
    assert ours._stepper._run.experimental_get_tracing_count() == graphs
    with pytest.raises(InputError, match="context"):
        ours(some_tokens(1, 81))


# ---------------------------------------------------------------------- what is refused


def test_weights_of_another_model_leave_ours_alone(exported: Path, tmp_path: Path) -> None:
    shutil.copy(exported / WEIGHTS, tmp_path / "alone.h5")
    model = BigLanguageModel(**{**SIZE, "ff_dim": 64, "num_layers": 3})
    before = [variable.numpy().copy() for variable in model.weights]
    for path in (exported, exported / WEIGHTS, tmp_path / "alone.h5"):
        with pytest.raises(
            InputError, match=r"ff_dim=48, not 64; num_layers=2, not 3.*BigLanguageModel\(vocab_size=300"
        ):
            model.load_weights(path)
    with pytest.raises(InputError, match="context_length=1024, not 64"):
        BigLanguageModel(**SIZE, context_length=64).load_weights(exported)
    with pytest.raises(InputError, match="norm_eps"):
        BigLanguageModel(**SIZE, norm_eps=1e-5).load_weights(exported)
    assert all(np.array_equal(variable.numpy(), value) for variable, value in zip(model.weights, before, strict=True))


def test_arrangements_and_kinds_that_have_no_place(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="causal=False"):
        BigLanguageModel(**SIZE, causal=False)
    with pytest.raises(InputError, match="post_norm"):
        BigLanguageModel(**SIZE, post_norm=True, norm="layer")
    classifier = SequenceClassifier(ModelConfig(**SIZE), ["a", "b"], "mean")
    for export in (export_keras, export_saved_model):
        with pytest.raises(InputError, match="does not continue text"):
            export(LoadedModel(classifier, tokenizer, {}), tmp_path / "out", None)
        with pytest.raises(InputError, match="fp16"):
            export(LoadedModel(peer(), tokenizer, {}), tmp_path / "out", "fp16")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        export_saved_model(LoadedModel(peer(), tokenizer, {}), tmp_path / "held", None)
    assert [path.name for path in tmp_path.rglob("*")] == ["held", "notes.txt"]
    save_model(classifier, tmp_path / "classifier")
    with pytest.raises(InputError, match="does not continue text"):
        BigLanguageModel(**SIZE).load_weights(tmp_path / "classifier")


def test_damaged_weights_leave_ours_alone(exported: Path, tmp_path: Path) -> None:
    """What else is refused of such files is in tests/unit/test_keras_files.py."""
    model, norm = BigLanguageModel(**SIZE), h5_path("model.norm.weight")
    before = [variable.numpy().copy() for variable in model.weights]
    data = (exported / WEIGHTS).read_bytes()
    (tmp_path / "half.h5").write_bytes(data[: len(data) // 2])
    for name in ("missing.h5", "infinite.h5"):
        shutil.copy(exported / WEIGHTS, tmp_path / name)
        with h5py.File(tmp_path / name, "a") as file:
            del file[norm]
            if name == "infinite.h5":
                file[norm] = np.full(32, np.inf, "f4")
    for name, message in (
        ("half.h5", "not a whole HDF5 file"),
        ("missing.h5", r"missing: model\.norm\.weight"),
        ("infinite.h5", "infinities"),
        ("nowhere.h5", "file not found"),
    ):
        with pytest.raises(InputError, match=message):
            model.load_weights(tmp_path / name)
    assert all(np.array_equal(variable.numpy(), value) for variable, value in zip(model.weights, before, strict=True))


def test_without_a_tokenizer() -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        BigLanguageModel(**SIZE).generate("The")


# ---------------------------------------------------------------------- without Keras


def test_plain_tensorflow_runs_the_saved_model(exported: Path, tmp_path: Path) -> None:
    loaded = load_model(exported)
    export_saved_model(loaded, tmp_path / "saved", None)
    script = (
        "import sys\n"
        "sys.modules['keras'] = None\n"  # TensorFlow imports it itself where it finds it
        "import numpy as np, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(tmp_path / 'saved')!r})\n"
        "shapes = ((1, 1), (3, 7), (2, 90))\n"
        "tokens = [np.random.default_rng(0).integers(0, 300, shape) for shape in shapes]\n"
        "logits = [model.serve(tf.constant(each, tf.int32)).numpy() for each in tokens]\n"
        f"np.savez({str(tmp_path / 'logits.npz')!r}, *logits)\n"
        "print(any(name.split('.')[0] in ('lucidlm', 'torch') for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    with np.load(tmp_path / "logits.npz") as found:
        for name, shape in zip(found, ((1, 1), (3, 7), (2, 90)), strict=True):
            tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 300, shape))
            with torch.inference_mode():
                np.testing.assert_allclose(found[name], loaded.model(tokens).numpy(), atol=1e-5)
    assert Tokenizer.load(tmp_path / "saved").fingerprint == Tokenizer.load(exported).fingerprint
