"""Run a model on many examples, saving predictions as they come, so that an interrupted evaluation can resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lucidlm.core.io import disk_errors
from lucidlm.core.progress import ProgressBar, log
from lucidlm.data.examples.records import GeneratedText, Ranking
from lucidlm.tasks.base.task import Predictor, Task

PARTIAL = "predictions.partial.jsonl"
CHARACTERS, CHARACTERS_WRITTEN = 400_000, 40_000
"""Input characters per chunk: examples are predicted and saved a chunk at a time, fewer where the model generates text,
which is slower. Examples go from long to short, so that those in a batch are of similar length."""


def answer_all(
    task: Task[Any, Any],
    predictor: Predictor[Any, Any],
    examples: Sequence[Any],
    *,
    label: str,
    partial: Path | None = None,
    fingerprint: str = "",
) -> list[Any]:
    """Return the prediction for each example, in order.

    Parameters
    ----------
    partial: the file for predictions so far; the caller removes it once the result is written.
    fingerprint: of model, data and settings. Predictions saved under another one are discarded, with a message.
    """
    answers = _load_partial(task, partial, fingerprint, len(examples)) if partial is not None else {}
    sizes = [sum(map(len, task.texts(example))) + 1 for example in examples]
    done = sum(sizes[index] for index in answers)
    with ProgressBar(label, sum(sizes), "characters", done) as progress:
        for rows in _chunks(task, sizes, answers):
            found = predictor.predict([examples[row] for row in rows])
            answers |= dict(zip(rows, found, strict=True))
            if partial is not None:
                _append_partial(partial, fingerprint, {row: answers[row] for row in rows})
            progress.advance(sum(sizes[row] for row in rows), note=f"{len(answers):,} of {len(examples):,} examples")
    return [answers[index] for index in range(len(examples))]


def _chunks(task: Task[Any, Any], sizes: Sequence[int], answered: dict[int, Any]) -> Iterator[list[int]]:
    """Yield the rows of each chunk. Ranking compares candidates of all examples, so there the chunk is everything."""
    if task.answer is Ranking:
        if len(answered) < len(sizes):
            yield list(range(len(sizes)))
        return
    order = sorted((row for row in range(len(sizes)) if row not in answered), key=lambda row: -sizes[row])
    most = CHARACTERS_WRITTEN if task.answer is GeneratedText else CHARACTERS
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
