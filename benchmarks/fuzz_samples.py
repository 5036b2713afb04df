"""What `fuzz.py` alters: small whole models in every form that is read, and how each is opened."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.quantize import Dtype
from lucidlm.checkpoint.record import RECORD, record_checksum
from lucidlm.checkpoint.save import save_model
from lucidlm.interop.gguf.header import read_header
from lucidlm.interop.gguf.read import load_gguf
from lucidlm.interop.gguf.write import export_gguf
from lucidlm.interop.keras.weights import h5_shapes, load_h5, save_h5
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.tokenize.tokenizer import Tokenizer

TEXT = "the quick brown fox jumps over the lazy dog. 你好，世界。"
SIZE: dict[str, Any] = {"vocab_size": 280, "embedding_dim": 8, "num_heads": 2, "ff_dim": 8, "num_layers": 1}
LEARNED: dict[str, Any] = {"norm": "layer", "position": "learned", "bias": True, "qk_norm": False, "context_length": 8}
LLAMA, QWEN3 = ModelConfig(**SIZE, qk_norm=False), ModelConfig(**SIZE)
GPT2 = ModelConfig(**SIZE, **LEARNED, activation="gelu_tanh")
BERT = ModelConfig(
    **SIZE, **LEARNED, activation="gelu", causal=False, post_norm=True, head_transform=True, token_types=2
)
MODELS: dict[str, Callable[[], Model]] = {
    "llama": lambda: LanguageModel(LLAMA.changed(tied_embeddings=False)),
    "qwen3": lambda: LanguageModel(QWEN3),
    "gpt2": lambda: LanguageModel(GPT2),
    "bert": lambda: LanguageModel(BERT),
    "classifier": lambda: SequenceClassifier(QWEN3, ["bad", "good"], "last"),
    "span": lambda: SpanExtractor(LLAMA),
}


@dataclass(frozen=True)
class Target:
    """A form of models.

    Parameters
    ----------
    make: writes whole samples to a folder and returns them.
    victims: the pattern of the files to alter, where a sample is a directory.
    open: reads one.
    repair: sets right what would hide an alteration, such as a checksum.
    """

    name: str
    make: Callable[[Path], list[Path]]
    open: Callable[[Path], object]
    victims: str = "*"
    repair: Callable[[Path], None] | None = None


def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([TEXT * 3], 270)


def directories(folder: Path, *, record: bool = False, dtypes: tuple[Dtype, ...] = ("fp32",)) -> list[Path]:
    """Write a directory of each model, as transformers would (without a record) or as we do."""
    for name, make in MODELS.items():
        for dtype in dtypes:
            path = folder / f"{name}-{dtype}"
            save_model(make(), path, tokenizer() if record else None, dtype=dtype)
            if not record and (dtype != "int8" or name != "gpt2"):
                (path / RECORD).unlink()
    return sorted(folder.iterdir())


def weights(folder: Path) -> list[Path]:
    """Write directories in several number formats, and one whose weights are in several files with an index."""
    found = directories(folder, dtypes=("fp32", "bf16", "int8"))
    split = folder / "split"
    shutil.copytree(folder / "qwen3-fp32", split)
    (split / "model.safetensors").rename(split / "model-1.safetensors")
    names = LanguageModel(QWEN3).state_dict()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-1.safetensors")}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    return [*found, split]


def gguf(folder: Path) -> list[Path]:
    """Write files of several architectures and number formats."""
    for name, config in (("llama", LLAMA), ("qwen3", QWEN3), ("gpt2", GPT2)):
        model = LanguageModel(config.changed(embedding_dim=32, ff_dim=32))
        for dtype in ("fp32", "q8_0"):
            export_gguf(LoadedModel(model, tokenizer(), {"provenance": {}}), folder / f"{name}-{dtype}.gguf", dtype)
    return sorted(folder.iterdir())


def open_gguf(path: Path) -> None:
    read_header(path)
    load_gguf(path)


def hdf5(folder: Path) -> list[Path]:
    """Write weights of two arrangements as Keras does."""
    for name, config in (("llama", LLAMA.changed(tied_embeddings=False)), ("gpt2", GPT2)):
        save_h5(LanguageModel(config).state_dict(), folder / f"{name}.weights.h5")
    return sorted(folder.iterdir())


def open_hdf5(path: Path) -> None:
    h5_shapes(path)
    load_h5(path)


def tokenizers(folder: Path) -> list[Path]:
    tokenizer().save(folder / "bpe")
    return [folder / "bpe"]


def open_tokenizer(path: Path) -> None:
    """Read it, and use it, as every command would."""
    found = Tokenizer.load(path)
    found.decode(found.encode(TEXT))


def archives(folder: Path) -> list[Path]:
    """Write a model in the archives that are unpacked."""
    model = folder / "model"
    save_model(LanguageModel(QWEN3), model)
    for path in (*model.iterdir(), model):  # archives hold times, and inputs are to be the same another day
        os.utime(path, (10**9, 10**9))
    for kind in ("zip", "gztar", "xztar", "tar"):
        shutil.make_archive(str(folder / kind), kind, folder, "model")
    with tarfile.open(
        folder / "pax.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "é" * 40}
    ) as file:
        file.add(model, f"{'long/' * 60}model")
    for path in folder.glob("*.gz"):
        data = path.read_bytes()
        path.write_bytes(data[:4] + bytes(4) + data[8:])
    (folder / "zip.zip").rename(folder / "package.whl")
    # Altered bytes of compressed data seldom get past its checksum: most of what is read here is not compressed.
    (folder / "tar.tar").rename(folder / "plain.tar.gz")
    return sorted(path for path in folder.iterdir() if path.is_file())


def sign(path: Path) -> None:
    """Give a record the checksum of what it says now."""
    file = path / RECORD
    try:
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "checksum": record_checksum(record)}))
    except (ValueError, TypeError, RecursionError):
        pass


_ALL = (
    Target("gguf", gguf, open_gguf),
    Target("safetensors", weights, load_model, "*.safetensors*"),
    Target("config", directories, load_model, "config.json"),
    Target("record", lambda folder: directories(folder, record=True), load_model, RECORD, sign),
    Target("tokenizer", tokenizers, open_tokenizer, "*.json"),
    Target("hdf5", hdf5, open_hdf5),
    Target("archive", archives, load_model),
)
TARGETS = {target.name: target for target in _ALL}
