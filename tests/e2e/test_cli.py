"""The command line as its users meet it: help, results, and one clear message for every kind of bad input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import made_up_reviews

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.cli import main as cli
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.heads import LanguageModel, SpanExtractor

REPOSITORY = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; return its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lucidlm", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# ---------------------------------------------------------------------- help and results


COMMANDS = [
    "data prepare",
    "pretrain",
    "finetune",
    "evaluate",
    "compare",
    "results",
    "label-curve",
    "watch",
    "search",
    "generate",
    "chat",
    "explain",
    "inspect lens",
    "inspect patch",
    "tasks",
    "recipe",
    "report",
    "import",
    "export",
    "quantize",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_examples(run: Run, command: str) -> None:
    code, output, errors = run(*command.split(), "--help")
    assert (code, errors) == (0, "")
    assert "Examples:" in output
    assert output.count(f"lucidlm {command}") >= 1
    assert "Usage: " in output


def test_the_whole_helps_too(run: Run) -> None:
    code, output, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert command.split()[0] in output


def test_the_version(run: Run) -> None:
    from lucidlm.version import __version__

    assert run("--version") == (0, f"lucidlm {__version__}\n", "")


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, lucidlm.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_it(shell: str) -> None:
    environment = {**os.environ, "_LUCIDLM_COMPLETE": f"source_{shell}"}
    program = [Path(sys.executable).with_name("lucidlm")]
    found = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert "lucidlm" in found.stdout


def test_generate_prints_the_text_alone(run: Run, tiny_model: Path) -> None:
    arguments = ("generate", tiny_model, "director calls", "--length", 8, "--seed", 3, "--device", "cpu")
    code, output, errors = run(*arguments)
    assert code == 0
    assert output.startswith("director calls")
    assert output.endswith("\n")
    assert errors == ""
    assert run(*arguments)[1] == output
    assert run(*arguments[:-4], "--seed", 4)[1] != output


def test_generate_answers_every_prompt(run: Run, tiny_model: Path) -> None:
    code, output, _ = run("generate", tiny_model, "film", "the plot", "--length", 1, "--device", "cpu")
    assert code == 0
    assert output.startswith("film")
    assert "\nthe plot" in output


def test_generate_searches_with_beams(run: Run, tiny_model: Path) -> None:
    arguments = ("generate", tiny_model, "film", "--length", 8, "--device", "cpu")
    code, output, errors = run(*arguments, "--num-beams", 3, "--length-penalty", 1)
    assert (code, errors) == (0, "")
    config = SamplingConfig(length=8, num_beams=3, length_penalty=1)
    assert output == f"film{generate(*load_model(tiny_model).causal_lm(), ['film'], config)[0].text}\n"
    for wrong, named in [(("--temperature", 0.8), "temperature"), (("--draft", tiny_model), "--draft")]:
        code, _, errors = run(*arguments, "--num-beams", 3, *wrong)
        assert code == 2
        assert named in errors


def test_control_tokens_may_be_typed_where_that_is_asked_for(run: Run, tiny_model: Path) -> None:
    arguments = ("generate", tiny_model, "<|im_start|>film", "--length", 8, "--temperature", 0, "--device", "cpu")
    (code, typed, errors), (_, said, _) = run(*arguments, "--special"), run(*arguments)
    assert (code, errors) == (0, "")
    assert typed.startswith("<|im_start|>film")
    loaded = load_model(tiny_model)
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.tokenizer is not None
    start = loaded.tokenizer.core.token_to_id("<|im_start|>")
    prompts = [[start, *loaded.tokenizer.encode("film")], loaded.tokenizer.encode("<|im_start|>film")]
    config = SamplingConfig(length=8, temperature=0)
    written = [generate(loaded.model, loaded.tokenizer, [prompt], config)[0].text for prompt in prompts]
    assert [typed, said] == [f"<|im_start|>film{text}\n" for text in written]


def test_a_reader_that_leaves_early_is_no_error(tiny_model: Path) -> None:
    command = f"{sys.executable} -m lucidlm generate {tiny_model} film --length 60 | head -c 4"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert found.stdout == "film"
    assert found.stderr == ""


def test_ctrl_c_anywhere_is_one_line(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lucidlm.checkpoint.load.load_model", interrupt)
    code, output, errors = run("generate", tiny_model, "film")
    assert (code, output) == (130, "")
    assert "Traceback" not in errors


def test_the_readme_sets_up_with_two_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert block[1].split("\n")[:2] == ["make demo", "make test"]
    for target in ("demo", "test"):
        planned = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert planned.returncode == 0
        assert {"demo": "lucidlm demo", "test": "pytest"}[target] in planned.stdout


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_commands_of_the_readme_are_ones_that_exist(readme: str, run: Run) -> None:
    text = (REPOSITORY / readme).read_text(encoding="utf-8")
    lines = re.findall(r"^lucidlm .*$", text, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = line.split("#")[0].split()[1:]
        command = words[:2] if words[0] == "data" else words[:1]
        code, output, _ = run(*command, "--help")
        assert code == 0
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in output, f"{line}: there is no {option}"


def test_an_answer_is_explained(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    loaded = load_model(tiny_model)
    save_model(SpanExtractor(loaded.model.config), tmp_path / "reader", loaded.tokenizer)
    asked = (
        "explain",
        tmp_path / "reader",
        "who made the film?",
        "--context",
        "the film was made by the actors in 1999.",
    )
    for method in ("relevance", "occlusion"):
        code, output, errors = run(*asked, "--by", "word", "--method", method, "--target", "the actors")
        assert (code, errors) == (0, "")
        assert output.startswith('answer "the actors": log-probability ')
        assert output.count("← answer") == 2
        assert "the answer itself stays" in output
    code, output, errors = run(*asked, "--by", "word", "--json", "--out", tmp_path / "why.html")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert found["pieces"][found["passage"]]["text"] == "the"
    assert (tmp_path / "why.html").exists()
    check(run(*asked, "--target", "nobody"), r"--target: 'nobody' does not stand in the passage")
    check(run(*asked, "--length", "3"), r"--context: does not go with --length")
    check(run(*asked[:3]), r"--context: is missing")


# ---------------------------------------------------------------------- bad input


def check(found: tuple[int, str, str], message: str, code: int = 2) -> None:
    """Hold what a command did against what it has to: fail with one message that says `message`."""
    assert found[0] == code, found
    assert found[1] == ""
    told = [line for line in found[2].splitlines() if line.startswith("lucidlm: ")]
    assert len(told) == 1, found[2]
    assert re.search(message, told[0]), told[0]
    assert "Traceback" not in found[2]


DATA_FILES = {
    "empty.txt": (b"", "empty"),
    "blank.jsonl": (b"\n\n", "blank"),
    "broken.jsonl": (b'{"text": "one two three"}\n{"text": "two\n', r"broken\.jsonl:2: .*--on-error skip"),
    "list.jsonl": (b'{"text": "a"}\n[1]\n', r"list\.jsonl:2: "),
    "field.jsonl": (b'{"txt": "a"}\n', r'field\.jsonl:1: .*"text".*txt'),
    "broken.csv": (b'text,label\n"a",1\n"b,2\n', r"broken\.csv:3"),
    "latin.txt": ("Mängel".encode("latin-1"), r"latin\.txt.*(UTF-8|utf-8)"),
    "book.epub": (b"\x00\x01", r"book\.epub"),
}


@pytest.mark.parametrize("name", DATA_FILES)
def test_prepare_names_what_is_wrong_with_a_file(run: Run, tmp_path: Path, name: str) -> None:
    content, message = DATA_FILES[name]
    (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    check(run("data", "prepare", tmp_path / name, "--out", tmp_path / "data"), message)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_prepare_skips_broken_lines_if_asked_to_and_counts_them(run: Run, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in made_up_reviews(60)]
    rows[10:10] = ["{broken", '{"txt": "no text"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    code, output, _ = run("data", "prepare", tmp_path / "a.jsonl", "--out", tmp_path / "data", "--on-error", "skip")
    assert code == 0
    assert "read: 62 documents in, 60 out" in output
    card = json.loads((tmp_path / "data" / "data_card.json").read_text())
    assert sum(card["steps"][0]["counts"].values()) == 2


def test_prepare_of_next_to_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": "\\u0007"}\n')
    check(run("data", "prepare", tmp_path / "a.jsonl", "--out", tmp_path / "data"), "nothing is left of the corpus")
    assert not (tmp_path / "data").exists()


def test_prepare_of_a_tiny_corpus_and_training_on_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.\n" * 3
    )
    code, _, errors = run("data", "prepare", tmp_path / "a.txt", "--out", tmp_path / "data")
    assert code == 0, errors
    check(
        run("pretrain", "--data", tmp_path / "data", "--out", tmp_path / "model", "--max-steps", 1),
        "fewer than a window.*--context",
    )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vocab-size", "50000"], "50,000 is more than the data supports"),
        (["--vocab-size", "100"], "at least 261 tokens"),
        (["--vocab-size", "many"], "vocab_size"),
        (["--validation", "0.9", "--test", "0.2"], "leave nothing to train on"),
        (["--tokenizer", "words"], None),
        (["--on-error", "ignore"], None),
        (["--no-such-flag"], None),
    ],
)
def test_prepare_names_a_wrong_flag(
    run: Run, tmp_path: Path, reviews_csv: Path, flags: list[str], message: str | None
) -> None:
    found = run("data", "prepare", reviews_csv, "--out", tmp_path / "data", *flags)
    if message is None:
        assert found[0] == 2
        assert flags[-1] in found[2] or flags[0] in found[2]
        assert "Traceback" not in found[2]
    else:
        check(found, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--embedding-dim", 30, "--num-heads", 4], r"\(30\) is not divisible by num_heads \(4\)"),
        (["--context", 100_000], "fewer than a window"),
        (["--max-steps", 0], "max_steps"),
        (["--learning-rate", -1], "learning_rate"),
        (["--device", "abacus"], "--device: this machine has no device 'abacus'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: file not found"),
        (["--depth", 0], "depth"),
    ],
)
def test_pretrain_names_a_wrong_flag(
    run: Run, tmp_path: Path, tiny_data: Path, flags: list[object], message: str
) -> None:
    arguments = ["--data", tiny_data, "--out", tmp_path / "model", "--num-layers", 1]
    check(run("pretrain", *arguments, *(["--max-steps", 1] if "--max-steps" not in flags else []), *flags), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--data", "d"], "--out: is needed"),
        (["pretrain", "--out", "m"], "--data: is needed"),
        (["finetune", "--out", "m"], "TASK: is needed"),
        (["finetune", "sentiment", "--model", "x", "--out", "m"], "--data: is needed"),
        (["evaluate", "m"], "--data: is needed"),
        (["pretrain", "--data", "nowhere", "--out", "m"], "nowhere"),
        (["pretrain", "--data", "a=much", "--out", "m"], "'much' is not a number"),
        (["generate", "nowhere", "hello"], "nowhere: there is no such model directory"),
        (["data", "prepare", "nowhere.txt", "--out", "d"], "nowhere.txt"),
        (["data", "prepare", "--out", "d"], "sources: Field required"),
        (["finetune", "sentiment", "--model", "nowhere", "--data", "x.csv", "--out", "m"], "x.csv|nowhere"),
        (
            ["finetune", "translation", "--model", "x", "--data", "y", "--out", "m", "--temperature", "0.1"],
            "temperature is a setting of search and recommendation, not of translation",
        ),
        (["report", "nowhere"], "nowhere"),
        (["pretrain", "--out", "m", "--resume"], "m/config.yaml: file not found"),
    ],
)
def test_what_is_missing_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check(run(*arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_left_alone(
    run: Run, tmp_path: Path, tiny_data: Path, tiny_model: Path, reviews_csv: Path
) -> None:
    for path in (tiny_data, tiny_model):
        before = contents(path)
        for arguments in (
            ["data", "prepare", reviews_csv],
            ["pretrain", "--data", tiny_data, "--max-steps", 1],
            ["finetune", "sentiment", "--model", tiny_model, "--data", reviews_csv],
            ["demo", "--data", reviews_csv],
        ):
            check(run(*arguments, "--out", path), r"holds (prepared data|a model) already.*Choose another --out")
        assert contents(path) == before


def test_labels_and_fields_that_are_not_there(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    rows = made_up_reviews(30)
    del rows[4]["label"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tune = ["finetune", "sentiment", "--model", tiny_model, "--data", tmp_path / "a.jsonl", "--out", tmp_path / "judge"]
    check(run(*tune), r'a\.jsonl:5: .*"?label"?.*--on-error skip')
    check(run(*tune, "--label-field", "stars"), r"a\.jsonl:1: .*stars")
    assert not (tmp_path / "judge").exists()


# ---------------------------------------------------------------------- damaged models


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of the tiny model that may be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def flip(model: Path) -> None:
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-10] ^= 1
    (model / "model.safetensors").write_bytes(weights)


def of_another_version(model: Path) -> None:
    record = json.loads((model / "lucidlm.json").read_text())
    (model / "lucidlm.json").write_text(json.dumps({**record, "format": 99, "version": "9.0"}))


def pickled(model: Path) -> None:
    for name in ("model.safetensors", "lucidlm.json"):
        (model / name).unlink()
    torch.save({"a": torch.zeros(1)}, model / "pytorch_model.bin")


def pickled_in_disguise(model: Path) -> None:
    (model / "lucidlm.json").unlink()
    torch.save({"a": torch.zeros(1)}, model / "model.safetensors")


DAMAGES = [
    (truncate, r"model\.safetensors: has .* bytes.*truncated"),
    (flip, r"model\.safetensors: does not match its checksum"),
    (of_another_version, r"lucidlm\.json: has format 99 \(lucidlm 9\.0\)"),
    (pickled, "pickle"),
    (pickled_in_disguise, "is a pickle"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("command", ["generate", "finetune", "evaluate"])
def test_a_damaged_model_is_named(
    run: Run,
    tmp_path: Path,
    model: Path,
    reviews_csv: Path,
    tiny_data: Path,
    command: str,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(model)
    before = contents(tmp_path)
    arguments = {
        "generate": [model, "film"],
        "finetune": ["sentiment", "--model", model, "--data", reviews_csv, "--out", tmp_path / "judge"],
        "evaluate": [model, "--data", tiny_data],
    }[command]
    check(run(command, *arguments), message)
    assert contents(tmp_path) == before


# ---------------------------------------------------------------------- runs that stop


@pytest.fixture
def stopped(run: Run, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that crashed after two checkpoints."""
    from lucidlm.train.pretrain import run as training

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_model", crash)
        sizes = ["--num-layers", 1, "--embedding-dim", 16, "--context", 32, "--batch-size", 2]
        steps = ["--max-steps", 5, "--checkpoint-steps", 2]
        code, _, errors = run("pretrain", "--data", tiny_data, "--out", tmp_path / "model", *sizes, *steps)
    assert code == 130, errors
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_named_with_what_to_fall_back_on(run: Run, stopped: Path, kind: str) -> None:
    last = stopped / "checkpoints" / "step-000004"
    content = bytearray((last / "optimizer.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (last / "optimizer.safetensors").write_bytes(content if kind == "flipped" else content[:-5])
    before = contents(stopped)
    check(run("pretrain", "--out", stopped, "--resume"), "step-000004/optimizer.*to go on from step-000002")
    assert contents(stopped) == before
    shutil.rmtree(last)
    assert run("pretrain", "--out", stopped, "--resume")[0] == 0
    assert (stopped / "lucidlm.json").exists()


def test_a_resumed_run_keeps_its_settings(run: Run, stopped: Path, tiny_data: Path) -> None:
    before = contents(stopped)
    check(run("pretrain", "--out", stopped, "--resume", "--max-steps", 50), "started with other settings")
    assert contents(stopped) == before
    assert run("pretrain", "--out", stopped, "--resume", "--data", tiny_data, "--max-steps", 5)[0] == 0


def test_flags_replace_what_a_replayed_file_says(
    run: Run, stopped: Path, tmp_path: Path, tiny_data: Path, reviews_zh_jsonl: Path
) -> None:
    from lucidlm.train.pretrain.run import PretrainConfig

    other = tmp_path / "other"
    assert run("data", "prepare", reviews_zh_jsonl, "--out", other)[0] == 0
    arguments = ["--config", stopped / "config.yaml", "--data", other, "--embedding-dim", 24, "--max-steps", 1]
    code, _, errors = run("pretrain", *arguments, "--out", tmp_path / "again")
    assert code == 0, errors
    config = PretrainConfig.load(tmp_path / "again" / "config.yaml")
    assert config.data == {str(other): 1.0}
    assert config.model is not None
    assert (config.model.embedding_dim, config.context_length, config.loop.max_steps) == (24, 32, 1)


def test_a_full_disk_is_one_message_and_keeps_the_last_checkpoint(tmp_path: Path, tiny_data: Path) -> None:
    """A limit on file sizes stands for the full disk: small files still fit, the weights do not."""
    command = (
        f"ulimit -f 200; exec {sys.executable} -m lucidlm pretrain --data {tiny_data} --out {tmp_path / 'model'} "
        "--max-steps 4 --checkpoint-steps 2 --depth 2 --context 32 --batch-size 1"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    check((found.returncode, found.stdout, found.stderr), r"step-000002.*takes no file so large", code=1)
    assert not list((tmp_path / "model" / "checkpoints").iterdir())
    assert not (tmp_path / "model" / "model.safetensors").exists()
