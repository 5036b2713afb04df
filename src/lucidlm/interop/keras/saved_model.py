"""Export a SavedModel: graph and weights in TensorFlow's format, which runs without Keras and without this package."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Keras and TensorFlow are an extra: types are checked where they are not installed too.

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.io import disk_errors, require_free_space, require_vacant
from lucidlm.interop.keras.directory import require_fp32, require_portable

if TYPE_CHECKING:
    from lucidlm.interop.keras.model import BigLanguageModel


def export_saved_model(loaded: LoadedModel, out: Path, dtype: str | None) -> None:
    """Write a causal language model as a SavedModel, its tokenizer beside it.

    `tf.saved_model.load(out).serve(tokens)` maps tokens (B, T) int32 to logits (B, T, V) fp32.

    Raises
    ------
    InputError: it is a model of another kind, TensorFlow is not installed, or `out` exists already.
    LucidError: the disk is full.
    """
    require_fp32(dtype)
    config = loaded.require_causal().config
    require_portable(config)
    require_vacant(out)
    from lucidlm.interop.keras import BigLanguageModel

    model = BigLanguageModel(**config.model_dump(), tokenizer=loaded.tokenizer)
    model.assign_state(loaded.model.state_dict())
    save_as_saved_model(model, out)


def save_as_saved_model(model: BigLanguageModel, out: str | Path) -> None:
    """Write a Keras model as a SavedModel; see `export_saved_model`."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError("a SavedModel needs Keras on TensorFlow", fix="Set KERAS_BACKEND=tensorflow.")
    out = require_vacant(out)
    require_free_space(out, 5 * model.count_params() + 2**24)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            whole = Path(temporary) / "model"
            signature = [keras.InputSpec(shape=(None, None), dtype="int32", name="tokens")]
            model.export(str(whole), format="tf_saved_model", input_signature=signature, verbose=False)
            if model.tokenizer is not None:
                model.tokenizer.save(whole)
            whole.replace(out)
