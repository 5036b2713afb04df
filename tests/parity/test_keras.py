"""The Keras port beside our PyTorch model: equal logits and texts, files that each reads of the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lucidlm
from lucidlm.core.errors import InputError
from lucidlm.data.tokenizer import Tokenizer
from lucidlm.interop.keras.directory import WEIGHTS, export_keras, load_keras
from lucidlm.interop.keras.saved_model import export_saved_model
from lucidlm.interop.keras.weights import h5_path, name_at, save_h5
from lucidlm.model.config import ModelConfig
from lucidlm.model.directory import Loaded, load_model, save_model
from lucidlm.model.heads import LanguageModel, SequenceClassifier

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),  # Keras' own
]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'lucidlm[tensorflow]'")
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

from lucidlm.interop.keras import BigLanguageModel  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
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
    export_keras(Loaded(peer(tokenizer), tokenizer, {}), directory, None)
    return directory


def logits_of(model: Any, tokens: np.ndarray) -> np.ndarray:
    return model(tokens).numpy()


def some_tokens(rows: int = 3, length: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 300, (rows, length))


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_logits_texts_and_files_are_those_of_pytorch(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    fields, tokens = ARRANGEMENTS[name], some_tokens()
    theirs = peer(tokenizer, **fields)
    export_keras(Loaded(theirs, tokenizer, {}), tmp_path / "exported", None)
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
            export(Loaded(classifier, tokenizer, {}), tmp_path / "out", None)
        with pytest.raises(InputError, match="fp16"):
            export(Loaded(peer(), tokenizer, {}), tmp_path / "out", "fp16")
    assert not list(tmp_path.iterdir())
    save_model(classifier, tmp_path / "classifier")
    with pytest.raises(InputError, match="does not continue text"):
        BigLanguageModel(**SIZE).load_weights(tmp_path / "classifier")


def test_files_that_are_no_sound_weights(exported: Path, tmp_path: Path) -> None:
    model, whole = BigLanguageModel(**SIZE), exported / WEIGHTS
    before = [variable.numpy().copy() for variable in model.weights]
    norm = h5_path("model.norm.weight")

    def soft(file: Any) -> None:
        file[norm] = h5py.SoftLink("/embed_tokens/vars/0")

    def external(file: Any) -> None:
        file[norm] = h5py.ExternalLink(str(whole), norm)

    def external_storage(file: Any) -> None:
        (tmp_path / "raw").write_bytes(bytes(128))
        file.create_dataset(norm, (32,), "f4", external=[(str(tmp_path / "raw"), 0, 128)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((32,), "f4")
        layout[:] = h5py.VirtualSource(str(whole), norm, (32,), "f4")
        file.create_virtual_dataset(norm, layout)

    def huge(file: Any) -> None:
        file.create_dataset(norm, (10**12,), "f4", chunks=True)

    def not_there(file: Any) -> None:
        file.create_dataset(norm, (32,), "f4")

    def objects(file: Any) -> None:
        file.create_dataset(norm, data=["x"] * 32, dtype=h5py.string_dtype())

    def integers(file: Any) -> None:
        file.create_dataset(norm, data=np.arange(32))

    def circle(file: Any) -> None:
        file["final_norm/vars/again"] = file["final_norm"]

    def shorter(file: Any) -> None:
        file.create_dataset(norm, data=np.ones(31, "f4"))

    def infinite(file: Any) -> None:
        file.create_dataset(norm, data=np.full(32, np.inf, "f4"))

    def missing(file: Any) -> None:
        pass

    def more(file: Any) -> None:
        file.create_dataset(norm, data=np.ones(32, "f4"))
        file.create_dataset("layers/dense/vars/0", data=np.ones(3, "f4"))

    words = {
        soft: "link to elsewhere",
        external: "link to elsewhere",
        external_storage: "another file",
        virtual: "another file",
        huge: "chunks",
        not_there: "chunks",
        objects: "not an array of floating-point",
        integers: "not an array of floating-point",
        circle: "two places",
        shorter: r"shape \(31,\)",
        infinite: "infinities",
        missing: "missing: model.norm.weight",
        more: "unknown: layers/dense/vars/0",
    }
    for spoil, message in words.items():
        path = tmp_path / f"{spoil.__name__}.h5"
        shutil.copy(whole, path)
        with h5py.File(path, "a") as file:
            del file[norm]
            spoil(file)
        with pytest.raises(InputError, match=message):
            model.load_weights(path)
    data = whole.read_bytes()
    (tmp_path / "half.h5").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.h5").write_text("weights")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    for name in ("half.h5", "text.h5", "model.keras"):
        with pytest.raises(InputError, match="not a whole HDF5 file"):
            model.load_weights(tmp_path / name)
    with pytest.raises(InputError, match="file not found"):
        model.load_weights(tmp_path / "nowhere.h5")
    assert all(np.array_equal(variable.numpy(), value) for variable, value in zip(model.weights, before, strict=True))


def test_damaged_directories(exported: Path, tmp_path: Path) -> None:
    save_h5(peer().state_dict(), tmp_path / "alone.h5")
    with pytest.raises(InputError, match=r"no config\.json of ours"):
        load_keras(tmp_path / "alone.h5")
    changed = tmp_path / "changed"
    shutil.copytree(exported, changed)
    with (changed / WEIGHTS).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(InputError, match="checksum"):
        load_model(changed)
    config = (exported / "config.json").read_text(encoding="utf-8")
    for text, message in (
        (config.replace("lucidlm-keras-1", "lucidlm-keras-9"), "format"),
        (config.replace('"num_layers": 2', '"num_layers": 9000'), "layers"),
        (config.replace(WEIGHTS, "../other"), "not in the model directory"),
        (config.replace('"files"', '"fields"'), "does not list"),
    ):
        shutil.copyfile(exported / WEIGHTS, changed / WEIGHTS)
        (changed / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_model(changed / WEIGHTS)


def test_without_a_tokenizer() -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        BigLanguageModel(**SIZE).generate("The")


# ---------------------------------------------------------------------- names and processes


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_every_name_has_its_place(name: str) -> None:
    with torch.device("meta"):
        names = list(LanguageModel(ModelConfig(**{**SIZE, "num_layers": 12}, **ARRANGEMENTS[name]), None).state_dict())
    assert [name_at(h5_path(each)) for each in names] == names
    assert len({h5_path(each) for each in names}) == len(names)
    for other in ("blocks/block_0/mlp/up_proj/vars/0", "blocks/block_01/mlp/up_proj/vars/0", "norm/vars/0", "vars/0"):
        assert name_at(other) == other


def python(*arguments: str) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_tensorflow_runs_the_saved_model(exported: Path, tmp_path: Path) -> None:
    loaded = load_model(exported)
    export_saved_model(loaded, tmp_path / "saved", None)
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(tmp_path / 'saved')!r})\n"
        "shapes = ((1, 1), (3, 7), (2, 90))\n"
        "tokens = [np.random.default_rng(0).integers(0, 300, shape) for shape in shapes]\n"
        "logits = [model.serve(tf.constant(each, tf.int32)).numpy() for each in tokens]\n"
        f"np.savez({str(tmp_path / 'logits.npz')!r}, *logits)\n"
        "print(any(name.split('.')[0] in ('keras', 'lucidlm', 'torch') for name in sys.modules))\n"
    )
    assert python("-c", script) == "False\n"
    with np.load(tmp_path / "logits.npz") as found:
        for name, shape in zip(found, ((1, 1), (3, 7), (2, 90)), strict=True):
            tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 300, shape))
            with torch.inference_mode():
                np.testing.assert_allclose(found[name], loaded.model(tokens).numpy(), atol=1e-5)
    assert Tokenizer.load(tmp_path / "saved").fingerprint == Tokenizer.load(exported).fingerprint


def test_reading_and_writing_need_no_tensorflow(exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from lucidlm.interop.keras.directory import export_keras, load_keras\n"
        f"export_keras(load_keras(pathlib.Path({str(exported)!r})), pathlib.Path({str(tmp_path / 'again')!r}), None)\n"
        "print('keras' in sys.modules or 'tensorflow' in sys.modules)\n"
    )
    assert python("-c", script) == "False\n"
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (exported / WEIGHTS).read_bytes()


def test_the_example(exported: Path) -> None:
    prompt = "The quick brown fox"
    expected = lucidlm.BigLanguageModel.from_pretrained(exported).generate(prompt, length=50)
    assert python(str(ROOT / "examples" / "big_language_model_tensorflow.py"), str(exported)) == expected + "\n"
