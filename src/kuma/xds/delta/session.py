"""One proxy's side of the delta discovery protocol, without any I/O.

The protocol is Envoy's "xDS REST and gRPC protocol", section "Incremental xDS". A session knows, type by type, what the
proxy subscribed to, what it was sent, what it acknowledged and what it rejected. Given a snapshot it says what to send
now. What was sent and what was acknowledged are kept apart: only an acknowledged version is known to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kuma.base.errors import InvalidResource
from kuma.xds.envoy.resource import Entry, TypeUrl

Snapshot = Mapping[TypeUrl, Mapping[str, Entry]]
"""Everything that one proxy should run, by type and name."""

_NEVER_REMOVED = {TypeUrl.SECRET}
"""A removed secret leaves the clusters and listeners that want it warming for ever (istio#50186)."""


class Request(NamedTuple):
    """The relevant fields of a `DeltaDiscoveryRequest`."""

    type_url: TypeUrl
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = {}
    nonce: str = ""
    error: str | None = None

    @property
    def acks_only(self) -> bool:
        """Tells whether it only says that a response was taken."""
        return self.error is None and bool(self.nonce) and not (self.subscribe or self.unsubscribe)


class Response(NamedTuple):
    """A response to send: resources of one type that are new to the proxy, and names that it should forget."""

    type_url: TypeUrl
    nonce: str
    entries: tuple[Entry, ...]
    removed: tuple[str, ...]


class Confirmation(NamedTuple):
    """The proxy's answer to one response: acknowledged, or rejected with Envoy's reason."""

    type_url: TypeUrl
    error: str | None


_RENEWAL = "renewal"
"""A nonce that no other response has: what answers it is of no account."""
_NO_VERSION = ""
"""Of a resource of which the proxy may have any."""
_MOST_NAMES = 20_000
"""Names of one type that one proxy may ask for; each is remembered."""
_REFERRING: Mapping[TypeUrl, TypeUrl] = {TypeUrl.ENDPOINTS: TypeUrl.CLUSTER, TypeUrl.ROUTES: TypeUrl.LISTENER}
"""What refers to resources of a type: a proxy that has rejected the one does not ask for the other."""
_MOST_TOLD = 5
"""Names of one type that people are told."""
_MOST_UNANSWERED = 10
"""Responses of one type that one proxy may leave without an answer; then it gets no further one until it answers."""
_BOUND_TO: Mapping[TypeUrl, TypeUrl] = {
    TypeUrl.CLUSTER: TypeUrl.LISTENER,
    TypeUrl.ENDPOINTS: TypeUrl.LISTENER,
    TypeUrl.LISTENER: TypeUrl.CLUSTER,
}
"""What happens to one of these types may be what another has waited for: listeners for clusters, and these for them."""


@dataclass(slots=True)
class _TypeState:
    wanted: Mapping[str, Entry] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """What the proxy should run, and in which versions."""
    is_quiet: bool = False
    """There is nothing to send until something happens that concerns this type."""
    wildcard: bool = False
    opened: bool = False
    subscribed: dict[str, None] = field(default_factory=dict)
    """Names, as the keys: an empty dictionary takes a third of an empty set, and there are many."""
    sent: dict[str, str] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    pending: dict[str, dict[str, str | None]] = field(default_factory=dict)
    doubted: tuple[frozenset[str], ...] = ()
    """Parts of rejected responses that are sent again, each on its own: see `_reject`."""
    all_run: bool | None = None
    """Whether the proxy is known to run everything as it should; None if that has to be looked at again."""

    @property
    def is_full(self) -> bool:
        """Tells whether too many responses are without an answer for another one."""
        return len(self.pending) >= _MOST_UNANSWERED

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.subscribed

    def is_awaited(self, name: str) -> bool:
        """Tells whether an answer about this resource is still to come."""
        return bool(self.pending) and any(name in content for content in self.pending.values())

    def runs(self, name: str) -> bool:
        """Tells whether the proxy is known to run this as it should: it was sent last, and that was acknowledged."""
        version = self.versions[name]
        return self.sent.get(name) == self.acked.get(name) == version and not self.is_awaited(name)

    @property
    def runs_all(self) -> bool:
        """Tells whether the proxy is known to run everything as it should."""
        if self.all_run is None:
            versions, awaited = self.versions.items(), self.pending.values()
            self.all_run = (
                all(map(self.versions.keys().isdisjoint, awaited))
                and versions <= self.acked.items()
                and versions <= self.sent.items()
            )
        return self.all_run


class Session:
    """The state of one stream. Not shared, not locked: one coroutine owns it."""

    def __init__(self) -> None:
        self._types = {type_url: _TypeState() for type_url in TypeUrl}
        self._is_published = False
        self._nonce = 0
        self._converged: bool | None = None
        self._answered: bool | None = None
        """Whether all is acknowledged, and answered; None if that has to be looked at again."""

    def receive(self, request: Request) -> Confirmation | None:
        """Take note of a request; returns the confirmation if it answers a response of ours."""
        state = self._types[request.type_url]
        was_quiet = state.is_quiet and state.opened and request.acks_only and not state.is_full
        self._stir(request.type_url)
        if was_quiet:  # what was sent has arrived, and there was nothing else to send
            state.is_quiet = True
        else:
            self._subscribe(state, request)
        if not request.nonce:
            return None
        content = state.pending.pop(request.nonce, None)
        if not state.pending:
            state.pending = {}  # gives back the room of what is answered
        if content is None:  # a nonce of another stream, or one answered before: says nothing about us
            return None
        # Where a later response or request has overtaken this answer, it says nothing of what runs now.
        told = {n: version for n, version in content.items() if state.wants(n) and not state.is_awaited(n)}
        if request.error is None:
            state.acked.update((name, version) for name, version in told.items() if version is not None)
            for name in [name for name, version in told.items() if version is None]:
                state.acked.pop(name, None)
        else:
            _reject(state, told, alone=sum(version is not None for version in content.values()) == 1)
        return Confirmation(request.type_url, request.error)

    def _subscribe(self, state: _TypeState, request: Request) -> None:
        names = set(request.subscribe)
        if not state.opened:
            self._open(state, request)
        state.wildcard = (state.wildcard or "*" in names) and "*" not in request.unsubscribe
        names.discard("*")
        state.subscribed.update(dict.fromkeys(names))
        if len(state.subscribed) > _MOST_NAMES:
            raise InvalidResource.of("resource_names_subscribe", f"more than {_MOST_NAMES} names of one type")
        for name in names:
            # The client may subscribe again to what it has lost: it has to be sent even if it was before.
            if name not in request.initial_versions:
                state.sent.pop(name, None)
                state.acked.pop(name, None)
            state.missing.pop(name, None)
        for name in request.unsubscribe:
            state.subscribed.pop(name, None)
            state.missing.pop(name, None)
            if not state.wildcard:
                for known in (state.sent, state.acked, state.rejected):
                    known.pop(name, None)

    def _open(self, state: _TypeState, request: Request) -> None:
        """Take in the first request of a type."""
        state.opened = True
        # Legacy wildcard: the first request of a type that names nothing asks for everything.
        state.wildcard = not request.subscribe and not request.nonce
        for name, version in request.initial_versions.items():
            state.sent[name] = state.acked[name] = version
        if request.type_url is TypeUrl.ENDPOINTS:  # it had them before these clusters came
            for content in self._types[TypeUrl.CLUSTER].pending.values():
                self._send_endpoints_again(content)

    def publish(self, snapshot: Snapshot) -> None:
        """Make `snapshot` what the proxy should run."""
        self._is_published = bool(snapshot)
        self._converged = self._answered = None
        for type_url, state in self._types.items():
            state.wanted = snapshot.get(type_url, {})
            versions = {name: entry.version for name, entry in state.wanted.items()}
            if versions != state.versions:
                state.versions = versions
                self._stir(type_url)

    def _stir(self, type_url: TypeUrl) -> None:
        """Notes that something has happened to a type: there may be something to send again."""
        self._converged = self._answered = None
        state = self._types[type_url]
        state.is_quiet, state.all_run = False, None
        if type_url in _BOUND_TO:
            self._types[_BOUND_TO[type_url]].is_quiet = False

    def responses(self) -> Iterator[Response]:
        """Returns what has to be sent now, in order. What is held back comes after a later `receive`."""
        for type_url, state in self._types.items():
            if state.is_quiet:
                continue
            response = self._response(type_url, state)
            # A response has all that may be sent, but for parts of rejected ones.
            state.is_quiet = response is None or not state.doubted
            if response is not None:
                yield response

    def _response(self, type_url: TypeUrl, state: _TypeState) -> Response | None:
        if not state.opened or state.is_full:
            return None
        if type_url is TypeUrl.LISTENER and not self._listeners_may_follow():
            return None
        entries = _due(state)
        removed = tuple(self._removed(type_url, state))
        if not entries and not removed:
            return None
        self._nonce += 1
        self._converged = self._answered = state.all_run = None
        nonce = str(self._nonce)
        content: dict[str, str | None] = {entry.name: entry.version for entry in entries}
        content.update((name, None) for name in removed)
        for name, version in content.items():
            state.rejected.pop(name, None)
            if version is not None:
                state.sent[name] = version
            else:
                state.sent.pop(name, None)
                if name in state.subscribed:
                    state.missing[name] = None
        state.pending[nonce] = content
        if type_url is TypeUrl.CLUSTER:
            self._send_endpoints_again(content)
        return Response(type_url, nonce, entries, removed)

    @property
    def may_respond(self) -> bool:
        """Tells whether `responses` may have something to say."""
        return not all(state.is_quiet for state in self._types.values())

    def is_asked_for(self, type_url: TypeUrl) -> bool:
        """Tells whether the proxy has asked for this type: before that, it is not known what it has."""
        return self._types[type_url].opened

    def renewals(self, type_url: TypeUrl) -> Iterator[Response]:
        """Returns what has to be sent for a proxy to keep what it has, if that holds for a time only.

        They say nothing new, and their answers nothing of what the proxy runs. In place of what it has in another
        version than it should, they name what it has acknowledged: each in a response of its own, which Envoy rejects
        as a whole if it has yet another one.
        """
        state = self._types[type_url]
        again = tuple(
            entry
            for name, entry in state.wanted.items()
            if state.sent.get(name) == entry.version != state.rejected.get(name)
        )
        if again:
            yield Response(type_url, _RENEWAL, again, ())
        others = state.acked.keys() & state.sent.keys() - {entry.name for entry in again}
        for name in sorted(others):
            if name in state.acked:  # while others are sent, the proxy may say that it wants this one no more
                yield Response(type_url, _RENEWAL, (Entry.known(name, state.acked[name]),), ())

    def _send_endpoints_again(self, clusters: Iterable[str]) -> None:
        """Sends endpoints again to an updated cluster: it waits for them even if it had them, before it acknowledges.

        See go-control-plane#1035.
        """
        endpoints = self._types[TypeUrl.ENDPOINTS]
        self._stir(TypeUrl.ENDPOINTS)
        for name in clusters:
            endpoints.sent.pop(name, None)
            endpoints.acked.pop(name, None)

    def _removed(self, type_url: TypeUrl, state: _TypeState) -> Iterator[str]:
        if type_url in _NEVER_REMOVED:
            return
        # Break after make: a cluster goes only when no listener that still routes to it may be running.
        if not state.sent.keys() <= state.versions.keys() and (
            type_url is not TypeUrl.CLUSTER or self._is_current(TypeUrl.LISTENER)
        ):
            yield from [name for name in state.sent if name not in state.versions]
        # A name asked for that does not exist is answered as removed, so that the client does not wait for it.
        yield from sorted(state.subscribed.keys() - state.versions.keys() - state.sent.keys() - state.missing.keys())

    def _listeners_may_follow(self) -> bool:
        """Tells whether everything that listeners route to has reached the proxy."""
        clusters, endpoints = self._types[TypeUrl.CLUSTER], self._types[TypeUrl.ENDPOINTS]
        if clusters.pending or endpoints.pending:
            return False
        unsent = clusters.versions.items() - clusters.sent.items() - clusters.rejected.items()
        # A proxy does not ask for the endpoints of a cluster that it has rejected.
        unknown = endpoints.versions.keys() - endpoints.acked.keys() - endpoints.rejected.keys()
        return not unsent and unknown <= clusters.rejected.keys()

    def _is_current(self, type_url: TypeUrl) -> bool:
        state = self._types[type_url]
        if not state.opened:
            return True
        return (
            not state.pending
            and state.sent.keys() <= state.versions.keys()
            and all(state.runs(n) or state.rejected.get(n) == v for n, v in state.versions.items() if state.wants(n))
        )

    @property
    def converged(self) -> bool:
        """Tells whether the proxy has acknowledged everything that it should run, in the versions of now."""
        if self._converged is None:
            self._converged = self._is_published and all(state.runs_all for state in self._types.values())
        return self._converged

    @property
    def answered(self) -> bool:
        """Tells whether the proxy has answered to everything that it should run, be it by a rejection."""
        if self._answered is None:
            self._answered = self.converged or (
                self._is_published
                and any(state.rejected for state in self._types.values())
                and all(map(self._has_answered, self._types))
            )
        return self._answered

    def _has_answered(self, type_url: TypeUrl) -> bool:
        state = self._types[type_url]
        if state.runs_all:
            return True
        referring = _REFERRING.get(type_url)
        useless = self._types[referring].rejected if referring is not None else {}
        return all(
            state.runs(name) or state.rejected.get(name) == version or (name in useless and not state.wants(name))
            for name, version in state.versions.items()
        )

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Returns what was sent and is not answered: a type, and the first names."""
        found = []
        for type_url, state in self._types.items():
            names = sorted({name for content in state.pending.values() for name in content})
            if names:
                more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
                found.append(f"{type_url.bucket}: {', '.join(names[:_MOST_TOLD])}{more}")
        return tuple(found)

    def rejects(self, type_url: TypeUrl) -> bool:
        """Tells whether the proxy has rejected anything of this type that it should still run."""
        state = self._types[type_url]
        return bool(state.doubted) or not state.rejected.items().isdisjoint(state.versions.items())

    def acked(self, type_url: TypeUrl) -> Mapping[str, str]:
        """Returns the versions that the proxy is known to run."""
        return dict(self._types[type_url].acked)


def _due(state: _TypeState) -> tuple[Entry, ...]:
    """Returns the resources to send next: all that are new to the proxy, or a part of those in doubt."""
    wanted = state.versions.items()
    unsent = {name for name, _ in wanted - state.sent.items() - state.rejected.items()}
    unsent.difference_update(*state.doubted)
    new = tuple(entry for name, entry in state.wanted.items() if name in unsent and state.wants(name)) if unsent else ()
    while not new and state.doubted:
        part, *rest = state.doubted
        state.doubted = tuple(rest)
        new = tuple(entry for name, entry in state.wanted.items() if name in part and state.wants(name))
    return new


def _reject(state: _TypeState, told: Mapping[str, str | None], *, alone: bool) -> None:
    """Take note that a response was rejected; of it `told` still matters. `alone`: it had but one resource.

    The protocol rejects a response as a whole and does not say what of it is wrong; Envoy applies all the listeners
    and clusters but the bad ones. So the halves of it are sent again, and halves of these, until each bad resource has
    been rejected alone, once: the others are known to run, whatever came with them.
    """
    found = {name: version for name, version in told.items() if version is not None}
    for name in told.keys() - found.keys():
        state.acked.pop(name, None)  # Envoy removes what it is to remove, whatever else it rejects
    if alone:
        state.rejected.update(found)
        return
    names = tuple(found)
    state.sent.update(dict.fromkeys(names, _NO_VERSION))  # Envoy may have taken them, or not
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    state.doubted += tuple(frozenset(half) for half in halves if half)
