"""Preparing a corpus: what comes out, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from loky import process_executor

from lucidlm.core.errors import InputError, LucidError
from lucidlm.data.cleaning import overlap
from lucidlm.data.cleaning.clean import CleanConfig
from lucidlm.data.corpus import collect
from lucidlm.data.corpus import prepare as module
from lucidlm.data.corpus.cards import CARD, DataCard
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.corpus.prepare import PrepareConfig, choose_vocab_size, prepare
from lucidlm.data.split import split_of
from lucidlm.tokenize.tokenizer import Tokenizer

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "wizards",
    "brew",
    "elixirs",
    "under",
]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 30)) + f" number {i}." for i in range(count)]


def rows(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return rows(tmp_path / "corpus.jsonl", sentences(300))


def decoded(directory: Path, split: str) -> list[str]:
    tokenizer, corpus = Tokenizer.load(directory), TokenCorpus.open(directory, split)  # type: ignore[arg-type]
    text = tokenizer.decode(corpus.window(0, corpus.tokens), skip_special=False)
    return text.removesuffix("<|endoftext|>").split("<|endoftext|>")


def test_every_document_ends_up_in_its_split(corpus: str, tmp_path: Path) -> None:
    card = prepare(PrepareConfig(sources=[corpus], tokenizer="bpe", vocab_size=300, near="off"), tmp_path / "out")
    assert card.split_by == "hash"
    for split in ("train", "validation", "test"):
        expected = [text for text in sentences(300) if split_of(text) == split]
        assert decoded(tmp_path / "out", split) == expected
        assert card.splits[split].documents == len(expected)
        assert card.splits[split].bytes == sum(map(len, expected))


def test_the_card_tells_what_happened(tmp_path: Path) -> None:
    texts = sentences(200)
    source = rows(tmp_path / "a.jsonl", [*texts, texts[0], "short"])
    with open(source, "a") as file:
        file.write("not json\n")
    clean = CleanConfig(min_characters=20)
    config = PrepareConfig(sources=[source], on_error="skip", clean=clean, near="off", pii=True)
    card = prepare(config, tmp_path / "out")
    assert DataCard.load(tmp_path / "out", verify=True) == card
    steps = {step.name: step for step in card.steps}
    assert [(s.documents_in, s.documents_out) for s in card.steps] == [(203, 202), (202, 201), (201, 200), (200, 200)]
    assert steps["clean"].counts["too short"] == 1
    assert steps["deduplicate"].counts["exact duplicates"] == 1
    [origin] = card.sources
    assert (origin.uri, origin.documents, origin.bytes) == (source, 202, sum(map(len, [*texts, texts[0], "short"])))
    assert PrepareConfig.parse(card.settings, where="card") == config
    assert set(card.files) == {path.name for path in (tmp_path / "out").iterdir()} - {CARD}
    assert "203 documents in, 202 out" in card.summary()


def test_the_same_corpus_gives_the_same_files(corpus: str, tmp_path: Path) -> None:
    cards = [prepare(PrepareConfig(sources=[corpus], tokenizer="bpe"), tmp_path / name) for name in ("a", "b")]
    assert cards[0].files == cards[1].files


def test_several_processes_give_the_same_files_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(400)
    texts[50] = texts[10].replace("the", "The", 1)  # nearly a copy of one in another chunk
    texts[390] = texts[20]
    texts[30] = f"<p>{texts[30]}</p>"
    texts[40] = "cafÃ© " + texts[40]
    texts[60] = "我们在北京的一家小饭馆里吃了一顿晚饭，味道很好。" + str(texts[60])
    texts[70:80] = [f"{text} Write to me@example.com" for text in texts[70:80]]
    source, excluded = rows(tmp_path / "a.jsonl", texts), rows(tmp_path / "b.jsonl", texts[100:110])
    config = PrepareConfig(sources=[source], exclude={excluded: "text"}, pii=True, tokenizer="bpe", vocab_size=300)
    monkeypatch.setattr(collect, "CHUNK_CHARACTERS", 2000)
    monkeypatch.setattr(overlap, "CHUNK_CHARACTERS", 2000)
    started = []
    pool = process_executor.ProcessPoolExecutor
    monkeypatch.setattr(
        process_executor, "ProcessPoolExecutor", lambda count, **how: started.append(count) or pool(count, **how)
    )
    prepare(config, tmp_path / "one" / "out", processes=1)
    assert not started
    prepare(config, tmp_path / "two" / "out", processes=2)
    assert started == [2, 2]  # for the documents, and for the n-grams
    one, two = (DataCard.load(tmp_path / name / "out", verify=True) for name in ("one", "two"))
    assert [step.counts for step in one.steps][1:] == [
        {"html": 1, "repaired": 1},
        {"share wording with excluded data": 10},
        {"exact duplicates": 1, "near duplicates": 1},
        {"EMAIL": 10},
    ]
    assert one.model_dump(exclude={"created"}) == two.model_dump(exclude={"created"})  # with every file's checksum


def test_a_row_that_cannot_be_read_is_named_whatever_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = rows(tmp_path / "a.jsonl", sentences(400))
    with open(source, "a") as file:
        file.write("not json\n")
    monkeypatch.setattr(collect, "CHUNK_CHARACTERS", 2000)
    with pytest.raises(InputError, match=r"a\.jsonl:401: is not valid JSON"):
        prepare(PrepareConfig(sources=[source]), tmp_path / "out", processes=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_tokenizer_learns_from_a_sample_of_a_large_corpus(corpus: str, tmp_path: Path, monkeypatch) -> None:
    config = PrepareConfig(sources=[corpus], tokenizer="bpe", vocab_size=300)
    whole = prepare(config, tmp_path / "whole")
    assert whole.tokenizer.trained_on == whole.splits["train"].bytes
    assert "trained on" in whole.summary()
    monkeypatch.setattr(module, "TOKENIZER_SAMPLE", sum(split.bytes for split in whole.splits.values()) // 4)
    part, again = (prepare(config, tmp_path / name) for name in ("part", "again"))
    assert 0.15 < part.tokenizer.trained_on / whole.tokenizer.trained_on < 0.35
    assert part.files == again.files
    other = prepare(config.model_copy(update={"seed": 1}), tmp_path / "other")
    assert other.tokenizer.fingerprint != part.tokenizer.fingerprint


def test_several_sources_and_formats_make_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(sentences(100)):
        (tmp_path / "texts" / f"{i:03}.txt").write_text(text)
    (tmp_path / "more.csv.gz").write_bytes(gzip.compress(("text\n" + "\n".join(sentences(100, seed=1))).encode()))
    card = prepare(PrepareConfig(sources=[str(tmp_path / "texts"), str(tmp_path / "more.csv.gz")]), tmp_path / "out")
    assert [source.documents for source in card.sources] == [100, 100]


def test_masked_texts_keep_the_split_they_had(tmp_path: Path) -> None:
    texts = [f"{text} Write to me{i}@example.com" for i, text in enumerate(sentences(200))]
    prepare(PrepareConfig(sources=[rows(tmp_path / "a.jsonl", texts)], pii=True, near="off"), tmp_path / "out")
    held_out = [text for text in texts if split_of(text) == "test"]
    assert [text.split(" Write")[0] for text in decoded(tmp_path / "out", "test")] == [
        text.split(" Write")[0] for text in held_out
    ]
    assert "<EMAIL>" in decoded(tmp_path / "out", "test")[0]


@pytest.mark.parametrize("length", [40, 300, 30_000])
def test_one_text_is_cut_by_position(length: int, tmp_path: Path) -> None:
    text = "\n".join(sentences(200))[:length].strip()
    (tmp_path / "one.txt").write_text(text)
    card = prepare(PrepareConfig(sources=[str(tmp_path / "one.txt")], validation=0.1, test=0.1), tmp_path / "out")
    assert (card.split_by, card.tokenizer.kind) == ("position", "characters")
    parts = [decoded(tmp_path / "out", split) for split in ("train", "validation", "test")]
    assert "".join(piece for part in parts for piece in part) == text
    assert abs(card.splits["train"].bytes - 0.8 * len(text)) <= max(2, 0.03 * len(text))


def test_real_text_is_cut_by_position(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "pretraining" / "tinyshakespeare.txt"
    card = prepare(PrepareConfig(sources=[str(source)], validation=0.1, test=0), tmp_path / "out")
    assert (card.split_by, card.tokenizer.kind, card.tokenizer.unknown) == ("position", "characters", 0)
    assert abs(card.splits["train"].bytes / 1_115_394 - 0.9) < 0.001
    assert abs(card.splits["validation"].bytes / 1_115_394 - 0.1) < 0.001
    assert card.splits["test"].shards == []


def test_an_existing_tokenizer_is_taken_over(corpus: str, tmp_path: Path) -> None:
    first = prepare(PrepareConfig(sources=[corpus], tokenizer="bpe", vocab_size=300), tmp_path / "first")
    config = PrepareConfig(
        sources=[rows(tmp_path / "b.jsonl", sentences(100, 7))], tokenizer_from=str(tmp_path / "first")
    )
    second = prepare(config, tmp_path / "second")
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert (first.tokenizer.trained_on, second.tokenizer.trained_on) == (first.splits["train"].bytes, 0)


@pytest.mark.parametrize(
    ("megabytes", "text", "size"),
    [
        (0.001, "plain English", 1024),
        (1, "plain English", 1024),
        (33, "plain English", 8192),
        (10_000, "plain English", 32768),
        (4, "".join(map(chr, range(0x4E00, 0x4E00 + 3000))), 8192),
    ],
)
def test_the_vocabulary_grows_with_the_corpus_and_its_script(megabytes: float, text: str, size: int) -> None:
    assert choose_vocab_size(int(megabytes * 1e6), text) == size


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "sources"),
        ({"validation": 0.6, "test": 0.5}, "leave nothing to train on"),
        ({"near": 1.5}, "between 0 and 1, or off"),
        ({"tokenizer": "characters", "vocab_size": 300}, "leave vocab_size out"),
        ({"tokenizer_from": "x", "vocab_size": 300}, "leave those out"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareConfig(**{"sources": ["a.txt"], **fields})


def test_flags_arrive_as_strings() -> None:
    config = PrepareConfig(sources=["a"], vocab_size="8192", near="0.7")  # type: ignore[arg-type]
    assert (config.vocab_size, config.near) == (8192, 0.7)


def test_nothing_is_overwritten(corpus: str, tmp_path: Path) -> None:
    config = PrepareConfig(sources=[corpus])
    prepare(config, tmp_path / "out")
    with pytest.raises(InputError, match="holds prepared data already"):
        prepare(config, tmp_path / "out")


@pytest.mark.parametrize("content", ["", "\n\n   \n"])
def test_an_empty_corpus_is_refused_and_leaves_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(InputError, match=r"empty\.txt"):
        prepare(PrepareConfig(sources=[str(tmp_path / "empty.txt")]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_corpus_of_which_nothing_is_left_is_refused_with_the_counts(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", ["one", "two", "three"])
    with pytest.raises(InputError, match=r"nothing is left .*read: 3 left; clean: 0 left \(3 too short\)"):
        prepare(PrepareConfig(sources=[source], clean=CleanConfig(min_characters=10)), tmp_path / "out")


def test_a_vocabulary_larger_than_the_corpus_supports_is_refused(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than the data supports"):
        prepare(PrepareConfig(sources=[corpus], vocab_size=50_000), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    card = prepare(PrepareConfig(sources=[corpus], tokenizer="bpe"), tmp_path / "out")
    assert card.tokenizer.vocab_size < 1024


def test_a_disk_too_small_is_noticed_before_anything_is_written(corpus: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(LucidError, match=r"needs .* GB of disk"):
        prepare(PrepareConfig(sources=[corpus]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]
