"""The type of every duration that users write, in resources and in settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from kuma.base.values import durations
from kuma.resources.resource import plain


class Duration(str):
    """A duration such as `30d`, kept as it was written: resources are given back as they were meant.

    What it says is judged by the rules of the resource or setting, which know the field that it stands in.
    """

    __slots__ = ()

    @property
    def delta(self) -> timedelta:
        """The time that it stands for.

        Raises:
            MalformedDuration, ValueError: none; see `durations.parse_duration`.
        """
        return durations.parse_duration(self)

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.delta.total_seconds()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.no_info_before_validator_function(
            lambda value: written(value, durations.EXAMPLE), text, serialization=core_schema.to_string_ser_schema()
        )


def written(value: object, example: str) -> object:
    """Explains the form of a duration to a user who writes `expiration: 5`, instead of advising quotes."""
    if not isinstance(value, str):
        raise PydanticCustomError(
            "duration", "has to be {example}; got {got}", {"example": example, "got": plain(value)}
        )
    return value
