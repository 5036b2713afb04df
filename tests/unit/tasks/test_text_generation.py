"""Text to text: what counts in the loss, prefixes read both ways, search, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Pair, Passage, Row
from lucidlm.inference.beam import beam_search
from lucidlm.inference.decode import generate
from lucidlm.inference.prompt_batch import PromptBatch
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.sequence_writer import Lengths, SequenceWriter, prefix_mask, teacher_forcing
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.base.text_generation import SequenceToSequence
from lucidlm.tokenize.conversation import Chat, Message
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.finetune.text_objective import SequenceObjective

TEXT = "A man in a red coat sits on a bench. Un homme en manteau rouge est assis sur un banc. 一个人坐在长椅上。"
CHAT = Chat(
    (
        Message("system", "You are kind."),
        Message("user", "A man sits?"),
        Message("assistant", "On a bench."),
        Message("user", "A red coat?"),
        Message("assistant", "Un manteau rouge."),
    ),
    "chats.jsonl:1",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe([TEXT * 3], 300)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model whose weights are large enough to say something else at every step."""
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 48, "num_layers": 2}
    made = LanguageModel(ModelConfig(vocab_size=300, context_length=64, tied_embeddings=False, **shape))
    with torch.no_grad():
        for index, parameter in enumerate(made.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return made.eval()


def known(name: str) -> Any:
    return tasks.get(name)


def translation(**fields: Any) -> SequenceToSequence:
    return SequenceToSequence(name="t", description="", **fields)


def pair(source: str, target: str, where: str = "pairs.jsonl:1") -> Pair:
    return Pair(source, target, (target,), where)


def decoded(tokenizer: Tokenizer, one: TokenizedExample, counted: bool = True) -> str:
    return tokenizer.decode(one.ids[one.counted == counted], skip_special=False)


# ---------------------------------------------------------------------- frames: what is read, what counts


def test_only_the_target_and_its_end_count(tokenizer: Tokenizer) -> None:
    [one] = translation().tokenize([pair("A man", "Un homme")], tokenizer, 64)
    assert decoded(tokenizer, one) == "Un homme<|endoftext|>"
    assert decoded(tokenizer, one, counted=False) == "A man<|endoftext|>"
    assert one.prompt == one.prefix == len(tokenizer.encode("A man")) + 1
    inputs = teacher_forcing([one, one], tokenizer.pad_id)
    assert tokenizer.decode(inputs.targets.tolist(), skip_special=False) == "Un homme<|endoftext|>" * 2
    assert inputs.places.tolist()[0] == one.prompt - 1


def test_prompts_are_texts_and_control_tokens_cannot_be_written(tokenizer: Tokenizer) -> None:
    task = translation(before="English: ", between=" French: ")
    [one] = task.tokenize([pair("A <|endoftext|> man", "Un")], tokenizer, 64)
    assert decoded(tokenizer, one, counted=False) == "English: A <|endoftext|> man French: "
    assert (one.ids == tokenizer.eos_id).sum() == 1


def test_what_does_not_fit_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    [one] = translation().tokenize([pair("A man in a red coat " * 9, "Un homme " * 40)], tokenizer, 32)
    assert len(one.ids) == 33
    assert one.prompt == 16
    assert one.left_out == len(tokenizer.encode("A man in a red coat " * 9)) - 15
    assert one.ids[-1] != tokenizer.eos_id


def test_only_the_assistant_counts(tokenizer: Tokenizer) -> None:
    [one] = known("dialogue").tokenize([CHAT], tokenizer, 500)
    assert decoded(tokenizer, one) == "On a bench.<|im_end|>Un manteau rouge.<|im_end|>"
    prompt = tokenizer.decode(one.ids[: one.prompt], skip_special=False)
    assert prompt.endswith("<|im_start|>user\nA red coat?<|im_end|>\n<|im_start|>assistant\n")
    assert one.ids[one.prefix] == tokenizer.encode("On a bench.")[0]


def test_the_oldest_turns_are_dropped(tokenizer: Tokenizer) -> None:
    dialogue = known("dialogue")
    [whole] = dialogue.tokenize([CHAT], tokenizer, 500)
    [one] = dialogue.tokenize([CHAT], tokenizer, len(whole.ids) - 4)
    assert decoded(tokenizer, one) == "Un manteau rouge.<|im_end|>"
    assert "kind" in decoded(tokenizer, one, counted=False)
    assert "sits" not in decoded(tokenizer, one, counted=False)
    assert one.left_out == 2
    for room in range(24, 60):
        [one] = dialogue.tokenize([CHAT], tokenizer, room)
        assert len(one.ids) <= room + 1
        assert one.prompt <= room
        assert one.counted[one.prompt :].any()


def test_a_reply_is_due_where_the_user_has_the_last_word(tokenizer: Tokenizer) -> None:
    [one] = known("dialogue").tokenize([Chat(CHAT.messages[:2], "")], tokenizer, 500)
    assert tokenizer.decode(one.ids, skip_special=False).endswith("<|im_start|>assistant\n")
    assert not one.counted.any()
    assert one.prompt == one.prefix == len(one.ids)


def test_transformers_applies_the_same_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    dialogue = known("dialogue")
    dialogue.prepare_tokenizer(tokenizer).save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": message.role, "content": f" {message.content}\n"} for message in CHAT.messages]
    [one] = dialogue.tokenize([CHAT], tokenizer, 500)
    assert other.apply_chat_template(messages, return_dict=False) == one.ids.tolist()
    prompt = other.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert prompt == one.ids[: one.prompt].tolist()
    assert other.eos_token == "<|im_end|>"


def test_all_of_a_text_is_learned_in_stretches(tokenizer: Tokenizer, model: LanguageModel) -> None:
    task = known("generation")
    text = TEXT * 3
    writer = task.writer(model, tokenizer, 32, Lengths(1, 8), bidirectional=False)
    [one] = writer.tokenize([Passage(text, "")])
    assert decoded(tokenizer, one) == text + "<|endoftext|>"
    assert one.prompt == 17
    [answer] = writer.predict([Passage(text, "")])
    assert answer.tokens == len(one.ids) - 1
    expected = 0.0
    model.requires_grad_(False)
    for start in range(0, len(one.ids) - 1, 32):
        ids = torch.from_numpy(one.ids[start : start + 33].astype(np.int64))
        expected += float(functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum"))
    assert answer.nats == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------- prefixes, search


def framed_prompts(tokenizer: Tokenizer) -> list[TokenizedExample]:
    pairs = [pair("A man in a red coat", "Un homme en"), pair("A", "Un homme est assis"), pair("sits on a", "banc")]
    return translation().tokenize(pairs, tokenizer, 64)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_cache_gives_what_teacher_forcing_gives(
    model: LanguageModel, tokenizer: Tokenizer, bidirectional: bool
) -> None:
    tokenized = framed_prompts(tokenizer)
    inputs = teacher_forcing(tokenized, tokenizer.pad_id)
    prefixes = torch.tensor([one.prefix for one in tokenized])
    mask = prefix_mask(prefixes, inputs.tokens.shape[1]) if bidirectional else None
    with torch.inference_mode():
        together = model.model(inputs.tokens, mask=mask)
        batch = PromptBatch(
            model, [one.ids[: one.prompt].tolist() for one in tokenized], prefixes.tolist() if bidirectional else None
        )
        states = [batch.read()]
        for step in range(3):
            batch.append(torch.tensor([int(one.ids[min(one.prompt + step, len(one.ids) - 1)]) for one in tokenized]))
            states.append(batch.read())
        for row, one in enumerate(tokenized):
            ids = torch.from_numpy(one.ids[None, :-1].astype(np.int64))
            alone = model.model(ids, mask=prefix_mask(prefixes[row : row + 1], ids.shape[1]) if bidirectional else None)
            for step in range(min(4, len(one.ids) - one.prompt)):
                assert torch.allclose(states[step][row], together[row, one.prompt - 1 + step], atol=1e-5)
                assert torch.allclose(states[step][row], alone[0, one.prompt - 1 + step], atol=1e-5)


def test_a_prefix_sees_itself_and_the_target_does_not_see_what_follows() -> None:
    [seen] = prefix_mask(torch.tensor([2]), 4)
    assert seen.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def found_by(
    model: LanguageModel, prompts: Sequence[list[int]], beams: int, prefixes: list[int] | None = None, limit: int = 12
) -> list[Any]:
    nothing = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    limits = [limit] * len(prompts)
    return beam_search(model, prompts, limits, ends=[0], suppressed=nothing, beams=beams, prefixes=prefixes)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("beams", [1, 4])
def test_company_changes_nothing(model: LanguageModel, tokenizer: Tokenizer, beams: int, bidirectional: bool) -> None:
    tokenized = framed_prompts(tokenizer)
    prompts = [one.ids[: one.prompt].tolist() for one in tokenized]
    prefixes = [one.prefix for one in tokenized] if bidirectional else None
    together = found_by(model, prompts, beams, prefixes)
    for row, prompt in enumerate(prompts):
        [alone] = found_by(model, [prompt], beams, None if prefixes is None else [prefixes[row]])
        assert alone.tokens == together[row].tokens
        assert alone.log_probability == pytest.approx(together[row].log_probability, abs=1e-4)


def test_what_was_found_costs_what_is_said(model: LanguageModel, tokenizer: Tokenizer) -> None:
    prompts = [one.ids[: one.prompt].tolist() for one in framed_prompts(tokenizer)]
    greedy, wide = found_by(model, prompts, 1), found_by(model, prompts, 8)
    for prompt, one in zip(prompts * 2, greedy + wide, strict=True):
        answer = one.tokens + [0] * (len(one.tokens) < 12)
        with torch.inference_mode():
            costs = model(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :].log_softmax(-1)
        cost = sum(float(costs[place, token]) for place, token in enumerate(answer))
        assert one.log_probability == pytest.approx(cost, abs=1e-3)
        assert one.tokens
    score = [one.log_probability / ((5 + len(one.tokens)) / 6) ** 0.6 for one in greedy + wide]
    assert sum(score[3:]) >= sum(score[:3])


def test_one_beam_is_greedy(model: LanguageModel, tokenizer: Tokenizer) -> None:
    prompts = [one.ids[: one.prompt].tolist() for one in framed_prompts(tokenizer)]
    plain = generate(model, tokenizer, prompts, SamplingConfig(temperature=0, length=12))
    suppressed = torch.zeros(300, dtype=torch.bool)
    suppressed[[tokenizer.pad_id, tokenizer.mask_id]] = True
    found = beam_search(model, prompts, [12] * 3, ends=[0], suppressed=suppressed)
    for one, other in zip(found, plain, strict=True):
        assert one.tokens == [token for token in other.tokens if token]


def test_lengths_are_learnt() -> None:
    def made(prompt: int, answer: int) -> TokenizedExample:
        return TokenizedExample(np.zeros(prompt + answer, np.int32), np.arange(prompt + answer) >= prompt, prompt)

    lengths = Lengths.learnt([made(10, 20), made(30, 40), made(5, 15)])
    assert lengths.multiple == pytest.approx(1, abs=0.01)
    assert lengths.limit(30) == 40
    assert lengths.limit(1000) == lengths.longest == 61


# ---------------------------------------------------------------------- rows


def row(fields: dict[str, Any], names: dict[str, str] | None = None) -> Row:
    return Row(fields, "data.jsonl:7", names or {})


def test_rows_of_pairs() -> None:
    task = known("translation")
    assert task.read(row({"source": " a ", "target": "b"})) == Pair("a", "b", ("b",), "data.jsonl:7")
    turned = task.read(row({"source": "a", "target": "b"}, {"source": "target", "target": "source"}))
    assert (turned.source, turned.target) == ("b", "a")
    summary = known("summarization").read(row({"document": "d", "references": ["x", "y"]}))
    assert (summary.target, summary.references) == ("x", ("x", "y"))


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("translation", {"source": "a", "target": " "}, '"target" holds no text'),
        ("translation", {"source": None, "target": "b"}, '"source" is empty'),
        ("translation", {"source": "a"}, '"target" is missing'),
        ("summarization", {"document": "a", "summary": "b", "references": "c"}, "not a list of texts"),
        ("generative-question-answering", {"context": "c", "question": "q", "answers": []}, "has no answer"),
        ("dialogue", {"messages": []}, "not a list of messages"),
        ("dialogue", {"messages": [{"role": "user", "content": "a"}]}, "the assistant says nothing"),
        (
            "dialogue",
            {"messages": [{"role": "assistant", "content": "a"}]},
            "nobody says anything that the assistant could reply to",
        ),
        ("dialogue", {"messages": [{"role": "judge", "content": "a"}]}, "turn 1: is spoken by 'judge'"),
        ("dialogue", {"messages": [{"role": "user", "content": " "}]}, "holds no text"),
        ("dialogue", {"messages": [{"role": "user"}]}, 'not an object with "role" and "content"'),
        ("dialogue", {"document": "no names"}, "does not name who speaks"),
        ("dialogue", {"document": "#A#: a\n#B#: b\n#C#: c"}, "C is a third speaker"),
        ("dialogue", {"document": "#A#: \n#B#: b"}, "a turn of A is empty"),
    ],
)
def test_rows_that_cannot_be_used_are_named(task: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"data\.jsonl:7") as caught:
        known(task).read(row(fields))
    assert message in str(caught.value)


def test_chats_come_in_several_forms() -> None:
    dialogue = known("dialogue")
    sharegpt = dialogue.read(row({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}))
    transcript = dialogue.read(row({"document": "#Person1#: a\n#Person2#: b\n#Person1#: note: bye\n"}))
    assert sharegpt == transcript == Chat((Message("user", "a"), Message("assistant", "b")), "data.jsonl:7")
    several = dialogue.read(row({"dialogue": "Ann: a\nAnn: c\nBo: b\nd"}))
    assert several.messages == (Message("user", "a\nc"), Message("assistant", "b\nd"))


def test_answers_come_in_several_forms() -> None:
    task = known("generative-question-answering")
    forms = ["b", ["b"], [{"text": "b", "start": 1}], {"text": ["b"], "answer_start": [1]}]
    found = [task.read(row({"context": "a b", "question": "q", "answers": form})) for form in forms]
    assert {answer for one in found for answer in one.answers} == {found[0].answers[0]}


def test_misaligned_files_are_doubted() -> None:
    task = known("translation")
    fine = [pair("A man sits on a bench.", "Un homme est assis.") for _ in range(97)]
    odd = [pair("A man sits on a bench.", "Un", f"pairs.jsonl:{line}") for line in range(4)]
    assert task.doubts(fine + odd[:2]) == []
    [doubt] = task.doubts(fine + odd)
    assert "pairs.jsonl:0" in doubt
    assert "misaligned" in doubt


# ---------------------------------------------------------------------- learning


def tiny(directory: Path, texts: Sequence[str], **fields: Any) -> Path:
    tokenizer = Tokenizer.train_bpe(texts, 700, exact=False)
    shape = {"embedding_dim": 64, "num_heads": 2, "ff_dim": 128, "num_layers": 2, "context_length": 64, **fields}
    save_model(LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)), directory, tokenizer)
    return directory


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return path


def test_a_model_writes_as_it_was_tuned(model: LanguageModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    writing = {"settings": {"between": " = "}, "lengths": {"multiple": 1.0, "longest": 7}}
    config = {"attention": "bidirectional", "max_length": 24}
    save_model(model, tmp_path / "model", tokenizer, provenance={"writing": writing, "config": config})
    writer = known("translation").predictor(load_model(tmp_path / "model"))
    assert isinstance(writer, SequenceWriter)
    assert (writer.bidirectional, writer.max_tokens, writer.lengths) == (True, 24, Lengths(1.0, 7))


@pytest.mark.parametrize("attention", ["auto", "bidirectional"])
def test_a_small_model_learns_pairs_by_heart(shared_data: Path, tmp_path: Path, attention: str) -> None:
    lines = (shared_data / "translation/multi30k-en-fr/train.jsonl").read_text(encoding="utf-8").splitlines()[:50]
    rows = [json.loads(line) for line in lines]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    base = tiny(tmp_path / "model", [text for one in rows for text in one.values()])
    config = FinetuneConfig(
        task="translation", model=str(base), data=str(data), validation=0, test=0, attention=attention,  # type: ignore[arg-type]
        epochs=40, batch_size=10, dropout=0, device="cpu", precision="fp32",
    )  # fmt: skip
    rates = config.loop.optimizer.changed(learning_rate=0.01, muon_learning_rate=0.02)
    config = config.changed(loop=config.loop.changed(optimizer=rates))
    finetune(config, tmp_path / "out")
    task = known("translation")
    examples = read_examples(task, str(data))
    writer = task.predictor(load_model(tmp_path / "out"))
    assert isinstance(writer, SequenceWriter)
    assert writer.bidirectional == (attention == "bidirectional")
    answers = writer.predict(examples)
    chrf = next(metric for metric in task.metrics(examples) if metric.name == "chrf++")
    assert chrf(examples, answers) > 90
    assert load_model(tmp_path / "out").record["provenance"]["writing"]["settings"]["before"] == ""


def test_validation_writes_and_measures(tmp_path: Path) -> None:
    rows = [{"text": f"{TEXT} {number}"} for number in range(6)]
    data = write_rows(tmp_path / "texts.jsonl", rows)
    base = tiny(tmp_path / "model", [TEXT * 3], context_length=24)
    config = FinetuneConfig(task="generation", model=str(base), data=str(data), max_length=24, device="cpu")
    task = known("generation")
    examples = read_examples(task, str(data))
    parts: Any = {"train": examples[2:], "validation": examples[:2], "test": []}
    objective = SequenceObjective.build(config, task, load_model(base), parts, torch.device("cpu"))
    found = objective.evaluate(objective.model.eval())
    assert {"validation_perplexity", "validation_bits_per_byte", "validation_repetition", "validation_loss"} <= {*found}
    assert np.log(found["validation_perplexity"]) == pytest.approx(found["validation_loss"], rel=1e-4)
    assert objective.monitor == "validation_perplexity"
    assert any("stretches" in line for line in objective.report())
    batch = objective.collate(np.array([0, 1]), numpy_generator(0))
    assert batch.inputs.tokens.shape == (2, 24)
    assert objective.counted(batch) == 48


def test_a_pretrained_model_continues_texts_and_does_nothing_else(tmp_path: Path) -> None:
    base = tiny(tmp_path / "model", [TEXT * 3])
    [answer] = known("generation").predictor(load_model(base)).predict([Passage(TEXT, "")])
    assert answer.tokens
    with pytest.raises(InputError, match="no model that was tuned to write"):
        known("translation").predictor(load_model(base))


def test_masked_models_do_not_write(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", [{"source": "a", "target": "b"}])
    base = tiny(tmp_path / "model", [TEXT * 3], causal=False, qk_norm=False)
    config = FinetuneConfig(task="translation", model=str(base), data=str(data), validation=0, test=0, device="cpu")
    with pytest.raises(InputError, match="masked"):
        finetune(config, tmp_path / "out")


def test_the_example_is_a_task(tokenizer: Tokenizer) -> None:
    import runpy

    example = Path(__file__).resolve().parents[3] / "examples" / "new_task.py"
    found = runpy.run_path(str(example))["TITLE"]
    assert known("title") is found
    assert found.read(row({"article": "a", "title": "b"})) == Pair("a", "b", ("b",), "data.jsonl:7")
    assert len(example.read_text().splitlines()) <= 40
