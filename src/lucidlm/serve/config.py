"""How models are served: where, for whom, and how much at a time."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field

from lucidlm.control.config import Guards, Steering
from lucidlm.core.config import Config


class ServeConfig(Config):
    """The settings of a server.

    Parameters
    ----------
    api_keys: a file with a key a line, or `sha256:` and a key's SHA-256 in hexadecimal; blank lines and those that begin
        with # are skipped. None: whoever reaches the server may use it, which must then listen on this machine only.
    max_running: how many texts of a model are written at a time.
    max_waiting: how many more may wait for that; with more of them a request is turned away (429).
    max_body: bytes of a request's body, in millions.
    timeout: seconds that the answer to a request may take.
    grace: seconds that requests have to end in when the server is stopped.
    log_texts: whether prompts and answers are logged too.
    runs: a folder of training runs that the page shows; None: it shows none.
    steer: vectors that language models are steered by, for embeddings too, each `FILE=STRENGTH`; a request for texts may say
        other strengths.
    guard: what prompts and texts of all models have to pass, see `GuardRule`.
    """

    host: str = Field(default="127.0.0.1", description="Address to listen on; others than this machine's need keys.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0: any that is free.")
    api_keys: str | None = Field(default=None, description="File of API keys, a line each: a key or sha256:HEX.")
    max_running: int = Field(default=64, ge=1, le=1024, description="Most texts that a model writes at a time.")
    max_waiting: int = Field(default=256, ge=0, description="Most texts that wait for that; others are turned away.")
    max_body: float = Field(default=4.0, gt=0, le=1000, description="Largest request, in MB.")
    timeout: float = Field(default=600.0, gt=0, description="Most seconds that an answer may take.")
    grace: float = Field(default=30.0, ge=0, description="Seconds for running requests when the server is stopped.")
    log_texts: bool = Field(default=False, description="Log prompts and answers too.")
    runs: str | None = Field(default=None, description="Folder of training runs that the page shows.")

    steer: Steering = ()
    guard: Guards = ()

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False
