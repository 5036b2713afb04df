"""Named entities: what files and rows mean, that words survive tokens and windows, and that a tagger learns them."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Core
from tokenizers import models, normalizers, pre_tokenizers

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError, InputTypeError, LucidError
from lucidlm.data.examples.bio import first_fault
from lucidlm.data.examples.records import Entity, TaggedSentence
from lucidlm.evaluate.config import EvaluateConfig
from lucidlm.evaluate.directory import evaluate_directory
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, TokenClassifier
from lucidlm.predict.token_tagger import TokenTagger
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.base.parts import as_judged
from lucidlm.tasks.token_tagging import TokenTagging
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.finetune.tagging_objective import IGNORED, TaggingObjective
from lucidlm.train.loop import LoopConfig

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
CONLL = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n"
)
READ = [
    (("EU", "rejects"), ("B-ORG", "O"), 3),
    (("Peter", "Blackburn"), ("B-PER", "I-PER"), 6),
]


def task() -> TokenTagging:
    found = tasks.get("token-tagging")
    assert isinstance(found, TokenTagging)
    return found


def file(folder: Path, name: str, content: Any) -> str:
    path = folder / name
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    return str(path)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["Ada and Bob live in New York, not in Londonderry. 你好，世界。"] * 3, 340, exact=False)


def classifier(tokenizer: Tokenizer, **fields: Any) -> TokenClassifier:
    shape = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "num_layers": 2, "context_length": 128, "causal": False}
    return TokenClassifier(ModelConfig(vocab_size=tokenizer.vocab_size, **{**shape, **fields}), LABELS)


@pytest.fixture(scope="module")
def tagger(tokenizer: Tokenizer) -> TokenTagger:
    """A tagger of 16 tokens at once, which knows nothing."""
    return TokenTagger.from_model(classifier(tokenizer), tokenizer, 16)


# ---------------------------------------------------------------------- files and rows


@pytest.mark.parametrize("name", ["a.conll", "a.bio", "a.iob", "a.iob2", "a.txt", "a.train.txt"])
@pytest.mark.parametrize("change", [("\n", "\n"), ("\n", "\r\n"), (" ", "\t"), (" ", "  "), ("O\n\n", "O\n \t\n")])
def test_columns_are_read_from_files_of_any_name(name: str, change: tuple[str, str], tmp_path: Path) -> None:
    source = file(tmp_path, name, CONLL.replace(*change))
    assert read_examples(task(), source) == [TaggedSentence(*row[:2], f"{source}:{row[2]}") for row in READ]


def test_lines_are_counted_from_the_beginning_of_a_file(tmp_path: Path) -> None:
    for name in ("a.conll", "a.txt"):
        source = file(tmp_path, name, f"\n \n{CONLL}".rstrip())
        assert [example.where for example in read_examples(task(), source)] == [f"{source}:5", f"{source}:8"]


def test_a_long_text_file_keeps_its_line_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucidlm.data.formats.readers.PIECE", 40)
    source = file(tmp_path, "a.txt", "\n\n\n".join(f"word{number} O\nand O" for number in range(20)))
    found = read_examples(task(), source)
    assert [example.where for example in found] == [f"{source}:{1 + 4 * number}" for number in range(20)]
    assert [example.tokens[0] for example in found] == [f"word{number}" for number in range(20)]


def test_only_spaces_and_tabs_part_columns(tmp_path: Path) -> None:
    source = file(tmp_path, "a.conll", "\u3000 O\n\u00a0x\x85 O\n\nNew York\tB-LOC\n")
    assert [example.tokens for example in read_examples(task(), source)] == [("\u3000", "\u00a0x\x85"), ("New York",)]


def test_rows_have_lists_of_tokens_and_tags(tmp_path: Path) -> None:
    source = file(tmp_path, "a.jsonl", {"words": ["EU", "rejects"], "ner": ["B-ORG", "O"]})
    found = read_examples(task(), source, fields={"tokens": "words", "tags": "ner"})
    assert found == [TaggedSentence(("EU", "rejects"), ("B-ORG", "O"), f"{source}:1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.conll",
            "EU B-ORG\nis O\nbig I-ORG\n",
            "a.conll:3: I-ORG follows O, not B-ORG or I-ORG. Tags are BIO (IOB2)",
        ),
        ("a.conll", "EU I-ORG\n", "in IOB1 files, where B- only parts two entities, every I- that begins one has to"),
        ("a.conll", "a O\n\nEU S-ORG\n", "a.conll:3: 'S-ORG' is no BIO tag"),
        ("a.conll", "EU B-ORG\nrejects\n", "a.conll:2: a word without a tag"),
        ("a.conll", "EU\tB-ORG\nrejects\t\n", "a.conll:2: a word without a tag"),
        ("a.conll", "EU\tB-ORG\n\tO\n", "a.conll:2: a tag without a word"),
        ("a.txt", "A sentence.\nAnother one.\n", "a.txt:1: 'sentence.' is no BIO tag"),
        ("a.jsonl", {"tokens": ["a", "b"], "tags": ["O"]}, "a.jsonl:1: has 2 tokens and 1 tags"),
        ("a.jsonl", {"tokens": ["a"], "tags": [3]}, 'a.jsonl:1, token 1: field "tags" holds 3, not a string'),
        ("a.jsonl", {"tokens": ["a", None], "tags": ["O", "O"]}, "a.jsonl:1, token 2: a tag without a word"),
        (
            "a.jsonl",
            {"tokens": ["a", "\ud800"], "tags": ["O", "O"]},
            'token 2: field "tokens" holds half of a character',
        ),
        ("a.jsonl", {"tokens": [], "tags": []}, 'field "tokens" holds an empty list'),
        ("a.jsonl", {"tokens": "a b", "tags": ["O"]}, 'field "tokens" holds a str, not a list of strings'),
        ("a.jsonl", {"tokens": ["a"]}, 'field "tags" is missing'),
        ("a.tsv", "EU\tB-ORG\nis\tO\n", "Rename the file so that it ends in .conll"),
        ("a.conllu", "1\tEU\n", "is of a type that is not known"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_examples(task(), file(tmp_path, name, content))
    assert message in str(caught.value)


def test_sentences_that_cannot_be_used_may_be_skipped(tmp_path: Path) -> None:
    source = tmp_path / "a.conll"
    source.write_bytes(b"EU I-ORG\n\na O\ncaf\xe9 O\n\nb O\n")
    assert [found.tokens for found in read_examples(task(), str(source), on_error="skip")] == [("b",)]
    source.write_bytes(b"a O\n\n\ncaf\xe9 O\n")
    with pytest.raises(InputError, match=r"a\.conll:4: is not text in utf-8"):
        read_examples(task(), str(source))


def test_in_evaluation_a_sentence_counts_as_often_as_it_is_there() -> None:
    example = TaggedSentence(("a",), ("O",), "f:1")
    assert as_judged(task(), [example, example], "f") == [example, example]


# ---------------------------------------------------------------------- tokens, windows and tags


def test_each_words_first_token_is_found(tagger: TokenTagger) -> None:
    encoded = tagger.encode([["Ada", "Londonderry", ",", "zoo"]])[0]
    assert tagger.tokenizer.decode(encoded.ids) == "Ada Londonderry , zoo"
    pieces = [tagger.tokenizer.decode([encoded.ids[place]]) for place in encoded.firsts]
    assert pieces == ["Ada", " Londonderry", ",", "z"]  # not the space, where that is a token of its own


def test_chinese_words_are_not_parted_by_spaces(tagger: TokenTagger) -> None:
    encoded = tagger.encode([list("你好世界")])[0]
    assert tagger.tokenizer.decode(encoded.ids) == "你好世界"
    assert encoded.firsts.tolist() == sorted(set(encoded.firsts.tolist()))


@pytest.fixture(scope="module")
def wordpiece() -> Tokenizer:
    """BERT's kind of tokenizer, which drops control characters."""
    known = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "ada", "li", "##ves", "in"]
    core = Core(models.WordPiece({token: number for number, token in enumerate(known)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    core.add_special_tokens(known[:4])
    return Tokenizer(core, {"eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"})


def test_a_word_that_the_tokenizer_drops_still_gets_a_tag(wordpiece: Tokenizer) -> None:
    tagger = TokenTagger.from_model(classifier(wordpiece), wordpiece, 16)
    assert tagger.encode([["Ada", "\x01", "lives"]])[0].firsts.tolist() == [0, -1, 1]
    (tags,) = tagger.tags([["Ada", "\x01", "lives"]])
    assert len(tags) == 3
    assert first_fault(tags) is None
    assert tagger.tags([["\x01"]]) == [("O",)]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_tags_are_the_most_probable_sound_ones(tagger: TokenTagger, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(4, len(LABELS)))
    sound = [
        path for path in product(range(len(LABELS)), repeat=4) if not first_fault([LABELS[place] for place in path])
    ]
    best = max(sound, key=lambda path: sum(scores[row, place] for row, place in enumerate(path)))
    assert tuple(tagger._best_path(scores)) == best


@torch.no_grad()
def test_a_word_is_read_where_it_stands_farthest_from_an_edge(tagger: TokenTagger) -> None:
    words = list("你好世界") * 10
    encoded = tagger.encode([words])[0]
    size = len(encoded.ids)
    assert size >= 40
    (scores,) = tagger._scores([encoded], None)
    starts = [*range(0, size - 16, 8), size - 16]
    for place, first in enumerate(encoded.firsts):
        start = max(starts, key=lambda begin: min(first - begin, begin + 15 - first))
        window = torch.tensor(encoded.ids[start : start + 16].astype(np.int64))[None]
        expected = tagger.model(window, torch.tensor([16]))[0, first - start].double().log_softmax(-1)
        np.testing.assert_allclose(scores[place], expected.numpy(), atol=1e-5)
    example = TaggedSentence(tuple(words), ("B-X", "I-X", *["O"] * 38), "f:1")
    assert tagger.long_inputs([example]) == {
        "inputs read in windows": 1,
        "entities of types that the model does not know": 1,
    }


def test_a_tagger_takes_texts_and_words(tagger: TokenTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tagger([]) == tagger.tags([]) == []
    assert tagger("") == []
    assert tagger.tags([[]]) == [()]
    monkeypatch.setattr(tagger, "tags", lambda words: [("B-PER", "O", "O", "B-LOC", "I-LOC", "O") for _ in words])
    text = "Ada  lives in New\nYork."
    expected = [Entity("PER", "Ada", 0, 3), Entity("LOC", "New\nYork", 14, 22)]
    assert tagger(text) == expected
    assert tagger([text, text]) == [expected, expected]


def test_what_is_no_list_of_words_is_refused(tagger: TokenTagger) -> None:
    for wrong in ("Ada lives", ["Ada lives"], [[1]]):
        with pytest.raises(InputTypeError):
            tagger.tags(wrong)  # type: ignore[arg-type]


def test_models_that_do_not_tag_by_bio_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, embedding_dim=16, num_heads=2, ff_dim=16, num_layers=1)
    for labels in (["I-PER", "LABEL_1"], ["B-PER", "I-PER"], ["O", "S-PER"]):
        save_model(TokenClassifier(config, labels), tmp_path, tokenizer)
        with pytest.raises(InputError, match="its labels are no BIO tags"):
            TokenTagger(tmp_path)
    save_model(LanguageModel(config), tmp_path, tokenizer)
    with pytest.raises(InputError, match="holds a language model, not one that tags tokens"):
        TokenTagger(tmp_path)
    with pytest.raises(InputError, match="512 tokens at once"):
        TokenTagger.from_model(classifier(tokenizer), tokenizer, 512)


def test_damaged_weights_give_no_tags(tokenizer: Tokenizer) -> None:
    model = classifier(tokenizer)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(LucidError, match="not finite"):
        TokenTagger.from_model(model, tokenizer, 16).tags([["Ada"]])


# ---------------------------------------------------------------------- learning


NAMES, PLACES = ("Ada", "Bob", "Eve Stone"), ("Paris", "New York", "Oslo")


def made_up(path: Path, sentences: int) -> Path:
    """Write sentences in which what comes before "lives" is a person and what comes after "in" a place."""
    lines = []
    for number in range(sentences):
        name, place = NAMES[number % 3].split(), PLACES[number // 3 % 3].split()
        words = [*name, "lives", "in", *place, str(number)]
        tags = ["B-PER", *["I-PER"] * (len(name) - 1), "O", "O", "B-LOC", *["I-LOC"] * (len(place) - 1), "O"]
        lines += [*(f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A causal model with fresh weights, which nobody may write to."""
    directory = tmp_path_factory.mktemp("pretrained")
    shape = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "num_layers": 2, "context_length": 64}
    save_model(LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)), directory, tokenizer)
    return directory


def config(model: Path, data: Path | str = "f", **fields: Any) -> FinetuneConfig:
    loop = LoopConfig(**{"evaluations": 1, "patience": None, **fields.pop("loop", {})})
    base = {"task": "token-tagging", "model": str(model), "data": str(data), "batch_size": 8, "device": "cpu"}
    return FinetuneConfig(**{**base, "precision": "fp32", "test": 0.0, "dropout": 0.0, "loop": loop, **fields})


def objective(model: Path, train: list[TaggedSentence], **fields: Any) -> TaggingObjective:
    parts: Any = {"train": train, "validation": [], "test": []}
    return TaggingObjective.build(config(model, **fields), task(), load_model(model), parts, torch.device("cpu"))


def test_the_loss_counts_each_words_first_token(pretrained: Path) -> None:
    words = ("Ada", "zoo", "in")
    made = objective(pretrained, [TaggedSentence(words, ("B-PER", "B-LOC", "O"), "f:1")])
    (batch,) = next(made.batches(0))
    assert isinstance(made.model, TokenClassifier)
    assert not made.model.config.causal
    assert made.model.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    firsts = made.encoded[0].firsts
    assert batch.targets[0, firsts].tolist() == [3, 1, 0]
    assert (batch.targets != IGNORED).sum() == made.counted(batch) == 3 < batch.tokens.shape[1]
    logits = made.model(batch.tokens, batch.lengths)[0, firsts]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 1, 0]), reduction="sum")
    torch.testing.assert_close(made.loss(made.model, batch), expected)


def test_long_sentences_are_read_in_random_windows(pretrained: Path) -> None:
    words, tags = tuple("abcdefghijklmnopqrst"), ("B-PER", *["O"] * 19)
    made = objective(pretrained, [TaggedSentence(words, tags, "f:1")], max_length=16)
    batches = made.batches(0)
    drawn = [next(batches)[0] for _ in range(8)]
    assert {tuple(batch.tokens.shape) for batch in drawn} == {(1, 16)}
    assert len({tuple(batch.tokens[0].tolist()) for batch in drawn}) > 1
    assert made.report()[-1] == "1 sentences are longer than 16 tokens: read in windows"


def test_data_without_entities_teach_nothing(pretrained: Path) -> None:
    with pytest.raises(InputError, match="all 1 examples are without entities"):
        objective(pretrained, [TaggedSentence(("a",), ("O",), "f:1")])


def test_tags_are_learned_and_judged(pretrained: Path, tmp_path: Path) -> None:
    data = made_up(tmp_path / "train.conll", 90)
    rate = {"optimizer": {"learning_rate": 1e-2}}
    settings = config(pretrained, data, validation=0.1, epochs=3, loop={"evaluations": 1, **rate})
    outcome = finetune(settings, tmp_path / "tagger")
    assert outcome.evaluation["validation_entity_f1"] == 1

    evaluation = evaluate_directory(
        tmp_path / "tagger",
        EvaluateConfig(task="token-tagging", data=str(made_up(tmp_path / "test.txt", 9)), device="cpu"),
    )
    assert {name: figure.value for name, figure in evaluation.model.metrics.items()} == {
        "entity_f1": 1,
        "entity_precision": 1,
        "entity_recall": 1,
        "token_accuracy": 1,
    }
    by_name = {found.name: found.metrics["entity_f1"].value for found in evaluation.baselines}
    assert by_name["no entity"] == 0
    assert set(by_name) == {"no entity", "most frequent tag of the word"}
    rows = [json.loads(line) for line in (tmp_path / "tagger" / "predictions.jsonl").read_text().splitlines()]
    assert rows[0]["words"][:3] == ["Ada", "lives", "in"]
    assert rows[0]["tags"] == rows[0]["predicted"] == ["B-PER", "O", "O", "B-LOC", "O"]
    assert rows[0]["where"].endswith("test.txt:1")

    tagger = lucidlm.TokenTagger(tmp_path / "tagger")
    assert tagger.types == ["LOC", "PER"]
    assert "types: LOC, PER" in repr(tagger)
    assert [(found.type, found.text) for found in tagger("Eve Stone lives in New York")] == [
        ("PER", "Eve Stone"),
        ("LOC", "New York"),
    ]
