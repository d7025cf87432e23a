"""What all sections of the settings are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kuma.resources.duration import Duration

Port = Annotated[int, Field(ge=0, le=65535)]
MaybePath = Annotated[Path | None, BeforeValidator(lambda given: given or None)]
"""Empty is none, as it is said of these settings, and not the current directory."""


def seconds(number: float) -> Duration:
    """Makes a duration of a number of seconds."""
    return Duration(f"{number:g}s")


class Section(BaseModel):
    """Base of all sections: camelCase in the file, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)
