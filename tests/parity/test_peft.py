"""Our adapters opened by PEFT on transformers' model, and theirs opened by us: equal outputs; damage is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.peft import CONFIG, WEIGHTS, apply_adapter, save_adapter
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.model.lora import LoraConfig, add_adapters, is_adapter, merge

peft = pytest.importorskip("peft", reason="the peer of these tests is not installed: pip install peft")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
"""PEFT asks transformers under a name that transformers is about to drop."""

SIZE: dict[str, Any] = {
    "vocab_size": 60,
    "embedding_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ff_dim": 48,
    "num_layers": 2,
    "context_length": 32,
}
LENGTHS = torch.tensor([12, 12, 12])


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def ids() -> Tensor:
    return torch.randint(2, 60, (3, 12), generator=torch.Generator().manual_seed(0))


def loud(model: Any, *, adapters_only: bool = False) -> Any:
    """Enlarge the weights, so that every part of the model matters to what comes out."""
    with torch.no_grad():
        for index, (name, parameter) in enumerate(model.named_parameters()):
            if not adapters_only or "lora_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return model.eval()


def base(config: ModelConfig, directory: Path) -> Path:
    save_model(loud(LanguageModel(config)), directory)
    return directory


def tuned(path: Path, kind: str, **options: Any) -> Model:
    """Return a model of `kind` on the language model in `path`, with adapters that have something to say."""
    language = load_model(path).model
    assert isinstance(language, LanguageModel)
    if kind == "language":
        model: Model = language
    elif kind == "classifier":
        model = SequenceClassifier(language.config, ["a", "b", "c"], options.pop("pooling", "last"), seed=3)
        model.model.load_state_dict(language.model.state_dict())
    elif kind == "tagger":
        model = TokenClassifier(language.config, ["O", "B-X", "I-X"], seed=3)
        model.model.load_state_dict(language.model.state_dict())
    else:
        model = SpanExtractor(language.config, seed=3)
        model.transformer.load_state_dict(language.model.state_dict())
    add_adapters(model, LoraConfig(rank=4, alpha=6, **options), seed=1)
    return loud(model, adapters_only=True)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------- ours, opened by PEFT


@pytest.mark.parametrize("options", [{}, {"qk_norm": False}, {"tied_embeddings": False}])
@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj")])
@torch.no_grad()
def test_our_adapters_of_causal_models_open_there(
    options: dict[str, Any], targets: tuple[str, ...] | None, tmp_path: Path
) -> None:
    path = base(ModelConfig(**SIZE, **options), tmp_path / "base")
    model = tuned(path, "language", targets=targets)
    save_adapter(model, tmp_path / "adapter", base=str(path))
    their_base = transformers.AutoModelForCausalLM.from_pretrained(path)
    plain = their_base(ids()).logits
    theirs = peft.PeftModel.from_pretrained(their_base, tmp_path / "adapter").eval()
    assert type(theirs).__name__ == "PeftModelForCausalLM"
    close(model(ids()), theirs(ids()).logits)
    assert (plain - theirs(ids()).logits).abs().max() > 0.1
    merge(model)
    torch.testing.assert_close(model(ids()), theirs.merge_and_unload()(ids()).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_our_adapters_of_classifiers_open_there_with_their_head(tmp_path: Path) -> None:
    for name, config, pooling in (
        ("qwen3", ModelConfig(**SIZE), "last"),
        ("eurobert", ModelConfig.masked(**SIZE), "mean"),
    ):
        path = base(config, tmp_path / name)
        model = tuned(path, "classifier", pooling=pooling)
        save_adapter(model, tmp_path / f"{name}-adapter", base=str(path), head=("score", "dense", "classifier"))
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        extra = {"classifier_pooling": "mean"} if name == "eurobert" else {}
        theirs = peft.PeftModel.from_pretrained(
            load(path, num_labels=3, pad_token_id=1, **extra), tmp_path / f"{name}-adapter"
        )
        close(model(ids(), LENGTHS), theirs.eval()(ids(), attention_mask=torch.ones(3, 12).long()).logits)


def test_a_head_that_transformers_reads_otherwise_is_not_offered_as_a_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = base(ModelConfig(**SIZE), tmp_path / "base")
    for pooling, kind in (("last", "SEQ_CLS"), ("mean", None)):
        save_adapter(tuned(path, "classifier", pooling=pooling), tmp_path / pooling, base=str(path), head=("score",))
        assert json.loads((tmp_path / pooling / CONFIG).read_text())["task_type"] == kind
    said = capsys.readouterr().err
    assert str(tmp_path / "mean") in said
    assert str(tmp_path / "last") not in said


@torch.no_grad()
def test_our_adapters_of_token_classifiers_open_there_with_their_head(tmp_path: Path) -> None:
    for name, config in (("qwen3", ModelConfig(**SIZE)), ("eurobert", ModelConfig.masked(**SIZE))):
        path = base(config, tmp_path / name)
        model = tuned(path, "tagger")
        save_adapter(model, tmp_path / f"{name}-adapter", base=str(path), head=("score", "classifier"))
        their_base = transformers.AutoModelForTokenClassification.from_pretrained(path, num_labels=3)
        theirs = peft.PeftModel.from_pretrained(their_base, tmp_path / f"{name}-adapter").eval()
        assert type(theirs).__name__ == "PeftModelForTokenClassification"
        close(model(ids(), LENGTHS), theirs(ids(), attention_mask=torch.ones(3, 12).long()).logits)


@torch.no_grad()
def test_our_adapters_of_span_models_open_there(tmp_path: Path) -> None:
    path = base(ModelConfig(**SIZE), tmp_path / "base")
    model = tuned(path, "span")
    save_adapter(model, tmp_path / "adapter", base=str(path), head=("qa_outputs",))
    full = SpanExtractor(ModelConfig(**SIZE), seed=3)
    language = load_model(path).model
    assert isinstance(language, LanguageModel)
    full.transformer.load_state_dict(language.model.state_dict())
    save_model(full, tmp_path / "full")
    their_base = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "full")
    theirs = peft.PeftModel.from_pretrained(their_base, tmp_path / "adapter").eval()(ids())
    start, end = model(ids(), LENGTHS)
    close(start, theirs.start_logits)
    close(end, theirs.end_logits)


# ---------------------------------------------------------------------- theirs, opened by us


@torch.no_grad()
def test_their_adapters_open_here(tmp_path: Path) -> None:
    path = base(ModelConfig(**SIZE), tmp_path / "base")
    for targets in (["q_proj", "down_proj"], "all-linear"):
        fields = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, lora_dropout=0.1, target_modules=targets)
        theirs = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(path), fields)
        loud(theirs, adapters_only=True).save_pretrained(tmp_path / "adapter")
        model = load_model(path).model
        apply_adapter(model, tmp_path / "adapter")
        close(model.eval()(ids()), theirs(ids()).logits)


@torch.no_grad()
def test_their_classifier_opens_here_with_its_head(tmp_path: Path) -> None:
    path = base(ModelConfig(**SIZE), tmp_path / "base")
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    fields = peft.LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["q_proj", "v_proj"])
    theirs = loud(peft.get_peft_model(load(path, num_labels=3, pad_token_id=1), fields), adapters_only=True)
    theirs.save_pretrained(tmp_path / "adapter")
    model = SequenceClassifier(ModelConfig(**SIZE), ["a", "b", "c"], "last", seed=8).eval()
    language = load_model(path).model
    assert isinstance(language, LanguageModel)
    model.model.load_state_dict(language.model.state_dict())
    apply_adapter(model, tmp_path / "adapter")
    close(model.eval()(ids(), LENGTHS), theirs(ids()).logits)


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    path = base(ModelConfig(**SIZE), tmp_path / "base")
    save_adapter(tuned(path, "language"), tmp_path / "adapter", base=str(path))
    return path, tmp_path / "adapter"


def test_our_own_open_again(saved: tuple[Path, Path]) -> None:
    path, adapter = saved
    model = load_model(path).model
    apply_adapter(model, adapter)
    assert torch.equal(model.eval()(ids()), tuned(path, "language")(ids()))
    assert sum(is_adapter(name) for name, _ in model.named_parameters()) == 2 * 7 * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": 5}, "has shape"),
        ({"r": "many"}, "r: "),
    ],
)
def test_what_would_compute_something_else_is_refused(
    saved: tuple[Path, Path], change: dict[str, Any], message: str
) -> None:
    path, adapter = saved
    fields = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(fields | change))
    with pytest.raises(InputError, match=message):
        apply_adapter(load_model(path).model, adapter)


def test_damaged_and_missing_files_are_named(saved: tuple[Path, Path]) -> None:
    path, adapter = saved
    model, whole = load_model(path).model, (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        apply_adapter(model, adapter)
    tensors = load_file_of(whole, adapter)
    name = next(name for name in tensors if "lora_A" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, adapter / WEIGHTS)
    with pytest.raises(InputError, match="missing"):
        apply_adapter(model, adapter)
    save_file(tensors | {name: torch.full_like(tensors[name], float("nan"))}, adapter / WEIGHTS)
    with pytest.raises(InputError, match="NaN"):
        apply_adapter(model, adapter)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(InputError, match="file not found"):
        apply_adapter(model, adapter)
    assert not any(is_adapter(name) for name, _ in model.named_parameters())


def load_file_of(content: bytes, adapter: Path) -> dict[str, Tensor]:
    (adapter / "whole").write_bytes(content)
    return load_file(adapter / "whole")


def test_another_model_is_refused(saved: tuple[Path, Path]) -> None:
    _, adapter = saved
    with pytest.raises(InputError, match="another model of the same shape"):
        apply_adapter(LanguageModel(ModelConfig(**SIZE), seed=9), adapter)
    with pytest.raises(InputError, match="has shape"):
        apply_adapter(LanguageModel(ModelConfig(**{**SIZE, "ff_dim": 64})), adapter)
    with pytest.raises(InputError, match="no plain matrix"):
        apply_adapter(LanguageModel(ModelConfig(**{**SIZE, "num_layers": 1})), adapter)
