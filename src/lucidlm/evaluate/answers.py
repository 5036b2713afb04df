"""A model's answers to many examples, kept as they come, so that an evaluation that was stopped goes on where it stood."""

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
"""Of the examples that are answered, and then kept, at a time: fewer where the model writes, which takes longer. The order
is from long to short, so that batches are full."""


def answer_all(
    task: Task[Any, Any],
    predictor: Predictor[Any, Any],
    examples: Sequence[Any],
    *,
    label: str,
    partial: Path | None = None,
    fingerprint: str = "",
) -> list[Any]:
    """Return an answer to each example, in order.

    Parameters
    ----------
    partial: the file that answers are kept in meanwhile; the caller removes it once it has written the result.
    fingerprint: of model, data and settings. What was kept under another one is thrown away, and that is said.
    """
    answers = _kept(task, partial, fingerprint, len(examples)) if partial is not None else {}
    sizes = [sum(map(len, task.texts(example))) + 1 for example in examples]
    done = sum(sizes[index] for index in answers)
    with ProgressBar(label, sum(sizes), "characters", done) as progress:
        for rows in _chunks(task, sizes, answers):
            found = predictor.predict([examples[row] for row in rows])
            answers |= dict(zip(rows, found, strict=True))
            if partial is not None:
                _keep(partial, fingerprint, {row: answers[row] for row in rows})
            progress.advance(sum(sizes[row] for row in rows), note=f"{len(answers):,} of {len(examples):,} examples")
    return [answers[index] for index in range(len(examples))]


def _chunks(task: Task[Any, Any], sizes: Sequence[int], answered: dict[int, Any]) -> Iterator[list[int]]:
    """Yield the rows to be answered together. Items are ranked among those of all examples, so those stay together."""
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


def _keep(path: Path, fingerprint: str, answers: dict[int, Any]) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if not file.tell():
                file.write(json.dumps({"fingerprint": fingerprint}) + "\n")
            for row, answer in answers.items():
                file.write(json.dumps({"row": row, "answer": asdict(answer)}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _kept(task: Task[Any, Any], path: Path, fingerprint: str, examples: int) -> dict[int, Any]:
    """Return the answers kept under `fingerprint`, by row, and cut the file after the last whole line."""
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
