"""What cleaning does to a text."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lucidlm.data.cleaning.html import Html


class CleanConfig(BaseModel):
    """What cleaning does. Lengths are in characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repair: bool = Field(default=True, description="Repair text that was decoded in the wrong encoding (ftfy).")
    html: Html = "auto"
    min_characters: int = Field(default=1, ge=1, description="Leave out documents shorter than this.")
    max_characters: int | None = Field(default=None, ge=1, description="Leave out documents longer than this.")
    repetition: bool = Field(default=True, description="Leave out documents that repeat themselves (Gopher's rules).")
