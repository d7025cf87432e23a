"""Where clients and proxies come in, and what of that is shut while this control plane alone is cut off."""

from __future__ import annotations

from collections.abc import Iterable

from kuma.api.http.server import HttpServer
from kuma.xds.stream.front import Front


class Doors:
    """Proxies are to go to others wherever these are; HTTP requests, to another worker at the same port, if one can.

    Without such a worker requests are answered here, that the store cannot be used: nobody else would answer them.
    """

    def __init__(self, front: Front) -> None:
        self._front = front
        self._http: tuple[HttpServer, ...] = ()
        self._is_cut_off = self._sibling_can = False

    def add(self, servers: Iterable[HttpServer]) -> None:
        """Servers whose ports other workers serve, too."""
        self._http += tuple(servers)

    def cut_off(self, is_cut_off: bool) -> None:
        """Take in whether we alone are cut off."""
        self._is_cut_off = is_cut_off
        self._front.shut(is_cut_off)
        self._see_to_http()

    def sibling_can(self, can: bool) -> None:
        """Take in whether another worker of this control plane can use the store."""
        self._sibling_can = can
        self._see_to_http()

    def _see_to_http(self) -> None:
        for server in self._http:
            server.shut(self._is_cut_off and self._sibling_can)
