"""Settings that many configurations have, each with its help: where to compute, in which format, from which seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Device = Annotated[str, Field(description="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    Field(description="Of matrix products; auto: bf16 where the device has units for it, else fp32."),
]
TrainingPrecision = Annotated[
    Literal["auto", "fp32", "bf16", "fp8"],
    Field(description="As elsewhere; fp8: bf16, and the blocks' products in fp8 (GPUs from the H100 on)."),
]
Parallel = Annotated[
    Literal["auto", "ddp", "fsdp"],
    Field(description="How several ranks (torchrun) hold the model: ddp whole, fsdp in shards; auto: as memory asks."),
]
Seed = Annotated[int, Field(description="What all randomness is drawn from.")]
