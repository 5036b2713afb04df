"""Each family against transformers: its models opened here and ours opened there give the same logits and texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.tiny_models import BERT, CONTEXT, GPT2, LLAMA3, PAD, ROTARY, V, close, ids, their, transformers
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.hf import export_hf
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

LENGTHS = torch.tensor([7, 12, 1])
LONGEST = 12

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", GPT2 | {"tie_word_embeddings": False}),
    "gpt2, wider, exact gelu": (
        "GPT2",
        GPT2 | {"n_inner": 56, "activation_function": "gelu", "layer_norm_epsilon": 0.1},
    ),
    "smollm": ("Llama", ROTARY | {"tie_word_embeddings": True, "rope_theta": 700.0, "rms_norm_eps": 1e-2}),
    "tinyllama": ("Llama", ROTARY | {"tie_word_embeddings": False}),
    "llama, one key head, wide heads": ("Llama", ROTARY | {"num_key_value_heads": 1, "head_dim": 10}),
    "llama, all key heads": ("Llama", {**ROTARY, "num_key_value_heads": None}),
    "llama 3": ("Llama", ROTARY | {"rope_parameters": LLAMA3}),
    "llama, stretched": (
        "Llama",
        ROTARY | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 9.0}},
    ),
    "mistral": ("Mistral", ROTARY | {"sliding_window": 16}),
    "mistral, no window": ("Mistral", ROTARY | {"sliding_window": None, "head_dim": 10}),
    "qwen2": ("Qwen2", ROTARY | {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen2 untied": ("Qwen2", ROTARY | {"rms_norm_eps": 1e-2}),
    "qwen3": ("Qwen3", ROTARY | {"head_dim": 10, "rope_theta": 1e6}),
    "qwen3 tied": ("Qwen3", ROTARY | {"head_dim": 6, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
}
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "bert untied": ("Bert", BERT | {"tie_word_embeddings": False, "type_vocab_size": 3}),
    "bert, tanh gelu": ("Bert", BERT | {"hidden_act": "gelu_new", "layer_norm_eps": 0.1}),
    "eurobert": ("EuroBert", ROTARY | {"mask_token_id": 2, "rope_theta": 700.0}),
    "eurobert tied": ("EuroBert", ROTARY | {"mask_token_id": 2, "tie_word_embeddings": True, "head_dim": 10}),
}
LANGUAGE = CAUSAL | MASKED


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    """Their progress bars and advice are none of the tests' business, but where a test says so."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture
def silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hold that transformers has nothing to complain of, in whatever a test makes or opens."""
    transformers.utils.logging.set_verbosity_warning()
    logging.getLogger("transformers").addHandler(caplog.handler)
    yield
    logging.getLogger("transformers").removeHandler(caplog.handler)
    transformers.utils.logging.set_verbosity_error()
    said = caplog.get_records("call")
    assert not [record.getMessage() for record in said if record.name.startswith("transformers")]


def right_padded() -> tuple[Tensor, Tensor]:
    """Return token ids (3, 12), padded after `LENGTHS`, and which of them are real."""
    real = torch.arange(LONGEST) < LENGTHS[:, None]
    return ids().masked_fill(~real, PAD), real


def left_padded() -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids (3, 12), padded before texts of `LENGTHS`, which of them are real, and their positions."""
    real = torch.arange(LONGEST) >= LONGEST - LENGTHS[:, None]
    return ids().masked_fill(~real, PAD), real, (real.cumsum(-1) - 1).clamp(min=0)


def segments(model: Model) -> dict[str, Tensor]:
    """Return random segments for models that tell them apart, under their name of the argument."""
    if not model.config.token_types:
        return {}
    drawn = torch.Generator().manual_seed(1)
    return {"token_type_ids": torch.randint(model.config.token_types, (3, LONGEST), generator=drawn)}


@torch.no_grad()
def same_language(ours: Any, theirs: Any) -> None:
    """Hold the two against each other on a plain batch and on padded ones."""
    assert isinstance(ours, LanguageModel)
    types = segments(ours)
    kwargs = {"token_type_ids": types.get("token_type_ids")}
    close(ours(ids(), **kwargs), theirs(ids(), **types).logits)

    padded, real = right_padded()
    mask = None if ours.config.causal else real[:, None]
    expected = theirs(padded, attention_mask=real.long(), **types).logits
    close(ours(padded, mask=mask, **kwargs)[real], expected[real])

    padded, real, positions = left_padded()
    mask = real[:, None].expand(-1, LONGEST, -1)
    if ours.config.causal:
        # What pads sees itself, as a softmax has to see something.
        mask = mask & torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril() | torch.eye(LONGEST, dtype=torch.bool)
    expected = theirs(padded, attention_mask=real.long(), position_ids=positions, **types).logits
    close(ours(padded, positions=positions, mask=mask, **kwargs)[real], expected[real])


@torch.no_grad()
def same_classes(ours: Any, theirs: Any) -> None:
    assert isinstance(ours, SequenceClassifier)
    types = segments(ours)
    padded, real = right_padded()
    expected = theirs(padded, attention_mask=real.long(), **types).logits
    close(ours(padded, LENGTHS, types.get("token_type_ids")), expected)
    close(ours(ids(), torch.full((3,), LONGEST), types.get("token_type_ids")), theirs(ids(), **types).logits)


@torch.no_grad()
def same_tags(ours: Any, theirs: Any) -> None:
    assert isinstance(ours, TokenClassifier)
    types = segments(ours)
    padded, real = right_padded()
    expected = theirs(padded, attention_mask=real.long(), **types).logits
    close(ours(padded, LENGTHS, types.get("token_type_ids"))[real], expected[real])


@torch.no_grad()
def same_spans(ours: Any, theirs: Any) -> None:
    assert isinstance(ours, SpanExtractor)
    types = segments(ours)
    padded, real = right_padded()
    output = theirs(padded, attention_mask=real.long(), **types)
    start, end = ours(padded, LENGTHS, types.get("token_type_ids"))
    close(start[real], output.start_logits[real])
    close(end[real], output.end_logits[real])


def open_there(auto: str, path: Path) -> Any:
    """Open `path` with a class that transformers chooses; there has to be neither too little nor too much."""
    model, report = getattr(transformers, auto).from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    return model


# ---------------------------------------------------------------------- theirs, opened here, and given back


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("case", LANGUAGE)
def test_language_models(case: str, tmp_path: Path) -> None:
    name, fields = LANGUAGE[case]
    head = "ForMaskedLM" if case in MASKED else "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    theirs = their(name, head, fields, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    same_language(loaded.model, theirs)
    export_hf(loaded, tmp_path / "back", None)
    back = open_there("AutoModelForMaskedLM" if case in MASKED else "AutoModelForCausalLM", tmp_path / "back")
    same_language(loaded.model, back)
    # Untied, BERT has a bias that it does not use, beside the one that it does.
    unused = {"cls.predictions.bias"} if case == "bert untied" else set()
    for name, value in theirs.state_dict().items():
        assert name in unused or torch.equal(value, back.state_dict()[name]), name
    again = load_model(tmp_path / "back").model
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("case", ["gpt2", "bert", "smollm", "mistral", "qwen2", "qwen3", "eurobert"])
def test_classifiers(case: str, tmp_path: Path) -> None:
    name, fields = LANGUAGE[case]
    labels = {"id2label": {0: "no", 1: "yes", 2: "?"}, "label2id": {"no": 0, "yes": 1, "?": 2}}
    extra = {"classifier_pooling": "mean"} if name == "EuroBert" else {}
    theirs = their(name, "ForSequenceClassification", fields | labels | extra, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    same_classes(loaded.model, theirs)
    export_hf(loaded, tmp_path / "back", None)
    back = open_there("AutoModelForSequenceClassification", tmp_path / "back")
    assert back.config.id2label == {0: "no", 1: "yes", 2: "?"}
    back.config.pad_token_id = PAD  # which only a tokenizer would tell
    same_classes(loaded.model, back)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("case", ["gpt2", "bert", "smollm", "mistral", "qwen2", "qwen3", "eurobert"])
def test_token_classifiers(case: str, tmp_path: Path) -> None:
    name, fields = LANGUAGE[case]
    labels = {"id2label": {0: "O", 1: "B-X", 2: "I-X"}, "label2id": {"O": 0, "B-X": 1, "I-X": 2}}
    theirs = their(name, "ForTokenClassification", fields | labels, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    same_tags(loaded.model, theirs)
    export_hf(loaded, tmp_path / "back", None)
    back = open_there("AutoModelForTokenClassification", tmp_path / "back")
    assert back.config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
    same_tags(loaded.model, back)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("case", ["gpt2", "bert", "smollm", "mistral", "qwen2", "qwen3"])
def test_span_extractors(case: str, tmp_path: Path) -> None:
    name, fields = LANGUAGE[case]
    theirs = their(name, "ForQuestionAnswering", fields, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    same_spans(loaded.model, theirs)
    export_hf(loaded, tmp_path / "back", None)
    same_spans(loaded.model, open_there("AutoModelForQuestionAnswering", tmp_path / "back"))


# ---------------------------------------------------------------------- files of other times and other hands


def rewrite(path: Path, change: Any) -> None:
    """Save the tensors of the model at `path` as `change` makes them."""
    save_file(change(load_file(path / "model.safetensors")), path / "model.safetensors", {"format": "pt"})


def without(prefix: str) -> Any:
    return lambda tensors: {name.removeprefix(prefix): value for name, value in tensors.items()}


def test_gpt2_as_it_was_published(tmp_path: Path) -> None:
    """Without the prefix, and with the causal masks that it kept among its weights."""
    theirs = their("GPT2", "LMHeadModel", GPT2, tmp_path)
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool) for layer in range(3)}
    masks |= {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(3)}
    rewrite(tmp_path, lambda tensors: without("transformer.")(tensors) | masks)
    same_language(load_model(tmp_path).model, theirs)


def test_bert_as_it_was_published(tmp_path: Path) -> None:
    """For pretraining, its norms' parameters called gamma and beta, its output embedding and positions stored too."""
    theirs = their("Bert", "ForPreTraining", BERT, tmp_path)

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        ending = {name: next((end for end in old if name.endswith(end)), "") for name in tensors}
        found = {
            name.removesuffix(end) + old.get(end, "") if end else name: tensors[name] for name, end in ending.items()
        }
        assert any(name.endswith("LayerNorm.gamma") for name in found)
        return found | {
            "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
            "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
            "bert.embeddings.position_ids": torch.arange(CONTEXT)[None],
        }

    rewrite(tmp_path, change)
    ours = load_model(tmp_path).model
    with torch.no_grad():
        close(ours(ids()), theirs(ids()).prediction_logits)


def test_llama_with_frequencies_among_its_weights(tmp_path: Path) -> None:
    theirs = their("Llama", "ForCausalLM", ROTARY, tmp_path)
    extra = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(3) for layer in range(3)}
    rewrite(tmp_path, lambda tensors: tensors | extra)
    same_language(load_model(tmp_path).model, theirs)


@pytest.mark.parametrize("case", ["gpt2", "bert", "qwen3"])
def test_shards(case: str, tmp_path: Path) -> None:
    name, fields = LANGUAGE[case]
    theirs = their(name, {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM"}.get(name, "ForCausalLM"), fields)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    same_language(load_model(tmp_path).model, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = their("GPT2", "LMHeadModel", GPT2).to(dtype)
    theirs.save_pretrained(tmp_path)
    same_language(load_model(tmp_path).model, theirs.float())


# ---------------------------------------------------------------------- Transformers without a head


def states(model: Any, tokens: Tensor) -> Tensor:
    return model.model(tokens)


@pytest.mark.parametrize(
    "case", ["gpt2", "gpt2 untied", "bert", "bert untied", "smollm", "tinyllama", "mistral", "qwen3"]
)
@torch.no_grad()
def test_transformers_alone(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their states are right; with a head that was never trained, no token is likelier than another."""
    name, fields = LANGUAGE[case]
    theirs = their(name, "Model", fields, tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, LanguageModel)
    close(states(ours, ids()), theirs(ids()).last_hidden_state)
    if ours.config.tied_embeddings and name != "Bert":
        close(ours(ids()), theirs(ids()).last_hidden_state @ theirs.get_input_embeddings().weight.T)
        assert not capsys.readouterr().err
    else:
        close(ours(ids()).softmax(-1), torch.full((3, LONGEST, V), 1 / V))
        assert "without a head" in capsys.readouterr().err


def test_a_blank_head_can_be_trained(tmp_path: Path) -> None:
    for case in ("bert", "bert untied", "tinyllama"):
        name, fields = LANGUAGE[case]
        their(name, "Model", fields, tmp_path / case)
        ours = load_model(tmp_path / case).model
        assert isinstance(ours, LanguageModel)
        optimiser = torch.optim.SGD(ours.parameters(), lr=0.1)
        losses = []
        for _ in range(4):
            total, count = ours.loss(ids(), ids(seed=1))
            losses.append((total / count).item())
            optimiser.zero_grad()
            (total / count).backward()
            optimiser.step()
        assert losses[-1] < losses[0]


# ---------------------------------------------------------------------- generation


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["What is read is read by its ids, so any text does. " * 3], 270, exact=False)


@pytest.mark.parametrize("case", CAUSAL)
def test_greedy_texts(case: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Token by token, alone and in a batch of unequal prompts, past the end of some texts in it."""
    name, fields = CAUSAL[case]
    fields = fields | {"pad_token_id": tokenizer.pad_id, "eos_token_id": tokenizer.eos_id}
    theirs = their(name, "LMHeadModel" if name == "GPT2" else "ForCausalLM", fields, tmp_path)
    ours = load_model(tmp_path).model
    assert isinstance(ours, LanguageModel)
    room = min(ours.config.context_length, CONTEXT) - LONGEST
    never = [tokenizer.pad_id, tokenizer.mask_id, *range(tokenizer.vocab_size, V)]
    options = {"max_new_tokens": room, "do_sample": False, "suppress_tokens": never}
    config = SamplingConfig(temperature=0, length=room)

    padded, real, _ = left_padded()
    prompts = [row[kept].tolist() for row, kept in zip(padded, real, strict=True)]
    free = theirs.generate(padded, attention_mask=real.long(), eos_token_id=-1, **options)[:, LONGEST:]
    # A token that some of the texts come to is made their end, so that rows end at different times.
    end = int(free[0, 1])
    theirs.generation_config.eos_token_id = end
    ours.generation = GenerationDefaults((end,), {})
    ending = Ending(tokenizer, end)
    batch = theirs.generate(padded, attention_mask=real.long(), pad_token_id=PAD, **options)[:, LONGEST:]
    for found, prompt, output in zip(generate(ours, ending, prompts, config), prompts, batch, strict=True):
        expected = output.tolist()
        expected = expected[: expected.index(end) + 1] if end in expected else expected
        assert found.tokens == expected
        assert found.reason == ("eos" if end in expected else "length")
        alone = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(), **options)
        (single,) = generate(ours, ending, [prompt], config)
        assert single.tokens == alone[0, len(prompt) :].tolist() == expected
    ours.generation = GenerationDefaults((), {})
    for found, output in zip(generate(ours, tokenizer, prompts, config), free, strict=True):
        assert found.tokens == output.tolist()[: len(found.tokens)]


class Ending(Tokenizer):
    """A tokenizer whose texts end with another of its tokens."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        super().__init__(tokenizer.core, tokenizer.config)
        self.eos_id = end


@pytest.mark.parametrize("ends", [[7, 9, 11, 13, 15], 8])
@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
def test_texts_end_where_any_end_is_written(place: str, ends: Any, tmp_path: Path) -> None:
    """Each of the ids ends a text, whichever of the two files lists them, and one that pads too."""
    tokenizer = Tokenizer.train_bpe(["the quick brown fox " * 5], 280, exact=False)
    fields = ROTARY | {"pad_token_id": 9, "eos_token_id": ends, "tie_word_embeddings": False}
    theirs = their("Llama", "ForCausalLM", fields, tmp_path)
    tokenizer.save(tmp_path)
    if place == "config.json":
        (tmp_path / "generation_config.json").unlink()
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.model, LanguageModel)
    assert list(loaded.model.generation.ends) == (ends if isinstance(ends, list) else [ends])
    never = [tokenizer.pad_id, tokenizer.mask_id, tokenizer.eos_id, *range(tokenizer.vocab_size, V)]
    config, ended = SamplingConfig(temperature=0, length=12), 0
    for prompt in ids(20, 4).tolist():
        asked, options = torch.tensor([prompt]), {"max_new_tokens": 12, "do_sample": False, "suppress_tokens": never}
        expected = theirs.generate(asked, attention_mask=torch.ones_like(asked), **options)[0, 4:].tolist()
        [found] = generate(loaded.model, tokenizer, [prompt], config)
        if tokenizer.eos_id in found.tokens:  # ours ends there too
            continue
        assert found.tokens == expected
        ended += found.reason == "eos"
    assert ended or not isinstance(ends, list)
