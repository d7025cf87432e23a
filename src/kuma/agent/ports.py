"""Checks that Envoy can listen on its ports: with a port taken it would run half configured and say nothing."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

from kuma.base.errors import Misconfigured
from kuma.base.system import sockets
from kuma.base.values.urls import host_port
from kuma.resources.models.blocks import transparent_proxying
from kuma.resources.models.dataplane import DataplaneSpec, listen_address

LISTENS = {
    errno.EADDRINUSE: "is in use; stop the other program, or choose another port",
    errno.EADDRNOTAVAIL: "cannot be listened on, because this machine does not have the address",
}
"""What is told. Anything else, such as a missing right, may be different for Envoy."""


def check(bootstrap: bytes, spec: DataplaneSpec | None) -> None:
    """Checks that every port of a proxy is free; `spec` is its Dataplane, if that is known here.

    Raises:
        Misconfigured: one is not; names the field and the remedy.
    """
    for field, address, port in (*_listeners(spec), _admin(bootstrap)):
        try:
            sockets.bound(address, port).close()
        except OSError as error:
            if error.errno in LISTENS:
                raise Misconfigured(f"{field}: {host_port(address, port)} {LISTENS[error.errno]}") from None


def _listeners(spec: DataplaneSpec | None) -> Iterator[tuple[str, str, int]]:
    if spec is None or spec.networking is None:
        return
    redirected = spec.networking.redirected
    for index, inbound in enumerate(spec.networking.inbound):
        address = listen_address(spec.networking, inbound)
        if transparent_proxying.binds(redirected, address):
            yield f"networking.inbound[{index}].port", address, inbound.port
    for index, outbound in enumerate(spec.networking.outbound):
        if transparent_proxying.binds_outbound(redirected, outbound.address):
            yield f"networking.outbound[{index}].port", outbound.address, outbound.port
    field = "networking.transparentProxying.redirectPort"
    if redirected.redirect_port_inbound:
        yield f"{field}Inbound", "0.0.0.0", redirected.redirect_port_inbound  # noqa: S104 - to see whether it is free
    if redirected.redirect_port_outbound:
        yield f"{field}Outbound", "127.0.0.1", redirected.redirect_port_outbound


def _admin(bootstrap: bytes) -> tuple[str, str, int]:
    found = json.loads(bootstrap)["admin"]["address"]["socketAddress"]
    return "networking.admin.port (9901 unless given)", found["address"], found["portValue"]
