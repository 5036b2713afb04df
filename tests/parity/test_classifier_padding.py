"""Which token a causal model's class is read from, beside transformers: the last one that is not its padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.tiny_models import GPT2, PAD, ROTARY, close, their, transformers
from tokenizers import processors

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.interop.hf import export_hf
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

FAMILIES = {"GPT2": GPT2, "Llama": ROTARY, "Qwen2": ROTARY, "Qwen3": ROTARY, "Mistral": ROTARY}
TEXTS = ["the quick brown fox", "x", "jumps over the lazy dog, and over the fox", "dog"]
TOKENS = torch.tensor([[5, 6, 7, PAD, PAD, PAD], [5, PAD, 7, 8, PAD, 9], [5, 6, 7, 8, 9, PAD], [PAD] * 6])
"""With padding after texts, in one, at the end of one, and for all of one."""


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def classifier(name: str, path: Path, **fields: Any) -> Any:
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    return their(name, "ForSequenceClassification", {**FAMILIES[name], **labels, **fields}, path)


def ending_in_padding(path: Path, pad: str) -> None:
    """Put a tokenizer into `path` that ends texts with the token it pads with."""
    made = Tokenizer.train_bpe(TEXTS * 3, 290, exact=False)
    end = made.core.token_to_id(pad)
    special = [(pad, end)]
    made.core.post_processor = processors.TemplateProcessing(single=["$A", pad], special_tokens=special)
    made.config |= {"eos_token": pad, "pad_token": pad}
    made.save(path)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_tokens_that_pad(name: str, tmp_path: Path) -> None:
    theirs, ours = classifier(name, tmp_path), load_model(tmp_path).model
    expected = theirs(TOKENS).logits
    close(ours(TOKENS, torch.full((4,), 6)), expected)
    lengths = torch.tensor([3, 6, 6, 6])
    close(ours(TOKENS, lengths), expected)


@torch.no_grad()
def test_without_padding_the_last_token_is_the_last(tmp_path: Path) -> None:
    theirs = classifier("Llama", tmp_path, pad_token_id=None)
    ours = load_model(tmp_path).model
    for row in TOKENS:
        close(ours(row[None], torch.tensor([6])), theirs(row[None]).logits)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["GPT2", "Qwen2"])
def test_texts_that_end_in_padding(name: str, side: str, tmp_path: Path) -> None:
    """In batches that are padded on either side; imported, in bf16 and exported too."""
    theirs = classifier(name, tmp_path / "theirs", pad_token_id=0, eos_token_id=0)
    ending_in_padding(tmp_path / "theirs", "<|endoftext|>")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs", padding_side=side)
    assert tokenizer(TEXTS[0])["input_ids"][-1] == tokenizer.pad_token_id == 0
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    extra = {}
    if name == "GPT2":  # its positions are not made from the mask
        extra["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(batch["input_ids"], attention_mask=batch["attention_mask"], **extra).logits.softmax(-1)
    loaded = load_model(tmp_path / "theirs")
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)
    export = tmp_path / "back"
    if name == "GPT2":
        export_hf(loaded, export, None)
    else:  # whose tokenizer is not Qwen2's, without which no model of that family is exported
        save_model(loaded.model, export, loaded.tokenizer)
    for copy in ("theirs", "ours", "back"):
        found = TextClassifier(tmp_path / copy, device="cpu").predict_proba(TEXTS)
        assert np.abs(found - expected.numpy()).max() < 1e-5, copy
        assert json.loads((tmp_path / copy / "config.json").read_text())["pad_token_id"] == 0


def test_a_model_that_names_no_padding_keeps_none_where_texts_may_end_in_it(tmp_path: Path) -> None:
    theirs = classifier("Llama", tmp_path / "theirs", pad_token_id=None, eos_token_id=0)
    ending_in_padding(tmp_path / "theirs", "<|endoftext|>")
    loaded = load_model(tmp_path / "theirs")
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["pad_token_id"] is None
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    found = TextClassifier(tmp_path / "ours", device="cpu").predict_proba(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            expected = theirs(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        assert np.abs(row - expected.numpy()).max() < 1e-5


def test_the_graph_reads_the_same(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from lucidlm.interop.onnx import export_onnx

    classifier("Llama", tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    export_onnx(loaded, tmp_path / "onnx", None)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    mask = (torch.arange(6) < torch.tensor([3, 6, 6, 6])[:, None]).long()
    [found] = session.run(["logits"], {"input_ids": TOKENS.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        close(torch.from_numpy(found), loaded.model(TOKENS, torch.tensor([3, 6, 6, 6])))


def test_three_classes_without_names(tmp_path: Path) -> None:
    """`num_labels` alone says how many there are: transformers names them by their numbers."""
    classifier("Llama", tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields = {key: value for key, value in fields.items() if key not in ("id2label", "label2id")}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"num_labels": 3}))
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, SequenceClassifier)
    assert ours.labels == [again.config.id2label[number] for number in range(3)] == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_labels": 2}, "id2label names 3 classes, num_labels says 2"),
        ({"num_labels": "three"}, "num_labels is 'three', not a number of classes"),
        ({"pad_token_id": "x"}, "pad_token_id is 'x', not a token's number"),
    ],
)
def test_fields_that_contradict_each_other_are_named(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    classifier("Llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)
