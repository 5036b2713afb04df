"""Characters that a tokenizer has no token for: counted for every kind, said in training and judging, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tests.conftest import made_up_reviews
from tests.gguf_models import characters_without_bytes, sentence_piece, tiny
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
from lucidlm.evaluate.record import EVALUATION, read_evaluation
from lucidlm.report.language import Language
from lucidlm.report.run import report_run
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.tokenize.unknown import Unknown, count_unknown
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune


def bpe(tokens: str, **options: object) -> tokenizers.Tokenizer:
    names = [*(["<unk>"] if options else []), *tokens]
    core = tokenizers.Tokenizer(models.BPE({token: n for n, token in enumerate(names)}, [], **options))  # type: ignore[arg-type]
    core.decoder = decoders.Fuse()
    return core


def without_some_bytes() -> tokenizers.Tokenizer:
    core = bpe("abcĠÃ")  # the first byte of é is there, the second is not
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return core


def with_an_added_token() -> tokenizers.Tokenizer:
    core = bpe("abc ")
    core.add_tokens([AddedToken("🧿", special=False)])
    return core


def clip() -> tokenizers.Tokenizer:
    names = ["a", "b", "a</w>", "b</w>", "ab</w>"]
    core = tokenizers.Tokenizer(
        models.BPE({token: n for n, token in enumerate(names)}, [("a", "b</w>")], end_of_word_suffix="</w>")
    )
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.decoder = decoders.Fuse()
    return core


def word_pieces() -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "c": 3}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return core


def unigram(*pieces: str) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in pieces)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    return core


@pytest.mark.parametrize(
    ("core", "text", "characters", "first"),
    [
        (bpe("abc ", unk_token="<unk>"), "ab 🧿🧿c é\n", 4, "🧿"),
        (bpe("abc ", unk_token="<unk>", fuse_unk=True), "ab 🧿🧿c é", 3, "🧿"),
        (bpe("abc "), "ab 🧿🧿c é", 3, "🧿"),  # these vanish without a trace
        (bpe("abc "), "ab\u200bc", 1, "U+200B"),
        (with_an_added_token(), "a 🧿 b é", 1, "é"),
        (without_some_bytes(), "ab éc Ã", 2, "é"),
        (clip(), "AB a ba bé", 1, "é"),
        (word_pieces(), "AB ab🧿 é a", 4, "ab🧿"),  # all of a word becomes [UNK]
        (word_pieces(), "abb\tc\n", 0, ""),
        (unigram("a", "▁a", "▁"), "a 🧿🧿a 🧿 b", 4, "🧿🧿"),
        (unigram("a", "▁a"), "a 🧿🧿a 🧿 b", 4, "🧿🧿"),  # here the space is part of the unknown token
        (sentence_piece(), "é 🧿 is it", 0, ""),
        (Tokenizer.train_characters(["abc"]).core, "é 🧿 is it", 0, ""),
        (Tokenizer.train_bpe(["abc"], 261).core, "é 🧿 is it", 0, ""),
    ],
)
def test_every_kind_of_tokenizer(core: tokenizers.Tokenizer, text: str, characters: int, first: str) -> None:
    known = Tokenizer(core, {"eos_token": "a"})
    place = "f:2" if characters else ""
    expected = Unknown(characters=characters, of=len(text) + 1, first=first, where=place)
    assert count_unknown(known, ["a", text], ["f:1", "f:2"]) == expected
    assert count_unknown(known, ["a", text], ["f:1", "f:2"], known.encode_batch(["a", text])) == expected


def test_a_count_is_said_in_a_line_and_added_up() -> None:
    one = Unknown(characters=213, of=4120, first="🧿", where="d.jsonl:7")
    assert str(one) == "213 of 4,120 characters (5.2 %) are unknown to the tokenizer, first: 🧿 at d.jsonl:7"
    total = Unknown(of=10) + one + Unknown(characters=1, of=5, first="é")
    assert total == Unknown(characters=214, of=4135, first="🧿", where="d.jsonl:7")
    assert str(Unknown(characters=1, of=5, first="é")).endswith("first: é")


def test_preparing_with_a_given_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    characters_without_bytes("abcdefghijklmnopqrstuvwxyz .").save(tmp_path / "tokenizer")
    source = tmp_path / "texts.jsonl"
    texts = [f"a text that is number {'x' * n} of some 🧿🧿 é." for n in range(1, 30)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    config = PrepareConfig(sources=[str(source)], tokenizer_from=str(tmp_path / "tokenizer"), near="off")
    card = prepare(config, tmp_path / "data")
    found = (card.tokenizer.unknown, card.tokenizer.characters, card.tokenizer.first_unknown)
    assert found == (87, sum(map(len, texts)), "🧿")
    said = " ".join(capsys.readouterr().err.split())
    assert "87 of 1," in said
    assert f"first: 🧿 at {source}:1" in said
    assert f"unknown to the tokenizer: 87 characters, first: 🧿 at {source}:1" in card.summary()


def test_training_and_judging_say_it_and_the_report_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = made_up_reviews(40)
    tokenizer = characters_without_bytes("".join(row["text"] for row in rows))
    rows[4]["text"] += " 🧿é"
    data = tmp_path / "reviews.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    save_model(tiny(tokenizer, context_length=256).model, tmp_path / "model", tokenizer, provenance={})
    config = FinetuneConfig(task="sentiment", model=str(tmp_path / "model"), data=str(data), device="cpu", test=0)
    finetune(config.changed(loop=config.loop.changed(max_steps=1)), tmp_path / "judge")
    of = sum(len(row["text"]) for row in rows)
    said = f"2 of {of:,} characters (0.0 %) are unknown to the tokenizer, first: 🧿 at {data}:5"
    assert said in " ".join(capsys.readouterr().err.split())
    expected = {"characters": 2, "of": of, "first": "🧿", "where": f"{data}:5"}
    assert load_model(tmp_path / "judge").record["provenance"]["unknown"] == expected
    asked = EvaluateConfig(task="sentiment", data=str(data), split="all", baselines=False, leakage=False, device="cpu")
    evaluate_directory(tmp_path / "judge", asked, tmp_path / "results")
    assert said in " ".join(capsys.readouterr().err.split())
    found = read_evaluation(tmp_path / "results" / EVALUATION).unknown
    assert found is not None
    assert found.model_dump() == expected
    for code, words in (("en", "unknown to the tokenizer"), ("zh", "分词器不认识")):
        report_run([tmp_path / "judge"], tmp_path / "report.html", Language(code))  # type: ignore[arg-type]
        page = (tmp_path / "report.html").read_text("utf-8")
        assert words in page
        assert "🧿" in page
    report_run([tmp_path / "results"], tmp_path / "report.html")
    assert f"2 of {of:,} characters (0.0 %), first: 🧿 (reviews.jsonl:5)" in (tmp_path / "report.html").read_text(
        "utf-8"
    )
