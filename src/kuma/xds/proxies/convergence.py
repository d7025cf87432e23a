"""Tells whether all proxies of a mesh run what they should, to who asks again whenever one of them has got further."""

from __future__ import annotations

from kuma.resources.resource import Key
from kuma.xds.proxies.connected_proxies import Proxies


class Convergence:
    """Remembers who was not there yet, and asks the others again only once all of those are.

    So an answer costs about what has changed since the last one, however many thousands there are.
    """

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._missing: dict[str, list[Key]] = {}
        """By mesh."""

    def of(self, mesh: str) -> bool:
        """Tells whether all proxies of a mesh that are connected here have converged."""
        missing = self._missing.pop(mesh, [])
        while missing and self._is_there(missing[-1]):
            missing.pop()
        missing = missing or [p.key for p in self._proxies if p.key.mesh == mesh and not p.converged]
        if missing:
            self._missing[mesh] = missing
        return not missing

    def forget(self, mesh: str) -> None:
        """Forgets who is waited for."""
        self._missing.pop(mesh, None)

    def _is_there(self, key: Key) -> bool:
        proxy = self._proxies.get(key)
        return proxy is None or proxy.converged
