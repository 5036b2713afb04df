"""Configurations: mistakes are named field by field, files come back equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from lucidlm.core.config import Config
from lucidlm.core.errors import InputError


class Inner(Config):
    depth: int = Field(default=2, ge=1)


class Outer(Config):
    name: str
    rate: float = Field(default=0.5, gt=0)
    inner: Inner = Inner()
    limit: int | None = None


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(InputError, match=r"lr: Extra inputs are not permitted \(given: 3\)"):
        Outer(name="a", lr=3)


def test_a_wrong_value_is_named_with_what_was_given() -> None:
    with pytest.raises(InputError, match=r"rate: .*greater than 0 \(given: -1\)"):
        Outer(name="a", rate=-1)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Outer(rate="fast", other=1)
    for field in ("name: Field required", "rate: ", "other: "):
        assert field in caught.value.what


def test_a_mistake_further_down_is_named() -> None:
    with pytest.raises(InputError, match=r"depth: .*\(given: 0\)"):
        Outer(name="a", inner={"depth": 0})


class Outermost(Config):
    outer: Outer = Outer(name="a", rate=0.25, inner=Inner(depth=9))


def test_what_is_left_out_further_down_keeps_the_default_of_where_it_stands() -> None:
    assert Outermost(outer={"inner": {}}).outer == Outer(name="a", rate=0.25, inner=Inner(depth=9))
    assert Outermost(outer={"rate": 2}).outer.inner.depth == 9


def test_a_configuration_does_not_change() -> None:
    config = Outer(name="a")
    with pytest.raises(ValidationError):
        config.name = "b"


def test_changed_checks_what_it_sets_none_too() -> None:
    config = Outer(name="a", limit=3)
    assert config.changed(rate=2, limit=None) == Outer(name="a", rate=2)
    with pytest.raises(InputError, match="name: "):
        config.changed(name=None)
    assert config.rate == 0.5
    with pytest.raises(InputError):
        config.changed(rate=0)


def test_files_come_back_equal(tmp_path: Path) -> None:
    config = Outer(name="电影: #1", rate=1e-7, inner=Inner(depth=7))
    config.save(tmp_path / "config.yaml")
    assert Outer.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [1, 2", "not valid YAML"),
        (b"name: a\n\tb: c", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"", "YAML mapping"),
        (b"- a\n- b\n", "YAML mapping"),
        (b"name: a\nrate: never\n", "rate: "),
        (b"name: a\n1: 2\n", "YAML mapping"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"run\.yaml: .*{message}"):
        Outer.load(tmp_path / "run.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="not valid YAML"):
        Outer.load(tmp_path / "run.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.yaml: file not found"):
        Outer.load(tmp_path / "run.yaml")
