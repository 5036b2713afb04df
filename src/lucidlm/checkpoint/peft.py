"""Adapters in a directory of their own, in the format of PEFT (github.com/huggingface/peft).

`adapter_config.json` and `adapter_model.safetensors` hold the two low-rank factors of each adapted matrix and the head, if
the task has one: a few per cent of the model's size, to be shared with those who have the base model. PEFT loads adapters
written here onto the base model opened by transformers, and adapters written by PEFT open here. The metadata of the
safetensors file hold a checksum of the base weights that were adapted, so that another model of the same shape is
refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lucidlm.checkpoint.families import family_of
from lucidlm.checkpoint.family import kind_of
from lucidlm.checkpoint.weights import check_fit, load_weights
from lucidlm.core.config import Config
from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path, read_json, write_json
from lucidlm.core.progress import log
from lucidlm.model.config import LoraConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.model.lora import LoraLinear, attach, is_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
CHECKSUM = "base_sha256"
NOTES = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",  # the layout of the base weight, for which we use our own
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
}
"""Fields of adapter_config.json that do not change what a trained adapter computes."""

OTHER = "The adapters are of another model, or the model has adapters already."


class _Fields(Config):
    """The fields of adapter_config.json that change what an adapter computes."""

    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    modules_to_save: list[str] | None = None
    init_lora_weights: Literal[True, False, "gaussian", "orthogonal"] = True
    """Initialisations that leave the base weights as they are; PEFT has others that change them."""


def save_adapter(model: nn.Module, directory: str | Path, *, base: str, head: Sequence[str] = ()) -> None:
    """Write the adapters of `model`, not merged, and the modules of its head.

    Parameters
    ----------
    base: the base model, as `adapter_config.json` is to name it: a path or a repository.
    head: names of the top-level modules that were trained in full.

    Raises
    ------
    LucidError: the disk is full.
    """
    directory = Path(directory)
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    assert adapted, "there are no adapters"
    first = next(iter(adapted.values()))
    saved = sorted({name.split(".")[0] for name, _ in model.named_parameters()} & set(head))
    state = {
        f"{PREFIX}{name}": value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if is_adapter(name) or name.split(".")[0] in saved
    }
    with atomic_path(directory / WEIGHTS) as path:
        save_file(state, path, {"format": "pt", CHECKSUM: _checksum(model, list(adapted))})
    fields = {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": base,
        "r": first.lora_A.out_features,
        "lora_alpha": first.scale * first.lora_A.out_features,
        "lora_dropout": first.dropout.p,
        "target_modules": sorted({name.rpartition(".")[2] for name in adapted}),
        "modules_to_save": saved or None,
        "bias": "none",
        "inference_mode": True,
    }
    write_json(directory / CONFIG, fields)
    config: Any = model.config
    family = family_of(config)
    if isinstance(model, SequenceClassifier) and not pools_as_transformers(model):
        log(f"{directory}: opens here; classifiers of transformers read a text's class elsewhere, and would be wrong")
    elif family is None or family.modules:
        log(
            f"{directory}: opens here; transformers calls this model's matrices otherwise, so PEFT does not open it there"
        )


@dataclass(frozen=True)
class Adapter:
    """An adapter read from its directory.

    Parameters
    ----------
    fields: the contents of adapter_config.json.
    factors: the two low-rank factors of each adapted matrix, by their names in the file.
    saved: weights of modules that were trained in full, which replace the base model's.
    checksum: of the base weights that were adapted; None for adapters made elsewhere.
    """

    directory: Path
    fields: dict[str, Any]
    factors: dict[str, Tensor]
    saved: dict[str, Tensor]
    checksum: str | None

    @property
    def base(self) -> str | None:
        """The name of the base model."""
        return self.fields.get("base_model_name_or_path")


def read_adapter(directory: str | Path) -> Adapter:
    """Read an adapter.

    Raises
    ------
    InputError: it is not LoRA, is damaged, or uses a feature that is not supported.
    """
    directory = Path(directory)
    file = directory / WEIGHTS
    fields = read_json(directory / CONFIG)
    settings = _read_settings(fields, directory / CONFIG)
    if not file.exists() and (pickle := directory / "adapter_model.bin").exists():
        raise InputError(
            "is a pickle, which could run any code when opened, and is refused",
            where=pickle,
            fix="Save the adapter with safe_serialization where it comes from.",
        )
    tensors = load_weights(file)
    if foreign := sorted(name for name in tensors if not name.startswith(PREFIX)):
        raise InputError(f"holds {foreign[0]}, which is no adapter's", where=file, fix="See PEFT's format.")
    tensors = {name.removeprefix(PREFIX): value.float() for name, value in tensors.items()}
    factors = {name: value for name, value in tensors.items() if is_adapter(name)}
    if not factors:
        raise InputError("holds no LoRA adapters", where=file)
    saved = {name: value for name, value in tensors.items() if name not in factors}
    named = [f"{module}." for module in settings.modules_to_save or ()]
    if unknown := [name for name in saved if not any(module in name for module in named)]:
        raise InputError(
            f"holds {min(unknown)}, which is neither an adapter's nor of modules_to_save", where=file, fix=OTHER
        )
    return Adapter(directory, fields, factors, saved, _recorded_checksum(file))


def apply_adapter(model: Model, directory: str | Path) -> None:
    """Attach the adapters in `directory` to `model` and load the head saved with them; `merge` folds them into the weights.

    Raises
    ------
    InputError: they are not LoRA, damaged, of another model or rank, or use a feature that is not supported.
    """
    adapter = read_adapter(directory)
    state = model.state_dict()
    heads = set(adapter.fields.get("modules_to_save") or ())
    # PEFT lists all usual names of heads; a model has one or two of them.
    missing = {name for name in state if name.split(".")[0] in heads} - adapter.saved.keys()
    expected = {name: state[name].shape for name in {*adapter.saved, *missing} if name in state}
    check_fit(expected, adapter.saved, adapter.directory / WEIGHTS)
    attach_adapter(model, adapter)
    model.load_state_dict(adapter.saved, strict=False)


def attach_adapter(model: Model, adapter: Adapter) -> None:
    """Attach an adapter's factors to the linear layers of `model`, mapped from the family's names to ours.

    Raises
    ------
    InputError: they are of another model or rank.
    """
    where, settings = adapter.directory / WEIGHTS, _read_settings(adapter.fields, adapter.directory / CONFIG)
    maps = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    factors = _in_our_names(adapter.factors, model, maps)
    names = sorted({name.partition(".lora_")[0] for name in factors})
    if unknown := [name for name in names if name not in maps]:
        raise InputError(
            f"has adapters for {unknown[0]}, which the model has no plain matrix for", where=where, fix=OTHER
        )
    expected = {}
    for name in names:
        expected[f"{name}.lora_A.weight"] = torch.Size((settings.r, maps[name].in_features))
        expected[f"{name}.lora_B.weight"] = torch.Size((maps[name].out_features, settings.r))
    check_fit(expected, factors, where)
    if adapter.checksum is not None and adapter.checksum != _checksum(model, names):
        raise InputError(
            f"belongs to another model of the same shape ({adapter.base}): its matrices had other values",
            where=adapter.directory,
            fix="Pass the model that the adapters were trained on.",
        )
    attach(model, names, LoraConfig(rank=settings.r, alpha=settings.lora_alpha, dropout=settings.lora_dropout))
    model.load_state_dict(factors, strict=False)


def _in_our_names(factors: Mapping[str, Tensor], model: Model, maps: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """Return factors under our names; one for a fused matrix (GPT-2's c_attn) is split along the outputs."""
    family, found = family_of(model.config), {}
    kind = kind_of(model)
    for name, factor in factors.items():
        module, _, rest = name.partition(".lora_")
        ours = [module] if module in maps or family is None else family.to_our_modules(module, model.config, kind)
        # A acts on the inputs, which the parts of a fused matrix share.
        parts = factor.tensor_split(len(ours)) if rest.startswith("B") else (factor,) * len(ours)
        found |= {f"{one}.lora_{rest}": part for one, part in zip(ours, parts, strict=True)}
    return found


def _read_settings(fields: dict[str, Any], where: Path) -> _Fields:
    """Read adapter_config.json, and refuse fields that would make the adapters compute something else than ours."""
    if fields.get("peft_type") != "LORA":
        raise InputError(f"describes {fields.get('peft_type')!r} adapters", where=where, fix="Known are LORA adapters.")
    known = set(_Fields.model_fields)
    for name, value in fields.items():
        if name not in NOTES | known and value and not (name == "bias" and value == "none"):
            raise InputError(f"uses {name} ({value!r}), which is not supported", where=where)
    return _Fields.parse({name: value for name, value in fields.items() if name in known}, where)


def _task_type(model: nn.Module) -> str | None:
    if isinstance(model, SequenceClassifier):
        return "SEQ_CLS" if pools_as_transformers(model) else None
    if isinstance(model, TokenClassifier):
        return "TOKEN_CLS"
    if isinstance(model, SpanExtractor):
        return "QUESTION_ANS"
    # PEFT has no task type for masked language models; without one it leaves the model as it is.
    return "CAUSAL_LM" if isinstance(model, LanguageModel) and model.config.causal else None


def pools_as_transformers(model: SequenceClassifier) -> bool:
    """Return whether transformers has a classifier that pools as `model` does."""
    family = family_of(model.config)
    return family is not None and family.reads_as(model.pooling)


def _checksum(model: nn.Module, names: Sequence[str]) -> str:
    """Return the SHA-256 of the values of the matrices with these names."""
    digest = hashlib.sha256()
    for name in sorted(names):
        weight: Any = model.get_submodule(name).weight
        digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _recorded_checksum(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(CHECKSUM)
