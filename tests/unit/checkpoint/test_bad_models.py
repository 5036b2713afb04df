"""Models that are not what they say: one clear message, and no memory taken for what is not there."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lucidlm.checkpoint import weights
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.record import record_checksum
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

SIZE: dict[str, Any] = {"vocab_size": 60, "embedding_dim": 16, "num_heads": 2, "ff_dim": 24, "num_layers": 2}
LLAMA = ModelConfig(**SIZE, qk_norm=False)
GPT2 = ModelConfig(
    **SIZE, qk_norm=False, norm="layer", position="learned", activation="gelu_tanh", bias=True, context_length=8
)
NORM = "model.norm.weight"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory as transformers writes it: without a record, and so without checksums."""
    save_model(LanguageModel(LLAMA), tmp_path / "model")
    (tmp_path / "model" / "lucidlm.json").unlink()
    return tmp_path / "model"


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(path)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2_000


def rewrite_header(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file, its data left as they are."""
    file = model / "model.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "offset beyond the file": lambda header: header[NORM].update(data_offsets=[0, 2**50]),
    "offset below zero": lambda header: header[NORM].update(data_offsets=[-1, 64]),
    "offset beyond numbers": lambda header: header[NORM].update(data_offsets=[0, 2**64]),
    "offsets backwards": lambda header: header[NORM].update(data_offsets=header[NORM]["data_offsets"][::-1]),
    "overlap": lambda header: header.update(another=header[NORM]),
    "a gap": lambda header: header.pop(NORM),
    "shape of terabytes": lambda header: header[NORM].update(shape=[2**40]),
    "shape beyond numbers": lambda header: header[NORM].update(shape=[2**40, 2**40]),
    "shape below zero": lambda header: header[NORM].update(shape=[-16]),
    "wrong type": lambda header: header[NORM].update(dtype="F64"),
    "no type": lambda header: header[NORM].update(dtype="F33"),
    "nothing, of endless size": lambda header: header.update(
        nothing={"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [header[NORM]["data_offsets"][0]] * 2}
    ),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS.keys())
def test_lying_headers(change: Callable[[dict[str, Any]], object], theirs: Path) -> None:
    rewrite_header(theirs, change)
    refused(theirs, "model.safetensors: is not a whole safetensors file")


def test_a_name_twice_in_a_header(theirs: Path) -> None:
    file = theirs / "model.safetensors"
    data = file.read_bytes()
    other = b"model.layers.0.input_layernorm.weight"
    text = data[8 : 8 + int.from_bytes(data[:8], "little")].replace(NORM.encode(), other)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :])
    refused(theirs, "model.safetensors: is not a whole safetensors file")


def test_headers_of_a_wrong_length(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (theirs / "model.safetensors").read_bytes()
    for size in (0, 1, 2**20, 2**40, 2**63, 2**64 - 1):
        (theirs / "model.safetensors").write_bytes(size.to_bytes(8, "little") + data[8:])
        refused(theirs, "model.safetensors: is not a whole safetensors file")
    (theirs / "model.safetensors").write_bytes(data)
    monkeypatch.setattr(weights, "LARGEST_HEADER", 100)
    refused(theirs, "model.safetensors: has a header of", "at most 100")


def test_numbers_that_are_no_weights(theirs: Path) -> None:
    # Of integers that wide only quantised matrices consist.
    unknown = {"I32": f"{NORM} holds int32 values in a form", "I64": f"{NORM} holds int64 values in a form"}
    for name in ("I32", "I64", "BOOL", "F8_E4M3", "U8"):
        width = {"I32": 4, "I64": 8}.get(name, 1)
        rewrite_header(theirs, lambda header, n=name, w=width: header[NORM].update(dtype=n, shape=[64 // w]))
        refused(theirs, unknown.get(name, f"{NORM} is stored as {name}, which is not supported"))


def test_a_tensor_in_two_files(theirs: Path) -> None:
    data = (theirs / "model.safetensors").read_bytes()
    (theirs / "model.safetensors").unlink()
    for name in ("a", "b"):
        (theirs / f"{name}.safetensors").write_bytes(data)
    index = {"weight_map": {NORM: "a.safetensors", "model.embed_tokens.weight": "b.safetensors"}}
    (theirs / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(theirs, "b.safetensors", "is in another file too")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_by_any_name(protocol: int, theirs: Path) -> None:
    with open(theirs / "model.safetensors", "wb") as file:
        pickle.dump({NORM: torch.ones(16)}, file, protocol=protocol)
    refused(theirs, "model.safetensors: is a pickle, which could run any code")
    torch.save({NORM: torch.ones(16)}, theirs / "model.safetensors", _use_new_zipfile_serialization=False)
    refused(theirs, "model.safetensors: is a pickle, which could run any code")


def test_old_pickles_do_not_run(theirs: Path, tmp_path: Path) -> None:
    (theirs / "model.safetensors").write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "ran") + b"'\ntR.")
    refused(theirs, "model.safetensors: is not a whole safetensors file")
    assert not (tmp_path / "ran").exists()


TERABYTES: dict[str, dict[str, Any]] = {
    "vocab_size": {"vocab_size": 10_000_000, "hidden_size": 1_000_000},
    "more than any vocabulary": {"vocab_size": 10**30},
    "layers": {"num_hidden_layers": 10_000},
    "more than any depth": {"num_hidden_layers": 10**9},
    "heads": {"num_attention_heads": 10_000, "num_key_value_heads": 10_000, "head_dim": 1_000_000},
    "head_dim": {"head_dim": 2**40},
    "ff_dim": {"intermediate_size": 4_000_000},
}


@pytest.mark.parametrize("fields", TERABYTES.values(), ids=TERABYTES.keys())
def test_terabytes(fields: dict[str, Any], theirs: Path) -> None:
    change_config(theirs, **fields)
    refused(theirs, str(theirs))


def test_terabytes_of_learned_positions(tmp_path: Path) -> None:
    save_model(LanguageModel(GPT2), tmp_path)
    (tmp_path / "lucidlm.json").unlink()
    change_config(tmp_path, n_positions=100_000_000)
    refused(tmp_path, "model.embed_positions.weight has shape (8, 16), the model's is (100000000, 16)")


def change_config(model: Path, **fields: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **fields}))


PROGRAM = """
import json, resource, sys
from pathlib import Path
from lucidlm.core.errors import InputError
from lucidlm.checkpoint.load import load_model
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
model = Path(sys.argv[1])
config = json.loads((model / "config.json").read_text())
for fields in json.loads(sys.argv[2]):
    (model / "config.json").write_text(json.dumps({**config, **fields}))
    try:
        load_model(model)
    except InputError:
        print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_no_memory_is_taken_for_what_is_not_there(theirs: Path) -> None:
    """A process that may take 128 MB more than it has when it begins to read refuses all of them."""
    call = [sys.executable, "-c", PROGRAM, str(theirs), json.dumps(list(TERABYTES.values()))]
    run = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (run.stdout.split(), run.returncode) == (["refused"] * len(TERABYTES), 0), run.stderr[-2000:]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 100_000,
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"vocab_size": ' + "9" * 5_000 + "}",
        "\ufeff{}",
        r'{"a": "\ud800"}',
    ],
    ids=["objects", "lists", "digits", "mark", "half a character"],
)
def test_json_without_end(text: str, theirs: Path) -> None:
    (theirs / "config.json").write_text(text)
    refused(theirs, "config.json: is not valid JSON")


def test_values_without_end_are_quoted_in_part(theirs: Path) -> None:
    for field in ("model_type", "hidden_size", "hidden_act", "num_hidden_layers"):
        before = (theirs / "config.json").read_text()
        change_config(theirs, **{field: "x" * 1_000_000})
        refused(theirs, "config.json")
        (theirs / "config.json").write_text(before)


@pytest.mark.parametrize("theta", [float("inf"), float("nan"), 1e300, 1e-300, 0, -1])
def test_numbers_that_positions_cannot_be_turned_by(theta: float, theirs: Path) -> None:
    change_config(theirs, rope_parameters={"rope_type": "default", "rope_theta": theta})
    refused(theirs, "config.json", "rope_theta")
    change_config(theirs, rope_parameters={"rope_type": "linear", "factor": theta if theta < 1 or theta > 1e9 else 0})
    refused(theirs, "config.json", "factor")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file(name: str, theirs: Path) -> None:
    def replaced(make: Callable[[Path], object]) -> None:
        if (theirs / name).is_dir():
            (theirs / name).rmdir()
        else:
            (theirs / name).unlink(missing_ok=True)
        make(theirs / name)

    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        replaced(make)
        refused(theirs, f"{name}: file not found")


RECORDS: dict[str, dict[str, Any]] = {
    "kind": {"kind": "painter"},
    "kinds": {"kind": ["language"]},
    "no files": {"files": None},
    "files without sizes": {"files": {"config.json": {}}},
    "files of odd sizes": {"files": {"config.json": {"bytes": "many", "sha256": ""}}},
    "files of endless sizes": {"files": {"config.json": {"bytes": float("inf"), "sha256": ""}}},
    "no model": {"model": None},
    "a list for a model": {"model": []},
    "provenance": {"provenance": "mine"},
    "no labels": {"kind": "classifier"},
    "labels": {"kind": "classifier", "labels": [1, 2], "pooling": "last"},
    "no pooling": {"kind": "classifier", "labels": ["a", "b"]},
    "pooling": {"kind": "classifier", "labels": ["a", "b"], "pooling": "median"},
}


@pytest.mark.parametrize("fields", RECORDS.values(), ids=RECORDS.keys())
def test_records_that_do_not_say_what_they_should(fields: dict[str, Any], tmp_path: Path) -> None:
    save_model(LanguageModel(LLAMA), tmp_path)
    sign(tmp_path, **fields)
    refused(tmp_path, "lucidlm.json: does not say what it should")


def test_records_that_name_other_files(tmp_path: Path) -> None:
    save_model(LanguageModel(LLAMA), tmp_path)
    sign(tmp_path, files={"../../etc/passwd": {"bytes": 1, "sha256": ""}})
    refused(tmp_path, "lucidlm.json: lists '../../etc/passwd', which is not in the model directory")


def sign(directory: Path, **fields: Any) -> None:
    """Change a record, its checksum with it: that is against accidents, not against people."""
    record = {**json.loads((directory / "lucidlm.json").read_text()), **fields}
    (directory / "lucidlm.json").write_text(json.dumps({**record, "checksum": record_checksum(record)}))
