"""Ends of text and defaults of sampling, wherever a model's files name them: heeded everywhere, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from tests.speaking_model import saying

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.using.sampling import reply_config
from lucidlm.core.errors import InputError
from lucidlm.inference.beam import BeamSearch
from lucidlm.inference.decode import generate, stream
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.sampler import SamplingConfig, choose, sampling_of
from lucidlm.interop.gguf.read import load_gguf
from lucidlm.interop.gguf.write import export_gguf
from lucidlm.interop.hf import export_hf
from lucidlm.interop.keras.directory import export_keras, load_keras
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.sequence_writer import Lengths, SequenceWriter
from lucidlm.tokenize.chat_template import CHATML
from lucidlm.tokenize.prompts import join_parts
from lucidlm.tokenize.tokenizer import Tokenizer

END, PAD, MASK, IM_START, IM_END = range(5)
DOG = 287
GREEDY = SamplingConfig(temperature=0, length=6)
WORDS = "the quick brown fox jumps over the lazy dog " * 3


def tokenizer_with(**config: Any) -> Tokenizer:
    made = Tokenizer.train_bpe([WORDS], 290, exact=False)
    return Tokenizer(made.core, {**made.config, **config})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_with(eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def word(tokenizer: Tokenizer) -> int:
    assert tokenizer.encode(" dog") == [DOG]
    return tokenizer.encode(" fox")[0]


def directory(path: Path, model: LanguageModel, tokenizer: Tokenizer, **fields: Any) -> Path:
    """Save a model as transformers would, with these fields in generation_config.json."""
    save_model(model, path, tokenizer)
    (path / "lucidlm.json").unlink()
    (path / "generation_config.json").write_text(json.dumps(fields))
    return path


def ends_in(loaded: LoadedModel) -> tuple[int, ...]:
    assert isinstance(loaded.model, LanguageModel)
    return loaded.model.generation.ends


# ---------------------------------------------------------------------- read


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": [IM_END, END]}, IM_END, (IM_END, END)),
        ({"eos_token_id": END}, [IM_END, MASK], (END,)),  # as transformers, which then does not look further
        ({"eos_token_id": None}, [IM_END, END], (IM_END, END)),
        (None, [END, IM_END, END], (END, IM_END)),
        (None, None, ()),
    ],
)
def test_both_files_are_read(
    generation: Any, config: Any, ends: tuple[int, ...], tokenizer: Tokenizer, word: int, tmp_path: Path
) -> None:
    path = directory(tmp_path, saying(word), tokenizer)
    fields = json.loads((path / "config.json").read_text()) | {"eos_token_id": config}
    (path / "config.json").write_text(json.dumps(fields))
    (path / "generation_config.json").unlink()
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    model = load_model(path).model
    assert isinstance(model, LanguageModel)
    assert model.generation.ends == ends
    assert model.generation.fields == {}


@pytest.mark.parametrize("wrong", ["<|end|>", [0, "x"], True, 1.5, {"a": 1}])
def test_what_is_no_end_is_refused(wrong: object, tokenizer: Tokenizer, word: int, tmp_path: Path) -> None:
    path = directory(tmp_path, saying(word), tokenizer, eos_token_id=wrong)
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id is .* neither a token's number"):
        load_model(path)


def test_ends_beyond_the_model_are_none(tokenizer: Tokenizer) -> None:
    assert ends_of(tokenizer, [50256, -1, END], 290) == {IM_END, END}


# ---------------------------------------------------------------------- heeded


@pytest.mark.parametrize("end", [END, IM_END])
def test_each_ends_a_text_though_it_pads(end: int, tokenizer: Tokenizer, word: int) -> None:
    model = saying(word, DOG, end, ends=(IM_END, END))
    for found in generate(model, tokenizer, ["the", "the lazy"], GREEDY):
        assert (found.text, found.reason, found.tokens[-1]) == (" fox dog", "eos", end)
    assert "".join(stream(model, tokenizer, "the", GREEDY)) == " fox dog"


@pytest.mark.parametrize("end", [END, IM_END])
@pytest.mark.parametrize("beams", [1, 3])
def test_each_ends_an_answer(end: int, beams: int, tokenizer: Tokenizer, word: int) -> None:
    model = saying(word, DOG, end, ends=(IM_END, END))
    prompt = join_parts([(tokenizer.encode("the"), False)])
    writer = SequenceWriter(
        model,
        tokenizer,
        lambda examples: [prompt for _ in examples],
        max_tokens=96,
        end=IM_END,
        lengths=Lengths(1.0, 5),
        beams=beams,
    )
    assert writer.write([prompt]) == ["fox dog"]


def test_ends_do_not_take_the_places_of_beams_that_go_on() -> None:
    hunt = BeamSearch(4, 2, ends=[1, 2, 3])
    hunt.step([[0.0]], [[0]])
    costs = torch.tensor([0.01, 0.2, 0.15, 0.14, 0.4, 0.1]).log()
    hunt.step([costs.tolist()], [list(range(6))])
    assert [beam.tokens for beam in hunt.beams] == [[0, 4], [0, 5]]
    assert hunt.best is not None
    assert hunt.best.end == 1


def test_a_template_of_the_tokenizers_own_ends_texts(word: int) -> None:
    model = saying(word, DOG, IM_END)
    assert generate(model, tokenizer_with(chat_template=CHATML), ["the"], GREEDY)[0].reason == "eos"
    assert generate(model, tokenizer_with(), ["the"], GREEDY)[0].reason == "length"
    broken = tokenizer_with(chat_template="{{ raise_exception('no') }}")
    assert generate(model, broken, ["the"], GREEDY)[0].reason == "length"


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("<|im_start|>", " fox dog", "stop"),
        ("dog<|im_start|>", " fox ", "stop"),
        ("<|im_start|> fox", " fox dog", "stop"),
        ("g<|im_start|> f", " fox do", "stop"),
        ("im_start", " fox dog", "stop"),
        ("<|im_end|>", " fox dog fox dog", "length"),
        ("dog fox", " fox dog fox dog", "length"),  # between the two stands a token
    ],
)
def test_stops_match_control_tokens(stop: str, text: str, reason: str, tokenizer: Tokenizer, word: int) -> None:
    model, config = saying(word, DOG, IM_START), SamplingConfig(temperature=0, length=6, stop=(stop,))
    [found] = generate(model, tokenizer, ["the"], config)
    assert (found.text, found.reason) == (text, reason)
    assert "".join(stream(model, tokenizer, "the", config)) == text


def test_a_stop_may_be_what_ends_a_text(tokenizer: Tokenizer, word: int) -> None:
    [found] = generate(saying(word, DOG, IM_END), tokenizer, ["the"], GREEDY.changed(stop=("dog<|im_end|>",)))
    assert (found.text, found.reason) == (" fox ", "stop")


# ---------------------------------------------------------------------- kept

SAID: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "repetition_penalty": 1.05,
    "no_repeat_ngram_size": 3,
    "max_new_tokens": 2048,
}
CHOSEN = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05, "length": 2048, "min_p": 0.0}


def test_import_export_and_quantize_keep_them(tokenizer: Tokenizer, word: int, tmp_path: Path) -> None:
    path = directory(tmp_path / "theirs", saying(word), tokenizer, eos_token_id=[IM_END, END], pad_token_id=0, **SAID)
    loaded = load_model(path)
    save_model(loaded.model, tmp_path / "ours", loaded.tokenizer, dtype="int8")
    export_hf(load_model(tmp_path / "ours"), tmp_path / "back", None)
    export_keras(loaded, tmp_path / "keras", None)
    for copy in ("ours", "back", "keras"):
        found = json.loads((tmp_path / copy / "generation_config.json").read_text())
        assert {**SAID, "eos_token_id": [IM_END, END]}.items() <= found.items(), copy
    assert ends_in(load_keras(tmp_path / "keras")) == (IM_END, END)


def test_gguf_keeps_them(tokenizer: Tokenizer, word: int, tmp_path: Path) -> None:
    path = directory(tmp_path / "theirs", saying(word), tokenizer, eos_token_id=[END, IM_END], **SAID)
    export_gguf(load_model(path), tmp_path / "model.gguf", None)
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert {name: fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot")} == {
        "eos": IM_END,
        "eot": END,
    }
    assert fields["general.sampling.temp"].contents() == pytest.approx(0.7)
    assert fields["general.sampling.top_k"].contents() == 20
    model = load_gguf(tmp_path / "model.gguf").model
    assert isinstance(model, LanguageModel)
    assert model.generation.ends == (IM_END, END)
    assert sampling_of(model.generation.fields) == {name: v for name, v in CHOSEN.items() if name != "length"}


def test_gguf_says_which_ends_it_has_no_place_for(
    tokenizer: Tokenizer, word: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory(tmp_path / "theirs", saying(word), tokenizer, eos_token_id=[END, IM_END, MASK, IM_START])
    export_gguf(load_model(path), tmp_path / "model.gguf", None)
    assert "no place for more than 3 ends of text: <|im_start|>" in capsys.readouterr().err
    assert ends_in(load_gguf(tmp_path / "model.gguf")) == (IM_END, END, MASK)


# ---------------------------------------------------------------------- defaults of sampling


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({}, {}),
        (SAID, CHOSEN),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0, "min_p": 0.0}),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0, "min_p": 0.0}),
        ({"top_p": 0.9}, {"top_p": 0.9, "temperature": 1.0, "min_p": 0.0}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        (GenerationDefaults().fields, {"temperature": 0.8, "min_p": 0.05}),
    ],
)
def test_what_a_file_asks_for(fields: dict[str, Any], settings: dict[str, Any]) -> None:
    assert sampling_of(fields) == settings


def test_a_file_that_asks_for_nonsense_is_named() -> None:
    with pytest.raises(InputError, match=r"generation_config.json: top_p: .*less than or equal to 1"):
        sampling_of({"top_p": 3.0})


def test_chat_takes_them_says_so_and_flags_win(word: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = saying(word)
    model.generation = GenerationDefaults((), SAID)
    found = reply_config(model, 512, {})
    assert found == SamplingConfig(**CHOSEN)
    said = capsys.readouterr().err
    assert (
        "as the model's generation_config.json has it: temperature 0.7, min-p 0, top-k 20, top-p 0.8, "
        "repetition-penalty 1.05, length 2048" in said
    )
    assert "asks for no_repeat_ngram_size too, which is not done here" in said
    found = reply_config(model, 512, {"temperature": 0.2, "length": 9})
    assert found == SamplingConfig(**{**CHOSEN, "temperature": 0.2, "length": 9})
    assert "temperature" not in capsys.readouterr().err


def test_models_made_here_have_the_usual_ones_of_which_nothing_is_said(
    word: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saying(word)
    model.generation = GenerationDefaults()
    assert reply_config(model, 512, {}) == SamplingConfig(length=512)
    assert not capsys.readouterr().err


# ---------------------------------------------------------------------- temperatures at the edge of numbers


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-45, 1e-320, 5e-324])
def test_next_to_no_temperature_takes_the_likeliest(temperature: float) -> None:
    logits = torch.tensor([[1.0, 3.0, float("-inf"), 2.999]]).repeat(50, 1)
    noise = torch.linspace(0, 1 - 1e-12, 50, dtype=torch.float64)
    config = SamplingConfig(temperature=temperature, top_p=0.9, top_k=3)
    assert choose(logits, config, seen=None, noise=noise).tolist() == [1] * 50


@pytest.mark.parametrize("temperature", [1e30, 1e38, 1e39, 1e308])
def test_a_boundless_temperature_draws_alike_of_what_may_be_drawn(temperature: float) -> None:
    logits = torch.tensor([[1.0, 3.0, float("-inf"), 2.0]]).repeat(3, 1)
    noise = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    config = SamplingConfig(temperature=temperature, min_p=0)
    assert choose(logits, config, seen=None, noise=noise).tolist() == [0, 1, 3]


@pytest.mark.parametrize("temperature", [float("inf"), float("nan"), -1.0])
def test_what_is_no_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        SamplingConfig(temperature=temperature)
