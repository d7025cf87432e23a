"""Secret and GlobalSecret: bytes that only administrators read, sealed at rest."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from kuma.resources.resource import Model, Resource


def _decode(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return base64.b64decode(_LINE_ENDS.sub("", value), validate=True)
    except (binascii.Error, ValueError):
        pass
    if isinstance(value, str) and "-----BEGIN" in value:
        raise PydanticCustomError(
            "base64", "holds PEM itself; it has to be base64 of that, or to be under inlineString where there is one"
        )
    raise PydanticCustomError("base64", "has to be base64 of the bytes, such as the output of `base64`")


_LINE_ENDS = re.compile(r"[\r\n]")
"""They mean nothing inside base64 (RFC 2045 6.8): `base64` and YAML's blocks make them."""


Base64 = Annotated[
    bytes,
    PlainValidator(_decode),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "format": "byte"}),
]


class SecretSpec(Model):
    """The secret's bytes; kept out of `repr` so that no log or traceback shows them."""

    data: Base64 = Field(default=b"", repr=False)


Secrets = Mapping[str, Resource[SecretSpec]]
"""Some of one mesh, or the global ones, by their names."""
