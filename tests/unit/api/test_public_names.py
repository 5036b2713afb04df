"""What `import lucidlm` offers: all of it there, real functions, imported only when it is used."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest
import typer.main

import lucidlm
from lucidlm.api import settings
from lucidlm.cli.main import app
from lucidlm.core.flat import flat_names
from lucidlm.data.corpus.prepare import PrepareConfig
from lucidlm.evaluate.directory import EvaluateConfig
from lucidlm.inference.config import SamplingConfig, SamplingSettings
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.label_curve.run import LabelCurveConfig
from lucidlm.train.pretrain.run import PretrainConfig

COMMANDS = {
    "prepare": ("data prepare", settings.PrepareSettings, set()),
    "pretrain": ("pretrain", settings.PretrainSettings, set()),
    "finetune": ("finetune", settings.FinetuneSettings, {"field"}),
    "label_curve": ("label-curve", settings.LabelCurveSettings, {"field"}),
    "evaluate": ("evaluate", settings.EvaluateSettings, {"lm_eval", "lm_eval_include"}),
    "compare": ("compare", None, set()),
    "explain": ("explain", None, {"as_json", "out", "length", "data", "limit"}),
    "export": ("export", None, set()),
}
"""The command of each function, the keywords it takes beside its parameters, and the flags that make no sense in Python
(repeated `--field NAME=FIELD` is `fields`)."""


def python(code: str) -> str:
    """Run Python as a user does; nothing may come on standard error."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_all_names_are_there() -> None:
    for name in lucidlm.__all__:
        assert getattr(lucidlm, name) is not None
    assert sorted(dir(lucidlm)) == sorted(lucidlm.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        lucidlm.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_tokenizer_is_opened_by_its_directory(tiny_model: Path) -> None:
    assert lucidlm.load_tokenizer(tiny_model).encode("The") == Tokenizer.load(tiny_model).encode("The")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, lucidlm; lucidlm.LucidError, lucidlm.__version__; print({'torch', 'pydantic'} & {*sys.modules})"
    assert python(code) == "set()\n"


@pytest.mark.parametrize("name", ["evaluate", "explain"])
def test_functions_stay_where_folders_have_their_names(name: str) -> None:
    code = f"import lucidlm.{name}; from lucidlm import {name} as f; import types; print(type(f).__name__, f.__name__)"
    assert python(code) == f"function {name}\n"
    assert not isinstance(getattr(lucidlm, name), ModuleType)


@pytest.mark.parametrize("name", COMMANDS)
def test_keywords_are_the_flags_of_the_command(name: str) -> None:
    words, keywords, elsewhere = COMMANDS[name]
    command: Any = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    flags = {parameter.name for parameter in command.params} - elsewhere
    known = set(inspect.signature(getattr(lucidlm, name)).parameters)
    if keywords is not None:
        known |= set(get_type_hints(keywords))
    assert flags <= known


@pytest.mark.parametrize(
    ("keywords", "config", "names", "parameters"),
    [
        (settings.PrepareSettings, PrepareConfig, settings.PREPARE, {"sources", "clean"}),
        (settings.PretrainSettings, PretrainConfig, settings.PRETRAIN, {"data", "model", "shape", "loop"}),
        (settings.FinetuneSettings, FinetuneConfig, settings.FINETUNE, {"task", "model", "data", "lora", "loop"}),
        (settings.LabelCurveSettings, LabelCurveConfig, settings.FIELDS, {"task", "model", "data", "test_data"}),
        (settings.EvaluateSettings, EvaluateConfig, settings.FIELDS, {"task", "data"}),
        (SamplingSettings, SamplingConfig, {}, {"length", "logprobs"}),
    ],
)
def test_keywords_are_the_fields_of_the_configuration(
    keywords: type, config: Any, names: dict[str, str], parameters: set[str]
) -> None:
    fields = flat_names(config, names)
    called_otherwise = {name for name, path in fields.items() if name not in names and path in names.values()}
    assert set(get_type_hints(keywords)) == fields.keys() - called_otherwise - parameters
