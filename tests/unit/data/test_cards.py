"""Opening prepared directories: complete ones only, and only if nothing in them has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.corpus.cards import CARD, DataCard
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.corpus.prepare import PrepareConfig, prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("\n".join(f"{i} and {i * i} and {i**3}" for i in range(50)))
    prepare(PrepareConfig(sources=[str(folder / "text.txt")], test=0), folder / "out")
    return folder / "out"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "data")


def test_a_directory_without_a_card_holds_no_data(data: Path, tmp_path: Path) -> None:
    (data / CARD).unlink()
    with pytest.raises(InputError, match=r"holds no prepared data .*lucidlm data prepare"):
        TokenCorpus.open(data)
    with pytest.raises(InputError, match="there is no such directory"):
        TokenCorpus.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("format", "lucidlm-data-9", "another version"), ("splits", 7, "splits"), ("colour", "red", "colour")],
)
def test_a_card_that_cannot_be_read_is_refused(data: Path, field: str, value: object, message: str) -> None:
    card = json.loads((data / CARD).read_text())
    (data / CARD).write_text(json.dumps({**card, field: value}))
    with pytest.raises(InputError, match=f"data_card.json: .*{message}"):
        DataCard.load(data)


def test_a_damaged_card_is_refused(data: Path) -> None:
    (data / CARD).write_text((data / CARD).read_text()[:200])
    with pytest.raises(InputError, match="not valid JSON"):
        DataCard.load(data)


def test_a_missing_file_is_named(data: Path) -> None:
    (data / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: listed in the data card but missing"):
        DataCard.load(data)


def test_a_truncated_file_is_named(data: Path) -> None:
    shard = data / "train-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-00000\.npy: has .* bytes where the data card says .*truncated"):
        DataCard.load(data)


def test_a_flipped_byte_is_noticed_when_a_split_is_opened(data: Path) -> None:
    shard = data / "train-00000.npy"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    DataCard.load(data)
    with pytest.raises(InputError, match=r"train-00000\.npy: does not match its checksum"):
        TokenCorpus.open(data)
    with pytest.raises(InputError, match="checksum"):
        DataCard.load(data, verify=True)
    TokenCorpus.open(data, "validation")


def test_an_empty_split_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="its test split is empty"):
        TokenCorpus.open(data, "test")
