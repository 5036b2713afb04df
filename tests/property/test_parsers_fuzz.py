"""Files altered at random open or are refused; `benchmarks/fuzz.py` does the same with many more, and limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fuzz import attempt, write_input
from fuzz_samples import TARGETS


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return {name: target.make(tmp_path_factory.mktemp(name)) for name, target in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_whole_opens(name: str, samples: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCIDLM_CACHE", str(samples[name][0].parent / "cache"))
    for sample in samples[name]:
        assert attempt(TARGETS[name], sample, 0).kind == "opened", sample


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2**32))
def test_what_is_altered_opens_or_is_refused(
    name: str, number: int, samples: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCIDLM_CACHE", str(tmp_path / "input" / "cache"))
    path = write_input(TARGETS[name], samples[name], 0, number, tmp_path / "input")
    outcome = attempt(TARGETS[name], path, number)
    assert outcome.kind in ("opened", "refused"), outcome
