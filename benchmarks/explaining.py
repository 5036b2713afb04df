"""How fast integrated gradients are, and how faithful attributions are, beside those of other tools for the same models in
transformers.

    python benchmarks/explaining.py speed
    python benchmarks/explaining.py faithfulness runs/sst2-minilm/tuned --data sst2/test.jsonl --limit 100
    python benchmarks/explaining.py prompts runs/english/pretrained --data wikitext2.test.txt --limit 30

`speed`: 256 tokens, 50 steps, a model of 15.6 M parameters with fresh weights; the peer gets the batch size, of several,
at which it is fastest, the logits of the last place only, and weights without gradients, as ours has them. `faithfulness`
judges captum's and interpreto's attributions as our methods are judged, on the same texts, pieces and random orders;
`prompts` does so for the next token of beginnings of 24 words, beside captum and inseq. `--only METHOD…`: no peers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explaining_peers import STEPS, Attributor, captum_gradients, classifier_peers, language_model_peers
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.explain.attribution import gradients
from lucidlm.explain.attribution.methods import METHODS, Method, applicable, attribute
from lucidlm.explain.checks.faithfulness import DRAWS, Deletion, Faithfulness
from lucidlm.explain.explanation import frozen
from lucidlm.explain.prediction import Prediction
from lucidlm.explain.predictions import predict
from lucidlm.explain.survey import CONFIDENT
from lucidlm.metrics.statistics import estimate, ratio
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tasks.base.shots import draw
from lucidlm.tasks.base.task import read_examples, tasks
from lucidlm.tokenize.tokenizer import Tokenizer
from results import record, spread

SHAPE = ModelConfig(vocab_size=8192, embedding_dim=384, num_heads=6, ff_dim=1024, num_layers=7, context_length=512)
BATCHES = (2, 4, 8)
TOKENS = 256


def speed(repeats: int) -> None:
    from transformers import AutoModelForCausalLM

    words = [f"w{number}" for number in range(400)]
    tokenizer = Tokenizer.train_bpe([" ".join(words)], SHAPE.vocab_size, exact=False)
    generator = np.random.default_rng(0)
    gradients.DOUBLINGS = 0  # captum takes as many steps as it is told, whatever the sum is
    with tempfile.TemporaryDirectory() as folder:
        model = LanguageModel(SHAPE)
        with torch.no_grad():  # fresh weights hardly tell one text from another
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(2)
        save_model(model, folder, tokenizer)
        loaded = load_model(folder)
        peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
        text = " ".join(generator.choice(words, 400))
        ids = tokenizer.encode(text)[: TOKENS - len(tokenizer.prefix)]
        prediction = predict(loaded, tokenizer.decode(ids))
        assert abs(len(prediction.ids) - TOKENS) < 3, len(prediction.ids)
        target = next_token(loaded, prediction)

        def forward(tokens: torch.Tensor) -> torch.Tensor:
            return peer(tokens, logits_to_keep=1).logits[:, -1].log_softmax(-1)[:, target]

        def ours() -> np.ndarray:
            with frozen(loaded.model), fast_matmul(prediction.ids.device):
                return gradients.integrated_gradients(prediction, STEPS).values

        def timed(run) -> tuple[float, np.ndarray]:
            start = time.perf_counter()
            values = run()
            return time.perf_counter() - start, values

        best = {
            size: timed(lambda size=size: captum_gradients(peer, prediction, forward, size, 8))[0] for size in BATCHES
        }
        size = min(best, key=best.__getitem__)
        ours()
        mine, theirs, difference = [], [], 0.0
        for _ in range(repeats):
            seconds, values = timed(ours)
            mine.append(seconds)
            seconds, expected = timed(lambda: captum_gradients(peer, prediction, forward, size))
            theirs.append(seconds)
            difference = max(difference, float(np.abs(values - expected).max()))
    from importlib.metadata import version

    parameters = sum(parameter.numel() for parameter in model.parameters())
    record(
        "Integrated gradients: seconds for a text",
        ["tokens", "steps", "lucidlm", f"captum {version('captum')}, transformers {version('transformers')}", "ratio"],
        [
            [
                str(len(prediction.ids)),
                str(STEPS),
                spread(mine, ".2f"),
                spread(theirs, ".2f"),
                spread([b / a for a, b in zip(mine, theirs, strict=True)], ".2f"),
            ]
        ],
        [
            f"{parameters:,} parameters, fp32; greatest difference of an attribution {difference:.1g} nats",
            f"median of {repeats} rounds (least to greatest); captum's best batch of {', '.join(map(str, BATCHES))}: {size}",
        ],
    )


def rows_of(tests: dict[str, list[tuple[Faithfulness, float, float]]]) -> list[list[str]]:
    def mean(values: list[float]) -> str:
        if not values:
            return "–"
        found = estimate(ratio, np.array([(value, 1.0) for value in values], dtype=np.float64))
        return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"

    return [
        [
            name,
            *(
                mean([getattr(test.figures, figure) for test, _, _ in found])
                for figure in ("comprehensiveness", "sufficiency", "deletion", "insertion")
            ),
            mean([float(test.better) for test, probability, _ in found if probability >= CONFIDENT]),
            f"{statistics.mean(seconds for _, _, seconds in found):.2f}",
        ]
        for name, found in tests.items()
    ]


HEADER = ["method", "comprehensiveness", "sufficiency", "deletion", "insertion", "beats random", "s a text"]


def judge(
    prediction: Prediction,
    tests: dict[str, list[tuple[Faithfulness, float, float]]],
    peers: dict[str, Attributor],
    text: str,
    index: int,
    only: Sequence[Method] | None,
) -> None:
    deletion = Deletion(prediction)
    runs = {
        name: (lambda name=name: attribute(prediction, name).values)
        for name in only or METHODS
        if name in applicable(prediction)
    }
    others = {name: (lambda peer=peer: peer(prediction, text, index)) for name, peer in peers.items()}
    for name, run in {**runs, **others}.items():
        start = time.perf_counter()
        values = run()
        seconds = time.perf_counter() - start
        tests.setdefault(name, []).append((deletion.judge(values), deletion.whole, seconds))


def faithfulness(source: str, data: str, limit: int, only: Sequence[Method] | None) -> None:
    loaded = load_model(source)
    examples = draw(read_examples(tasks.get(loaded.record["provenance"]["task"]), data), limit, 0)
    wide = getattr(loaded.model, "wide", None) is not None
    alone = wide or only is not None
    peers = {} if alone else classifier_peers(*peer_of(loaded, "AutoModelForSequenceClassification"))
    tests: dict[str, list[tuple[Faithfulness, float, float]]] = {}
    with frozen(loaded.model), fast_matmul(torch.device("cpu")):
        for number, example in enumerate(examples, 1):
            prediction = predict(loaded, example.text, by="word")
            if len(prediction.pieces) < 2:
                continue
            index = loaded.model.labels.index(prediction.target)  # pyright: ignore[reportArgumentType]
            judge(prediction, tests, peers, example.text, index, only)
            print(number, end=" ", flush=True)
    confident = sum(probability >= CONFIDENT for _, probability, _ in next(iter(tests.values())))
    texts = len(next(iter(tests.values())))
    record(
        f"Faithfulness of attributions: {Path(source).parent.name}",
        HEADER,
        rows_of(tests),
        [
            f"{texts} texts of {Path(data).name}, by word, in probabilities, means with bootstrap intervals of 95 %",
            f"beats random: at p < 0.05 of {DRAWS} random orders, on the {confident} texts with a probability of "
            f"{CONFIDENT} or more",
        ],
    )


def peer_of(loaded: LoadedModel, kind: str) -> tuple[torch.nn.Module, Any]:
    """Return the same weights and tokenizer in transformers."""
    import transformers

    model = getattr(transformers, kind).from_pretrained(loaded.source, dtype=torch.float32)
    return model.eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(loaded.source)


def prompts(source: str, data: str, limit: int, only: Sequence[Method] | None) -> None:
    loaded = load_model(source)
    lines = [line.split() for line in Path(data).read_text(encoding="utf-8").splitlines()]
    texts = [" ".join(words[:24]) for words in lines if len(words) > 40]
    peers = {} if only else language_model_peers(*peer_of(loaded, "AutoModelForCausalLM"))
    tests: dict[str, list[tuple[Faithfulness, float, float]]] = {}
    with frozen(loaded.model), fast_matmul(torch.device("cpu")):
        for number, text in enumerate(draw(texts, limit, 0), 1):
            try:
                prediction = predict(loaded, text)
            except InputError:
                continue
            judge(prediction, tests, peers, text, next_token(loaded, prediction), only)
            print(number, end=" ", flush=True)
    record(
        f"Faithfulness of attributions to the next token: {Path(source).parent.name}",
        HEADER,
        rows_of(tests),
        [
            f"{len(next(iter(tests.values())))} beginnings of 24 words of {Path(data).name}, by token, in probabilities, "
            "means with bootstrap intervals of 95 %",
        ],
    )


def next_token(loaded: LoadedModel, prediction: Prediction) -> int:
    """Return the token that is predicted: the one whose log-probability the score is."""
    assert isinstance(loaded.model, LanguageModel)
    with torch.inference_mode():
        logprobs = loaded.model(prediction.ids[None])[0, -1].log_softmax(-1)
        return int((logprobs - prediction.score(prediction.ids[None])).abs().argmin())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("speed", "faithfulness", "prompts"))
    parser.add_argument("model", nargs="?")
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=METHODS, help="methods of ours, without the peers")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.what == "speed":
        speed(args.repeats)
    elif args.what == "faithfulness":
        faithfulness(args.model, args.data, args.limit, args.only)
    else:
        prompts(args.model, args.data, args.limit, args.only)


if __name__ == "__main__":
    main()
