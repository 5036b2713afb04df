"""Settings that many configurations have, each with its help: where to compute, in which format, from which seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Device = Annotated[str, Field(description="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[Literal["auto", "fp32", "bf16"], Field(description="auto takes bf16 on GPUs and fp32 on CPUs.")]
Parallel = Annotated[
    Literal["auto", "ddp", "fsdp"],
    Field(description="How several ranks (torchrun) hold the model: ddp whole, fsdp in shards; auto: as memory asks."),
]
Seed = Annotated[int, Field(description="What all randomness is drawn from.")]
