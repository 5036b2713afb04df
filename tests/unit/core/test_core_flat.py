"""Settings by their flat names: which there are, where they belong, and what is said of a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lucidlm.core.config import Config
from lucidlm.core.errors import InputError
from lucidlm.core.flat import flat_names, paths_of, resolve, resumed
from lucidlm.train.finetune.config import KINDS, FinetuneConfig


class Wing(Config):
    name: str = "left"
    length: float = 1.0


class Tail(Config):
    name: str = "tail"
    seed: int = 7


class Bird(Config):
    colour: str = "red"
    seed: int = 0
    wing: Wing = Wing()
    tail: Tail = Tail()
    nest: Wing | None = None

    @classmethod
    def variants(cls) -> tuple[type[Config], ...]:
        return (cls, Owl) if cls is Bird else (cls,)


def test_a_field_has_its_own_name_wherever_it_stands() -> None:
    names = flat_names(Bird)
    assert names["colour"] == "colour"
    assert names["length"] == "wing.length"


def test_the_outer_field_has_the_name_and_of_equals_none() -> None:
    names = flat_names(Bird)
    assert names["seed"] == "seed"
    assert "name" not in names
    assert flat_names(Bird, {"wing": "wing.name"})["wing"] == "wing.name"


class Owl(Bird):
    stare: int = 1


def test_what_only_some_kinds_have_is_known_too() -> None:
    assert flat_names(Bird)["stare"] == "stare"
    assert "wing" in flat_names(Owl)


def test_values_go_where_their_fields_are() -> None:
    bird = resolve(Bird, None, paths_of(Bird, {"length": 3.0, "seed": 1, "wing": {"name": "right"}}))
    assert bird == Bird(seed=1, wing=Wing(name="right", length=3.0))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lenght", "Did you mean length?"),
        ("staer", "Did you mean stare?"),  # of one kind of bird only
        ("xyz", "Known are colour, length"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"{name}: there is no such setting. {near}".replace("?", r"\?")):
        paths_of(Bird, {name: 1})


def test_values_win_over_a_file(tmp_path: Path) -> None:
    Bird(colour="blue", wing=Wing(length=2.0)).save(tmp_path / "bird.yaml")
    bird = resolve(Bird, tmp_path / "bird.yaml", {"wing.name": "right"})
    assert bird == Bird(colour="blue", wing=Wing(name="right", length=2.0))


def test_a_run_goes_on_by_its_own_settings(tmp_path: Path) -> None:
    started = Bird(colour="blue", seed=3)
    started.save(tmp_path / "bird.yaml")
    assert resumed(Bird, tmp_path / "bird.yaml", {"seed": 3}) == started
    with pytest.raises(InputError, match="other settings"):
        resumed(Bird, tmp_path / "bird.yaml", {"seed": 4})
    with pytest.raises(InputError, match="other settings"):
        resumed(Bird, tmp_path / "bird.yaml", {"seed": "four"})


def test_settings_of_every_kind_of_finetuning_are_known() -> None:
    fields = {name for kind in KINDS for name in kind.model_fields}
    assert fields - {"loop", "lora"} <= flat_names(FinetuneConfig).keys()


def test_a_finetuning_run_does_not_go_on_with_another_task(tmp_path: Path) -> None:
    started = FinetuneConfig(task="sentiment", model="model", data="reviews.csv", token_dropout=0.1)
    started.save(tmp_path / "config.yaml")
    assert resumed(FinetuneConfig, tmp_path / "config.yaml", {"token_dropout": 0.1}) == started
    with pytest.raises(InputError, match="was started with other settings"):
        resumed(FinetuneConfig, tmp_path / "config.yaml", {"task": "translation"})
