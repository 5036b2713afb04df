"""Datasets of the Hugging Face hub, streamed: `hf:REPO[/CONFIG][@SPLIT]`, for instance `hf:stanfordnlp/imdb@test`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lucidlm.core.errors import InputError
from lucidlm.data.document import Document, Reading, sources
from lucidlm.data.formats import row_document

SPECIFICATION = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?:@(?P<split>[\w.\[\]:%+-]+))?")


@sources.register("hf")
def read_hub(specification: str, reading: Reading) -> Iterator[Document]:
    """Yield the rows of a dataset's split ("train" unless another is named); class labels come as their names.

    Raises
    ------
    InputError: `datasets` is not installed, the hub cannot be reached, or there is no such dataset.
    """
    where = f"hf:{specification}"
    if not (match := SPECIFICATION.fullmatch(specification)):
        raise InputError("is not of the form hf:OWNER/NAME/CONFIG@SPLIT", where=where)
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        fix = "Install it: pip install 'lucidlm[hf]'."
        raise InputError("reading from the hub needs the package datasets", where=where, fix=fix) from None
    try:
        rows = datasets.load_dataset(match["repo"], match["config"], split=match["split"] or "train", streaming=True)
    except Exception as error:  # the hub's client raises errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot be opened ({reason})", where=where, fix="Check its name and the network.") from error
    # Class labels have a function that names them; other kinds of values have none.
    named = {field: kind.int2str for field, kind in (rows.features or {}).items() if hasattr(kind, "int2str")}
    for number, row in enumerate(rows, 1):
        row |= {field: name_of(row[field]) for field, name_of in named.items() if row[field] is not None}
        yield from row_document(row, f"{where}:{number}", reading)
