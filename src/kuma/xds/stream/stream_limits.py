"""Limits of the discovery server, so that no proxy, and no anonymous client, keeps it from serving the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from kuma.base.clock import Clock
from kuma.base.errors import KumaError
from kuma.base.values import addresses
from kuma.base.values.rate_limit import Bucket, Buckets, Rate
from kuma.resources.resource import Key

_FAILURES = Rate(20, 200)
"""Streams that one address may open without a token that holds for their Dataplane."""


class TooMany(KumaError):
    """Raised when a limit is exceeded; the text names it."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of one proxy: open streams, and requests on one. `pending`: see `StreamLimiter.pending`."""

    streams: Rate
    requests: Rate
    pending: int


class StreamLimiter:
    """Counts. Addresses are counted by failures only: many proxies may share one. See `holder_of` for those of IPv6."""

    def __init__(self, limits: StreamLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._streams = Buckets(limits.streams)
        self._failures = Buckets(_FAILURES)
        self._pending = Counter[str]()

    @contextmanager
    def pending(self, peer: str) -> Iterator[None]:
        """Counts a stream of this peer while it has not said anything yet.

        Raises:
            TooMany: as many others of its address have said nothing either.
        """
        address = holder_of(peer)
        if self._pending[address] >= self._limits.pending:
            raise TooMany(f"more than {self._limits.pending} streams from this address have sent no request yet")
        self._pending[address] += 1
        try:
            yield
        finally:
            self._pending[address] -= 1
            if not self._pending[address]:
                del self._pending[address]

    def failed(self, peer: str) -> None:
        """Counts a stream of this peer without a token that holds for its Dataplane.

        Raises:
            TooMany: it is one of many.
        """
        if self._failures.take(holder_of(peer), self._clock.now()):
            raise TooMany("too many streams without a token that holds from this address; try again later")

    def stream(self, key: Key) -> None:
        """Counts an open stream of a proxy.

        Raises:
            TooMany: it has opened too many.
        """
        if self._streams.take(key, self._clock.now()):
            raise TooMany(
                f"more than {self._limits.streams.per_second:g} streams a second for {key.mesh}.{key.name}; "
                "is kuma-dp started twice for this Dataplane?"
            )

    def counter(self) -> Callable[[], None]:
        """Returns a counter of the requests of one stream, which raises `TooMany` when they come too fast."""
        return _Requests(self._limits.requests, self._clock).count


class _Requests:
    """Requests of one stream. There are thousands of streams."""

    __slots__ = ("_bucket", "_clock", "_rate")

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._bucket = Bucket(rate, clock.now())

    def count(self) -> None:
        if self._bucket.take(self._clock.now()):
            raise TooMany(f"more than {self._rate.per_second:g} requests a second on one stream")


def address_of(peer: str) -> str:
    """`ipv4:10.0.0.1:4711` without its port."""
    return peer.rpartition(":")[0]


def holder_of(peer: str) -> str:
    """Returns whose address a peer has: nobody counts as many for a network of IPv6 (see `addresses.holder`)."""
    return addresses.holder_of_peer(address_of(peer))


def host_of(peer: str) -> str:
    """Returns the IP address in a peer as gRPC names it, such as `ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    return unquote(address_of(peer).partition(":")[2]).strip("[]")
