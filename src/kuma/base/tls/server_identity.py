"""The certificate that servers show; it may be replaced while they run. Connections that are open stay as they are."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

from kuma.base.files import content

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, with forward secrecy and authenticated encryption; TLS 1.3 has no others."""


class ServerIdentity:
    """A chain, leaf first, and its key, in PEM."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        self.pair = key, chain
        """As one value, which threads of gRPC read."""
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    def of(cls, chain: Path, key: Path) -> ServerIdentity:
        """Returns the identity in two files."""
        return cls(content(chain), content(key))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` whenever it has been replaced."""
        self._listeners.append(listener)

    def replace(self, chain: bytes, key: bytes) -> None:
        """Shows another one from the next handshake on; the two have to belong together."""
        self.pair = key, chain
        for listener in self._listeners:
            listener()

    def context(self) -> ssl.SSLContext:
        """Returns the TLS settings of an HTTP server. They are of now: another identity needs others."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers(_CIPHERS)
        made.set_alpn_protocols(["http/1.1"])
        descriptor = os.memfd_create("server.pem")  # the library reads files only
        try:
            os.write(descriptor, b"\n".join(self.pair))
            made.load_cert_chain(f"/dev/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return made
