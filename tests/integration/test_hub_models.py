"""Models of the hub, opened from a hub on this machine: one file or shards, a revision, no access, and no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from tests.conftest import made_up_reviews
from tests.gguf_models import tiny, trained_tokenizer
from tests.hub_server import TOKEN, Hub
from typer.testing import CliRunner

from lucidlm.checkpoint import shards
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.peft import save_adapter
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import read_json
from lucidlm.interop.gguf.write import export_gguf
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.lora import LoraConfig, add_adapters, merge
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig

CONFIG = ModelConfig(vocab_size=20, embedding_dim=4, num_heads=2, ff_dim=8, num_layers=2)


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def model_files(directory: Path, seed: int = 0) -> dict[str, bytes]:
    """Return the files of a small model as transformers has them, without our record."""
    save_model(LanguageModel(CONFIG, seed=seed), directory)
    return {name: data for name, data in files_of(directory).items() if name != "lucidlm.json"}


def is_the_model(source: str, seed: int = 0) -> bool:
    expected = LanguageModel(CONFIG, seed=seed).state_dict()
    return all(torch.equal(value, expected[name]) for name, value in load_model(source).model.state_dict().items())


def refused(source: str, *words: str, kind: type[LucidError] = InputError) -> None:
    with pytest.raises(kind) as caught:
        load_model(source)
    assert isinstance(caught.value, InputError) == (kind is InputError)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_in_one_file(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unwanted = {"pytorch_model.bin": b"\x80\x02", "model.fp16.safetensors": b"", "onnx/model.onnx": b"", "run.py": b""}
    wanted = model_files(tmp_path / "model") | {"1_Pooling/config.json": b"{}", "vocab.extra.txt": b""}
    repository = hub.add("model", "acme/tiny", wanted | unwanted)
    assert is_the_model("hf:acme/tiny")
    assert capsys.readouterr().err == f"hf:acme/tiny: commit {repository.names['main'][:7]}\n"
    [snapshot] = tmp_path.glob("cache/hub/*/snapshots/*")
    assert {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()} == set(wanted)
    fetched = len(hub.requests)
    assert is_the_model("hf:acme/tiny")
    assert not [request for request in hub.requests[fetched:] if "/resolve/" in request[1]]


def test_a_model_in_shards(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 500)
    files = model_files(tmp_path / "model")
    names = {name for name in files if name.endswith(".safetensors")}
    assert len(names) > 2
    hub.add("model", "acme/shards", files | {"consolidated.safetensors": b"twice"})
    assert is_the_model("hf:acme/shards")
    assert not hub.asked("GET", "consolidated")
    hub.add("model", "acme/lacking", {name: data for name, data in files.items() if name != min(names)})
    refused("hf:acme/lacking", f"lacks the shard {min(names)} of its weights")
    index = json.dumps({"weight_map": {"a": "../model.safetensors"}}).encode()
    hub.add("model", "acme/evil", {"config.json": b"{}", "model.safetensors.index.json": index})
    refused("hf:acme/evil", "lists '../model.safetensors', which is not in the model directory")


@pytest.mark.parametrize("sign", ["#", "@"])  # as for data sets, and as it was written before
def test_a_revision_and_the_commit_that_is_noted(hub: Hub, tmp_path: Path, sign: str) -> None:
    repository = hub.add("model", "acme/tiny", model_files(tmp_path / "first"))
    first = repository.names["main"]
    second = repository.commit(model_files(tmp_path / "second", seed=1), "main", "v2.0", "refs/pr/3")
    assert is_the_model(f"hf:acme/tiny{sign}{first}")
    for revision in ("main", "v2.0", "refs/pr/3", second):
        assert is_the_model(f"hf:acme/tiny{sign}{revision}", seed=1)
    assert load_model("hf:acme/tiny").record["provenance"]["imported_from"] == f"hf:acme/tiny#{second}"
    refused(f"hf:acme/tiny{sign}v9", "has no revision 'v9'", f"{hub.url}/acme/tiny/commits/main")


def test_gguf_files(hub: Hub, tmp_path: Path) -> None:
    export_gguf(tiny(trained_tokenizer()), tmp_path / "a.gguf", None)
    data = (tmp_path / "a.gguf").read_bytes()
    hub.add("model", "acme/one", {"README.md": b"", "tiny-q8.gguf": data})
    provenance = load_model("hf:acme/one").record["provenance"]
    commit = hub.repositories["models/acme/one"].names["main"]
    assert provenance["imported_from"] == f"hf:acme/one/tiny-q8.gguf#{commit}"
    hub.add("model", "acme/two", {"q4/a.gguf": data, "q8.gguf": data})
    assert (
        load_model("hf:acme/two/q4/a.gguf#main")
        .record["provenance"]["imported_from"]
        .startswith("hf:acme/two/q4/a.gguf#")
    )
    refused("hf:acme/two", "holds 2 models. Say which, hf:acme/two/FILE.gguf; there are q4/a.gguf (0.00 GB), q8.gguf")
    refused("hf:acme/two/q9.gguf", "has no file 'q9.gguf'. Say which, hf:acme/two/FILE.gguf")


def test_an_adapter_opens_with_the_model_that_it_names(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "acme/base", model_files(tmp_path / "base"))
    model = LanguageModel(CONFIG, seed=0)
    add_adapters(model, LoraConfig(rank=2), seed=1)
    with torch.no_grad():
        for name, factor in model.named_parameters():
            if "lora_B" in name:
                factor.fill_(0.1)
    save_adapter(model, tmp_path / "adapter", base="acme/base")
    hub.add("model", "acme/adapter", files_of(tmp_path / "adapter"))
    merge(model)
    opened, expected = load_model("hf:acme/adapter").model.state_dict(), model.state_dict()
    assert not is_the_model("hf:acme/adapter")
    assert all(torch.allclose(value, expected[name], atol=1e-6) for name, value in opened.items())


def test_what_is_no_model_is_refused_before_anything_is_fetched(hub: Hub) -> None:
    hub.add("model", "acme/pickled", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02", "training_args.bin": b""})
    refused(
        "hf:acme/pickled", "holds only pickled weights (pytorch_model.bin, training_args.bin)", "hf:OWNER/NAME#REVISION"
    )
    hub.add("model", "acme/empty", {"README.md": b""})
    refused("hf:acme/empty", "holds no model. A model is config.json beside .safetensors, or a .gguf file.")
    refused("hf:acme/none", f"there is no such model at {hub.url}, or it is private")
    refused("hf:tiny", "is not of the form hf:OWNER/NAME#REVISION")
    refused("hf:a--b/c..d", "is no name of a repository")
    assert not hub.asked("GET", "/resolve/")


def test_a_gated_model(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("model", "acme/gated", model_files(tmp_path / "model"), gated=True)
    refused(
        "hf:acme/gated", "is gated", f"Accept it at {hub.url}/acme/gated, then log in with `hf auth login`", "HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert is_the_model("hf:acme/gated")
    assert hub.tokens["/storage/"] == set()  # signed addresses get no token


def test_without_a_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.add("model", "acme/tiny", model_files(tmp_path / "model"))
    hub.add("model", "acme/other", files_of(tmp_path / "model"))
    load_model("hf:acme/tiny")
    snapshot_download("acme/other")  # by other software
    hub.down = True
    assert is_the_model("hf:acme/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for source in ("hf:acme/tiny", "hf:acme/other", f"hf:acme/tiny#{repository.names['main']}"):
        assert is_the_model(source)
    refused("hf:acme/none", "cannot be reached (HF_HUB_OFFLINE is set)", "HF_ENDPOINT", kind=LucidError)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert is_the_model("hf:acme/tiny")
    refused("hf:acme/none", "http://127.0.0.1:9 cannot be reached (", "Connection refused", kind=LucidError)


def test_a_model_of_which_a_part_was_fetched_is_not_opened_without_a_network(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "acme/tiny", model_files(tmp_path / "model"))
    hub.cut = [500] + [0] * 9
    refused(
        "hf:acme/tiny", "not all of it is in the cache", "The same command goes on where it stopped", kind=LucidError
    )
    hub.cut, hub.down = [], True
    refused("hf:acme/tiny", "not all of it is in the cache", "answers 503", kind=LucidError)
    hub.down = False
    assert is_the_model("hf:acme/tiny")
    assert hub.asked("GET", "/storage/")[-1] == "bytes=500-"


def test_a_model_and_data_of_the_hub_are_tuned(hub: Hub, tmp_path: Path, tiny_model: Path) -> None:
    commit = hub.add("model", "acme/tiny", files_of(tiny_model)).names["main"]
    rows = [{**row, "label": int(row["label"] == "positive")} for row in made_up_reviews(60)]
    classes = "dataset_info:\n  features:\n  - name: label\n    dtype: {class_label: {names: [negative, positive]}}\n"
    files = {"README.md": f"---\n{classes}---\n".encode(), "train.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    hub.add("dataset", "acme/reviews", files)
    settings = {"task": "sentiment", "model": "hf:acme/tiny", "data": "hf:acme/reviews@train", "device": "cpu"}
    finetune(FinetuneConfig(**settings, loop=LoopConfig(max_steps=1)), tmp_path / "judge")
    record = read_json(tmp_path / "judge" / "lucidlm.json")
    assert record["labels"] == ["negative", "positive"]
    assert record["provenance"]["imported_from"] == f"hf:acme/tiny#{commit}"
    done = CliRunner().invoke(app, ["import", "hf:acme/tiny", "--out", str(tmp_path / "imported")])
    assert done.exit_code == 0, done.output
    assert read_json(tmp_path / "imported" / "lucidlm.json")["provenance"]["imported_from"] == f"hf:acme/tiny#{commit}"
