"""All that controls the texts of a model, made ready from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucidlm.checkpoint.load import load_model
from lucidlm.control.config import ConstraintConfig, ShiftConfig, parse_steering
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.control.guidance import away_from_model, away_from_prompt
from lucidlm.control.steering import SteeringVector, require_own, steer
from lucidlm.control.watermark import watermarking
from lucidlm.core.errors import InputError
from lucidlm.inference.logits_processor import LogitsProcessor, MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer


def steer_by(model: LanguageModel, given: Sequence[str]) -> None:
    """Steer a model by vectors, each `FILE=STRENGTH`, from now on: before anything makes a copy of it to compute with.

    Raises
    ------
    InputError: a file holds no steering vector, or one of another model.
    """
    for path, strength in map(parse_steering, given):
        steer(model, SteeringVector.load(path), strength)


def open_vectors(model: LanguageModel, given: Sequence[str]) -> dict[str, tuple[SteeringVector, float]]:
    """Return vectors of a model, each `FILE=STRENGTH`, with their strengths, by the names of their files without the ending.

    Raises
    ------
    InputError: a file holds no steering vector, or one of another model; two have one name.
    """
    found: dict[str, tuple[SteeringVector, float]] = {}
    for path, strength in map(parse_steering, given):
        name = Path(path).stem
        if name in found:
            raise InputError(f"two vectors are called {name}", where="--steer", fix="Name their files apart.")
        found[name] = SteeringVector.load(path), strength
        require_own(model, found[name][0])
    return found


def processors_of(
    model: LanguageModel, tokenizer: Tokenizer, held: ConstraintConfig, shifted: ShiftConfig
) -> MakeProcessors | None:
    """Return what makes the processors of each text; None: there are none.

    What is ruled out is so before the rest is shifted, which rules out what is implausible among what is left.

    Raises
    ------
    InputError: the other model or prompt cannot be used. What a text is held to is compiled, and refused, with the text.
    """
    size = model.config.vocab_size
    makers = [ConstraintCompiler(tokenizer, size).processors(held)]
    if shifted.negative_prompt is not None:
        makers.append(away_from_prompt(model, tokenizer, shifted.negative_prompt, shifted.guidance))
    if shifted.amateur is not None:
        amateur = load_model(shifted.amateur, device=model.head.device).causal_lm()
        makers.append(away_from_model(*amateur, tokenizer, shifted.guidance))
    if shifted.watermark is not None:
        makers.append(watermarking(shifted.watermark, size))
    wanted = [make for make in makers if make is not None]

    def make(prompt: list[int], ends: frozenset[int]) -> list[LogitsProcessor]:
        return [processor for make in wanted for processor in make(prompt, ends)]

    return make if wanted else None
