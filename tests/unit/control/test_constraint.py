"""Texts keep to what they are held to, whatever the model would rather write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex
import torch
from tests.serving import small_model, small_tokenizer
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, pre_tokenizers

from lucidlm.control.config import ConstraintConfig
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.core import extras
from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.loop import EngineLoop, News
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import Generation, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    return small_model()


def write(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str] = ("the",), **held: Any
) -> list[Generation]:
    """Write, by settings of `SamplingConfig` and `ConstraintConfig`."""
    sampling = {"length": 80, "temperature": 1.0, "min_p": 0.0}
    sampling |= {name: held.pop(name) for name in SamplingConfig.model_fields if name in held}
    processors = ConstraintCompiler(tokenizer, model.config.vocab_size).processors(ConstraintConfig(**held))
    return generate(model, tokenizer, list(prompts), SamplingConfig(**sampling), processors=processors)


def of_characters() -> Tokenizer:
    return Tokenizer.train_characters(['the quick "brown" fox, yes or no: {}[]0123456789-是否'])


def of_sentencepiece() -> Tokenizer:
    """Pieces with a mark for the space before them, and bytes for what is none."""
    letters = ["▁", *'abcdefghijklmnopqrstuvwxyz"{}[]:,0123456789', "▁the", "▁no", "yes", "▁yes"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    core = Core(
        models.BPE({token: place for place, token in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True)
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(core, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})


@pytest.mark.parametrize("make", [small_tokenizer, of_characters, of_sentencepiece])
def test_one_of_the_choices_with_tokens_of_any_kind(make: Any) -> None:
    tokenizer = make()
    torch.manual_seed(1)
    model = LanguageModel(small_model().config.changed(vocab_size=tokenizer.vocab_size + 3)).eval()
    said = {
        write(model, tokenizer, choices=["yes", "no", "是"], seed=seed, temperature=3.0)[0].text for seed in range(30)
    }
    assert said == {"yes", "no", "是"}


@pytest.mark.parametrize(
    "pattern", [r"\d{3}-\d{4}", r"[a-f]+(, [a-f]+)*", r"(?i)hello|goodbye", r"\p{Han}{2,5}", "ab|a"]
)
def test_the_whole_text_matches_a_pattern(model: LanguageModel, tokenizer: Tokenizer, pattern: str) -> None:
    for seed in range(10):
        found = write(model, tokenizer, regex=pattern, seed=seed)[0]
        assert regex.fullmatch(pattern, found.text), found
        assert found.reason in ("complete", "eos", "length")


@pytest.mark.parametrize("length", [24, 40, 120])
def test_json_is_whole_and_valid_however_little_room_there_is(
    model: LanguageModel, tokenizer: Tokenizer, length: int
) -> None:
    """A model that nobody has trained would never close a string, nor end a list."""
    assert len(tokenizer.encode('{"name":"","age":0}')) <= 24
    for found in (write(model, tokenizer, json_schema=PERSON, seed=seed, length=length)[0] for seed in range(20)):
        jsonschema.validate(json.loads(found.text), PERSON)
        assert found.reason == "complete"
        assert len(found.tokens) <= length


def test_where_there_is_no_room_a_text_is_cut_and_says_so(model: LanguageModel, tokenizer: Tokenizer) -> None:
    found = write(model, tokenizer, json_schema=PERSON, length=5)[0]
    assert (found.reason, len(found.tokens)) == ("length", 5)


def test_a_grammar(model: LanguageModel, tokenizer: Tokenizer) -> None:
    grammar = 'start: pair ("," pair)*\npair: "(" (NAME | pair) ")"\nNAME: /[a-z]{1,3}/'
    for seed in range(10):
        text = write(model, tokenizer, grammar=grammar, seed=seed)[0].text
        assert text.count("(") == text.count(")") > 0
        assert re.fullmatch(r"[(),a-z]+", text)


@pytest.mark.parametrize(
    ("phrase", "held", "not_held"),
    [
        ("cat", ["a cat", "Cat.", "the CAT sat"], ["category", "bobcat", "c at"]),
        ("New York", ["in new york!", "New York"], ["new yorker", "newyork"]),
        ("中国", ["在中国的", "中国"], ["中 国", "国中"]),
        ("cat", ["猫cat猫"], ["cats"]),
        ("a/b.c", ["x a/b.c y", "A/B.C"], ["a/bxc"]),
        ("!", ["so!", "!!!"], ["so."]),
    ],
)
def test_a_phrase_is_found_as_whole_words_in_whatever_case(
    tokenizer: Tokenizer, phrase: str, held: list[str], not_held: list[str]
) -> None:
    compiler, ends = ConstraintCompiler(tokenizer, 300), frozenset({tokenizer.eos_id})
    for text, holds in [*((one, True) for one in held), *((one, False) for one in not_held)]:
        ids = tokenizer.encode(text)
        assert compiler.compile(ConstraintConfig(required=[phrase]), ends).accepts(ids) is holds, text
        assert compiler.compile(ConstraintConfig(forbidden=[phrase]), ends).accepts(ids) is not holds, text


def test_what_is_required_comes_and_what_is_forbidden_does_not(model: LanguageModel, tokenizer: Tokenizer) -> None:
    for seed in range(10):
        text = write(model, tokenizer, required=["brown fox"], forbidden=["the", "q"], length=30, seed=seed)[0].text
        assert re.search(r"brown fox", text, re.IGNORECASE)
        assert not re.search(r"(?<![^\W])the(?![^\W])|\bq\b", text, re.IGNORECASE)


def test_what_is_asked_for_together_holds_together(model: LanguageModel, tokenizer: Tokenizer) -> None:
    for seed in range(5):
        text = write(model, tokenizer, regex="[a-z ]+", required=["fox"], forbidden=["dog"], length=40, seed=seed)[
            0
        ].text
        assert re.fullmatch("[a-z ]+", text)
        assert "fox" in text.split()


def test_others_in_the_batch_and_pieces_change_nothing(model: LanguageModel, tokenizer: Tokenizer) -> None:
    prompts = ["the", "quick brown", "fox jumps over the lazy dog"]
    for temperature in (0.0, 1.0):
        together = write(model, tokenizer, prompts, json_schema=PERSON, temperature=temperature)
        alone = [write(model, tokenizer, [one], json_schema=PERSON, temperature=temperature)[0] for one in prompts]
        assert [one.text for one in together] == [one.text for one in alone]
    # What repeats itself is drafted, and what is drafted is held to the same.
    drafted = write(model, tokenizer, ['{"name":"the","age":1}' * 3], json_schema=PERSON, temperature=0.0)[0]
    jsonschema.validate(json.loads(drafted.text), PERSON)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"regex": "a("}, "regex: unclosed group at character 2"),
        ({"regex": "(?=a)b"}, "regex: look-around"),
        ({"regex": "a" * 200_000}, "regex: has 200,000 characters"),
        ({"json_schema": "{"}, "json_schema: is no JSON"),
        ({"json_schema": "[]"}, "json_schema: is neither an object"),
        ({"json_schema": "[" * 100_000}, "json_schema: is nested too deeply"),
        ({"json_schema": {"not": {}}}, 'json_schema: nothing can hold a text to the keyword "not"'),
        ({"json_schema": {"type": "string", "format": "tree"}}, 'nothing can hold a text to the format "tree"'),
        ({"json_schema": {"type": "thing"}}, "json_schema: Invalid type: thing"),
        ({"json_schema": {"$ref": "#/nowhere"}}, "json_schema: Pointer"),
        ({"json_schema": {"type": "string", "pattern": "a("}}, "json_schema: unclosed group"),
        ({"json_schema": False}, "json_schema: Unsatisfiable schema"),
        ({"json_schema": "1" * 2_000_000}, "json_schema: has 2,000,000 characters"),
        ({"grammar": "start: thing"}, "grammar: line 1, column 8: unknown name"),
        ({"grammar": "begin: /a/"}, "grammar: no start rule"),
        ({"choices": ["a", " "]}, "choices: an empty text"),
        ({"choices": ["yes"], "regex": "no"}, "choices and regex: no text is all that is asked for"),
        ({"choices": ["the"], "forbidden": ["the"]}, "choices and forbidden: nothing that obeys can follow"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_name(
    model: LanguageModel, tokenizer: Tokenizer, held: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        write(model, tokenizer, **held)


@pytest.mark.parametrize(
    "pattern",
    [r"(a*)*b", r"((a{1,1000}){1,1000}){1,1000}", r"(?:.{0,10000}x){100}", r"(x+x+)+y", "(" * 9000 + ")" * 9000],
)
def test_hostile_patterns_end(model: LanguageModel, tokenizer: Tokenizer, pattern: str) -> None:
    """They are refused or followed; none of them hangs."""
    with suppress(InputError):
        assert len(write(model, tokenizer, regex=pattern, length=20)[0].tokens) <= 20


def test_a_schema_without_end_is_cut(model: LanguageModel, tokenizer: Tokenizer) -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert write(model, tokenizer, json_schema=endless, length=30)[0].reason == "length"


def test_one_that_fails_ends_and_the_others_go_on(model: LanguageModel, tokenizer: Tokenizer) -> None:
    """In the server's loop, too, where they are read together."""
    compiler = ConstraintCompiler(tokenizer, model.config.vocab_size)
    contradiction = compiler.processors(ConstraintConfig(choices=["the"], forbidden=["the"]))
    engine = Engine(TorchBackend(model, 64), Sampler(model.config.vocab_size, tokenizer))
    config = SamplingConfig(length=12, temperature=1.0, logprobs=2)
    (failing,) = start_rows(model.config, tokenizer, ["the"], config, processors=contradiction)
    (well,) = start_rows(model.config, tokenizer, ["the"], config)
    heard: dict[str, list[News]] = {"failing": [], "well": []}
    loop = EngineLoop(engine)
    loop.submit(well, heard["well"].append)
    loop.submit(failing, heard["failing"].append)
    loop.stop()
    while any(row.reason is None for row in (well, failing)):
        engine.step()
    assert isinstance(failing.failure, InputError)
    assert well.generation().text == generate(model, tokenizer, ["the"], config)[0].text


def test_tokens_without_bytes_of_their_own_are_refused() -> None:
    words = Tokenizer(Core(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]")), {"unk_token": "[UNK]"})
    with pytest.raises(InputError, match="nothing can hold it to a form"):
        ConstraintCompiler(words, 3).compile(ConstraintConfig(regex="a"), frozenset({0}))


def test_without_the_library_it_says_what_to_install(
    model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lucidlm\[control\]'"):
        write(model, tokenizer, regex="a")


def test_real_schemas_accept_what_is_valid_and_nothing_else(shared_data: Path) -> None:
    """Of the thousand schemas of `benchmarks/constraints.py` every eighth, in three layouts."""
    tokenizer = Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog." * 3], 280)
    compiler, ends = ConstraintCompiler(tokenizer, tokenizer.vocab_size), frozenset({tokenizer.eos_id})
    right = wrong = 0
    lines = (shared_data / "control" / "jsonschemabench-1000.jsonl").read_text(encoding="utf-8").split("\n")
    for case in map(json.loads, lines[:1000:8]):
        try:
            constraint = compiler.compile(ConstraintConfig(json_schema=case["schema"]), ends)
        except InputError:
            continue
        for test in case["tests"]:
            for form in ({"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": 4}):
                same = constraint.copy().accepts(tokenizer.encode(json.dumps(test["data"], **form))) is test["valid"]
                right, wrong = right + same, wrong + (not same)
    assert right > 800
    assert wrong / (right + wrong) <= 0.001
