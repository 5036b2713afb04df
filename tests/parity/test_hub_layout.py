"""Which files make which split: as the `datasets` library has it, asked of the same hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.hub_server import serve

from lucidlm.data.sources.hub_layout import configurations, read_header

pytestmark = pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets, which lm-eval of [dev] brings")

SCRIPT = """
import datasets, json, sys
found = {}
for name in json.loads(sys.argv[1]):
    found[name] = {}
    repo = f"acme/{name}"
    for config in datasets.get_dataset_config_names(repo):
        splits = datasets.load_dataset_builder(repo, config).config.data_files.items()
        found[name][config] = {str(key): [path.split("@")[1].partition("/")[2] for path in value] for key, value in splits}
print(json.dumps(found))
"""
CONFIGS = """---
configs:
- config_name: globs
  default: true
  data_files:
  - split: train
    path: a/**/part-?.jsonl
  - split: held_out
    path: [a/test/*.jsonl, extra/test.jsonl]
- config_name: folder
  data_dir: b
- config_name: one
  data_files: a/x/part-1.jsonl
- config_name: several
  data_files: [a/x/*, extra/*]
---
"""
LAYOUTS: dict[str, list[str]] = {
    "one_file": ["rows.csv"],
    "names": ["train.csv", "test.csv", "dev.csv", "LICENSE"],
    "words": ["my-training_set.jsonl", "my-val.jsonl", "x/eval 1.jsonl", "trainer.jsonl", "attest.jsonl"],
    "folders": ["data/train/a.txt", "data/train/b.txt", "data/test-1/a.txt", "data/other/a.txt"],
    "languages": ["en/train.jsonl", "fr/train.jsonl", "fr/validation.jsonl"],
    "shards": [f"data/{split}-0000{shard}-of-00002.csv" for split in ("train", "extra", "test") for shard in (0, 1)],
    "packed": ["train.jsonl.gz", "test.jsonl.gz"],
    "kinds": ["data.csv", "data.json", "more/notes.txt"],
    "most": ["a.txt", "b.txt", "c.csv"],
    "tie": ["rows.parquet", "rows.jsonl"],
    "hidden": [
        "train.csv",
        ".cache/train.csv",
        ".train.csv",
        "__MACOSX/train.csv",
        "config.json",
        "dataset_infos.json",
    ],
    "twice": ["train/train.csv", "train/test.csv", "test/train.csv"],
    "header": [
        "a/x/part-1.jsonl",
        "a/y/part-2.jsonl",
        "a/y/part-10.jsonl",
        "a/test/z.jsonl",
        "extra/test.jsonl",
        "b/train.jsonl",
        "b/test/train.jsonl",
        "b/.hidden/train.jsonl",
    ],
}


def test_splits_are_those_of_datasets(tmp_path: Path) -> None:
    with serve() as hub:
        for name, files in LAYOUTS.items():
            content = dict.fromkeys(files, b"{}") | ({"README.md": CONFIGS.encode()} if name == "header" else {})
            hub.add("dataset", f"acme/{name}", content)
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        call = [sys.executable, "-c", SCRIPT, json.dumps(list(LAYOUTS))]
        run = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    assert run.returncode == 0, run.stderr
    expected = json.loads(run.stdout)
    for name, files in LAYOUTS.items():
        header = read_header(CONFIGS, name) if name == "header" else {}
        found = configurations([*files, "README.md"], header, name)
        assert {config: dict(one.splits) for config, one in found.items()} == expected[name], name
