"""Models of sentence-transformers: their vectors are what its modules make of transformers' hidden states."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.test_tokenizer_parity import bert
from tests.parity.tiny_models import randomise, transformers
from torch import Tensor
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.interop.hf import export_hf
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.predict.vector_index import Item, SearchIndex
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig

TEXTS = ["a wonderful film with a dull ending", "dull", "The plot, the score and the camera!"]
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
WIDTH = 24


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("backbone")
    bert(directory, TEXTS * 3)
    config = transformers.BertConfig(
        vocab_size=len((directory / "vocab.txt").read_text(encoding="utf-8").splitlines()),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    randomise(transformers.BertModel(config)).save_pretrained(directory)
    return directory


def sentence_model(
    backbone: Path,
    path: Path,
    pooling: dict[str, Any],
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    **files: Any,
) -> Path:
    """Put the files of sentence-transformers beside a copy of the backbone."""
    path.mkdir(parents=True)
    for file in backbone.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": "" if kind == "Transformer" else f"{place}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **pooling}))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def flags(*on: str) -> dict[str, bool]:
    return {flag: name in on for name, flag in FLAGS.items()}


def expected(path: Path, texts: list[str], *poolings: str, normalize: bool) -> np.ndarray:
    """Compute it from transformers' states, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    vectors = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]  # (T, D)
        vectors.append(torch.cat([pooled(states, name) for name in poolings]))
    found = torch.stack(vectors)
    return (torch.nn.functional.normalize(found, dim=-1) if normalize else found).numpy()


def pooled(states: Tensor, name: str) -> Tensor:
    places = torch.arange(1, len(states) + 1)[:, None]
    ways = {
        "cls": lambda: states[0],
        "max": lambda: states.max(0).values,
        "mean": lambda: states.sum(0) / len(states),
        "mean_sqrt_len_tokens": lambda: states.sum(0) / len(states) ** 0.5,
        "weightedmean": lambda: (states * places).sum(0) / places.sum(),
        "lasttoken": lambda: states[-1],
    }
    return ways[name]()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", [*FLAGS, "several"])
def test_every_pooling_and_the_normalisation(pooling: str, normalize: bool, backbone: Path, tmp_path: Path) -> None:
    names = ("cls", "max", "weightedmean") if pooling == "several" else (pooling,)
    modules = ("Transformer", "Pooling", *(["Normalize"] if normalize else []))
    path = sentence_model(backbone, tmp_path / "theirs", flags(*names), modules)
    right = expected(path, TEXTS, *names, normalize=normalize)
    assert np.abs(TextEmbedder(path, device="cpu").embed(TEXTS) - right).max() < 1e-5
    loaded = load_model(path)
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)
    export_hf(load_model(tmp_path / "ours"), tmp_path / "back", None)
    for copy in ("ours", "back"):
        embedder = TextEmbedder(tmp_path / copy, device="cpu")
        assert embedder.dimension == WIDTH * len(names)
        assert np.abs(embedder.embed(TEXTS) - right).max() < 1e-5, copy
        kept = json.loads((tmp_path / copy / "1_Pooling" / "config.json").read_text())
        assert [name for name, flag in FLAGS.items() if kept.get(flag)] == list(names)
        kinds = [
            module["type"].rpartition(".")[2] for module in json.loads((tmp_path / copy / "modules.json").read_text())
        ]
        assert kinds == list(modules)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ("mean",)),
        ({"pooling_mode_max_tokens": True}, ("max", "mean")),  # the mean is on where it is not said to be off
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": "mean", "pooling_mode_cls_token": True}, ("mean",)),
    ],
)
def test_what_a_pooling_leaves_out(
    fields: dict[str, Any], names: tuple[str, ...], backbone: Path, tmp_path: Path
) -> None:
    path = sentence_model(backbone, tmp_path / "theirs", fields)
    right = expected(path, TEXTS, *names, normalize=True)
    assert np.abs(TextEmbedder(path, device="cpu").embed(TEXTS) - right).max() < 1e-5


def test_prompts_lower_case_and_length(backbone: Path, tmp_path: Path) -> None:
    about = {"prompts": {"query": "wonderful ", "passage": "dull ", "other": "plot "}, "default_prompt_name": "other"}
    path = sentence_model(
        backbone,
        tmp_path / "theirs",
        flags("mean"),
        config_sentence_transformers=about,
        sentence_bert_config={"max_seq_length": 12, "do_lower_case": True},
    )
    loaded = load_model(path)
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)
    for copy in ("theirs", "ours"):
        embedder = TextEmbedder(tmp_path / copy, device="cpu")
        assert (embedder.max_length, embedder.max_tokens) == (12, 10)
        for purpose, prompt in (("query", "wonderful "), ("document", "dull "), (None, "plot ")):
            right = expected(path, [prompt + TEXTS[0], prompt + "dull"], "mean", normalize=True)
            found = embedder.embed([TEXTS[0], "dull"], purpose=purpose)  # pyright: ignore[reportArgumentType]
            assert np.abs(found - right).max() < 1e-5


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_search_compares_as_the_model_was_tuned_to(similarity: str, backbone: Path, tmp_path: Path) -> None:
    about = {"prompts": {"query": "wonderful "}, "similarity_fn_name": similarity}
    path = sentence_model(
        backbone, tmp_path / "m", flags("max"), ("Transformer", "Pooling"), config_sentence_transformers=about
    )
    index = SearchIndex.build(TextEmbedder(path, device="cpu"), [Item(text, text) for text in TEXTS])
    [hits] = index.search(["camera"], top=3)
    unit = similarity == "cosine"
    scores = (
        expected(path, TEXTS, "max", normalize=unit) @ expected(path, ["wonderful camera"], "max", normalize=unit)[0]
    )
    assert {hit.text: pytest.approx(hit.score, abs=1e-4) for hit in hits} == dict(zip(TEXTS, scores, strict=True))


def test_search_says_the_prompts(backbone: Path, tmp_path: Path) -> None:
    about = {"prompts": {"query": "wonderful "}}
    path = sentence_model(backbone, tmp_path / "m", flags("mean"), config_sentence_transformers=about)
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    done = CliRunner().invoke(app, ["search", str(path), "camera", "--in", str(tmp_path / "texts.txt")])
    assert done.exit_code == 0, done.output
    assert "before every query stands 'wonderful '" in done.stderr


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("Transformer", "Pooling", "Dense", "Normalize"), "has a module Dense"),
        (("Transformer", "Pooling", "LayerNorm"), "has a module LayerNorm"),
        (("Transformer",), "passes texts through Transformer"),
        (("Transformer", "Normalize", "Pooling"), "passes texts through Transformer and Normalize and Pooling"),
    ],
)
def test_modules_that_there_are_none_of_are_named(
    modules: tuple[str, ...], message: str, backbone: Path, tmp_path: Path
) -> None:
    path = sentence_model(backbone, tmp_path / "m", flags("mean"), modules)
    with pytest.raises(InputError, match=message):
        TextEmbedder(path, device="cpu")
    loaded = load_model(path)  # the Transformer may be wanted for something else
    with pytest.raises(InputError, match=message):
        save_model(loaded.model, tmp_path / "ours", loaded.tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": "{"}, r"modules.json: should list modules"),
        ({"modules": json.dumps([{"type": "x.Transformer", "path": "../x"}])}, "not in the model directory"),
        ({"1_Pooling/config": json.dumps({"pooling_mode_odd": True})}, "asks for pooling by .*pooling_mode_odd"),
        ({"1_Pooling/config": json.dumps({"pooling_mode": ["mean", 3]})}, "asks for pooling by"),
        ({"sentence_bert_config": json.dumps({"max_seq_length": "long"})}, "max_seq_length is 'long'"),
        ({"config_sentence_transformers": json.dumps({"prompts": {"query": 1}})}, "prompts should map"),
    ],
)
def test_files_that_say_nonsense_are_named(
    change: dict[str, str], message: str, backbone: Path, tmp_path: Path
) -> None:
    path = sentence_model(backbone, tmp_path / "m", flags("mean"))
    for name, content in change.items():
        (path / f"{name}.json").write_text(content)
    with pytest.raises(InputError, match=message):
        TextEmbedder(path, device="cpu")


def test_a_transformer_in_a_folder_of_its_own(backbone: Path, tmp_path: Path) -> None:
    path = sentence_model(backbone, tmp_path / "m", flags("cls"))
    (path / "0_Transformer").mkdir()
    for file in [*backbone.iterdir()]:
        (path / file.name).rename(path / "0_Transformer" / file.name)
    (path / "0_Transformer" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    modules = json.loads((path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (path / "modules.json").write_text(json.dumps(modules))
    embedder = TextEmbedder(path, device="cpu")
    assert embedder.max_length == 20
    assert np.abs(embedder.embed(TEXTS) - expected(backbone, TEXTS, "cls", normalize=True)).max() < 1e-5


def test_in_an_archive(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCIDLM_CACHE", str(tmp_path / "cache"))
    path = sentence_model(backbone, tmp_path / "m", flags("cls"))
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as file:
        file.add(path, "top/m")
    for _ in range(2):  # unpacked, then checked
        found = TextEmbedder(tmp_path / "m.tar.gz", device="cpu").embed(TEXTS)
        assert np.abs(found - expected(path, TEXTS, "cls", normalize=True)).max() < 1e-5
    other = sentence_model(backbone, tmp_path / "other", flags("mean"))
    packed, plain, different = (load_model(place).fingerprint for place in (tmp_path / "m.tar.gz", path, other))
    assert packed == plain != different


def test_tuning_keeps_the_models_own_pooling(backbone: Path, tmp_path: Path) -> None:
    about = {"prompts": {"query": "wonderful "}}
    path = sentence_model(backbone, tmp_path / "m", flags("max"), config_sentence_transformers=about)
    rows = [{"query": f"film {number}", "text": f"plot {number} dull"} for number in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FinetuneConfig(
        task="semantic-search",
        model=str(path),
        data=str(tmp_path / "pairs.jsonl"),
        device="cpu",
        batch_size=8,
        loop=LoopConfig(max_steps=2, evaluations=1),
    )
    finetune(config, tmp_path / "finder")
    embedder = TextEmbedder(tmp_path / "finder", device="cpu")
    assert embedder.sentence.poolings == ("max",)
    assert not embedder.sentence.prompts
    model = load_model(tmp_path / "finder").model
    assert isinstance(model, LanguageModel)
    # The tuned masked model is opened there as the backbone that it has.
    right = expected(tmp_path / "finder", TEXTS, "max", normalize=True)
    assert np.abs(embedder.embed(TEXTS) - right).max() < 1e-5
