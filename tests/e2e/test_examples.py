"""The programs in examples/ and the lines that a user would write, in PyTorch and in TensorFlow, run as users run them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.interop.keras.directory import WEIGHTS, export_keras
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LINES = """\
from {package} import BigLanguageModel
model = BigLanguageModel(vocab_size=10000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6)
model.load_weights('big_language_model_weights.weights.h5')
print(model.generate('The quick brown fox', length=50))
"""
PROMPT = "The quick brown fox"
tensorflow = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(find_spec("tensorflow") is None or find_spec("keras") is None, reason="needs TensorFlow"),
]


def python(*arguments: str | Path, cwd: Path) -> str:
    """Run Python; return what it printed. Nothing may come on standard error."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the size in the lines, in the form for Keras: nobody may write into its directory."""
    directory = tmp_path_factory.mktemp("examples") / "model"
    tokenizer = Tokenizer.train_bpe([f"{PROMPT} jumps over the lazy dog. " * 20], 280, exact=False)
    config = ModelConfig(vocab_size=10000, embedding_dim=512, num_heads=8, ff_dim=2048, num_layers=6)
    export_keras(LoadedModel(LanguageModel(config), tokenizer, {}), directory, None)
    return directory


@pytest.mark.parametrize("package", ["lucidlm", pytest.param("lucidlm.interop.keras", marks=tensorflow)])
def test_the_lines_that_a_user_would_write(package: str, exported: Path) -> None:
    expected = lucidlm.BigLanguageModel.from_pretrained(exported).generate(PROMPT, length=50)
    assert len(expected) > len(PROMPT)
    assert python("-c", LINES.format(package=package), cwd=exported) == f"{expected}\n"


@pytest.mark.parametrize("package", ["lucidlm", pytest.param("lucidlm.interop.keras", marks=tensorflow)])
def test_weights_without_a_tokenizer_say_what_is_missing(package: str, exported: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).symlink_to(exported / WEIGHTS)
    caught = "    {}\nexcept InputError as error:\n    print(error)\n"
    *lines, last = LINES.format(package=package).splitlines()
    script = "\n".join(["from lucidlm.core.errors import InputError", *lines, "try:", caught.format(last)])
    assert python("-c", script, cwd=tmp_path).startswith(
        "the model has no tokenizer, so it knows no text. Pass tokenizer="
    )


def test_the_example_in_pytorch(tiny_model: Path, tmp_path: Path) -> None:
    model = lucidlm.BigLanguageModel.from_pretrained(tiny_model)
    expected = model.generate(PROMPT, length=50, temperature=0.8)
    assert python(EXAMPLES / "big_language_model.py", tiny_model, cwd=tmp_path) == f"{expected}\n{expected}\n"


@pytest.mark.parametrize("prompt", [pytest.param("the film", marks=tensorflow)])
def test_the_example_in_tensorflow(prompt: str, tiny_model: Path, tmp_path: Path) -> None:
    export_keras(load_model(tiny_model), tmp_path / "keras", None)
    expected = lucidlm.BigLanguageModel.from_pretrained(tiny_model).generate(prompt, length=50)
    example = EXAMPLES / "big_language_model_tensorflow.py"
    assert python(example, tmp_path / "keras", prompt, cwd=tmp_path) == f"{expected}\n"
