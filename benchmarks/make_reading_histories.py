"""Simulated readers for the task `recommendation`, from labelled texts: nobody clicked on anything here.

    python benchmarks/make_reading_histories.py news.jsonl --out readers.jsonl --readers 1000 --items 100

A reader of some articles of one topic is to be recommended a further article of that topic, among `--items` articles
that are the same for all readers and that nobody has read, as many of each topic as of any other. This asks whether a
model's vectors tell topics apart in texts it has not seen; it says nothing of how people choose. Of a topic's articles
any would suit as well as the one that is "right", so knowing the topic alone gives a recall@10 of about
min(1, 10 × topics / items), against 10 / items by chance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.sources.read import read_documents


def histories(
    by_topic: dict[str, list[str]], readers: int, items: int, history: int, seed: int
) -> list[dict[str, object]]:
    """Return rows with a history, the next item, and the topic."""
    generator = numpy_generator(seed, "readers")
    each = items // len(by_topic)
    if each < 1:
        raise InputError(f"{items} items are too few for {len(by_topic)} topics", where="--items")
    if short := [topic for topic, texts in by_topic.items() if len(texts) < each + history]:
        what = f"fewer than {each + history} articles of {short[0]!r}"
        raise InputError(what, fix="Pass more texts, fewer --items, or a shorter --history.")
    shuffled = {
        topic: [texts[place] for place in generator.permutation(len(texts))] for topic, texts in by_topic.items()
    }
    rows = []
    topics = sorted(shuffled)
    for reader in range(readers):
        topic = topics[reader % len(topics)]
        offered, read = shuffled[topic][:each], shuffled[topic][each:]
        chosen = [read[place] for place in generator.choice(len(read), history, replace=False)]
        # Each item is somebody's next before any is so twice: all of them are among those that are ranked.
        rows.append({"history": chosen, "item": offered[reader // len(topics) % each], "topic": topic})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="labelled texts, with the fields text and label")
    parser.add_argument("--out", required=True)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--items", type=int, default=100, help="articles that are ranked for every reader")
    parser.add_argument("--history", type=int, default=5, help="articles that a reader has read")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    by_topic: dict[str, dict[str, None]] = defaultdict(dict)
    for document in read_documents(given.source, label_field="label"):
        by_topic[str(document.label)][document.text] = None
    texts = {topic: list(found) for topic, found in by_topic.items()}
    rows = histories(texts, given.readers, given.items, given.history, given.seed)
    write_text(given.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(
        f"{given.out}: {len(rows):,} simulated readers, {len({row['item'] for row in rows}):,} items, {len(texts)} topics"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
