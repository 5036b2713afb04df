"""Pairs of texts: encoded, cut and read as transformers does, for a label and for a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tests.parity.tiny_models import BERT, ROTARY, close, their, transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.pair_classifier import PairClassifier, PairScorer
from lucidlm.tokenize.text_pairs import with_pairs
from lucidlm.tokenize.tokenizer import Tokenizer

FIRST = ["the quick brown fox", "x", "jumps over the lazy dog, and over the fox " * 3, "dog"]
SECOND = ["a fox", "jumps over the lazy dog " * 7, "the lazy dog is over the quick brown fox " * 3, "the dog"]
NAMES = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


def bert(path: Path, **fields: Any) -> tuple[Any, Any]:
    """Return a cross-encoder of transformers with random weights and its tokenizer, saved at `path`."""
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator([*FIRST, *SECOND], trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    ends = [("[SEP]", core.token_to_id("[SEP]")), ("[CLS]", core.token_to_id("[CLS]"))]
    core.post_processor = processors.BertProcessing(*ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    tokenizer = transformers.BertTokenizerFast(tokenizer_object=core, model_max_length=32, **names)
    tokenizer.save_pretrained(path)
    model = their("Bert", "ForSequenceClassification", {**BERT, "pad_token_id": 0, **fields}, path)
    return model, transformers.AutoTokenizer.from_pretrained(path)


def read(tokenizer: Any) -> Any:
    return tokenizer(FIRST, SECOND, truncation="longest_first", max_length=32, padding=True, return_tensors="pt")


def test_bert_reads_two_segments(tmp_path: Path) -> None:
    theirs, tokenizer = bert(tmp_path, **NAMES)
    batch, judge = read(tokenizer), PairClassifier(tmp_path, device="cpu")
    assert batch["attention_mask"].sum(1).tolist()[1:3] == [32, 32]  # two of the pairs are cut
    for row, pair in enumerate(judge.encode(FIRST, SECOND)):
        ids, begin = judge.window(*pair)
        length = int(batch["attention_mask"][row].sum())
        assert ids.tolist() == batch["input_ids"][row, :length].tolist()
        assert begin == batch["token_type_ids"][row, :length].tolist().index(1)
    with torch.no_grad():
        expected = theirs(**batch).logits.softmax(-1)
    found = torch.tensor([answer.probabilities for answer in judge(FIRST, SECOND)])
    close(found, expected)
    assert judge.labels == ["no", "yes"]


def test_a_number_is_the_same_on_both_sides(tmp_path: Path) -> None:
    one = {"id2label": {0: "score"}, "label2id": {"score": 0}, "num_labels": 1, "problem_type": "regression"}
    theirs, tokenizer = bert(tmp_path / "theirs", **one)
    loaded = load_model(tmp_path / "theirs")
    assert isinstance(loaded.model, SequenceClassifier)
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert again.config.problem_type == "regression"
    batch = read(tokenizer)
    with torch.no_grad():
        expected = theirs(**batch).logits[:, 0]
        close(again(**batch).logits[:, 0], expected)
    for path in ("theirs", "ours"):
        found = [answer.value for answer in PairScorer(tmp_path / path, device="cpu")(FIRST, SECOND)]
        close(torch.tensor(found), expected)


@pytest.mark.parametrize("ends", [True, False])
def test_causal_models_read_an_end_between_and_transformers_tokenizer_puts_it_there(ends: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_bpe([*FIRST, *SECOND] * 3, 290, exact=False)
    if not ends:
        tokenizer.config |= {"pad_token": tokenizer.config["eos_token"]}
    tokenizer = with_pairs(tokenizer.with_end())
    theirs = their("Qwen3", "ForSequenceClassification", {**ROTARY, **NAMES, "head_dim": 8}, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    save_model(loaded.model, tmp_path / "ours", tokenizer)
    encoder = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    judge = PairClassifier(tmp_path / "ours", device="cpu")
    pairs = judge.encode(FIRST[:2], ["a fox", "dog"])
    for row, pair in enumerate(pairs):
        ids, _ = judge.window(*pair)
        assert ids.tolist() == encoder(FIRST[row], ["a fox", "dog"][row])["input_ids"]
        assert ids.tolist().count(tokenizer.eos_id) == 1 + ends
        with torch.no_grad():
            expected = theirs(torch.tensor([ids.tolist()])).logits.softmax(-1)[0]
        close(torch.tensor(judge(FIRST[row], ["a fox", "dog"][row]).probabilities), expected)
