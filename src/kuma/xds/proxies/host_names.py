"""Resolves the host names in Dataplanes, again and again, for what proxies run.

The last address that was found stays until another one is: a name service that is away for a while changes nothing.
Until there is one, the inbounds that need it are withheld, and told with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog
from prometheus_client import Gauge

from kuma.base.clock import Clock
from kuma.base.rounds import Rounds
from kuma.base.system.name_service import Resolve
from kuma.resources import host_names
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView, Named, changed_names
from kuma.xds.envoy.services.service_members import Withheld

log = structlog.get_logger(__name__)

_AT_ONCE = 8
"""Questions to the name service."""
_IN_ONE_ROUND = 64
"""Names that are resolved before it is looked again which are due: a new one does not wait for all others."""
_TOLD_WITHIN = 0.2
"""Seconds within which an answer is told, while others are waited for; each telling costs as a commit does."""
_SHORTEST_PAUSE = 1.0
"""Seconds between rounds in which nothing has happened: names that are due soon after each other have one."""
_LONGEST_PAUSE = 300.0
"""Seconds after which a name is asked for again at the latest, though nobody has answered for long."""
Dataplanes = Mapping[str, Resource[DataplaneSpec]]


@dataclass(slots=True)
class _Followed:
    """The Dataplanes of a mesh as they are stored, and as proxies are to see them."""

    stored: Dataplanes = field(default_factory=dict)
    named: dict[str, frozenset[str]] = field(default_factory=dict)
    """By Dataplane, the names in it."""
    made: dict[str, Resource[DataplaneSpec]] = field(default_factory=dict)
    withheld: dict[str, Withheld] = field(default_factory=dict)
    shown: Dataplanes = field(default_factory=dict)


class HostNames:
    """Knows the addresses of all names in Dataplanes. `failing` counts those that cannot be resolved now."""

    def __init__(self, clock: Clock, interval: float, failing: Gauge, resolve: Resolve) -> None:
        self._clock = clock
        self._interval = interval
        """Seconds after which a name is resolved again."""
        self._failing = failing
        self._resolve = resolve
        self._rounds = Rounds(clock, "host names")
        self._meshes: dict[str, _Followed] = {}
        self._due: dict[str, float] = {}
        self._unanswered: dict[str, int] = {}
        """How often in a row nobody has answered for a name."""
        self._news: set[str] = set()
        """Names that have another outcome than was told."""
        self._telling: asyncio.TimerHandle | None = None
        self._addresses: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` with the meshes in which a name has another address. It must not block."""
        self._listeners.append(listener)

    def seen(self, view: MeshView) -> MeshView:
        """Returns a view with addresses in the place of names, as far as they are known; itself if it has no names."""
        if not view.dataplanes:
            self._meshes.pop(view.name, None)
            return view
        followed = self._meshes.setdefault(view.name, _Followed())
        if followed.stored is not view.dataplanes:
            self._follow(followed, view.dataplanes)
        return replace(view, dataplanes=followed.shown) if followed.named else view

    def withheld(self, mesh: str) -> Mapping[str, Withheld]:
        """Returns the inbounds that cannot be served, by Dataplane, each with the reason."""
        return self._meshes[mesh].withheld if mesh in self._meshes else {}

    def failures(self, mesh: str, dataplane: str) -> Sequence[str]:
        """Returns what is to be known of the names in a Dataplane that cannot be resolved now."""
        names = self._meshes[mesh].named.get(dataplane, frozenset()) if mesh in self._meshes else frozenset[str]()
        return [f'"{name}" {self._failures[name]}' for name in sorted(names) if name in self._failures]

    async def run(self) -> None:
        """Resolve names until cancelled."""
        try:
            await self._rounds.run(self._round)
        finally:
            if self._telling is not None:
                self._telling.cancel()

    def _follow(self, followed: _Followed, dataplanes: Dataplanes) -> None:
        changed = changed_names(followed.stored, dataplanes)
        for name in changed:
            found = host_names.host_names(dataplanes[name].spec.net) if name in dataplanes else frozenset[str]()
            if found:
                followed.named[name] = found
                self._ask(found)
            else:
                followed.named.pop(name, None)
        followed.stored = dataplanes
        self._make(followed, changed)

    def _ask(self, names: frozenset[str]) -> None:
        for name in names - self._due.keys():
            self._due[name] = self._clock.monotonic()
            self._rounds.wake()

    def _make(self, followed: _Followed, which: frozenset[str]) -> None:
        """Makes some Dataplanes anew, as proxies are to see them."""
        for name in which:
            followed.made.pop(name, None)
            followed.withheld.pop(name, None)
            if name in followed.named:
                stored = followed.stored[name]
                made = followed.made[name] = stored.with_spec(host_names.resolved(stored.spec, self._addresses))
                unserved = host_names.unserved(made.spec, self._failures)
                if unserved:
                    followed.withheld[name] = unserved
        if not followed.named:
            followed.shown = {}
            return
        now = {name: followed.made.get(name) or followed.stored.get(name) for name in which}
        known = followed.shown or {**followed.stored, **followed.made}
        followed.shown = Named(known, now)

    async def _round(self) -> float | None:
        """Resolves what is due; returns when the next is."""
        self._forget()
        now = self._clock.monotonic()
        due = sorted((self._unanswered.get(name, 0), when, name) for name, when in self._due.items() if when <= now)
        gate = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._look_up(name, gate) for *_, name in due[:_IN_ONE_ROUND]))
        self._tell_news()
        if len(due) > _IN_ONE_ROUND:
            self._rounds.wake()
        return max(_SHORTEST_PAUSE, min(self._due.values()) - self._clock.monotonic()) if self._due else None

    async def _look_up(self, name: str, gate: asyncio.Semaphore) -> None:
        """Resolves a name, and notes whether the outcome is another than before."""
        before = self._addresses.get(name), self._failures.get(name)
        async with gate:
            try:
                found = await self._resolve(name)
            except OSError as error:
                self._failures[name] = f"cannot be resolved: {error.strerror or error}"
                is_answered = not isinstance(error, TimeoutError)
            else:
                self._found(name, found)
                is_answered = True
        self._due[name] = self._clock.monotonic() + self._pause(name, is_answered)
        after = self._addresses.get(name), self._failures.get(name)
        if after != before:
            address, failure = after
            tell = log.warning if failure else log.info
            tell("host name", name=name, address=address or "", problem=failure or "")
            self._news.add(name)
            if self._telling is None:
                self._telling = asyncio.get_running_loop().call_later(_TOLD_WITHIN, self._tell_news)

    def _pause(self, name: str, is_answered: bool) -> float:
        """Returns the seconds after which to ask again: longer each time that nobody has answered."""
        if is_answered:
            self._unanswered.pop(name, None)
            return self._interval
        times = self._unanswered[name] = self._unanswered.get(name, 0) + 1
        return max(self._interval, min(_LONGEST_PAUSE, self._interval * 2.0 ** min(times, 20)))

    def _found(self, name: str, found: Sequence[str]) -> None:
        """Notes the address of a name: the one that it has had, if it still has it, or else one of IPv4 if there is."""
        self._failures.pop(name, None)
        if not found:
            self._failures[name] = "cannot be resolved: it has no address"
        elif self._addresses.get(name) not in found:
            self._addresses[name] = next((a for a in found if ":" not in a), found[0])

    def _forget(self) -> None:
        """Forgets names that no Dataplane has any more."""
        wanted = frozenset().union(*(names for f in self._meshes.values() for names in f.named.values()))
        for name in self._due.keys() - wanted:
            del self._due[name]
            self._unanswered.pop(name, None)
            self._addresses.pop(name, None)
            self._failures.pop(name, None)

    def _tell_news(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._failing.set(len(self._failures))
        news, self._news = frozenset(self._news), set()
        self._tell(news)

    def _tell(self, names: frozenset[str]) -> None:
        """Makes the Dataplanes with these names anew, and tells in which meshes there are any."""
        concerned: set[str] = set()
        for mesh, followed in self._meshes.items():
            which = frozenset(name for name, found in followed.named.items() if found & names)
            if which:
                self._make(followed, which)
                concerned.add(mesh)
        if concerned:
            for listener in self._listeners:
                listener(frozenset(concerned))
