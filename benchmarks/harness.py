"""How many requests a second are scored, beside lm-evaluation-harness's own backend for transformers.

    python benchmarks/harness.py --text wikitext2.test.txt

A model of 13.8 M parameters (vocabulary 8,192, width 384, 6 layers, 6 heads, context 1,024) with fresh weights: what it
says does not matter to how long it takes. Both score the same requests with the same weights in fp32, tokenisation
included: endings of a passage (8 for each, as in HellaSwag), topics of a passage after worked examples that differ from
question to question (4 for each), and topics after the same worked examples (4 for each, as in MMLU, with words for
letters). The peer gets the batch size, of several, at which it is fastest. The two take turns, round after round, and
their answers are compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM

from lucidlm.checkpoint.save import save_model
from lucidlm.evaluate.harness_model import HarnessModel
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from results import record, spread

SHAPE = ModelConfig(vocab_size=8192, embedding_dim=384, num_heads=6, ff_dim=1024, num_layers=6, context_length=1024)
BATCHES = (1, 4, 8, 16, 32)
TOPICS = (" politics and law", " sports and games", " music, film and books", " science and technology")


def instances(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def endings(words: Sequence[str], questions: int, draw: random.Random) -> list[Instance]:
    """Return passages of 100 to 220 words, each with its ending and seven of other passages."""
    pairs = []
    for _ in range(questions):
        start = draw.randrange(len(words) - 400)
        size = draw.randint(100, 220)
        places = [start + size, *(draw.randrange(len(words) - 400) for _ in range(7))]
        context = " ".join(words[start : start + size])
        pairs += [(context, " " + " ".join(words[at : at + draw.randint(5, 12)])) for at in places]
    return instances(pairs)


def worked(words: Sequence[str], questions: int, draw: random.Random, *, same: bool) -> list[Instance]:
    """Return passages of 60 words to be given a topic, each after five passages with theirs, the `same` or others."""

    def passage(size: int) -> str:
        start = draw.randrange(len(words) - size)
        return " ".join(words[start : start + size])

    def examples() -> str:
        return "".join(f"Text: {passage(60)}\nTopic:{draw.choice(TOPICS)}\n\n" for _ in range(5))

    fixed = examples()
    prompts = [f"{fixed if same else examples()}Text: {passage(60)}\nTopic:" for _ in range(questions)]
    return instances([(prompt, topic) for prompt in prompts for topic in TOPICS])


def seconds(model: TemplateLM, requests: list[Instance]) -> float:
    start = time.perf_counter()
    model.loglikelihood(requests, disable_tqdm=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", required=True, type=Path, help="English text, a MB or so")
    parser.add_argument("--questions", type=int, default=40, help="questions of each kind")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    text = args.text.read_text(encoding="utf-8")
    words, draw = text.split(), random.Random(0)
    kinds = {
        "endings, 8 choices": endings(words, args.questions, draw),
        "5 worked examples, 4 choices": worked(words, args.questions, draw, same=False),
        "the same 5 worked examples, 4 choices": worked(words, args.questions, draw, same=True),
    }
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Tokenizer.train_bpe([text], SHAPE.vocab_size)
        save_model(LanguageModel(SHAPE), folder, tokenizer)
        ours = HarnessModel(folder, device="cpu")
        peer = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
        for kind, requests in kinds.items():
            times: dict[int, float] = {}
            for size in BATCHES:
                peer.batch_size_per_gpu = size
                times[size] = seconds(peer, requests[: len(requests) // 4])
            peer.batch_size_per_gpu = min(times, key=times.__getitem__)
            answers = ours.loglikelihood(requests, disable_tqdm=True)
            expected = peer.loglikelihood(requests, disable_tqdm=True)
            difference = max(abs(one[0] - other[0]) for one, other in zip(answers, expected, strict=True))
            if any(one[1] != other[1] for one, other in zip(answers, expected, strict=True)) or difference > 1e-3:
                raise SystemExit(f"{kind}: the answers differ, by up to {difference:.2g}")
            found: list[tuple[float, float]] = []
            for _ in range(args.repeats):
                mine = seconds(ours, requests)
                theirs = seconds(peer, requests)
                found.append((len(requests) / mine, len(requests) / theirs))
            ratios = [mine / theirs for mine, theirs in found]
            rows.append(
                [
                    kind,
                    spread([x for x, _ in found], ",.1f"),
                    spread([x for _, x in found], ",.1f"),
                    spread(ratios, ".2f"),
                ]
            )
            tokens = statistics.mean(len(tokenizer.encode("".join(request.args))) for request in requests)
            notes.append(
                f"{kind}: {len(requests)} requests of {tokens:.0f} tokens in the mean; the peer's best batch of "
                f"{', '.join(map(str, BATCHES))} is {peer.batch_size_per_gpu}; greatest difference {difference:.1g} nats"
            )
    record(
        "lm-evaluation-harness: requests a second",
        ["", "lucidlm", f"lm-eval {version('lm-eval')}, hf (transformers {version('transformers')})", "ratio"],
        rows,
        [
            *notes,
            f"fp32, the same {torch.get_num_threads()} threads; median of {args.repeats} rounds, with the least and "
            "the greatest",
        ],
    )


if __name__ == "__main__":
    main()
