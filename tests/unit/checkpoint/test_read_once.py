"""A model directory is read once a command: its files are opened, parsed and hashed one time, however many ask."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.core import io
from lucidlm.core.errors import InputError
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_model
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.train.label_curve.run import LabelCurveConfig, label_curve


@pytest.fixture
def counts(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of the model is opened as text or hashed, by what is done and its name."""
    found: Counter[str] = Counter()
    read, hash_file = Path.read_text, io.sha256

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.parent == tiny_model:
            found[f"read {path.name}"] += 1
        return read(path, *args, **kwargs)

    def sha256(path: str | Path) -> str:
        if Path(path).parent == tiny_model:
            found[f"hash {Path(path).name}"] += 1
        return hash_file(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(io, "sha256", sha256)
    monkeypatch.setattr("lucidlm.checkpoint.loaded.sha256", sha256)
    return found


def once(counts: Counter[str]) -> None:
    """What the model is made of is read and hashed once; its tokenizer looks for ends of texts in two files by itself."""
    twice = {"read config.json", "read generation_config.json"}
    assert {"read lucidlm.json", "hash model.safetensors", *twice} <= counts.keys()
    assert {name for name, count in counts.items() if count != 1} == twice
    assert {counts[name] for name in twice} == {2}


def test_several_evaluations_read_the_model_once(
    tiny_model: Path, reviews_csv: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    loaded = load_model(tiny_model)
    for name, task in (("a", "perplexity"), ("b", "generation"), ("c", "perplexity")):
        config = EvaluateConfig(task=task, data=str(reviews_csv), limit=2, device="cpu")
        evaluate_model(loaded, config, tmp_path / name)
    once(counts)


def test_a_label_curve_reads_the_model_once(
    tiny_model: Path, reviews_csv: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    rows = reviews_csv.read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([rows[0], *rows[-8:]]) + "\n")
    data = {"data": str(reviews_csv), "test_data": str(tmp_path / "test.csv")}
    config = LabelCurveConfig(
        task="sentiment", model=str(tiny_model), **data, shots=(2,), seeds=2, epochs=1, least_steps=1, device="cpu"
    )
    curve, _ = label_curve(config, tmp_path / "curve")
    assert len(curve.points) == 6
    once(counts)


def test_the_fingerprint_of_a_model_made_elsewhere_hashes_its_files_when_asked(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(tiny_model)
    for name in ("one", "same"):
        save_model(loaded.model, tmp_path / name, loaded.tokenizer)
        (tmp_path / name / "lucidlm.json").unlink()
    opened: list[str] = []
    real = builtins.open
    one, same = load_model(tmp_path / "one"), load_model(tmp_path / "same")
    monkeypatch.setattr(builtins, "open", lambda path, *args, **kwargs: opened.append(str(path)) or real(path, *args))
    assert one.fingerprint == same.fingerprint == one.fingerprint != loaded.fingerprint
    assert sum(path.endswith("one/model.safetensors") for path in opened) == 1
    (tmp_path / "same" / "eval.json").write_text("{}")
    assert load_model(tmp_path / "same").fingerprint == one.fingerprint
    (tmp_path / "same" / "generation_config.json").write_text("{}")
    assert load_model(tmp_path / "same").fingerprint != one.fingerprint


def test_a_model_is_cast_on_the_way_but_for_what_is_computed(tiny_model: Path) -> None:
    plain, half = load_model(tiny_model).model, load_model(tiny_model, device="cpu", dtype=torch.bfloat16).model
    assert {value.dtype for value in plain.state_dict().values()} == {torch.float32}
    assert {value.dtype for value in half.state_dict().values()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float32}
    for name, value in half.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name].to(torch.bfloat16)), name
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        assert torch.allclose(half(ids).float(), plain(ids), atol=0.1)
    meta = load_model(tiny_model, device="meta").model
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}


SHAPE = ModelConfig(vocab_size=20, embedding_dim=16, num_heads=2, num_layers=1, ff_dim=32, context_length=8)


def test_one_check_says_what_is_no_causal_language_model() -> None:
    masked = LoadedModel(LanguageModel(SHAPE.changed(causal=False)), None, {"kind": "language"}, source="m")
    with pytest.raises(
        InputError, match=r"^m: is not a causal language model: a masked model does not continue text\. "
    ):
        masked.require_causal()
    judge = LoadedModel(SequenceClassifier(SHAPE, ["a", "b"], "mean"), None, {"kind": "classifier"}, source="m")
    with pytest.raises(InputError, match=r"a classifier model does not continue text\. Do this\.$"):
        judge.causal_lm(fix="Do this.")
    without = LoadedModel(LanguageModel(SHAPE), None, {"kind": "language"}, source="m")
    assert without.require_causal() is without.model
    with pytest.raises(InputError, match=r"^m: has no tokenizer\.json"):
        without.causal_lm()
