"""What the command line spells in one word: rules of guards, vectors with a strength."""

from __future__ import annotations

import math

import pytest

from lucidlm.control.config import GuardConfig, GuardRule, ShiftConfig
from lucidlm.core.errors import InputError
from lucidlm.serve.config import ServeConfig


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("judge:toxic<0.5", GuardRule("judge", "toxic", True, 0.5)),
        ("judge:fine>.9", GuardRule("judge", "fine", False, 0.9)),
        ("pypi:name==1.0:bad<0.25", GuardRule("pypi:name==1.0", "bad", True, 0.25)),
        ("hf:owner/name:very bad < 0.1", GuardRule("hf:owner/name", "very bad", True, 0.1)),
        ("模型:辱骂<0.5", GuardRule("模型", "辱骂", True, 0.5)),
        ("judge:<3>0.5", GuardRule("judge", "<3", False, 0.5)),
    ],
)
def test_rules(given: str, rule: GuardRule) -> None:
    assert GuardRule.parse(given) == rule
    assert GuardRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "should be MODEL:LABEL<BOUND"),
        ("judge", "should be MODEL:LABEL<BOUND"),
        ("judge:toxic", "should be MODEL:LABEL<BOUND"),
        ("judge<0.5", "should be MODEL:LABEL<BOUND"),
        (":toxic<0.5", "should be MODEL:LABEL<BOUND"),
        ("judge:<0.5", "should be MODEL:LABEL<BOUND"),
        ("judge:toxic=0.5", "should be MODEL:LABEL<BOUND"),
        ("judge:toxic<much", "should be MODEL:LABEL<BOUND"),
        ("judge:toxic<nan", "should be MODEL:LABEL<BOUND"),
        ("judge:toxic<1.5", "between 0 and 1"),
        ("judge:toxic>-0.1", "between 0 and 1"),
        ("judge:toxic<0", "between 0 and 1"),
        ("judge:toxic<50", "between 0 and 1"),
    ],
)
def test_what_is_no_rule(given: str, said: str) -> None:
    with pytest.raises(InputError, match=f"guard: .*{said}"):
        GuardConfig(guard=("judge:bad<0.5", given))


def test_bounds_are_exclusive_and_what_is_no_number_never_passes() -> None:
    below, above = GuardRule.parse("judge:bad<0.5"), GuardRule.parse("judge:bad>0.5")
    assert [below.passes(one) for one in (0.49, 0.5, 0.51, math.nan)] == [True, False, False, False]
    assert [above.passes(one) for one in (0.49, 0.5, 0.51, math.nan)] == [False, False, True, False]


@pytest.mark.parametrize("config", [ShiftConfig, ServeConfig])
def test_vectors_without_a_strength_are_refused_whoever_takes_them(config: type[ShiftConfig | ServeConfig]) -> None:
    with pytest.raises(InputError, match="should be FILE=STRENGTH, the strength a number"):
        config(steer=("vector.safetensors",))
