"""Tags: the names and values that describe an inbound and that permissions select by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kuma.base.errors import Violation

SERVICE = "kuma.io/service"
PROTOCOL = "kuma.io/protocol"
ANY = "*"
"""A selector's value that every value of the tag matches."""

_NAME = re.compile(r"[A-Za-z0-9.\-_:/]+", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9.\-_:]+", re.ASCII)
_SELECTED_VALUE = re.compile(r"[A-Za-z0-9.\-_:/]+|\*", re.ASCII)


def validate(path: str, tags: Mapping[str, str], *, selector: bool = False) -> Iterator[Violation]:
    """The character rules of tags; a `selector` may also say `*`."""
    for name, value in tags.items():
        if not name:
            yield Violation(path, "tag name must be non-empty")
            continue
        field = f'{path}["{name}"]'
        if not _NAME.fullmatch(name):
            yield Violation(
                field, "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
            )
        if not value:
            yield Violation(field, "tag value must be non-empty")
        elif selector and not _SELECTED_VALUE.fullmatch(value):
            yield Violation(
                field,
                'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"',
            )
        elif not selector and not _VALUE.fullmatch(value):
            yield Violation(field, "tag value must consist of alphanumeric characters, dots, dashes and underscores")
