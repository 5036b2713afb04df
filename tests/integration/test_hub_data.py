"""Data sets of the hub, read from a hub on this machine: configurations, splits, revisions, class labels, and no network."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from tests.hub_server import TOKEN, Hub

from lucidlm.core.errors import InputError, LucidError
from lucidlm.data.sources.read import read_documents, read_rows

CARD = """---
license: cc-by-4.0
configs:
- config_name: default
  data_files:
  - split: train
    path: en/train-*
  - split: test
    path:
    - en/test.jsonl
- config_name: fr
  data_dir: fr
dataset_info:
- config_name: default
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': bad
          '1': good
---
# Reviews
"""


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> bytes:
    table, buffer = pa.Table.from_pylist(rows), io.BytesIO()
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, buffer)
    return buffer.getvalue()


def texts(source: str, **options: Any) -> list[str]:
    return [document.text for document in read_documents(source, **options)]


def refused(source: str, *words: str, kind: type[LucidError] = InputError, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        texts(source, **options)
    assert isinstance(caught.value, InputError) == (kind is InputError)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def reviews(hub: Hub) -> None:
    files = {
        "README.md": CARD.encode(),
        "en/train-00000.jsonl": jsonl({"text": "fine", "label": 1}, {"text": "poor", "label": 0}),
        "en/train-00001.jsonl": jsonl({"text": "great", "label": 1}),
        "en/test.jsonl": jsonl({"text": "so so", "label": -1}),
        "fr/train.csv": b"text,label\nbien,1\n",
        "fr/validation.csv": b"text,label\nmal,0\n",
    }
    hub.add("dataset", "acme/reviews", files)


def test_splits_and_configurations_of_a_readme(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    reviews(hub)
    documents = list(read_documents("hf:acme/reviews", label_field="label"))
    assert [(document.text, document.label) for document in documents] == [
        ("fine", "good"),
        ("poor", "bad"),
        ("great", "good"),
    ]
    assert documents[1].where == "hf:acme/reviews/en/train-00000.jsonl:2"
    assert documents[0].meta["licence"] == "cc-by-4.0"
    commit = hub.repositories["datasets/acme/reviews"].names["main"]
    assert documents[0].revision == commit
    assert capsys.readouterr().err == f"hf:acme/reviews: split train, 2 files, commit {commit[:7]}\n"
    assert texts("hf:acme/reviews@test") == ["so so"]
    assert texts("hf:acme/reviews/fr") == ["bien"]
    assert texts("hf:acme/reviews/fr@validation") == ["mal"]
    assert not hub.asked("GET", "/api/datasets/acme/reviews/parquet")


def test_a_file_or_a_folder_of_a_repository(hub: Hub) -> None:
    reviews(hub)
    assert texts("hf:acme/reviews/en/train-00001.jsonl") == ["great"]
    hub.add("dataset", "acme/two", {"en/a-train.txt": b"one", "en/a-test.txt": b"two", "fr/train.txt": b"three"})
    assert texts("hf:acme/two/en@test") == ["two"]
    assert texts("hf:acme/two") == ["three", "one"]  # as `datasets` has them: by pattern
    refused("hf:acme/reviews/README.md@train2", "has no split 'train2'. Its splits are: train.")


def test_parquet_and_the_class_labels_in_it(hub: Hub) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "Sequence"},
    }
    rows = [{"text": "one", "label": 1, "tags": [0, 1]}, {"text": "two", "label": 0, "tags": []}]
    hub.add("dataset", "acme/tagged", {"data/train-00000-of-00001.parquet": parquet(rows, features)})
    found = [row.fields for row in read_rows("hf:acme/tagged")]
    assert found == [{"text": "one", "label": "yes", "tags": ["O", "B"]}, {"text": "two", "label": "no", "tags": []}]
    assert [document.label for document in read_documents("hf:acme/tagged", label_field="label")] == ["yes", "no"]


def test_labels_that_are_none_or_unknown_are_rows_that_cannot_be_used(hub: Hub) -> None:
    reviews(hub)
    where = "hf:acme/reviews/en/test.jsonl:1: "
    refused("hf:acme/reviews@test", where, "(class -1 stands for none)", label_field="label")
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    hub.add(
        "dataset", "acme/odd", {"a.parquet": parquet([{"text": "x", "label": 2}, {"text": "y", "label": 1}], features)}
    )
    refused("hf:acme/odd", "a.parquet:1: ", 'field "label" holds class 2, and there are 2, from 0')
    skipped: Counter[str] = Counter()
    assert texts("hf:acme/odd", on_error="skip", skipped=skipped) == ["y"]
    assert skipped == {"unknown class": 1}


def test_what_does_not_exist_is_answered_with_what_does(hub: Hub) -> None:
    reviews(hub)
    refused("hf:acme/reviews@tset", "has no split 'tset'. Its splits are: train, test.", "hf:acme/reviews#REVISION")
    refused("hf:acme/reviews/de", "no configuration, file or folder 'de'. Its configurations are: default, fr.")
    refused("hf:acme/reviews#v2", "has no revision 'v2'")
    refused("hf:acme/none", f"there is no such dataset at {hub.url}, or it is private", "hf auth login", "HF_TOKEN")
    refused("hf:acme/reviews@train@x", "not of the form hf:OWNER/NAME/CONFIG@SPLIT#REVISION")
    two = "---\nconfigs:\n- config_name: a\n  data_files: a.txt\n- config_name: b\n  data_files: b.txt\n---\n"
    hub.add("dataset", "acme/two", {"README.md": two.encode(), "a.txt": b"a", "b.txt": b"b"})
    refused("hf:acme/two", "has several configurations: a, b. Say which: hf:acme/two/a.")
    hub.add("dataset", "acme/tests", {"dev.txt": b"a", "test.txt": b"b"})
    refused("hf:acme/tests", "no split called train. Its splits are: validation, test; say which")
    hub.add("dataset", "acme/pictures", {"a.png": b"", "load.py": b""})
    refused("hf:acme/pictures", "no data of a kind that is read here (.png, .py)", "#refs/convert/parquet")
    hub.add("dataset", "acme/away", {"README.md": CARD.replace("en/test.jsonl", "https://a.b/c.csv").encode()})
    refused("hf:acme/away", "its data lie elsewhere, at https://a.b/c.csv")
    hub.add("dataset", "acme/evil", {"../../a.txt": b""})
    refused("hf:acme/evil", "holds the path '../../a.txt', which leads out of it")


def test_headers_that_are_not_what_they_should_be(hub: Hub) -> None:
    for header, word in (
        ("configs: [", "not valid YAML"),
        ("configs: 3", "not a list of configurations"),
        ("configs: [{data_files: x}]", "not a list of configurations"),
        ("configs: [{config_name: a, data_files: '**.txt'}]", "not a list of configurations"),
        ("dataset_info: [3]", "features in the header of its README cannot be read"),
    ):
        hub.add("dataset", "acme/odd", {"README.md": f"---\n{header}\n---\n".encode(), "a.txt": b"a"})
        refused("hf:acme/odd", word)
    hub.add("dataset", "acme/odd", {"README.md": b"\xff---\n# No header\n", "a.txt": b"a"})
    assert texts("hf:acme/odd") == ["a"]


def test_settings_that_are_not_heeded_are_named(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    header = "---\nconfigs:\n- config_name: a\n  data_files: a.csv\n  skiprows: 2\n---\n"
    hub.add("dataset", "acme/odd", {"README.md": header.encode(), "a.csv": b"text\nx\n"})
    assert texts("hf:acme/odd") == ["x"]
    assert "not heeded of what its README says on reading them: skiprows" in capsys.readouterr().err


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    repository = hub.add("dataset", "acme/words", {"a.txt": b"first", "b.txt": b"same"})
    first = repository.names["main"]
    repository.commit({"a.txt": b"second", "b.txt": b"same"}, "main", "v2.0")
    repository.commit({"a.txt": b"third"}, "refs/pr/1")
    assert texts("hf:acme/words") == texts("hf:acme/words@train#v2.0") == ["second", "same"]
    assert texts(f"hf:acme/words#{first}") == ["first", "same"]
    assert texts("hf:acme/words#refs/pr/1") == ["third"]
    asked = len(hub.requests)
    assert texts(f"hf:acme/words/a.txt#{first}") == ["first"]
    assert len(hub.requests) == asked  # a commit does not change


def test_the_hubs_own_copies_in_parquet(hub: Hub) -> None:
    files = {
        f"{config}/{split}/0000.parquet": parquet([{"text": f"{config} {split}"}])
        for config in ("en", "fr")
        for split in ("train", "partial-test")
    }
    hub.add("dataset", "acme/script", {"script.py": b""}).commit(files, "refs/convert/parquet")
    assert texts("hf:acme/script/fr@test#refs/convert/parquet") == ["fr partial-test"]
    refused("hf:acme/script#refs/convert/parquet", "several configurations: en, fr")


def test_a_gated_data_set(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", "acme/gated", {"a.txt": b"secret"}, gated=True)
    refused(
        "hf:acme/gated", "is gated", f"Accept it at {hub.url}/datasets/acme/gated, then log in with `hf auth login`"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert texts("hf:acme/gated") == ["secret"]


def test_without_a_network_what_was_fetched_is_there(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews(hub)
    texts("hf:acme/reviews")
    hub.down = True
    capsys.readouterr()
    assert len(texts("hf:acme/reviews")) == 3
    assert f"{hub.url} cannot be reached (answers 503); taking what the cache holds" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(texts("hf:acme/reviews")) == 3
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    refused("hf:acme/reviews@test", "not all of it is in the cache", "HF_HUB_OFFLINE is set", kind=LucidError)
    with pytest.raises(LucidError, match=r"hf:acme/none: .* cannot be reached .* HF_ENDPOINT"):
        texts("hf:acme/none")


def test_a_download_that_is_cut_off_is_taken_up(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    rows = jsonl(*({"text": f"row {number * 7919 % 10007}"} for number in range(9000)))
    data = gzip.compress(rows)
    hub.add("dataset", "acme/long", {"train.jsonl.gz": data})
    hub.cut = [9_000, 6_000]
    assert len(texts("hf:acme/long")) == 9000
    assert hub.asked("GET", "/storage/") == [None, "bytes=9000-", "bytes=15000-"]
    assert "train.jsonl.gz: the connection broke at 0.0 MB" in capsys.readouterr().err


def test_a_later_run_takes_up_what_an_earlier_one_could_not_finish(hub: Hub, tmp_path: Path) -> None:
    data = gzip.compress(jsonl(*({"text": f"row {number * 7919 % 10007}"} for number in range(9000))))
    hub.add("dataset", "acme/long", {"train.jsonl.gz": data})
    hub.cut = [9_000] + [0] * 9
    with pytest.raises(LucidError, match=r"cannot be reached .* The same command goes on where it stopped"):
        texts("hf:acme/long")
    [part] = tmp_path.glob("cache/hub/*/blobs/*.incomplete")
    assert part.read_bytes() == data[:9000]
    hub.cut = []
    assert len(texts("hf:acme/long")) == 9000
    assert hub.asked("GET", "/storage/")[-1] == "bytes=9000-"
    assert not part.exists()


def test_a_server_without_ranges_sends_all_of_it_again(hub: Hub) -> None:
    hub.add(
        "dataset", "acme/long", {"train.jsonl.gz": gzip.compress(jsonl(*({"text": str(n * 7)} for n in range(900))))}
    )
    hub.ranges, hub.cut = False, [900]
    assert len(texts("hf:acme/long")) == 900
    assert hub.asked("GET", "/storage/") == [None, "bytes=900-"]


def test_bytes_that_are_not_the_hubs(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = gzip.compress(jsonl(*({"text": f"row {number}"} for number in range(900))))
    hub.add("dataset", "acme/long", {"train.jsonl.gz": data, "b.jsonl": jsonl({"text": "b"})})
    hub.cut = [500] + [0] * 9
    with pytest.raises(LucidError):
        texts("hf:acme/long/train.jsonl.gz")
    hub.cut = []
    [part] = tmp_path.glob("cache/hub/*/blobs/*.incomplete")
    part.write_bytes(bytes(500) + data[500:] + b"more")
    assert len(texts("hf:acme/long/train.jsonl.gz")) == 900  # begun anew, being too long
    [snapshot] = tmp_path.glob("cache/hub/*/snapshots/*/train.jsonl.gz")
    snapshot.resolve().unlink()
    part.write_bytes(bytes(500))
    refused("hf:acme/long/train.jsonl.gz", "train.jsonl.gz came with other bytes than the hub says", kind=LucidError)
    assert len(texts("hf:acme/long/train.jsonl.gz")) == 900  # begun anew
    assert texts("hf:acme/long/b.jsonl") == ["b"]
    capsys.readouterr()
    for path in ("train.jsonl.gz", "b.jsonl"):  # known by its SHA-256, and as git knows it
        [place] = tmp_path.glob(f"cache/hub/*/snapshots/*/{path}")
        place.write_bytes(bytes(place.stat().st_size))
        texts(f"hf:acme/long/{path}")
        assert f"{path}: its bytes have changed; fetching it again" in capsys.readouterr().err


def test_a_busy_hub_is_asked_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("dataset", "acme/a", {"a.txt": b"x"})
    hub.busy = 2
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert texts("hf:acme/a") == ["x"]
    assert capsys.readouterr().err.count("hf:acme/a: the hub is slow to answer; trying again\n") == 2


def test_a_full_disk_is_said_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", "acme/long", {"a.txt": b"x" * 1000})
    usage = type("Usage", (), {"free": 999})
    monkeypatch.setattr("lucidlm.core.io.shutil.disk_usage", lambda path: usage)
    refused("hf:acme/long", "needs 0.00 GB of disk", kind=LucidError)
    assert not hub.asked("GET", "/resolve/")


def test_the_client_is_left_as_it_was(hub: Hub) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    logger = logging.getLogger("huggingface_hub")
    before = (list(logger.handlers), logger.propagate, are_progress_bars_disabled())
    hub.add("dataset", "acme/a", {"a.txt": b"x"})
    texts("hf:acme/a")
    refused("hf:acme/none", "no such dataset")
    assert (list(logger.handlers), logger.propagate, are_progress_bars_disabled()) == before


# ---------------------------------------------------------------------- the command line, and a mirror


def test_a_command_that_is_interrupted(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs in a process of its own, where HF_ENDPOINT names the hub, as it does a mirror."""
    data = gzip.compress(jsonl(*({"text": f"row {number * 7919 % 10007}"} for number in range(900))))
    commit = hub.add("dataset", "acme/long", {"train.jsonl.gz": data}).names["main"]
    hub.stalls = 100  # on a busy machine the client may ask again before it is interrupted
    call = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "lucidlm",
        "data",
        "prepare",
        "hf:acme/long",
        "--out",
        tmp_path / "data",
    ]
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    run = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert hub.stalled.wait(30)
    while not any(part.stat().st_size for part in tmp_path.glob("cache/hub/*/blobs/*.incomplete")):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert run.returncode == 130, said
    told = f"hf:acme/long: split train, 1 file, commit {commit[:7]}\n"
    assert said.startswith(f"{told}hf:acme/long: cut off; the same command goes on where it stopped\n")
    assert "Traceback" not in said
    hub.stalls = 0
    assert len(texts("hf:acme/long")) == 900
    assert capsys.readouterr().err == f"{told}hf:acme/long: train.jsonl.gz: going on at 0.0 MB\n"
    first, *_, last = hub.asked("GET", "/storage/")
    assert (first, last[:6], last[-1]) == (None, "bytes=", "-")
