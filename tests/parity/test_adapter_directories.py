"""A directory that PEFT left, opened as a model: the one that it names, its changes merged, as PEFT itself computes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.tiny_models import BERT, GPT2, ROTARY, close, ids, their, transformers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.peft import save_adapter
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.model.heads import LanguageModel, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.model.lora import LoraConfig, add_adapters
from lucidlm.tokenize.tokenizer import Tokenizer

peft = pytest.importorskip("peft", reason="the peer of these tests is not installed: pip install peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:fan_in_fan_out is set to:UserWarning",
    "ignore:Model has .tie_word:UserWarning",
)

LENGTHS = torch.tensor([12, 12, 12])


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def adapted(model: Any, path: Path, task: str | None, **fields: Any) -> Any:
    """Give a model of transformers adapters that have something to say, and leave them in `path`."""
    found = peft.get_peft_model(model, peft.LoraConfig(task_type=task, r=3, lora_alpha=5, **fields))
    with torch.no_grad():
        for index, (name, parameter) in enumerate(found.named_parameters()):
            if "lora_" in name or "modules_to_save" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    found.save_pretrained(path)
    return found.eval()


@pytest.mark.parametrize(
    ("name", "fields", "targets"),
    [
        ("Llama", ROTARY, "all-linear"),
        ("Qwen2", ROTARY | {"tie_word_embeddings": True}, ["q_proj", "v_proj"]),
        ("Qwen3", ROTARY, ["down_proj"]),
        ("GPT2", GPT2, ["c_attn", "c_proj", "c_fc"]),  # one matrix there that is three here, and stored transposed
    ],
)
@torch.no_grad()
def test_language_models(name: str, fields: dict[str, Any], targets: Any, tmp_path: Path) -> None:
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    plain = their(name, head, fields, tmp_path / "base")
    before = plain(ids()).logits
    base = getattr(transformers, name + head).from_pretrained(tmp_path / "base")
    options = {"fan_in_fan_out": True} if name == "GPT2" else {}
    theirs = adapted(base, tmp_path / "adapter", "CAUSAL_LM", target_modules=targets, **options)
    loaded = load_model(tmp_path / "adapter")
    torch.testing.assert_close(loaded.model(ids()), theirs(ids()).logits, atol=1e-4, rtol=1e-4)
    assert (before - theirs(ids()).logits).abs().max() > 0.1
    save_model(loaded.model, tmp_path / "ours")
    assert torch.equal(load_model(tmp_path / "ours").model(ids()), loaded.model(ids()))


@torch.no_grad()
def test_modules_that_were_tuned_whole(tmp_path: Path) -> None:
    their("Llama", "ForCausalLM", ROTARY, tmp_path / "base")
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    saved = ["embed_tokens", "lm_head", "norm"]
    theirs = adapted(base, tmp_path / "adapter", "CAUSAL_LM", target_modules=["q_proj"], modules_to_save=saved)
    found = load_model(tmp_path / "adapter").model(ids())
    torch.testing.assert_close(found, theirs(ids()).logits, atol=1e-4, rtol=1e-4)


def test_a_matrix_that_is_two_is_refused_by_name(tmp_path: Path) -> None:
    their("Llama", "ForCausalLM", ROTARY | {"tie_word_embeddings": True}, tmp_path / "base")
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted(base, tmp_path / "adapter", "CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(InputError, match=r"tuned with a lm_head.weight of its own; the model reads and writes by one"):
        load_model(tmp_path / "adapter")


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Bert"])
@torch.no_grad()
def test_classifiers_with_their_heads(name: str, tmp_path: Path) -> None:
    fields = {"Llama": ROTARY, "GPT2": GPT2, "Bert": BERT}[name]
    # BERT's classifier reads what a pooler made, which PEFT does not keep: it has to be the base's.
    head = {"Llama": "ForCausalLM", "GPT2": "LMHeadModel", "Bert": "ForPreTraining"}[name]
    their(name, head, fields, tmp_path / "base")
    base = getattr(transformers, f"{name}ForSequenceClassification").from_pretrained(tmp_path / "base", num_labels=3)
    targets = {"Llama": ["q_proj", "v_proj"], "GPT2": ["c_attn"], "Bert": ["query", "value"]}[name]
    options = {"fan_in_fan_out": True} if name == "GPT2" else {}
    theirs = adapted(base, tmp_path / "adapter", "SEQ_CLS", target_modules=targets, **options)
    ours = load_model(tmp_path / "adapter").model
    assert isinstance(ours, SequenceClassifier)
    assert ours.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    close(ours(ids(), LENGTHS), theirs(ids()).logits)


@torch.no_grad()
def test_a_classifier_keeps_the_names_of_its_labels(tmp_path: Path) -> None:
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    their("Llama", "ForSequenceClassification", ROTARY | labels, tmp_path / "base")
    base = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base")
    theirs = adapted(base, tmp_path / "adapter", "SEQ_CLS", target_modules=["q_proj"])
    ours = load_model(tmp_path / "adapter").model
    assert isinstance(ours, SequenceClassifier)
    assert ours.labels == ["no", "yes"]
    close(ours(ids(), LENGTHS), theirs(ids()).logits)


@torch.no_grad()
def test_extractors_of_answers(tmp_path: Path) -> None:
    their("Llama", "ForQuestionAnswering", ROTARY, tmp_path / "base")
    base = transformers.LlamaForQuestionAnswering.from_pretrained(tmp_path / "base")
    theirs = adapted(
        base, tmp_path / "adapter", "QUESTION_ANS", target_modules=["q_proj"], modules_to_save=["qa_outputs"]
    )
    ours = load_model(tmp_path / "adapter").model
    assert isinstance(ours, SpanExtractor)
    start, end = ours(ids(), LENGTHS)
    close(start, theirs(ids()).start_logits)
    close(end, theirs(ids()).end_logits)


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Bert"])
@torch.no_grad()
def test_token_classifiers(name: str, tmp_path: Path) -> None:
    fields = {"Llama": ROTARY, "GPT2": GPT2, "Bert": BERT}[name]
    their(name, "ForTokenClassification", fields | {"num_labels": 3}, tmp_path / "base")
    base = getattr(transformers, f"{name}ForTokenClassification").from_pretrained(tmp_path / "base")
    targets = {"Llama": ["q_proj"], "GPT2": ["c_attn"], "Bert": ["query"]}[name]
    options = {"fan_in_fan_out": True} if name == "GPT2" else {}
    theirs = adapted(base, tmp_path / "adapter", "TOKEN_CLS", target_modules=targets, **options)
    ours = load_model(tmp_path / "adapter").model
    assert isinstance(ours, TokenClassifier)
    assert ours.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    close(ours(ids(), torch.full((len(ids()),), ids().shape[1])), theirs(ids()).logits)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A base with a tokenizer, and adapters beside it that name it by a relative path."""
    their("Llama", "ForCausalLM", ROTARY, tmp_path / "base")
    Tokenizer.train_bpe(["the quick brown fox " * 5], 280, exact=False).save(tmp_path / "base")
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted(base, tmp_path / "adapter", "CAUSAL_LM", target_modules=["q_proj"])
    return change(tmp_path / "adapter", base_model_name_or_path="base")


def change(path: Path, **fields: Any) -> Path:
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | fields))
    return path


def test_the_base_may_lie_beside_and_the_tokenizer_comes_from_either(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(llama)
    assert f"{llama}: adapters, merged into base" in capsys.readouterr().err
    assert loaded.tokenizer is not None
    assert loaded.record["provenance"]["adapter"] == str(llama)
    own = Tokenizer.train_characters(["abc"])
    own.save(llama)
    again = load_model(llama).tokenizer
    assert again is not None
    assert again.fingerprint == own.fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_model_name_or_path": None}, "does not say what model they belong to"),
        (
            {"base_model_name_or_path": "/nowhere/llama"},
            r"holds adapters for the model '/nowhere/llama', which cannot be opened \(/nowhere/llama: there is no such",
        ),
        ({"base_model_name_or_path": "adapter"}, "holds adapters, not a model that others could belong to"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "is for the task SEQ_2_SEQ_LM, which there is no model for"),
        ({"task_type": "SEQ_CLS"}, "holds no score or classifier, which the model that it belongs to has not either"),
        ({"use_dora": True}, "uses use_dora"),
        ({"r": 4}, "has shape"),
    ],
)
def test_what_cannot_be_opened_is_said(fields: dict[str, Any], message: str, llama: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(change(llama, **fields))


def test_pickled_adapters_are_not_opened(llama: Path) -> None:
    (llama / "adapter_model.safetensors").rename(llama / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model.bin: is a pickle"):
        load_model(llama)


def test_our_own_open_too_where_they_say_enough(tmp_path: Path) -> None:
    their("Llama", "ForCausalLM", ROTARY, tmp_path / "base")
    model = load_model(tmp_path / "base").model
    assert isinstance(model, LanguageModel)
    add_adapters(model, LoraConfig(rank=2), seed=1)
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    close(load_model(tmp_path / "adapter").model(ids()), model.eval()(ids()))
    classifier = SequenceClassifier(model.config, ["a", "b"], "mean", seed=3)
    add_adapters(classifier, LoraConfig(rank=2), seed=1)
    save_adapter(classifier, tmp_path / "judge" / "adapter", base=str(tmp_path / "base"), head=("score",))
    with pytest.raises(InputError, match="Open the whole model, which was saved beside them"):
        load_model(tmp_path / "judge" / "adapter")
