"""Which share of the tokens of a tokenizer trained here llama.cpp makes too, from a GGUF file of ours.

    python benchmarks/llama_cpp_tokens.py tinyshakespeare.txt reviews.jsonl context=xquad-zh.jsonl

A GGUF file has only the name of a way to cut text before merging, and llama.cpp has none that is ours; see
`lucidlm.interop.pre_tokenizers.py`. The tokenizer is trained on the first half of every source's texts, and the two
are compared on the others. A token counts as the same if it stands for the same bytes of the text.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from llama_cpp import Llama

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.sources.read import read_documents
from lucidlm.interop.gguf.write import export_gguf
from lucidlm.interop.pre_tokenizers import CLOSEST_TO_OURS
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from results import record


def texts_of(source: str, most: int) -> list[str]:
    """Return the texts of `[FIELD=]SOURCE`: rows, or of a text file the parts between blank lines."""
    field, _, path = source.rpartition("=")
    texts = [document.text for document in read_documents(path, text_field=field or "text")]
    if path.endswith(".txt"):
        texts = [part for text in texts for part in text.split("\n\n")]
    return list(islice((text for text in texts if text.strip()), most))


def placed(ids: list[int], tokenizer: Tokenizer) -> set[tuple[int, int]]:
    """Return tokens with the byte at which they begin."""
    found, at = set(), 0
    for token in ids:
        found.add((at, token))
        at += len(tokenizer.token_bytes(token))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", nargs="+", metavar="[FIELD=]SOURCE")
    parser.add_argument("--vocab-size", type=int, default=12_000)
    parser.add_argument("--most", type=int, default=4_000, help="texts of each source")
    args = parser.parse_args()

    texts = {source: texts_of(source, args.most) for source in args.sources}
    tokenizer = Tokenizer.train_bpe((text for part in texts.values() for text in part[::2]), args.vocab_size)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, embedding_dim=32, num_heads=1, ff_dim=32, num_layers=1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        export_gguf(LoadedModel(LanguageModel(config), tokenizer, {}), Path(folder) / "model.gguf", None)
        peer = Llama(str(Path(folder) / "model.gguf"), vocab_only=True, verbose=False)
        for source, part in texts.items():
            held = part[1::2]
            pairs = [
                (ours, peer.tokenize(text.encode(), add_bos=True, special=False))
                for text, ours in zip(held, tokenizer.encode_batch(held), strict=True)
            ]
            total = sum(len(ours) for ours, _ in pairs)
            same = sum(len(placed(ours, tokenizer) & placed(theirs, tokenizer)) for ours, theirs in pairs)
            whole = sum(ours == theirs for ours, theirs in pairs)
            name = "/".join(Path(source.rpartition("=")[2]).parts[-2:])
            rows.append([name, f"{total:,}", f"{same / total:.3%}", f"{whole:,} of {len(pairs):,}"])
        peer.close()
    record(
        "llama.cpp: the same tokens of a tokenizer trained here",
        ["texts", "tokens", "the same in llama.cpp", "texts with all tokens the same"],
        rows,
        [
            f'{tokenizer.vocab_size:,} tokens, written as "{CLOSEST_TO_OURS}"',
            f"llama-cpp-python {version('llama-cpp-python')}",
        ],
    )


if __name__ == "__main__":
    main()
