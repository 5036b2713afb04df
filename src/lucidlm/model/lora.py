"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): small matrices learn beside large ones that stay as they are.

Adapters are put on a finished model from outside. An adapted matrix keeps its name, and its adapter's two factors are
named as PEFT names them (`lora_A`, `lora_B`), so the state dict is already in the form that other software reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.core.seeds import torch_generator
from lucidlm.model.config import LoraConfig
from lucidlm.model.dropout import Dropout


class LoraLinear(nn.Linear):
    """A linear map W x + b that stays as it is, and an adapter beside it: W x + b + alpha / rank * B A x.

    A starts uniform as PyTorch's linear maps do, B at zero, so that at first nothing changes.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        self.dropout = Dropout(config.dropout)
        bound = 1 / math.sqrt(base.in_features)
        start = torch.empty(config.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        where = base.weight.device
        self.lora_A = nn.Linear(base.in_features, config.rank, bias=False, device="meta")
        self.lora_A.weight = nn.Parameter(start.to(where))
        self.lora_B = nn.Linear(config.rank, base.out_features, bias=False, device="meta")
        self.lora_B.weight = nn.Parameter(torch.zeros(base.out_features, config.rank, device=where))
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (..., inputs) to (..., outputs)."""
        return super().forward(x) + self.scale * self.lora_B(self.lora_A(self.dropout(x)))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one linear map that does what both do together; this one stays as it is."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.bias = self.bias
        change = self.scale * self.lora_B.weight.double() @ self.lora_A.weight.double()
        plain.weight = nn.Parameter((self.weight.double() + change).to(self.weight.dtype), self.weight.requires_grad)
        return plain


def is_adapter(name: str) -> bool:
    """Return whether a parameter of that name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def add_adapters(model: nn.Module, config: LoraConfig, seed: int) -> list[str]:
    """Put adapters beside the matrices of `model` that `config` names; return the full names of those matrices.

    All other parameters are frozen; what else is to be trained (a fresh head) has to be thawed afterwards.

    Raises
    ------
    InputError: the model has no such matrices; the message lists those it has.
    """
    there = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and ".layers." in f".{name}" and not is_adapter(f"{name}.weight")
    ]
    kinds = list(dict.fromkeys(_last_part(name) for name in there))
    if not kinds:
        raise InputError("the model has adapters on all its matrices already", where="lora")
    wanted = kinds if config.targets is None else config.targets
    if unknown := [target for target in wanted if target not in kinds]:
        raise InputError(
            f"the model has no matrices called {unknown[0]!r}",
            where="lora.targets",
            fix=f"Its blocks have {', '.join(kinds)}.",
        )
    names = [name for name in there if _last_part(name) in wanted]
    attach(model, names, config, seed)
    return names


def attach(model: nn.Module, names: Iterable[str], config: LoraConfig, seed: int = 0) -> None:
    """Put fresh adapters beside the linear maps of `model` that have these full names, and freeze everything else."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    for name in names:
        base = model.get_submodule(name)
        assert type(base) is nn.Linear, name
        model.set_submodule(name, LoraLinear(base, config, torch_generator(seed, "lora", name)))


def merge(model: nn.Module) -> dict[str, LoraLinear]:
    """Replace every adapted map by a plain one with the adapter's change in its weights; return what was replaced.

    The model then has the parameters it had before adapters were added. `unmerge` puts back what this returns.
    """
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    for name, module in adapted.items():
        model.set_submodule(name, module.merged())
    return adapted


def unmerge(model: nn.Module, adapted: Mapping[str, LoraLinear]) -> None:
    """Undo `merge`: the adapted maps come back, and with them every bit of the original weights."""
    for name, module in adapted.items():
        model.set_submodule(name, module)


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
