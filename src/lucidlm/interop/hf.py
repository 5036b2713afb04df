"""Export to the form that transformers, vLLM and llama.cpp's converter load without code from us."""

from __future__ import annotations

from pathlib import Path

from lucidlm.core.errors import InputError
from lucidlm.model.directory import RECORD, Loaded, save_model
from lucidlm.model.family import families, family_of
from lucidlm.model.heads import SequenceClassifier


def export_hf(loaded: Loaded, out: Path, dtype: str | None) -> None:
    """Write a directory that `AutoModel*.from_pretrained` opens; our own directories do too, where there is a family.

    Raises
    ------
    InputError: transformers knows no such arrangement, or would read it another way; or it has no such number format.
    """
    if dtype not in (None, "fp32"):
        raise InputError(f"there is no {dtype} here", where="--dtype", fix="Leave it out, or see `lucidlm quantize`.")
    family = family_of(loaded.model.config)
    if family is None:
        raise InputError(
            "transformers has no model of this arrangement",
            where="--to hf",
            fix=f"It knows those of {', '.join(families)}.",
        )
    if (kind := loaded.record["kind"]) not in family.architectures:
        raise InputError(
            f"of {family.model_type}, transformers has no {kind} model, only {' and '.join(family.architectures)} ones",
            where="--to hf",
            fix="Open it with lucidlm.load_model.",
        )
    if isinstance(loaded.model, SequenceClassifier) and not family.reads_as(loaded.model.pooling):
        raise InputError(
            f"the classifier reads the {loaded.model.pooling} of a text's states; those of {family.model_type} in "
            f"transformers read the {family.classifier_pooling}",
            where="--to hf",
            fix=f"Fine-tune with --pooling {family.classifier_pooling}.",
        )
    save_model(loaded.model, out, loaded.tokenizer)
    (out / RECORD).unlink()
