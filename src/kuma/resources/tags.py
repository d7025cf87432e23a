"""Tags: the names and values that describe an inbound and that permissions select by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kuma.base.errors import Violation
from kuma.base.values import addresses

SERVICE = "kuma.io/service"
PROTOCOL = "kuma.io/protocol"
ZONE, THE_ZONE = "kuma.io/zone", "default"
"""The tag that every inbound has, written or not, and the one zone that there is."""
SERVICE_ADDRESS = "k8s.kuma.io/address."
"""Begins the tags by which an inbound in Kubernetes says at which address and port its Service is called, such as
`k8s.kuma.io/address.10.96.0.5:80`; the value is the Service's name. Only the control plane writes them there."""
ALSO_AT = "k8s.kuma.io/also-at."
"""Begins the tags by which an inbound of a dual-stack Pod says at which address it is called, too, such as
`k8s.kuma.io/also-at.fd00::7`; the value is the Pod's name. Only the control plane writes them there."""
ANY = "*"
"""A selector's value that every value of the tag matches."""

LONGEST_SERVER_NAME = 255
"""What TLS libraries take as the server name of a handshake, in bytes."""


def server_name(mesh: str, tags: Mapping[str, str]) -> str:
    """Returns the server name that a caller asks for: `backend{mesh=default}`, further tags in order."""
    named = {**{k: v for k, v in tags.items() if k != SERVICE}, "mesh": mesh}
    return tags[SERVICE] + "{" + ",".join(f"{k}={v}" for k, v in sorted(named.items())) + "}"


def also_at(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the addresses at which an inbound is called besides its own, in order."""
    said = (name.removeprefix(ALSO_AT) for name in tags if name.startswith(ALSO_AT))
    return tuple(sorted(one for one in said if addresses.parse(one) is not None and not addresses.is_loopback(one)))


def with_zone(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the tags as selectors see them: an inbound that names no zone is in the one that there is."""
    return tags if ZONE in tags else {**tags, ZONE: THE_ZONE}


_NAME = re.compile(r"[A-Za-z0-9.\-_:/]+", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9.\-_:]+", re.ASCII)
_SELECTED_VALUE = re.compile(r"[A-Za-z0-9.\-_:/]+|\*", re.ASCII)


def validate(path: str, tags: Mapping[str, str], *, selector: bool = False) -> Iterator[Violation]:
    """Checks the characters of tags; a `selector` may also say `*`."""
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
