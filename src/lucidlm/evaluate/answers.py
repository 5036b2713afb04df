"""Run a model on many examples, saving predictions as they come, so that an interrupted evaluation can resume.

Several ranks take chunks in turns. What is in a chunk depends on the examples alone, so that the answers are the same to the
last bit whoever gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from lucidlm.core.io import disk_errors
from lucidlm.core.progress import ProgressBar, log
from lucidlm.data.examples.records import GeneratedText, Ranking
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.tasks.base.task import Predictor, Task

PARTIAL = "predictions.partial.jsonl"
CHARACTERS, CHARACTERS_WRITTEN = 400_000, 40_000
"""Input characters per chunk at most: examples are predicted and saved a chunk at a time, fewer where the model generates
text, which is slower. Examples go from long to short, so that those in a batch are of similar length."""

SHARES, SMALLEST = 32, 0.1
"""How many chunks there should be for ranks to share, and the part of the largest chunk below which none is cut smaller: it
still fills batches."""


def answer_all(
    task: Task[Any, Any],
    predictor: Predictor[Any, Any],
    examples: Sequence[Any],
    *,
    label: str,
    partial: Path | None = None,
    fingerprint: str = "",
    ranks: Ranks = ALONE,
) -> list[Any]:
    """Return the prediction for each example, in order.

    Parameters
    ----------
    partial: the file for predictions so far; the caller removes it once the result is written. Of several ranks the first
        one alone reads and writes it.
    fingerprint: of model, data and settings. Predictions saved under another one are discarded, with a message.
    """
    kept = {} if partial is None or not ranks.first else _load_partial(task, partial, fingerprint, len(examples))
    answers = ranks.agreed(kept)
    sizes = [sum(map(len, task.texts(example))) + 1 for example in examples]
    done = sum(sizes[index] for index in answers)
    chunks = _chunks(task, sizes, answers)
    with ProgressBar(label, sum(sizes), "characters", done) as progress:
        while turn := list(islice(chunks, ranks.count)):
            own = turn[ranks.rank] if ranks.rank < len(turn) else []
            found = predictor.predict([examples[row] for row in own]) if own else []
            given: dict[int, Any] = {}
            for rows, part in zip(turn, ranks.gather_objects(found), strict=False):
                given |= dict(zip(rows, part, strict=True))
            answers |= given
            if partial is not None and ranks.first:
                _append_partial(partial, fingerprint, given)
            progress.advance(sum(sizes[row] for row in given), note=f"{len(answers):,} of {len(examples):,} examples")
    return [answers[index] for index in range(len(examples))]


def _chunks(task: Task[Any, Any], sizes: Sequence[int], answered: dict[int, Any]) -> Iterator[list[int]]:
    """Yield the rows of each chunk. Ranking compares candidates of all examples, so there the chunk is everything."""
    if task.answer is Ranking:
        if len(answered) < len(sizes):
            yield list(range(len(sizes)))
        return
    order = sorted((row for row in range(len(sizes)) if row not in answered), key=lambda row: -sizes[row])
    most = CHARACTERS_WRITTEN if task.answer is GeneratedText else CHARACTERS
    most = min(most, max(SMALLEST * most, sum(sizes) / SHARES))
    rows, total = [], 0
    for row in order:
        rows.append(row)
        total += sizes[row]
        if total >= most:
            yield rows
            rows, total = [], 0
    if rows:
        yield rows


def _append_partial(path: Path, fingerprint: str, answers: dict[int, Any]) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if not file.tell():
                file.write(json.dumps({"fingerprint": fingerprint}) + "\n")
            for row, answer in answers.items():
                file.write(json.dumps({"row": row, "answer": asdict(answer)}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _load_partial(task: Task[Any, Any], path: Path, fingerprint: str, examples: int) -> dict[int, Any]:
    """Return the predictions saved under `fingerprint`, by row, and truncate the file after its last complete line."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    answers, good = {}, 0
    try:
        if json.loads(lines[0]) != {"fingerprint": fingerprint}:
            log(f"{path}: answers of another model, or to other data; they are thrown away")
            path.unlink()
            return {}
        for line in lines:
            if good:
                fields = json.loads(line)
                if not (line.endswith(b"\n") and 0 <= fields["row"] < examples):
                    break
                answers[fields["row"]] = task.answer(**{name: _tuples(v) for name, v in fields["answer"].items()})
            good += len(line)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        log(f"{path}: is damaged from byte {good:,} on; what stands before is used")
    if good:
        os.truncate(path, good)
    else:
        path.unlink()
    if answers:
        log(f"goes on after {len(answers):,} of {examples:,} answers kept in {path}")
    return answers


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
