"""TensorBoard: event files in the run's own directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage]
from torch.utils.tensorboard.summary import hparams

from lucidlm.train.tracking.tracker import RunEnd

FOLDER = "tensorboard"
SECONDS = 10
"""After which what was written is on the disk."""


class TensorBoard:
    """Writes the settings as hyperparameters and each figure as a scalar, by a thread of PyTorch's writer."""

    def __init__(self, directory: Path, settings: Mapping[str, Any], resume_at: int | None) -> None:
        # TensorBoard hides what an earlier file has from the purged step on.
        purged = None if resume_at is None else resume_at + 1
        self._writer = SummaryWriter(str(directory / FOLDER), purge_step=purged, flush_secs=SECONDS)
        if resume_at is None:
            # `add_hparams` would open a second file, and TensorBoard follows only the newest in a folder.
            plain = {name: _plain(value) for name, value in settings.items() if value is not None}
            assert self._writer.file_writer is not None
            for summary in hparams(plain, {}):
                self._writer.file_writer.add_summary(summary)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def end(self, state: RunEnd) -> None:
        self._writer.close()


def _plain(value: Any) -> bool | int | float | str:
    """Return a value as one of the types that TensorBoard knows."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)
