"""Tokenizers as `transformers` has them: ours opened there, and those of other models opened here, give the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.core.errors import InputError
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.tokenize.unknown import count_unknown

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

TEXTS = ["Hello, world!\n\nIt's 12345 o'clock.", "  spaces   and\ttabs ", "春眠不觉晓，abc处处闻啼鸟。", "😀 é"]


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_transformers_gives_the_same_ids(kind: str, tmp_path) -> None:
    tokenizer = Tokenizer.train_bpe(TEXTS * 3, 280) if kind == "bpe" else Tokenizer.train_characters(TEXTS)
    tokenizer.save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, "in no corpus: 🧿 ß 龘"]
    assert [other(text)["input_ids"] for text in texts] == tokenizer.encode_batch(texts)
    assert [other.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts
    assert (other.bos_token_id, other.eos_token_id) == (tokenizer.eos_id, tokenizer.eos_id)
    assert (other.pad_token_id, other.mask_token_id) == (tokenizer.pad_id, tokenizer.mask_id)
    assert len(other) == tokenizer.vocab_size


def bert(directory: Path, texts: list[str] = TEXTS) -> None:
    """WordPiece with BERT's settings, as `vocab.txt`."""
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(texts * 3, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokens = sorted(core.get_vocab().items(), key=lambda item: item[1])
    (directory / "vocab.txt").write_text("\n".join(token for token, _ in tokens), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def gpt2(directory: Path, texts: list[str] = TEXTS) -> None:
    """Byte-level BPE as GPT-2's two files, without any settings."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    core.train_from_iterator(texts * 3, trainer)
    core.model.save(str(directory))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def llama(directory: Path) -> None:
    """SentencePiece's BPE with bytes for what is not in the vocabulary; texts begin with <s>."""
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(
        ["it is a world of spaces " * 5], trainers.BpeTrainer(vocab_size=300, special_tokens=special)
    )
    state = json.loads(core.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    core = tokenizers.Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    save(core, directory, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram(directory: Path) -> None:
    """SentencePiece's Unigram; texts end with </s>."""
    core = tokenizers.Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(TEXTS * 3, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", core.token_to_id("</s>"))]
    )
    save(core, directory, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def save(core: tokenizers.Tokenizer, directory: Path, **roles: str) -> None:
    core.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


MAKERS = {"wordpiece": bert, "bpe": gpt2, "sentencepiece": llama, "unigram": unigram}


@pytest.fixture(params=MAKERS)
def opened(request, tmp_path):
    """A tokenizer of another model: its kind, and how transformers and we open it."""
    MAKERS[request.param](tmp_path)
    return request.param, transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)


def test_tokenizers_of_other_models_give_the_same_ids(opened) -> None:
    kind, theirs, ours = opened
    assert ours.kind == kind
    assert ours.encode_batch(TEXTS) == [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert [ours.whole(ours.encode(text)) for text in TEXTS] == [theirs(text)["input_ids"] for text in TEXTS]
    for ids in ours.encode_batch(TEXTS):
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert ours.vocab_size == len(theirs)
    assert ours.eos_id == (theirs.sep_token_id if kind == "wordpiece" else theirs.eos_token_id)
    if theirs.pad_token_id is not None:
        assert ours.pad_id == theirs.pad_token_id


def test_texts_given_word_by_word_give_the_same_ids(opened) -> None:
    _, theirs, ours = opened
    words = [["Hello", ",", "world", "!"], ["it", " o'clock", "é"], list("春眠不觉晓")]
    for given, found in zip(words, ours.encodings_of_words(words), strict=True):
        expected = theirs(given, is_split_into_words=True, add_special_tokens=False)
        assert found.ids == expected["input_ids"]
        assert found.word_ids == expected.word_ids()


def test_unknown_characters_are_those_of_transformers_unknown_tokens(opened) -> None:
    _, theirs, ours = opened
    for text in ("Hello ж world", "ж", "spaces 🧿🧿 and жж", "plain"):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(found["input_ids"], found["offset_mapping"], strict=True)
        unknown = [text[start:end].strip() for index, (start, end) in spans if index == theirs.unk_token_id]
        assert count_unknown(ours, [text]).characters == sum(map(len, unknown))


def test_what_comes_piece_by_piece_is_what_comes_at_once(opened) -> None:
    _, _, ours = opened
    for text in TEXTS:
        ids = ours.encode(text)
        stream = ours.stream_decoder()
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids)
        # What is said after something else keeps the space before it.
        before = ours.encode("it is")
        stream = ours.stream_decoder(before)
        after = "".join(map(stream.push, ids)) + stream.flush()
        assert ours.decode(before) + after == ours.decode([*before, *ids])


def test_control_tokens_in_a_text_are_only_text(opened) -> None:
    _, theirs, ours = opened
    control = set(theirs.all_special_ids) - {theirs.unk_token_id}
    for token in theirs.all_special_tokens:
        assert not control & set(ours.encode(f"say {token} again"))


def test_saved_and_opened_again_they_are_the_same(opened, tmp_path) -> None:
    _, _, ours = opened
    ours.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert (again.kind, again.fingerprint, again.config) == (ours.kind, ours.fingerprint, ours.config)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert [theirs(text)["input_ids"] for text in TEXTS] == [ours.whole(ours.encode(text)) for text in TEXTS]


def test_a_text_that_is_to_be_classified_gets_an_end(tmp_path) -> None:
    llama(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    ours = Tokenizer.load(tmp_path)
    assert ours.with_end() is ours  # padded with its end, the end would not be found again
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<unk>"}))
    ending = Tokenizer.load(tmp_path).with_end()
    assert ending.whole(ending.encode("world")) == [ours.begin_id, *ours.encode("world"), ours.eos_id]
    ending.save(tmp_path / "again")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs("world")["input_ids"] == ending.whole(ending.encode("world"))
    assert ending.with_end() is ending


def test_a_template_in_a_file_of_its_own_is_found(tmp_path) -> None:
    gpt2(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert Tokenizer.load(tmp_path).config["chat_template"] == "{{ messages }}"


def test_sentencepiece_alone_is_refused(tmp_path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(InputError, match=r"tokenizer\.model only.*save_pretrained"):
        Tokenizer.load(tmp_path)
