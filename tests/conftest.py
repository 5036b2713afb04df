"""Fixtures that several kinds of tests share, and the device that tests run on."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from lucidlm.core import devices
from lucidlm.core.devices import Compute, choose_compute, usable_cores
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.train.label_curve.record import LabelCurve, Point
from lucidlm.train.loop import LoopConfig
from lucidlm.train.pretrain.config import PretrainConfig, ShapeConfig
from lucidlm.train.pretrain.run import pretrain
from lucidlm.train.tracking.webhook import VARIABLE

os.environ.pop(VARIABLE, None)  # nobody is told of the runs of tests

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Tests that run beside each other (pytest-xdist) share the cores, and so do the programs that they start.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    threads = max(1, usable_cores() // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(scope="session", autouse=True)
def accelerator() -> Iterator[torch.device | None]:
    """Decide where tests run: `auto` is the CPU in all of them, also in the programs that they start.

    Gives the accelerator that there really is. Tests that are for it are marked `gpu` and take it from `gpu`.
    """
    best = torch.device(devices._best_device())
    if best.type == "cuda":
        torch.cuda.init()
        torch.cuda.device_count()  # once the driver has started, PyTorch keeps this, whatever the environment says later
    patched = pytest.MonkeyPatch()
    patched.setattr(devices, "_best_device", lambda: "cpu")
    patched.setenv("CUDA_VISIBLE_DEVICES", "")
    yield None if best.type == "cpu" else best
    patched.undo()


@pytest.fixture
def gpu(accelerator: torch.device | None) -> torch.device:
    """The accelerator of this machine; its tests are skipped where there is none."""
    if accelerator is None:
        pytest.skip("this machine has no GPU that PyTorch sees")
    return accelerator


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared data is not there ({SHARED_DATA}); this test needs real text")
    return SHARED_DATA


@pytest.fixture(scope="session")
def cpu() -> Compute:
    return choose_compute("cpu", "fp32")


# ---------------------------------------------------------------------- small made-up reviews


ENGLISH = {
    "things": [
        "film",
        "plot",
        "acting",
        "score",
        "camera",
        "ending",
        "dialogue",
        "scenery",
        "cast",
        "pacing",
        "humour",
        "story",
        "music",
        "opening",
    ],
    "people": [
        "director",
        "writer",
        "heroine",
        "villain",
        "editor",
        "narrator",
        "composer",
        "audience",
        "critic",
        "neighbour",
    ],
    "links": ["and", "while", "because", "although", "since", "whenever", "until", "before", "after", "whereas"],
    "positive": [
        "wonderful",
        "brilliant",
        "moving",
        "charming",
        "superb",
        "delightful",
        "clever",
        "touching",
        "fresh",
        "gripping",
    ],
    "negative": ["dreadful", "boring", "clumsy", "awful", "tedious", "painful", "dull", "shallow", "stale", "lifeless"],
    "verbs": ["calls", "finds", "makes", "thinks", "remembers", "describes", "paints", "shows"],
}
CHINESE = {
    "things": [
        "房间",
        "早餐",
        "位置",
        "服务",
        "价格",
        "书",
        "封面",
        "内容",
        "结尾",
        "屏幕",
        "键盘",
        "电池",
        "包装",
        "味道",
    ],
    "people": ["老板", "店员", "作者", "朋友", "同事", "前台", "快递员", "孩子", "客人", "编辑"],
    "links": ["而且", "因为", "虽然", "不过", "当时", "后来", "所以", "同时", "其实", "原来"],
    "positive": ["很好", "满意", "舒服", "精彩", "漂亮", "喜欢", "推荐", "实惠", "干净", "热情"],
    "negative": ["很差", "失望", "难受", "无聊", "难看", "讨厌", "后悔", "太贵", "肮脏", "冷淡"],
    "verbs": ["觉得", "认为", "记得", "形容", "发现", "说", "看到", "提到"],
}


def made_up_curve(methods: Sequence[str], value: Callable[[str, int, int], float]) -> LabelCurve:
    """Return a label curve of 8 and 32 shots and two seeds, with the `value` of a method, its shots and its seed."""
    points = [
        Point(
            method=method,
            shots=shots,
            seed=seed,
            examples=2 * shots,
            value=found,
            low=found - 0.1,
            high=found + 0.1,
            seconds=1.0,
        )
        for shots in (8, 32)
        for seed in (0, 1)
        for method in methods
        for found in [value(method, shots, seed)]
    ]
    return LabelCurve(
        settings={"task": "sentiment", "data": "reviews.csv"},
        fingerprint="",
        by_label=True,
        metric="accuracy",
        percent=False,
        test_examples=100,
        baseline="TF-IDF",
        machine={},
        points=points,
    )


def made_up_reviews(count: int, words: dict[str, list[str]] = ENGLISH, seed: int = 0) -> list[dict[str, str]]:
    """Return labelled reviews that no two share, half of them positive; the opinion words tell which."""
    draw = random.Random(seed)
    space = "" if words is CHINESE else " "
    reviews = []
    for number in range(count):
        label = ("negative", "positive")[number % 2]
        clauses = []
        for _ in range(draw.randint(3, 5)):
            person, verb, thing = (
                draw.choice(words["people"]),
                draw.choice(words["verbs"]),
                draw.choice(words["things"]),
            )
            clauses.append(space.join([person, verb, thing, draw.choice(words[label]), draw.choice(words["links"])]))
        reviews.append({"text": space.join([*clauses, str(draw.randint(1000, 9999))]), "label": label})
    return reviews


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 labelled English reviews, csv."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(made_up_reviews(400))
    return path


@pytest.fixture(scope="session")
def reviews_zh_jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 labelled Chinese reviews, jsonl."""
    path = tmp_path_factory.mktemp("reviews-zh") / "reviews.jsonl"
    rows = made_up_reviews(400, CHINESE)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path) -> Path:
    """The English reviews, prepared with a vocabulary of 400 tokens."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    prepare(PrepareConfig(sources=[str(reviews_csv)], vocab_size=400, validation=0.1, test=0.1), directory)
    return directory


TINY_SHAPE = ShapeConfig(embedding_dim=32, num_heads=2, ff_dim=64, num_layers=2)


def tiny_pretraining(data: Path, **fields: object) -> PretrainConfig:
    """Return a pretraining run of some seconds; `fields` are those of `PretrainConfig`, `loop` those of its loop."""
    loop = {"max_steps": 12, "evaluations": 2, **dict(fields.pop("loop", {}))}  # pyright: ignore[reportCallIssue]
    base = {"shape": TINY_SHAPE, "context_length": 64, "batch_size": 4, "device": "cpu", **fields}
    return PretrainConfig(data={str(data): 1.0}, loop=LoopConfig(**loop), **base)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A causal model of two layers, pretrained for a few steps: nobody may write into its directory."""
    directory = tmp_path_factory.mktemp("pretrained") / "model"
    pretrain(tiny_pretraining(tiny_data), directory)
    return directory
