"""Keras' weights in HDF5, written and read without Keras: the round trip, and files that are damaged or made to harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.interop.keras.directory import WEIGHTS, export_keras, load_keras
from lucidlm.interop.keras.weights import h5_path, h5_shapes, load_h5, load_optimiser, name_at, save_h5
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

SIZE: dict[str, Any] = {"vocab_size": 300, "embedding_dim": 32, "num_heads": 4, "ff_dim": 48, "num_layers": 2}
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "grouped and untied": {"num_kv_heads": 2, "head_dim": 6, "tied_embeddings": False, "rope_theta": 5e5},
    "gpt2": {"norm": "layer", "position": "learned", "activation": "gelu_tanh", "bias": True, "qk_norm": False},
    "qwen2": {"qkv_bias": True, "qk_norm": False, "dropout": 0.1},
}
NORM = h5_path("model.norm.weight")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["The quick brown fox jumps over the lazy dog. " * 20], 280, exact=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A directory of `export --to keras`: nobody may write into it."""
    directory = tmp_path_factory.mktemp("keras") / "model"
    export_keras(LoadedModel(LanguageModel(ModelConfig(**SIZE)).eval(), tokenizer, {}), directory, None)
    return directory


# ---------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_there_and_back_is_the_same_to_the_bit(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = LanguageModel(ModelConfig(**SIZE, **ARRANGEMENTS[name])).eval()
    export_keras(LoadedModel(model, tokenizer, {}), tmp_path / "exported", None)
    again = load_model(tmp_path / "exported")
    assert isinstance(again.model, LanguageModel)
    assert again.model.config == model.config
    assert again.tokenizer is not None
    assert again.tokenizer.fingerprint == tokenizer.fingerprint
    found = again.model.state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_every_name_has_its_place(name: str) -> None:
    with torch.device("meta"):
        names = list(LanguageModel(ModelConfig(**{**SIZE, "num_layers": 12}, **ARRANGEMENTS[name]), None).state_dict())
    assert [name_at(h5_path(each)) for each in names] == names
    assert len({h5_path(each) for each in names}) == len(names)
    for other in ("blocks/block_0/mlp/up_proj/vars/0", "blocks/block_01/mlp/up_proj/vars/0", "norm/vars/0", "vars/0"):
        assert name_at(other) == other


def test_an_optimiser_is_kept_apart_from_the_weights(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "trained.h5"
    shutil.copy(exported / WEIGHTS, path)
    with h5py.File(path, "a") as file:
        file["optimizer/vars/0"] = np.int64(7)
        file["optimizer/vars/1"] = np.ones(3, "f4")
        file["dropout/seed_generator/seed_generator_state/vars/0"] = np.zeros(2, "u4")
    assert load_h5(path).keys() == h5_shapes(path).keys() == load_h5(exported / WEIGHTS).keys()
    assert {name: value.shape for name, value in load_optimiser(path).items()} == {"0": (), "1": (3,)}


def test_pytorch_takes_the_weights_and_the_tokenizer_beside_them(exported: Path, tmp_path: Path) -> None:
    expected = lucidlm.BigLanguageModel.from_pretrained(exported).generate("The quick", 20)
    shutil.copy(exported / WEIGHTS, tmp_path / "plain.h5")
    shutil.copy(exported / "tokenizer.json", tmp_path)
    shutil.copy(exported / "tokenizer_config.json", tmp_path)
    for path in (exported, exported / WEIGHTS, tmp_path / "plain.h5"):
        model = lucidlm.BigLanguageModel(**SIZE, seed=1).eval()
        model.load_weights(path)
        assert model.generate("The quick", 20) == expected
    with pytest.raises(InputError, match=r"ff_dim=48, not 64.*BigLanguageModel\(vocab_size=300"):
        lucidlm.BigLanguageModel(**{**SIZE, "ff_dim": 64}).load_weights(tmp_path / "plain.h5")
    (tmp_path / "tokenizer.json").unlink()
    model = lucidlm.BigLanguageModel(**SIZE)
    model.load_weights(tmp_path / "plain.h5")
    with pytest.raises(InputError, match="no tokenizer"):
        model.generate("The quick", 20)


def test_export_and_import_by_command(tiny_model: Path, tmp_path: Path) -> None:
    for arguments in (
        ["export", str(tiny_model), "--to", "keras", "--out", str(tmp_path / "keras")],
        ["import", str(tmp_path / "keras"), "--out", str(tmp_path / "again")],
    ):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tiny_model / name).read_bytes()


def test_reading_and_writing_need_no_tensorflow(exported: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "from lucidlm.interop.keras.directory import export_keras, load_keras\n"
        f"export_keras(load_keras(pathlib.Path({str(exported)!r})), pathlib.Path({str(tmp_path / 'again')!r}), None)\n"
        "from lucidlm.core.errors import InputError\n"
        "try:\n"
        "    from lucidlm.interop.keras import BigLanguageModel\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "the package keras is not installed. Install it: pip install 'lucidlm[tensorflow]'.\n"
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (exported / WEIGHTS).read_bytes()


# ---------------------------------------------------------------------- what is refused


def test_kinds_and_arrangements_that_have_no_place(tmp_path: Path) -> None:
    classifier = SequenceClassifier(ModelConfig(**SIZE), ["a", "b"], "mean")
    normed_after = LanguageModel(ModelConfig(**SIZE, post_norm=True, norm="layer"))
    for model, dtype, message in (
        (classifier, None, "does not continue text"),
        (normed_after, None, "post_norm=True"),
        (LanguageModel(ModelConfig(**SIZE)), "fp16", "fp16"),
    ):
        with pytest.raises(InputError, match=message):
            export_keras(LoadedModel(model, None, {}), tmp_path / "out", dtype)
    assert not list(tmp_path.iterdir())
    save_model(classifier, tmp_path / "classifier")
    with pytest.raises(InputError, match="does not continue text"):
        lucidlm.BigLanguageModel(**SIZE).load_weights(tmp_path / "classifier")


def test_what_is_there_already_is_left_alone(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        export_keras(load_model(exported), tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def soft(file: Any, _: Path) -> None:
    file[NORM] = h5py.SoftLink("/embed_tokens/vars/0")


def external(file: Any, whole: Path) -> None:
    file[NORM] = h5py.ExternalLink(str(whole), NORM)


def external_group(file: Any, whole: Path) -> None:
    file["more"] = h5py.ExternalLink(str(whole), "/")


def external_storage(file: Any, whole: Path) -> None:
    file.create_dataset(NORM, (32,), "f4", external=[(str(whole), 0, 128)])


def virtual(file: Any, whole: Path) -> None:
    layout = h5py.VirtualLayout((32,), "f4")
    layout[:] = h5py.VirtualSource(str(whole), NORM, (32,), "f4")
    file.create_virtual_dataset(NORM, layout)


def huge(file: Any, _: Path) -> None:
    file.create_dataset(NORM, (10**15,), "f4", chunks=(2**20,))


def bomb(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.zeros(2**20, "f4"), compression="gzip")


def not_there(file: Any, _: Path) -> None:
    file.create_dataset(NORM, (10**15,), "f4")


def objects(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=["x"] * 32, dtype=h5py.string_dtype())


def records(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.zeros(32, [("real", "f4"), ("label", "S9")]))


def integers(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.arange(32))


def named_type(file: Any, _: Path) -> None:
    file[NORM] = np.dtype("f4")


def circle(file: Any, _: Path) -> None:
    file["final_norm/vars/again"] = file["final_norm"]


def depths(file: Any, _: Path) -> None:
    group = file
    for _level in range(3000):
        group = group.create_group("g")


def shorter(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.ones(31, "f4"))


def infinite(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.full(32, np.inf, "f4"))


def missing(file: Any, _: Path) -> None:
    pass


def more(file: Any, _: Path) -> None:
    file.create_dataset(NORM, data=np.ones(32, "f4"))
    file.create_dataset("layers/dense/vars/0", data=np.ones(3, "f4"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft, "link to elsewhere"),
        (external, "link to elsewhere"),
        (external_group, "link to elsewhere"),
        (external_storage, "another file"),
        (virtual, "another file"),
        (huge, "chunks"),
        (bomb, "compressed"),
        (not_there, "chunks"),
        (objects, "not an array of floating-point"),
        (records, "not an array of floating-point"),
        (integers, "not an array of floating-point"),
        (named_type, "not an array of floating-point"),
        (circle, "two places"),
        (depths, "not a whole HDF5 file"),
        (shorter, r"shape \(31,\)"),
        (infinite, "infinities"),
        (missing, r"missing: model\.norm\.weight"),
        (more, "unknown: layers/dense/vars/0"),
    ],
)
def test_files_made_to_harm(spoil: Callable[[Any, Path], None], message: str, exported: Path, tmp_path: Path) -> None:
    """Every checksum fits, so it is the file's own contents that are refused."""
    directory = tmp_path / "model"
    shutil.copytree(exported, directory)
    with h5py.File(directory / WEIGHTS, "a") as file:
        del file[NORM]
        spoil(file, exported / WEIGHTS)
    record = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    record["files"][WEIGHTS] = {
        "bytes": (directory / WEIGHTS).stat().st_size,
        "sha256": sha256(directory / WEIGHTS),
    }
    (directory / "config.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_model(directory)
    shutil.copy(directory / WEIGHTS, tmp_path / "alone.h5")
    model = lucidlm.BigLanguageModel(**SIZE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        model.load_weights(tmp_path / "alone.h5")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_that_are_cut_short_or_of_another_kind(exported: Path, tmp_path: Path) -> None:
    data, path = (exported / WEIGHTS).read_bytes(), tmp_path / "spoiled.h5"
    for length in (0, 7, 8, 100, len(data) // 3, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="not a whole HDF5 file"):
            load_h5(path)
    path.write_text("weights", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    for name in ("spoiled.h5", "model.keras"):
        with pytest.raises(InputError, match="not a whole HDF5 file"):
            load_h5(tmp_path / name)
    with pytest.raises(InputError, match="file not found"):
        load_h5(tmp_path / "nowhere.h5")


def test_flipped_bytes_are_refused_or_read(tmp_path: Path) -> None:
    model = LanguageModel(ModelConfig(vocab_size=20, embedding_dim=8, num_heads=2, ff_dim=8, num_layers=1))
    path, draw = tmp_path / "model.h5", random.Random(0)
    save_h5(model.state_dict(), path)
    data, refused = path.read_bytes(), 0
    for _ in range(300):
        spoiled = bytearray(data)
        for _ in range(draw.choice((1, 2, 8))):
            spoiled[draw.randrange(len(data))] = draw.choice((0, 255, draw.randrange(256)))
        path.write_bytes(spoiled)
        try:
            load_h5(path)
        except InputError:
            refused += 1
    assert 0 < refused < 300


def test_damaged_directories(exported: Path, tmp_path: Path) -> None:
    save_h5(LanguageModel(ModelConfig(**SIZE)).state_dict(), tmp_path / "alone.h5")
    with pytest.raises(InputError, match=r"no config\.json of ours"):
        load_keras(tmp_path / "alone.h5")
    changed = tmp_path / "changed"
    shutil.copytree(exported, changed)
    with (changed / WEIGHTS).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(InputError, match="checksum"):
        load_model(changed)
    with pytest.raises(InputError, match="checksum"):
        lucidlm.BigLanguageModel(**SIZE).load_weights(changed / WEIGHTS)
    config = (exported / "config.json").read_text(encoding="utf-8")
    for text, message in (
        (config.replace("lucidlm-keras-1", "lucidlm-keras-9"), "format"),
        (config.replace('"num_layers": 2', '"num_layers": 9000'), "layers"),
        (config.replace('"vocab_size": 300', '"vocab_size": 9000000'), "shape"),
        (config.replace(WEIGHTS, "../other"), "not in the model directory"),
        (config.replace('"files"', '"fields"'), "does not list"),
    ):
        shutil.copyfile(exported / WEIGHTS, changed / WEIGHTS)
        (changed / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_model(changed / WEIGHTS)
