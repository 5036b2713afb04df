"""Texts as vectors, and search among them: the same in any company, kept whole, refused where they mean nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import made_up_reviews

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.data.document import Document
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.predict.vector_index import Item, SearchIndex, collect_items, open_index

TEXTS = [row["text"] for row in made_up_reviews(12)] + ["ok", "好看！"]


@pytest.fixture(scope="module")
def embedder(tiny_model: Path) -> TextEmbedder:
    return TextEmbedder(tiny_model, device="cpu")


def items(texts: list[str] = TEXTS) -> list[Item]:
    return [Item(text, f"texts.jsonl:{number}") for number, text in enumerate(texts, 1)]


def test_vectors_have_length_one_and_do_not_depend_on_company(embedder: TextEmbedder) -> None:
    together = embedder.embed(TEXTS)
    assert together.shape == (len(TEXTS), 32)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_short_texts_vector_is_what_the_backbone_says(embedder: TextEmbedder, pooling: str) -> None:
    other = TextEmbedder.from_model(embedder.model, embedder.tokenizer, pooling)  # pyright: ignore[reportArgumentType]
    ids = embedder.tokenizer.encode(TEXTS[12]) + [embedder.tokenizer.eos_id] * (pooling == "last")
    with torch.inference_mode():
        states = embedder.model.model(torch.tensor([ids]))[0]
    state = states[-1] if pooling == "last" else states.mean(0)
    assert np.allclose(other.embed([TEXTS[12]])[0], (state / state.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_long_texts_are_read_whole_in_windows_that_weigh_by_length(embedder: TextEmbedder, pooling: str) -> None:
    narrow = TextEmbedder.from_model(embedder.model, embedder.tokenizer, pooling, 16)  # pyright: ignore[reportArgumentType]
    (ids,) = narrow.encode([TEXTS[0]])
    assert len(ids) > 2 * narrow.max_tokens
    assert narrow.long([ids]) == 1
    parts = np.array_split(ids, -(-len(ids) // narrow.max_tokens))
    expected = np.zeros(32)
    for part in parts:
        window = torch.from_numpy(narrow.window(part).astype(np.int64))[None]
        with torch.inference_mode():
            states = narrow.model.model(window)[0]
        state = states[-1] if pooling == "last" else states.mean(0)
        expected += window.shape[1] * state.double().numpy()
    assert np.allclose(narrow.embed([TEXTS[0]])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_embedding_leaves_the_model_as_it_was(embedder: TextEmbedder) -> None:
    embedder.model.train()
    embedder.embed(["ok"])
    assert embedder.model.training
    embedder.model.eval()


def test_what_cannot_be_embedded_is_said(embedder: TextEmbedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text 2 of 3 is empty"):
        embedder.embed(["a", " ", "b"])
    with pytest.raises(InputError, match="longer than the model's context of 64"):
        TextEmbedder.from_model(embedder.model, embedder.tokenizer, "mean", 65)
    save_model(SequenceClassifier(embedder.model.config, ["a", "b"], "mean"), tmp_path, embedder.tokenizer)
    with pytest.raises(InputError, match="holds a classifier model"):
        TextEmbedder(tmp_path, device="cpu")


def test_pooling_and_length_are_remembered_and_told_to_sentence_transformers(
    embedder: TextEmbedder, tmp_path: Path
) -> None:
    settings = {"config": {"pooling": "mean", "max_length": 24}}
    save_model(embedder.model, tmp_path, embedder.tokenizer, provenance=settings)
    again = TextEmbedder(tmp_path, device="cpu")
    assert (again.pooling, again.max_length) == ("mean", 24)
    again.describe_to_sentence_transformers(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    assert pooling == {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    assert json.loads((tmp_path / "sentence_bert_config.json").read_text())["max_seq_length"] == 24
    TextEmbedder(tmp_path, device="cpu")  # what was added is no part of the checksums


def test_last_pooling_is_not_offered_to_sentence_transformers(embedder: TextEmbedder, tmp_path: Path) -> None:
    TextEmbedder.from_model(embedder.model, embedder.tokenizer, "last").describe_to_sentence_transformers(tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- search


def test_a_text_finds_itself_first_and_the_rest_in_order(embedder: TextEmbedder) -> None:
    index = SearchIndex.build(embedder, items())
    for text, hits in zip(TEXTS, index.search(TEXTS, top=100), strict=True):
        assert hits[0].text == text
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert hits[0].where == f"texts.jsonl:{TEXTS.index(text) + 1}"
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert len(hits) == len(TEXTS)
    assert [hit.text for hit in index.search(TEXTS[:1], top=3)[0]] == [h.text for h in index.search(TEXTS[:1], 100)[0]][
        :3
    ]


def test_recommendations_come_from_the_mean_and_leave_out_the_history(embedder: TextEmbedder) -> None:
    index = SearchIndex.build(embedder, items())
    hits = index.recommend(TEXTS[:3], top=100)
    assert {hit.text for hit in hits} == set(TEXTS[3:])
    mean = embedder.embed(TEXTS[:3]).mean(0)
    best = max(TEXTS[3:], key=lambda text: float(embedder.embed([text])[0] @ mean))
    assert hits[0].text == best
    assert len(index.recommend(TEXTS[:3], top=2)) == 2


def test_empty_queries_and_histories_are_refused(embedder: TextEmbedder) -> None:
    index = SearchIndex.build(embedder, items(["ok"]))
    with pytest.raises(InputError, match="QUERY: the query is empty"):
        index.search(["ok", " "])
    for history in ([], [""]):
        with pytest.raises(InputError, match="--like: the item is empty"):
            index.recommend(history)


def test_texts_are_taken_once_and_what_is_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [Document(text, f"f:{number}") for number, text in enumerate(["a", " ", "b", "a", "a"], 1)]
    assert [asdict(item) for item in collect_items(documents, "f")] == [
        {"text": "a", "where": "f:1"},
        {"text": "b", "where": "f:3"},
    ]
    assert "left out 1 empty texts, 2 repeated texts" in capsys.readouterr().err
    with pytest.raises(InputError, match="f: holds no texts to search"):
        collect_items([Document(" ", "f:1")], "f")


def test_an_index_comes_back_and_is_used_again(
    embedder: TextEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = items([*TEXTS, "a line\u2028and\nanother"])
    first = open_index(embedder, "m", found, tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(SearchIndex, "build", None)  # nothing is embedded again
        again = open_index(embedder, "m", found, tmp_path / "index")
    assert again.items == first.items == found
    assert np.array_equal(again.vectors, first.vectors)
    assert SearchIndex.load(tmp_path / "index", embedder, "m").search(["ok"]) == first.search(["ok"])
    open_index(embedder, "m", found[1:], tmp_path / "index")
    assert "made of other texts than the source holds now" in capsys.readouterr().err
    assert SearchIndex.load(tmp_path / "index", embedder, "m").items == found[1:]


def test_an_index_of_another_model_is_refused_or_made_again(
    embedder: TextEmbedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_index(embedder, "m", items(), tmp_path)
    with pytest.raises(InputError, match="made by another model"):
        SearchIndex.load(tmp_path, embedder, "n")
    open_index(embedder, "n", items(), tmp_path)
    assert "made by another model; embedding the texts again" in capsys.readouterr().err
    SearchIndex.load(tmp_path, embedder, "n")


def test_damaged_and_foreign_directories_are_named(embedder: TextEmbedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index"):
        SearchIndex.load(tmp_path, embedder, "m")
    open_index(embedder, "m", items(), tmp_path / "index")
    (tmp_path / "index" / "texts.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"texts\.jsonl: has 3 bytes"):
        open_index(embedder, "m", items(), tmp_path / "index")
    (tmp_path / "mine.txt").write_text("a letter")
    with pytest.raises(InputError, match="holds other files"):
        open_index(embedder, "m", items(), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "a letter"


def test_the_models_fingerprint_is_that_of_its_files(embedder: TextEmbedder, tmp_path: Path) -> None:
    for name, pooling in (("a", "mean"), ("b", "mean"), ("c", "last")):
        save_model(embedder.model, tmp_path / name, embedder.tokenizer, provenance={"config": {"pooling": pooling}})
    one, same, other = (load_model(tmp_path / name).fingerprint for name in "abc")
    assert one == same != other
