"""A resource as the control plane holds it: who it is, what it says, and what the store knows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from kuma.resources.keys import Key as Key  # belongs to every resource

NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""The time of something that has not happened; written `0001-01-01T00:00:00Z`."""


class Model(BaseModel):
    """Base of everything that is written in a resource: camelCase on the wire, unknown fields refused, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    def model_post_init(self, _: Any) -> None:
        """Shares the set of the fields that were given with all that were given the same: thousands are kept."""
        object.__setattr__(self, "__pydantic_fields_set__", _given(frozenset(self.__pydantic_fields_set__)))

    def to_wire(self) -> dict[str, Any]:
        """The JSON form, without what says nothing: unset fields and values equal to their default.

        The original omits them too, and its clients rely on it.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


@lru_cache(maxsize=1000)
def _given(names: frozenset[str]) -> set[str]:
    """Returns the same set for the same names. Nobody changes it: models are frozen, and copies have sets of their own.

    It takes 216 to 728 bytes, for each of a dozen parts of a Dataplane and of what is known of its proxy.
    """
    return set(names)


class Opaque(Model):
    """Holds whatever was written, without a look inside."""

    model_config = ConfigDict(extra="allow")


DISCRIMINATOR = "discriminator"
"""The kind of complaint about a field on which the fields beside it depend: nothing is said of those."""


def plain(value: object) -> str:
    """A value as its writer would recognise it, for a message: not a whole page of it."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 100 else f"{text[:100]}…"


SpecT = TypeVar("SpecT", bound=Model, covariant=True)


@dataclass(frozen=True, slots=True)
class Resource(Generic[SpecT]):
    """A resource and its metadata. `version` counts its writes from 1; 0 means that it has never been stored."""

    key: Key
    spec: SpecT
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    creation_time: datetime = NEVER
    modification_time: datetime = NEVER
    version: int = 0

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def mesh(self) -> str:
        return self.key.mesh

    def with_spec(self, spec: Any) -> Resource[Any]:
        """The same resource saying something else."""
        return replace(self, spec=spec)
