"""Whether any request that the server's own description allows, or does not, brings it to an error of its own.

    pip install schemathesis
    python benchmarks/serve_fuzz.py --examples 1000

Schemathesis makes requests of the OpenAPI description of a server with a tiny model and a tiny judge, right ones and
wrong ones. Printed is how many there were by status; afterwards the server must be healthy. Exit code 1: one of them got
a 5xx, or no answer.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx

import lucidlm
from lucidlm.checkpoint.save import save_model
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from streams import free_port, serving


def make_models(folder: Path) -> list[str]:
    """Leave a tiny language model and a judge of made-up reviews in `folder`; return where they are."""
    draw = random.Random(0)
    words = {"good": ["fine", "fresh", "clever"], "bad": ["dull", "stale", "shallow"]}
    rows = [
        (" ".join(draw.choices([*words[label], "film", "plot", "cast"], k=8)), label) for label in ["good", "bad"] * 200
    ]
    reviews = folder / "reviews.csv"
    reviews.write_text(
        "text,label\n" + "".join(f"{text} {place},{label}\n" for place, (text, label) in enumerate(rows))
    )
    tokenizer = Tokenizer.train_bpe([text for text, _ in rows], 280, exact=False)
    config = ModelConfig(vocab_size=300, embedding_dim=32, num_heads=2, ff_dim=48, num_layers=1, context_length=256)
    save_model(LanguageModel(config), folder / "base", tokenizer)
    lucidlm.finetune("sentiment", model=str(folder / "base"), data=str(reviews), out=str(folder / "judge"), epochs=1)
    return [f"base={folder / 'base'}", f"judge={folder / 'judge'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000, help="of each operation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = ["-m", "lucidlm", "serve", *models, "--port", str(port), "--backend", "torch", "--max-body", "1"]
        with serving(command, url):
            schemathesis = Path(sys.executable).with_name("schemathesis")
            asked = ["run", f"{url}/openapi.json", "--max-examples", str(args.examples), "--seed", str(args.seed)]
            asked += ["--checks", "not_a_server_error", "--request-timeout", "30", "--workers", "2", "--no-color"]
            done = subprocess.run([str(schemathesis), *asked], capture_output=True, text=True, cwd=folder)
            found = Counter[str]()
            for line in httpx.get(f"{url}/metrics").text.splitlines():
                if line.startswith("lucidlm_requests_total{"):
                    labels, _, count = line.rpartition(" ")
                    found[labels.split('status="')[1][:3]] += int(float(count))
            health = httpx.get(f"{url}/health")
    print("\n".join(line for line in done.stdout.splitlines() if "generated" in line or "Server error" in line))
    print(f"{sum(found.values()):,} requests by status: {dict(sorted(found.items()))}; health {health.status_code}")
    failed = done.returncode != 0 and any(status.startswith("5") for status in found)
    if failed:
        print(done.stdout[-4000:])
    sys.exit(failed or health.status_code != 200)


if __name__ == "__main__":
    main()
