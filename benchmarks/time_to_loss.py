"""How long it takes to learn character-level tiny Shakespeare, beside nanoGPT's own recipe for CPUs.

    python benchmarks/time_to_loss.py --nanogpt ../nanoGPT --text ../shared/data/pretraining/tinyshakespeare.txt

nanoGPT runs as its README says (4 layers, 128 wide, block 64, batch 12, 2,000 steps, no dropout), in a process of its own.
lucidlm runs its own `pretrain` twice: the recipe "short" is meant to reach nanoGPT's loss much sooner, and "equal" gets the
time that nanoGPT has just taken. No model has more parameters than nanoGPT's. They take turns, seed after seed.

Both are scored on the whole validation tenth, cut into consecutive windows of the context each was trained with. Training
time is what the steps took, compilation included if there is any, evaluation left out.
"""

from __future__ import annotations

import argparse
import pickle
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lucidlm.core.devices import Precision, choose_compute
from lucidlm.core.seeds import derive
from lucidlm.data.cleaning.clean import CleanConfig
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.model.flops import count_parameters
from lucidlm.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from lucidlm.train.pretrain.config import PretrainConfig, ShapeConfig
from lucidlm.train.pretrain.run import pretrain
from results import record, spread

NANOGPT = shlex.split(
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 "
    "--n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0 --eval_interval=2000 --always_save_checkpoint=True"
)
CONTEXT = 64

OPTIMIZER = OptimizerConfig(
    learning_rate=0.015, muon_learning_rate=0.01, momentum=0.9, newton_schulz_steps=4, weight_decay=0.0
)
SCHEDULE = ScheduleConfig(warmup=0.02, decay=0.6)
RECIPES: dict[str, dict[str, Any]] = {
    "short": {
        "shape": ShapeConfig(embedding_dim=96, num_heads=3, ff_dim=256, num_layers=2),
        "context_length": 64,
        "batch_size": 16,
        "steps": 300,
    },
    "equal": {
        "shape": ShapeConfig(embedding_dim=128, num_heads=2, ff_dim=320, num_layers=4),
        "context_length": 256,
        "batch_size": 8,
    },
}


class Run:
    """What one training run took and reached."""

    def __init__(self, seconds: float, loss: float, parameters: int) -> None:
        self.seconds, self.loss, self.parameters = seconds, loss, parameters


def run_nanogpt(checkout: Path, text: str, seed: int, folder: Path) -> Run:
    """Train nanoGPT in a copy of its checkout, and score what it saved after its 2,000 steps."""
    copy = folder / "nanogpt"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "assets", "*.ipynb"))
    train, validation, characters = split(text)
    data = copy / "data" / "shakespeare_char"
    for name, ids in (("train", train), ("val", validation)):
        ids.astype(np.uint16).tofile(data / f"{name}.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters)}))
    script = (copy / "train.py").read_text()
    (copy / "train.py").write_text(
        script.replace("torch.manual_seed(1337 + seed_offset)", f"torch.manual_seed({seed})")
    )
    output = subprocess.run(
        [sys.executable, "train.py", "config/train_shakespeare_char.py", *NANOGPT],
        cwd=copy,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # Steps 0 and 2000 have an evaluation in their time; step 2000 comes after what is saved.
    times = [float(time) / 1000 for time in re.findall(r"^iter \d+: .* time ([\d.]+)ms", output, re.MULTILINE)][:2000]
    times[0] = statistics.median(times[1:])

    sys.path.insert(0, str(copy))
    from model import GPT, GPTConfig

    saved = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    windows = (len(validation) - 1) // CONTEXT
    tokens = torch.from_numpy(validation[: windows * CONTEXT]).view(windows, CONTEXT)
    targets = torch.from_numpy(validation[1 : windows * CONTEXT + 1]).view(windows, CONTEXT)
    with torch.inference_mode():
        loss = model.eval()(tokens, targets)[1].item()
    return Run(sum(times), loss, model.get_num_params())


def split(text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the ids of the first nine tenths and of the rest, and the characters they stand for, as nanoGPT does."""
    characters = sorted(set(text))
    numbers = {character: number for number, character in enumerate(characters)}
    ids = np.array([numbers[character] for character in text], dtype=np.int64)
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], characters


def prepare_data(text: str, directory: Path) -> Path:
    """Prepare the same split for lucidlm: but for a few spaces at the ends of lines, which cleaning takes away."""
    source = directory / "text.txt"
    source.write_text(text, encoding="utf-8")
    plain = CleanConfig(repair=False, html=False, repetition=False)
    card = prepare(
        PrepareConfig(sources=[str(source)], clean=plain, split_by="position", validation=0.1, test=0.0),
        directory / "data",
    )
    train, validation, _ = split(text)
    found = (card.splits["train"].tokens - 1, card.splits["validation"].tokens - 1)  # each ends with an end of document
    if any(abs(ours - theirs) > 20 for ours, theirs in zip(found, (len(train), len(validation)), strict=True)):
        raise SystemExit(f"the splits differ: {found} and {(len(train), len(validation))} characters")
    return directory / "data"


def run_lucidlm(name: str, data: Path, seed: int, precision: Precision, seconds: float, out: Path) -> Run:
    """Train by a recipe with the package's own trainer: for its steps, or where it names none for `seconds`."""
    recipe = dict(RECIPES[name])
    steps = recipe.pop("steps", None)
    length = {"minutes": seconds / 60} if steps is None else {"max_steps": steps}
    loop = LoopConfig(evaluations=1, optimizer=OPTIMIZER, schedule=SCHEDULE, seed=derive(seed) % 2**31, **length)
    config = PretrainConfig(
        data={str(data): 1.0},
        validation_tokens=1,
        compile="off",
        device="cpu",
        precision=precision,
        loop=loop,
        **recipe,
    )
    outcome = pretrain(config, out)
    shape = PretrainConfig.load(out / "config.yaml").model
    assert shape is not None
    return Run(outcome.state.training, outcome.evaluation["validation_loss"], count_parameters(shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--repeats", type=int, default=3, help="seeds")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="lucidlm's")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")

    runs: dict[str, list[Run]] = {name: [] for name in ["nanoGPT", *options.recipes]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare_data(text, folder)
        for seed in range(options.repeats):
            runs["nanoGPT"].append(run_nanogpt(options.nanogpt, text, seed, folder / f"seed-{seed}"))
            for recipe in options.recipes:
                seconds = runs["nanoGPT"][-1].seconds
                out = folder / f"{recipe}-{seed}"
                runs[recipe].append(run_lucidlm(recipe, data, seed, options.precision, seconds, out))
    rows = []
    for label, of_label in runs.items():
        ratios = [run.seconds / other.seconds for run, other in zip(of_label, runs["nanoGPT"], strict=True)]
        rows.append(
            [
                label if label == "nanoGPT" else f"lucidlm, {label}",
                f"{of_label[0].parameters:,}",
                spread([run.loss for run in of_label], ".4f"),
                spread([run.seconds for run in of_label], ".1f"),
                spread(ratios, ".3f"),
            ]
        )
    record(
        "Time to loss, character-level tiny Shakespeare",
        ["", "parameters", "validation loss", "training time, s", "share of nanoGPT's time"],
        rows,
        [
            f"median over {options.repeats} seeds, with the least and the greatest",
            f"lucidlm's products: {choose_compute('cpu', options.precision).reason}; nanoGPT's: fp32",
        ],
    )


if __name__ == "__main__":
    main()
