"""Our model directories opened by transformers, and theirs opened by us: equal logits, ids and greedy texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig, min_p, repetition_penalty, top_k, top_p
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

transformers = pytest.importorskip(
    "transformers", reason="the peer of these tests is not installed: pip install transformers"
)

TEXT = "The quick brown fox jumps over the lazy dog, 1984 times.\n\nWho's afraid? 你好，世界！ Ünïcödé 🙂 "
VOCABULARY = 300
SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "embedding_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ff_dim": 48,
    "num_layers": 3,
    "context_length": 64,
}
THEIR_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}
LENGTHS = torch.tensor([9, 20, 1])


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([TEXT] * 3, 290)


def loud(model: Any) -> Any:
    """Enlarge fresh weights, so that every part of the model matters to what comes out."""
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return model.eval()


def ids(rows: int = 3, length: int = 20) -> Tensor:
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def right_padded() -> tuple[Tensor, Tensor]:
    """Return token ids (3, 20), padded after `LENGTHS`, and the mask (3, 20) that transformers wants with them."""
    mask = torch.arange(20) < LENGTHS[:, None]
    return ids().masked_fill(~mask, 1), mask.long()


def save(model: Model, path: Path, tokenizer: Tokenizer | None = None) -> Path:
    save_model(model, path, tokenizer)
    return path


# ---------------------------------------------------------------------- ours, opened by transformers


@pytest.mark.parametrize("options", [{}, {"tied_embeddings": False}, {"qk_norm": False}, {"rope_theta": 500.0}])
@torch.no_grad()
def test_our_causal_models_open_there(options: dict[str, Any], tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE, **options)))
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        save(model, tmp_path, tokenizer), output_loading_info=True
    )
    assert not any(report.values())
    assert type(theirs).__name__ == ("LlamaForCausalLM" if options == {"qk_norm": False} else "Qwen3ForCausalLM")
    close(model(ids()), theirs(ids()).logits)
    assert theirs.generation_config.eos_token_id == tokenizer.eos_id


@torch.no_grad()
def test_our_masked_models_open_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for options in cast("list[dict[str, Any]]", [{}, {"tied_embeddings": False}]):
        model = loud(LanguageModel(ModelConfig.masked(**SIZE, **options)))
        path = save(model, tmp_path / str(len(options)), tokenizer)
        theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(path, output_loading_info=True)
        assert not any(report.values())
        close(model(ids()), theirs(ids()).logits)


@torch.no_grad()
def test_our_classifiers_open_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    padded, mask = right_padded()
    for name, config, pooling in (
        ("qwen3", ModelConfig(**SIZE), "last"),
        ("llama", ModelConfig(**SIZE, qk_norm=False), "last"),
        ("eurobert", ModelConfig.masked(**SIZE), "mean"),
    ):
        model = loud(SequenceClassifier(config, ["bad", "good", "mixed"], pooling))  # type: ignore[arg-type]
        theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            save(model, tmp_path / name, tokenizer), output_loading_info=True
        )
        assert not any(report.values())
        assert theirs.config.id2label == {0: "bad", 1: "good", 2: "mixed"}
        close(model(padded, LENGTHS), theirs(padded, attention_mask=mask).logits)


def test_a_classifier_they_would_misread_is_not_offered_to_them_as_one(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(SequenceClassifier(ModelConfig(**SIZE), ["bad", "good"], "mean"), tmp_path, tokenizer)
    assert transformers.AutoConfig.from_pretrained(tmp_path).architectures == ["Qwen3Model"]


@torch.no_grad()
def test_our_token_classifiers_open_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    padded, mask = right_padded()
    for name, config in (
        ("qwen3", ModelConfig(**SIZE)),
        ("llama", ModelConfig(**SIZE, qk_norm=False)),
        ("eurobert", ModelConfig.masked(**SIZE)),
    ):
        model = loud(TokenClassifier(config, ["O", "B-PER", "I-PER"]))
        theirs, report = transformers.AutoModelForTokenClassification.from_pretrained(
            save(model, tmp_path / name, tokenizer), output_loading_info=True
        )
        assert not any(report.values())
        assert theirs.config.id2label == {0: "O", 1: "B-PER", 2: "I-PER"}
        close(model(padded, LENGTHS)[mask == 1], theirs(padded, attention_mask=mask).logits[mask == 1])


@torch.no_grad()
def test_our_span_extractors_open_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    padded, mask = right_padded()
    for name, options in (("qwen3", {}), ("llama", {"qk_norm": False})):
        model = loud(SpanExtractor(ModelConfig(**SIZE, **options)))
        theirs, report = transformers.AutoModelForQuestionAnswering.from_pretrained(
            save(model, tmp_path / name, tokenizer), output_loading_info=True
        )
        assert not any(report.values())
        start, end = model(padded, LENGTHS)
        output = theirs(padded, attention_mask=mask)
        for row, length in enumerate(LENGTHS.tolist()):
            close(start[row, :length], output.start_logits[row, :length])
            close(end[row, :length], output.end_logits[row, :length])


def test_our_tokenizer_opens_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(LanguageModel(ModelConfig(**SIZE)), tmp_path, tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "", " ", "a  b\tc\r\n", "don't I'LL", "第一章 1234567", "é e\u0301"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)
    assert theirs.mask_token_id == tokenizer.mask_id


# ---------------------------------------------------------------------- theirs, opened by us


def their(kind: str, config: Any, path: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():  # fresh norms are all ones, which would hide one taken for another
        for index, (name, parameter) in enumerate(model.named_parameters()):
            if "norm" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["Qwen3", "Llama"])
@torch.no_grad()
def test_their_causal_models_open_here(name: str, tied: bool, tmp_path: Path) -> None:
    config = getattr(transformers, f"{name}Config")(**THEIR_SIZE, tie_word_embeddings=tied, rope_theta=700.0)
    theirs = their(f"{name}ForCausalLM", config, tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, LanguageModel)
    assert ours.config.tied_embeddings == tied
    close(ours(ids()), theirs(ids()).logits)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_their_masked_models_open_here(tied: bool, tmp_path: Path) -> None:
    config = transformers.EuroBertConfig(**THEIR_SIZE, mask_token_id=2, tie_word_embeddings=tied)
    theirs = their("EuroBertForMaskedLM", config, tmp_path)
    ours = load_model(tmp_path).model
    assert not ours.config.causal
    close(ours(ids()), theirs(ids()).logits)


@torch.no_grad()
def test_their_classifiers_open_here(tmp_path: Path) -> None:
    padded, mask = right_padded()
    labels = {"id2label": {0: "no", 1: "yes", 2: "?"}, "label2id": {"no": 0, "yes": 1, "?": 2}}
    for name, config, pooling in (
        ("Qwen3", transformers.Qwen3Config(**THEIR_SIZE, **labels), "last"),
        ("Llama", transformers.LlamaConfig(**THEIR_SIZE, **labels), "last"),
        ("EuroBert", transformers.EuroBertConfig(**THEIR_SIZE, **labels, classifier_pooling="mean"), "mean"),
    ):
        theirs = their(f"{name}ForSequenceClassification", config, tmp_path / name)
        ours = load_model(tmp_path / name).model
        assert isinstance(ours, SequenceClassifier)
        assert (ours.labels, ours.pooling) == (["no", "yes", "?"], pooling)
        close(ours(padded, LENGTHS), theirs(padded, attention_mask=mask).logits)


@torch.no_grad()
def test_their_span_extractors_open_here(tmp_path: Path) -> None:
    for name, config in (("Qwen3", transformers.Qwen3Config), ("Llama", transformers.LlamaConfig)):
        theirs = their(f"{name}ForQuestionAnswering", config(**THEIR_SIZE), tmp_path / name)
        start, end = load_model(tmp_path / name).model(ids(), torch.full((3,), 20))
        output = theirs(ids())
        close(start, output.start_logits)
        close(end, output.end_logits)


@torch.no_grad()
def test_models_saved_in_bf16_open_here_in_fp32(tmp_path: Path) -> None:
    their("Qwen3ForCausalLM", transformers.Qwen3Config(**THEIR_SIZE), tmp_path).bfloat16().save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = load_model(tmp_path).model
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    close(ours(ids()), theirs(ids()).logits)


@torch.no_grad()
def test_left_padded_batches_agree(tmp_path: Path) -> None:
    model = loud(LanguageModel(ModelConfig(**SIZE)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(save(model, tmp_path))
    within = torch.arange(20) >= 20 - LENGTHS[:, None]
    padded = ids().masked_fill(~within, 1)
    positions = (within.cumsum(-1) - 1).clamp(min=0)
    mask = within[:, None] & torch.ones(20, 20, dtype=torch.bool).tril() | torch.eye(20, dtype=torch.bool)
    logits = model(padded, positions=positions, mask=mask)
    expected = theirs(padded, attention_mask=within.long(), position_ids=positions).logits
    close(logits[within], expected[within])
    for row, length in enumerate(LENGTHS.tolist()):
        close(logits[row, -length:], model(padded[row : row + 1, -length:])[0])


# ---------------------------------------------------------------------- generation


def test_greedy_texts_are_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = loud(LanguageModel(ModelConfig(**{**SIZE, "vocab_size": tokenizer.vocab_size})))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(save(model, tmp_path, tokenizer))
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
    prompts = ["The quick", "Who's afraid?", "世", "The lazy dog, 1984 times."]
    inputs = reader(prompts, return_tensors="pt", padding=True)
    for penalty in (1.0, 1.3):
        outputs = theirs.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=penalty,
            suppress_tokens=[tokenizer.pad_id, tokenizer.mask_id],
        )
        config = SamplingConfig(temperature=0, length=20, repetition_penalty=penalty)
        for ours, output in zip(generate(model, tokenizer, prompts, config), outputs, strict=True):
            found = output[inputs["input_ids"].shape[1] :].tolist()
            assert ours.tokens == found[: len(ours.tokens)]
            assert all(token == tokenizer.pad_id for token in found[len(ours.tokens) :])
            assert ours.reason == "eos" or len(ours.tokens) == 20


def test_beams_are_theirs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As long as no text ends, where the two stop by other rules, and with scores that no length divides."""
    model = loud(LanguageModel(ModelConfig(**{**SIZE, "vocab_size": tokenizer.vocab_size})))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(save(model, tmp_path, tokenizer))
    never = [tokenizer.pad_id, tokenizer.mask_id]
    for prompt, penalty in [("The quick", 1.0), ("Who's afraid?", 1.3), ("世", 1.0)]:
        ids = tokenizer.encode_prompt(prompt)
        [row] = start_rows(model.config, tokenizer, [ids], SamplingConfig(), model.generation.ends)
        output = theirs.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)).long(),
            max_new_tokens=20,
            do_sample=False,
            num_beams=5,
            length_penalty=0.0,
            repetition_penalty=penalty,
            suppress_tokens=[*never, *row.ends],
            return_dict_in_generate=True,
            output_scores=True,
        )
        biases = tuple((end, -1e9) for end in sorted(row.ends))
        config = SamplingConfig(
            num_beams=5, length=20, length_penalty=0, repetition_penalty=penalty, logit_bias=biases, logprobs=0
        )
        [ours] = generate(model, tokenizer, [ids], config)
        assert ours.tokens == output.sequences[0, len(ids) :].tolist()
        if penalty == 1:
            score = sum(one.logprob for one in ours.likelihoods)
            assert score == pytest.approx(float(output.sequences_scores[0]), abs=1e-3)


def test_filters_are_theirs() -> None:
    theirs: Any = pytest.importorskip("transformers.generation.logits_process")

    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(16, 500, generator=generator)
    tokens = torch.randint(500, (16, 40), generator=generator)
    for k in (1, 7, 499):
        assert torch.equal(top_k(logits, k), theirs.TopKLogitsWarper(k)(tokens, logits))
    for p in (0.05, 0.5, 0.9, 0.99):
        assert torch.equal(top_p(logits, p), theirs.TopPLogitsWarper(p)(tokens, logits))
    for p in (0.01, 0.1, 0.5, 1.0):
        assert torch.equal(min_p(logits, p), theirs.MinPLogitsWarper(p)(tokens, logits))
    seen = torch.zeros(16, 500, dtype=torch.bool).scatter_(1, tokens, True)
    for penalty in (0.5, 1.2, 2.0):
        expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())
        assert torch.equal(repetition_penalty(logits, seen, penalty), expected)
    # One filter after another, as both apply them.
    mine = min_p(top_p(top_k(logits, 50), 0.9), 0.1)
    other = theirs.TopPLogitsWarper(0.9)(tokens, theirs.TopKLogitsWarper(50)(tokens, logits))
    assert torch.equal(mine, theirs.MinPLogitsWarper(0.1)(tokens, other))
