"""Derives what a mesh trusts and who issues in it from the Mesh and its Secrets."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from kuma.authorities import retained
from kuma.authorities.driver import Content, Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.resources.models.mesh import Backend
from kuma.resources.models.mesh_transition import Level, Position
from kuma.resources.view import MeshView

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities of a mesh, and the position that says whose roots are trusted.

    `problems` says why an authority cannot be opened.
    """

    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    opened: Mapping[str, tuple[Content, Authority]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    position: Position = field(default_factory=Position)
    retiring: Authority | None = None

    @property
    def supported(self) -> tuple[str, ...]:
        """The backends whose roots are in the bundle."""
        trusted = "".join(self.position.roots)
        return tuple(name for name, (_, authority) in self.opened.items() if authority.roots_pem.decode() in trusted)

    @property
    def roots(self) -> tuple[str, ...]:
        """The roots of all authorities that are listed."""
        return tuple(dict.fromkeys(authority.roots_pem.decode() for _, authority in self.opened.values()))

    @property
    def issuing(self) -> Authority:
        """The authority that issues now; never another one instead.

        Raises:
            AuthorityUnusable: it cannot be opened, or is no longer listed and this process has not known it before.
        """
        for authority in (*(authority for _, authority in self.opened.values()), self.retiring):
            if authority is not None and authority.fingerprint == self.position.authority:
                return authority
        raise AuthorityUnusable("; ".join(self.problems.values()) or "the authority that issues is not known")

    def fingerprint(self, backend: str) -> str:
        """Returns the fingerprint of a backend's authority; empty if it cannot be opened."""
        return self.opened[backend][1].fingerprint if backend in self.opened else ""


NONE = Trust()


def trust(view: MeshView, previous: Trust = NONE, drivers: Drivers = STANDARD) -> Trust:
    """Returns the trust of a mesh as it is now; what has not changed stays the very same object."""
    opened: dict[str, tuple[Content, Authority]] = {}
    problems: dict[str, str] = {}
    for backend in view.backends:
        try:
            opened[backend.name] = _open(view, backend, previous, drivers.of(backend))
        except Exception as error:  # whatever it is, it is this authority's: the others go on, and so does the process
            if backend.name in previous.opened:  # the last good one goes on
                opened[backend.name] = previous.opened[backend.name]
            expected = isinstance(error, AuthorityUnusable)
            problems[backend.name] = reason = str(error) if expected else f"{type(error).__name__}: {error}"
            if previous.problems.get(backend.name) != reason:
                log.error("authority cannot be opened", mesh=view.name, backend=backend.name, reason=reason)
    position = view.position
    known = (*(authority for _, authority in previous.opened.values()), previous.retiring)
    candidates = itertools.chain(known, _unlisted(view, drivers))
    retiring = next((a for a in candidates if a is not None and a.fingerprint == position.authority), None)
    found = Trust(problems, opened, position, retiring)
    return previous if found == previous else found


def _open(view: MeshView, backend: Backend, previous: Trust, driver: Driver) -> tuple[Content, Authority]:
    content = driver.content(view.name, backend, view.secrets)
    known = previous.opened.get(backend.name)
    if known is not None and known[0] == content:
        return known
    return content, driver.open(view.name, backend, view.secrets)


def _unlisted(view: MeshView, drivers: Drivers) -> Iterator[Authority]:
    """Authorities that outlive their place in the Mesh, until the mesh has left them."""
    if view.position.level is Level.PLAIN:
        return
    with contextlib.suppress(Exception):  # as above; nobody has listed it, so nobody is told
        if (authority := retained.open_retained(view)) is not None:
            yield authority
    for driver in drivers:
        listed = {backend.name for backend in view.backends if drivers.of(backend) is driver}
        for name in driver.stored(view.name, view.secrets).keys() - listed:
            with contextlib.suppress(Exception):
                yield driver.open_stored(view.name, name, view.secrets)
