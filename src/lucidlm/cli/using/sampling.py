"""What the commands that write share: options of sampling, the model that writes, texts from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.core.errors import InputError

if TYPE_CHECKING:
    from lucidlm.control.config import ConstraintConfig
    from lucidlm.core.config import Config
    from lucidlm.inference.config import SamplingConfig
    from lucidlm.inference.decode import Writer
    from lucidlm.inference.guard import Guard
    from lucidlm.model.heads import LanguageModel

Source = Annotated[str, typer.Argument(metavar="MODEL", help="A model directory, or what `lucidlm import` takes.")]

SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
)
"""The settings of sampling that these commands show, in the order of their help."""


CONSTRAINT = ("choices", "regex", "json_schema", "grammar", "required", "forbidden", "min_length")
"""What a text has to be, likewise."""

SHIFT = ("steer", "negative_prompt", "amateur", "guidance", "watermark")
"""What shifts its odds, likewise."""

ENGINE = ("backend", "quantize", "quantize_text", "draft")
"""What says how the model is run, likewise."""


def configurations() -> Sequence[type[Config]]:
    """Return what commands that write have the settings of."""
    from lucidlm.cli.using.settings import UseConfig
    from lucidlm.control.config import ConstraintConfig, GuardConfig, ShiftConfig
    from lucidlm.inference.config import EngineConfig, SamplingConfig

    return (SamplingConfig, ConstraintConfig, ShiftConfig, GuardConfig, EngineConfig, UseConfig)


def constraint_config(settings: dict[str, Any]) -> ConstraintConfig:
    """Return what a text has to be; takes it out of the settings, and reads the files that they name.

    Raises
    ------
    InputError: there is no such file, or it holds no text.
    """
    from lucidlm.control.config import ConstraintConfig

    given = {name: settings.pop(name) for name in CONSTRAINT if name in settings}
    for name in ("json_schema", "grammar"):
        if name in given and not (name == "json_schema" and given[name].lstrip().startswith("{")):
            given[name] = _text_of(given[name], f"--{name.replace('_', '-')}")
    return ConstraintConfig(**given)


def _text_of(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = "is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise InputError(f"the file {path} {what}", where=where, fix="Pass the path of a file of text.") from None


def reply_config(model: LanguageModel, usual: int, chosen: Mapping[str, Any]) -> SamplingConfig:
    """Return how to reply: by the settings that were given, else by the model's generation_config.json, which is said.

    Parameters
    ----------
    usual: the most tokens of a reply where neither says it.
    chosen: the settings that were given.

    Raises
    ------
    InputError: a flag or the file has a setting that is none.
    """
    from lucidlm.checkpoint.generation_config import GENERATION_CONFIG
    from lucidlm.core.progress import log
    from lucidlm.inference.config import SamplingConfig
    from lucidlm.inference.sampler import ELSEWHERE, sampling_of

    fields = model.generation.fields
    ours = SamplingConfig(length=usual)
    theirs = {name: value for name, value in sampling_of(fields).items() if value != getattr(ours, name)}
    if told := [f"{name.replace('_', '-')} {value:g}" for name, value in theirs.items() if name not in chosen]:
        log(f"as the model's {GENERATION_CONFIG} has it: {', '.join(told)}")
    if left_out := [name for name in ELSEWHERE if fields.get(name) not in (None, 0, 1, [], {})]:
        log(f"the model's {GENERATION_CONFIG} asks for {', '.join(left_out)} too, which is not done here")
    return ours.changed(**{**theirs, **chosen})


def open_writer(
    source: str, settings: dict[str, Any], steering: Sequence[str] = (), *, release_weights: bool = True
) -> tuple[Writer, Guard | None]:
    """Return a causal language model that is ready to write, and what guards it; takes out of the settings what says where
    and how.

    Parameters
    ----------
    steering: what it is steered by, see `steer_by`.
    release_weights: nothing reads with the model but the writer, see `open_backend`.

    Raises
    ------
    InputError: there is no such model, or it is of another kind, or the steering or the guard is; see `open_backend` for the
        rest.
    """
    from lucidlm.checkpoint.load import load_model
    from lucidlm.control.config import GuardConfig
    from lucidlm.control.opening import steer_by
    from lucidlm.core.devices import choose_compute
    from lucidlm.inference.config import EngineConfig
    from lucidlm.inference.decode import Writer
    from lucidlm.predict.guard import open_guard

    rules = GuardConfig(guard=settings.pop("guard", ())).guard
    device = choose_compute(settings.pop("device", "auto")).device
    engine = EngineConfig(**{name: settings.pop(name) for name in ENGINE if name in settings})
    model, tokenizer = load_model(source, device=device).causal_lm()
    steer_by(model, steering)
    guard = open_guard(rules, str(device))
    return Writer(model, tokenizer, engine, guard, release_weights=release_weights), guard


def text_given(text: str, where: str) -> str:
    """Return `text`.

    Raises
    ------
    InputError: it is not in the encoding that the system says, so Python has kept bytes of it as they were.
    """
    from lucidlm.data.examples.records import SURROGATES

    if SURROGATES.search(text):
        encoding = sys.getfilesystemencoding()
        raise InputError(f"is not text in {encoding}", where=where, fix=f"Convert it to {encoding}.")
    return text


def input_lines() -> Iterator[str]:
    """Yield the lines of standard input, their ends included.

    Raises
    ------
    InputError: they are not text in the system's encoding.
    """
    where = "standard input"
    try:
        for line in sys.stdin:
            yield text_given(line, where)
    except UnicodeDecodeError:
        encoding = sys.stdin.encoding
        raise InputError(f"is not text in {encoding}", where=where, fix=f"Convert it to {encoding}.") from None
