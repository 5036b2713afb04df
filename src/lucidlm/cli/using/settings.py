"""Settings of commands that read a model and have no configuration of their own."""

from __future__ import annotations

from lucidlm.core.config import Config
from lucidlm.core.settings import Device, Seed
from lucidlm.data.document import Encoding, OnError


class UseConfig(Config):
    """Where the model runs, its randomness, and how texts are read."""

    device: Device = "auto"
    seed: Seed = 0
    encoding: Encoding = "auto"
    on_error: OnError = "stop"
