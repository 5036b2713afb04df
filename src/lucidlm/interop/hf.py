"""Export a directory that transformers, vLLM and llama.cpp's converter load without code of ours."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from lucidlm.checkpoint.families import families, family_of
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.quantize import FLOATS, Dtype
from lucidlm.checkpoint.record import RECORD
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.interop.pre_tokenizers import name_of
from lucidlm.model.heads import SequenceClassifier


def export_hf(loaded: LoadedModel, out: Path, dtype: str | None) -> None:
    """Write a directory that `AutoModel*.from_pretrained` opens, without our record, which only we read.

    Raises
    ------
    InputError: transformers does not have the architecture or would compute something else, or `dtype` is not supported.
    """
    if (stored := dtype or "fp32") not in FLOATS:
        raise InputError(
            f"there is no {dtype} here",
            where="--dtype",
            fix=f"Choose of {', '.join(FLOATS)}, or see `lucidlm quantize`.",
        )
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
    tokenizer = loaded.tokenizer
    if family.model_type == "qwen2" and tokenizer is not None and name_of(tokenizer.core) != "qwen2":
        raise InputError(
            "this tokenizer is not Qwen2's, and transformers cuts texts as that does for every qwen2 model",
            where="--to hf",
            fix="Export a model with Qwen2's tokenizer, or one of another family.",
        )
    save_model(loaded.model, out, tokenizer, dtype=cast(Dtype, stored))
    (out / RECORD).unlink()
