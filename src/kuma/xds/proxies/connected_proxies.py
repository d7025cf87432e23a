"""Registry of the proxies that are connected to this control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice

from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.xds.proxies.proxy import Proxy

_AT_ONCE = 200
"""Each makes about a hundred calls of functions, with all who listen."""


class Proxies:
    """The proxies that are connected here, by the Dataplane that they run for."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        """`at_once` is how many follow a change in one turn of the loop."""
        self._connected: dict[Key, Proxy] = {}
        self._at_once = at_once
        self._untold: dict[Key, None] = {}
        """Those that are to follow a change yet, in the order in which they do."""
        self._is_telling = False
        self._listeners: list[Callable[[Proxy], None]] = []

    def on_progress(self, listener: Callable[[Proxy], None]) -> None:
        """Call `listener` when a proxy has joined, left, got something new to do, or done some of it."""
        self._listeners.append(listener)

    def _progressed(self, proxy: Proxy) -> None:
        for listener in self._listeners:
            listener(proxy)

    def __contains__(self, key: object) -> bool:
        return key in self._connected

    def __iter__(self) -> Iterator[Proxy]:
        return iter(tuple(self._connected.values()))

    def __len__(self) -> int:
        return len(self._connected)

    def get(self, key: Key) -> Proxy | None:
        """The proxy of this Dataplane, if it is connected."""
        return self._connected.get(key)

    def add(self, proxy: Proxy) -> None:
        """Registers a new stream."""
        self._connected[proxy.key] = proxy
        proxy.on_progress = self._progressed
        self._progressed(proxy)

    def remove(self, proxy: Proxy) -> bool:
        """Removes a stream; False if a newer one has replaced it."""
        if self._connected.get(proxy.key) is not proxy:
            return False
        del self._connected[proxy.key]
        self._progressed(proxy)
        return True

    def clock_jumped(self, _: timedelta) -> None:
        """Has all of them look whether their certificates still hold."""
        for proxy in self:
            proxy.keeper.check()

    def touch(self, mesh: str, names: frozenset[str]) -> None:
        """Has the proxies of these Dataplanes look again at what they should run.

        From now on none of them is taken to run it; of thousands that follow this, others have a turn in between.
        """
        if len(names) > len(self._connected):
            concerned = [proxy for proxy in self if proxy.key.mesh == mesh and proxy.key.name in names]
        else:
            keys = (kinds.DATAPLANE.key(name, mesh) for name in names)
            concerned = [proxy for key in keys if (proxy := self._connected.get(key)) is not None]
        for proxy in concerned:
            proxy.note_change()
            self._untold[proxy.key] = None
        self._tell_some()

    def _tell_some(self) -> None:
        some = tuple(islice(self._untold, self._at_once))
        for key in some:
            del self._untold[key]
        if self._untold and not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._go_on)
        for key in some:
            if (proxy := self._connected.get(key)) is not None:
                proxy.follow_change()

    def _go_on(self) -> None:
        self._is_telling = False
        self._tell_some()
